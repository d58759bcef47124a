"""The runs of a variant on the inputs of its source, and the evidence from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.layers import Losses
from pytest_mnnquant.checks.api_difference import ApiDifference
from pytest_mnnquant.checks.calibration.check import CalibrationEvidence
from pytest_mnnquant.evidence.api_comparison import compare_apis
from pytest_mnnquant.evidence.calibration import calibration_evidence
from pytest_mnnquant.evidence.layer_losses import layer_losses
from pytest_mnnquant.evidence.source import Say, SourceUnderTest
from pytest_mnnquant.evidence.steps import step, step_property
from pytest_mnnquant.evidence.variant_files import VariantFiles
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.measurements.run import Run, TracedOp
from pytest_mnnquant.metrics.blocks import are_equal
from pytest_mnnquant.metrics.identifiers import are_identifiers
from pytest_mnnquant.metrics.task import TaskMetric
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs
from pytest_mnnquant.mnnfile.int8_faults import Int8Faults, int8_faults
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.pooling import expected_int8_pools, pools_right, uncovered_pools
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent, int8_pools
from pytest_mnnquant.runtime.background import start_ahead
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.job_results import are_stored
from pytest_mnnquant.runtime.jobs import run_job
from pytest_mnnquant.runtime.options import RunOptions, Send

# Samples that show what this host computes, beside what is judged.
_SHOWN: Final = 64


class VariantRuns:
    """The runs of one variant, on this host unless `send` runs them on a target; each runs when first needed.

    `selected` are the checks of the variant that run in this session, as far as known: their evidence may be gathered
    ahead.
    """

    def __init__(
        self,
        source: SourceUnderTest,
        files: VariantFiles,
        say: Say,
        send: Send = run_job,
        selected: Collection[str] = (),
    ) -> None:
        self.source = source
        self.files = files
        self.variant = files.variant
        self.say = say
        self._send = send
        self._selected = selected
        self._losses: dict[str, Losses | None] = {}

    @step_property("run the variant")
    def run(self) -> Run:
        """The variant on the inputs of the float model, or on few of them (`shown`)."""
        self.say("running")
        if self._send is run_job:
            self.source.run_ahead()
            self._observe_ahead()
        return self._run_with_names(self.variant.model, self.shown)

    @cached_property
    def shown(self) -> int | None:
        """How many samples `run` shows, if another run is judged since this host pools wrongly; None: all."""
        source, model = self.source.prepared, self.variant.model
        single = source.axes.is_single or source.sequences is not None or bool(data_sized_outputs(model))
        if self._send is not run_job or single or pools_right() or len(_first(self.source.inputs)) <= _SHOWN:
            return None
        replaced = uncovered_pools(model, expected_int8_pools(model), ())
        return _SHOWN if replaced else None

    @property
    def _options(self) -> RunOptions:
        """How a model runs: in the app's memory mode."""
        settings = self.source.settings
        options = self.source.prepared.options(settings.timeout)
        return dataclasses.replace(options, memory_mode=settings.timing.memory_mode, send=self._send)

    def _run_model(self, model: Model, samples: int | None = None) -> Run:
        """A model on the evaluation data, or on its first samples, with its states fed back."""
        options = dataclasses.replace(self._options, sequences=self.source.prepared.sequences)
        names = self.source.prepared.model.output_names
        inputs = {name: array[:samples] for name, array in self.source.inputs.items()}
        return run(model, inputs, options, names if hides_outputs(model, names) else ())

    def _run_with_names(self, model: Model, samples: int | None = None) -> Run:
        """A run with outputs named as in the float model: a pipeline may have exported other names."""
        result, names = self._run_model(model, samples), self.source.prepared.model.output_names
        if set(model.output_names) == set(names) or len(model.output_names) != len(names):
            return result
        pairs = zip(names, model.output_names, strict=True)
        return dataclasses.replace(result, outputs={name: result.outputs[exported] for name, exported in pairs})

    @step_property("run the variant as on ARM")
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run with results as on ARM, and the MaxPool operators that were replaced for it in a copy."""
        with self.arm_equivalent() as (model, changed):
            return (self._run_with_names(model) if changed or self.shown else self.run), changed

    def arm_equivalent(self) -> AbstractContextManager[tuple[Model, tuple[str, ...]]]:
        """A model that computes on this host what the variant computes on ARM, and its replaced MaxPool operators."""
        return arm_equivalent(self.variant.model, self.run)

    @property
    def wrong_pools(self) -> tuple[str, ...]:
        """The MaxPool operators that this host computes wrongly in the model that both APIs run."""
        return self.uncovered_pools

    @property
    def uncovered_pools(self) -> tuple[str, ...]:
        """The int8 MaxPool operators of this run that this host computes wrongly, and the copy does not make exact."""
        if pools_right():
            return ()
        model, (judged, changed) = self.variant.model, self.exact_run
        # A pool of three dimensions runs as two, and no copy describes the tensor between them.
        return uncovered_pools(model, int8_pools(model, judged), changed if judged.trace is None else ())

    @step_property("run the variant through both APIs")
    def api_difference(self) -> ApiDifference | None:
        """The difference of the outputs between MNN's two APIs; None if only one can run the model."""
        self.say("running through both APIs")
        with self.arm_equivalent() as (model, _):
            return compare_apis(model, self.source.inputs, self._options, self.int8_faults.operators)

    def _observe_ahead(self) -> None:
        """Observe the calibration in the background, if its check is selected; the check then finds stored results."""
        if are_stored() and "calibration" in self._selected and self.variant.recipe.activations:
            source, variant, rows = self.source.prepared, self.variant, self.files.rows
            start_ahead(lambda: calibration_evidence(source, variant, rows, self.source.settings.timeout))

    @step_property("observe the calibration")
    def calibration(self) -> CalibrationEvidence:
        """What is known of the calibration, and how the scales fit held-out data."""
        self.say("checking the calibration")
        return calibration_evidence(self.source.prepared, self.variant, self.files.rows, self.source.settings.timeout)

    def losses(self, metric: TaskMetric | None, within: float = math.inf) -> Losses | None:
        """What each layer adds to the error, and what it costs alone; None if that can't be measured.

        `within`: a limit in seconds, if below that of the settings.
        """
        key = metric.name if metric else ""
        if key not in self._losses:
            self.say("measuring the error of each layer")
            pairs = [(row.layer, row.stored) for row in self.files.rows if row.stored]
            timeout = min(within, self.source.settings.timeout)
            with step("measure the error of each layer"), self.arm_equivalent() as (model, _):
                self._losses[key] = layer_losses(self.source.prepared, self.variant, model, pairs, metric, timeout)
        return self._losses[key]

    @property
    def known_losses(self) -> Losses | None:
        """What each layer adds to the error, if a check has measured it."""
        return next(iter(self._losses.values()), None)

    @property
    def host(self) -> Host:
        """The machine that the variant runs on."""
        return host_facts()

    @property
    def untraced(self) -> str:
        """Why MNN gave no trace; empty if the model is the reason."""
        return ""

    @step_property("search for operators that MNN computes wrongly")
    def int8_faults(self) -> Int8Faults:
        """Operators that MNN computed wrongly in int8, by the scales beside them."""
        ops = self._int8_ops()
        widths = {op.operator: op.widths for op in ops if op.widths is not None}
        return int8_faults(self.variant.model, {op.operator for op in ops}, widths)

    def _int8_ops(self) -> list[TracedOp]:
        """The operators that ran in int8."""
        return [op for op in self.run.trace or () if op.int8]

    @property
    def same_as_float(self) -> bool | None:
        """Whether all outputs are bitwise equal to the float model's; None if that means nothing.

        Class numbers and other identifiers of a healthy model may all be equal, so they prove nothing.
        """
        outputs = self.run.outputs
        reference = {name: array[: self.shown] for name, array in self.source.float_run.outputs.items()}
        if reference.keys() != outputs.keys():
            return None
        same = all(are_equal(array, outputs[name]) for name, array in reference.items())
        proves = any(not are_identifiers(array, outputs[name]) for name, array in reference.items())
        return None if same and (self.files.is_lossless or not proves) else same


def _first(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return next(iter(inputs.values()))


def hides_outputs(model: Model, names: tuple[str, ...]) -> bool:
    """Whether one of the outputs `names` can be read only by its name.

    The file lists no outputs, as those of mnnquant's EMA, and other operators read this one: MNN returns only the rest.
    """
    if model.output_names or not set(names) <= set(model.tensor_names):
        return False
    read = {model.tensor_names[tensor] for op in model.ops if not op.subgraph for tensor in op.inputs}
    return not read.isdisjoint(names)
