"""One variant under test: how it is made or found, and all evidence about it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import numpy as np

from pytest_mnnquant.cache.store import file_digest
from pytest_mnnquant.checks.accuracy.layers import Losses
from pytest_mnnquant.checks.api_difference import ApiDifference
from pytest_mnnquant.checks.calibration.check import CalibrationEvidence
from pytest_mnnquant.checks.coverage.check import LayerRow, coverage, layer_rows
from pytest_mnnquant.checks.params.evidence import ParamsEvidence, relate
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.api_comparison import compare_apis
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.caches import ResultCache, VariantKey
from pytest_mnnquant.evidence.calibration import calibration_evidence
from pytest_mnnquant.evidence.layer_losses import layer_losses
from pytest_mnnquant.evidence.source import SourceUnderTest, Unusable, attempt, model_file
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.timing import MemoryUse, OpTime, PairedTimes, TimingSettings
from pytest_mnnquant.metrics.task import TaskMetric
from pytest_mnnquant.mnnfile.entries import repaired
from pytest_mnnquant.mnnfile.int8_faults import Int8Faults, int8_faults
from pytest_mnnquant.mnnfile.matching import Match, match_layers
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.params import BadParams, DoubledParams, read_params, write_params
from pytest_mnnquant.mnnfile.pooling import pools_right, uncovered_pools
from pytest_mnnquant.quantize.float_model import Prepared
from pytest_mnnquant.quantize.job import PARAMS_NAME, Job
from pytest_mnnquant.quantize.variant import Variant, make_variant
from pytest_mnnquant.recipes.mnn_support import is_skipped
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.report.variant_report import LayerReport, ParamsFile, VariantReport
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import run_job
from pytest_mnnquant.runtime.options import RunOptions, Send
from pytest_mnnquant.runtime.timing import memory_use, op_times, paired_times


class VariantUnderTest:
    """One variant and the evidence about it, each piece gathered when a check first asks for it.

    `skip` are globs of layers that stay float, and `calibration` the data, where these are not what the settings say;
    `made` is the variant itself, where it is made already.
    """

    def __init__(
        self,
        gate: SourceUnderTest,
        recipe: Recipe,
        mode: str | None,
        skip: tuple[str, ...] | None = None,
        calibration: Dataset | None = None,
        made: Variant | None = None,
    ) -> None:
        self.gate = gate
        self.skip = gate.settings.skip_layers if skip is None else skip
        self._given_calibration = calibration
        self._made = made
        self.recipe = recipe
        self.mode = mode
        self.label = recipe.label(mode)
        #: The name of the target it runs on; empty on this machine.
        self.target = ""
        #: Has jobs run there.
        self.send: Send = run_job
        self._times: dict[TimingSettings, PairedTimes] = {}
        self._losses: dict[str, Losses | None] = {}
        self.results = ResultCache()

    @cached_property
    def _variant(self) -> Attempt[Variant]:
        return attempt(self._make)

    def _make(self) -> Variant:
        gate = self.gate
        if self._made is not None:
            return self._made
        source = gate.prepared
        if gate.settings.quantized is not None:
            return _given_variant(gate.settings, self.recipe, source)
        if self._given_calibration is not None:
            source = dataclasses.replace(source, calibration=self._given_calibration)
        return make_variant(Job(source, self.recipe, self.mode, self.skip, gate.choices), gate.store, self.say)

    @property
    def full_name(self) -> str:
        """The names of its model and of itself, as messages have them."""
        return f"{self.gate.settings.name} {self.label}"

    def say(self, what: str) -> None:
        """Tell what is being done with this variant."""
        self.gate.say(f"{self.label}: {what}")

    @property
    def variant(self) -> Variant:
        """The quantized model. Raises `Unusable`."""
        return self._variant.value

    @property
    def is_unusable(self) -> bool:
        """Whether there is no variant to judge; the conversion check says why."""
        return self._variant.error is not None

    @property
    def model(self) -> Model:
        """The quantized model's file."""
        return self.variant.model

    @cached_property
    def match(self) -> Match:
        """Which layer of the float model is which of the variant."""
        return match_layers(self.variant.base, self.model)

    @cached_property
    def rows(self) -> tuple[LayerRow, ...]:
        """What became of each layer."""
        patterns, modules = self.skip, self.variant.modules
        return layer_rows(self.match, self.recipe, lambda op: is_skipped(op, patterns, modules.get(op.name, "")))

    @property
    def idle_patterns(self) -> tuple[str, ...]:
        """The patterns of layers to skip that match no layer."""
        modules = self.variant.modules
        layers = [(row.layer, modules.get(row.layer.name, "")) for row in self.rows]
        return tuple(one for one in self.skip if not any(is_skipped(op, (one,), module) for op, module in layers))

    @cached_property
    def params(self) -> ParamsEvidence | None:
        """The params file against the model; None where there is none to expect."""
        path = self.variant.params
        if path is None:
            return None
        if not path.exists():
            return ParamsEvidence(path, missing=str(path))
        try:
            params = read_params(path)
        except (BadParams, OSError) as error:
            return ParamsEvidence(path, unreadable=str(error), doubled=isinstance(error, DoubledParams))
        evidence = relate(path, params, self.variant.base, self.model, self.match)
        if evidence.can_be_repaired:
            mended = repaired(params, self.variant.base)
            inputs = {"params": file_digest(path), "float": file_digest(self.variant.base.path)}
            folder = self.gate.store.folder("repaired", inputs, lambda made: write_params(mended, made / PARAMS_NAME))
            evidence = dataclasses.replace(evidence, repaired=folder / PARAMS_NAME)
        return evidence

    @cached_property
    def calibration(self) -> CalibrationEvidence:
        """What is known of the calibration, and how the scales fit held-out data."""
        self.say("looking at the calibration")
        return calibration_evidence(self.gate.prepared, self.variant, self.rows, self.gate.settings.timeout)

    @cached_property
    def run(self) -> Run:
        """The variant on the same inputs as the float model."""
        self.say("running")
        return self._ran(self.model)

    def _run(self, model: Model) -> Run:
        """A model on the evaluation data, in the memory mode that the app runs it in."""
        settings, batched = self.gate.settings, self.gate.prepared.batched
        options = RunOptions(settings.timeout, batched=batched, memory_mode=settings.timing.memory_mode, send=self.send)
        return run(model, self.gate.inputs, options)

    def _ran(self, model: Model) -> Run:
        source, found = self.gate.prepared, self._run(model)
        wanted, names = source.model.output_names, model.output_names
        if set(names) == set(wanted) or len(names) != len(wanted):
            return found
        # A pipeline may have exported it with other names: then outputs go by their order.
        outputs = {name: found.outputs[own] for name, own in zip(wanted, names, strict=True)}
        return dataclasses.replace(found, outputs=outputs)

    @cached_property
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run as ARM would compute it, and the MaxPool operators for which that needed a copy."""
        with self.arm_equivalent() as (model, changed):
            return (self._ran(model) if changed else self.run), changed

    def arm_equivalent(self) -> AbstractContextManager[tuple[Model, tuple[str, ...]]]:
        """A model that computes here what the variant computes on ARM, and the MaxPool operators changed for that."""
        return arm_equivalent(self.model, self.run)

    @property
    def uncovered_pools(self) -> tuple[str, ...]:
        """The int8 MaxPools of this run that the copy does not pool as ARM does, on a machine that pools wrongly."""
        pools = [op.name for op in self.run.trace or () if op.int8 and op.kind == "Pooling"]
        return () if pools_right() else uncovered_pools(self.model, pools, self.exact_run[1])

    @cached_property
    def api_difference(self) -> ApiDifference | None:
        """How far the outputs are apart between MNN's two APIs; None if only one can run the model."""
        self.say("running through both APIs")
        settings, batched = self.gate.settings, self.gate.prepared.batched
        options = RunOptions(settings.timeout, batched=batched, memory_mode=settings.timing.memory_mode, send=self.send)
        return compare_apis(self.model, self.gate.inputs, options)

    def losses(self, metric: TaskMetric | None, within: float = math.inf) -> Losses | None:
        """What each layer adds to the error, and what it costs alone; None where that can't be seen.

        `within`: a limit in seconds below that of the settings.
        """
        key = metric.name if metric else ""
        if key not in self._losses:
            self.say("looking at the error of each layer")
            pairs = [(row.layer, row.stored) for row in self.rows if row.stored]
            source, timeout = self.gate.prepared, min(within, self.gate.settings.timeout)
            with self.arm_equivalent() as (model, _):
                self._losses[key] = layer_losses(source, self.variant, model, pairs, metric, timeout)
        return self._losses[key]

    @property
    def known_losses(self) -> Losses | None:
        """What each layer adds to the error, where a check has looked."""
        return next(iter(self._losses.values()), None)

    def times(self, settings: TimingSettings) -> PairedTimes:
        """The variant and the float model, timed in pairs."""
        how = dataclasses.replace(settings, limit=None)
        known = self._times.get(how)
        if known is None or not known.tells(settings.limit):
            self.say("timing against float")
            timeout, reference = self.gate.settings.timeout, self.gate.prepared.model
            known = paired_times(
                reference, self.model, self.gate.inputs, timeout=timeout, settings=settings, send=self.send
            )
            self._times[how] = known
        return known

    @property
    def known_times(self) -> PairedTimes | None:
        """The pairs that a check has timed last."""
        return next(reversed(self._times.values()), None)

    def op_times(self) -> tuple[OpTime, ...]:
        """What each of the variant's operators takes."""
        settings, inputs = self.gate.settings, self.gate.inputs
        return op_times(self.model, inputs, timeout=settings.timeout, settings=settings.timing, send=self.send)

    @cached_property
    def memory(self) -> Mapping[int, MemoryUse]:
        """What the variant holds in memory when it runs, by memory mode."""
        self.say("measuring its memory")
        return self._memory_use(self.model)

    def _memory_use(self, model: Model) -> Mapping[int, MemoryUse]:
        settings, threads = self.gate.settings, self.gate.settings.timing.threads
        return memory_use(model, self.gate.inputs, RunOptions(settings.timeout, threads=threads, send=self.send))

    @property
    def float_memory(self) -> Mapping[int, MemoryUse]:
        """The same of the float model; measured once in each place."""
        return self.gate.float_memory_on(self.target, self._memory_use)

    @property
    def host(self) -> Host:
        """The machine that it runs on."""
        return host_facts()

    @property
    def untraced(self) -> str:
        """Why MNN gave no trace; empty where that is the model's own fault."""
        return ""

    @cached_property
    def int8_faults(self) -> Int8Faults:
        """Operators that MNN computed wrongly in int8, by the scales beside them."""
        return int8_faults(self.model, {op.name for op in self.run.trace or () if op.int8})

    @property
    def int8_scales(self) -> tuple[str, ...]:
        """Scale operators that ran in int8 (see `quantize.norms`)."""
        return tuple(op.name for op in self.run.trace or () if op.int8 and op.kind == "Scale")

    @property
    def days_older(self) -> float | None:
        """By how much the file of a user's pipeline is older than its source, in days; None where that says nothing."""
        source = self.gate.spec.path
        if source is None or not self.variant.given:
            return None
        return (source.stat().st_mtime - self.model.path.stat().st_mtime) / 86_400

    @property
    def same_as_float(self) -> bool | None:
        """Whether all outputs equal the float model's in every bit; None where that would say nothing."""
        ours, theirs = self.gate.float_run.outputs, self.run.outputs
        if ours.keys() != theirs.keys():
            return None
        same = all(np.array_equal(array, theirs[name]) for name, array in ours.items())
        return None if same and self._is_lossless else same

    @property
    def _is_lossless(self) -> bool:
        """Whether what is quantized holds the float model's very values (a source in float16, stored as float16)."""
        pairs = [(row.layer, row.stored) for row in self.rows if row.quantized and row.stored]
        if self.recipe.activations or not pairs:
            return False
        base, model = self.variant.base, self.model
        try:
            return all(np.array_equal(base.decoded(layer), model.decoded(stored)) for layer, stored in pairs)
        except BadModel:
            return False

    @cached_property
    def report(self) -> VariantReport:
        """The variant in the report, without its checks."""
        unusable = VariantReport(self.recipe.name, self.mode)
        if self.is_unusable:
            return unusable
        variant, params = self.variant, self.variant.params
        return dataclasses.replace(
            unusable,
            quantized=model_file(variant.model),
            params=ParamsFile(str(params), file_digest(params)) if params and params.is_file() else None,
            coverage=coverage(self.rows),
            drift=variant.drift,
            provenance=variant.provenance,
            layers=tuple(layer_report(row, variant.modules.get(row.layer.name)) for row in self.rows),
        )


def layer_report(row: LayerRow, module: str | None) -> LayerReport:
    """What became of a layer; `module` is its module in PyTorch, None if that is not known."""
    layer, stored = row.layer, row.stored
    weights = stored.weights[0] if stored else None
    return LayerReport(
        name=layer.name,
        op=layer.kind,
        weights=layer.weight_count,
        storage=weights.label if weights else None,
        bits=weights.bits if weights else None,
        bytes=stored.weight_bytes if stored else 0,
        float_bytes=layer.weight_bytes,
        scale_in=(weights.scale_in or None) if weights else None,
        scale_out=(weights.scale_out or None) if weights else None,
        quantized=row.quantized,
        skipped=not row.wanted,
        module=module,
    )


def variant_under_test(gate: SourceUnderTest, recipe: str, mode: str | None) -> VariantUnderTest:
    """The variant of a source, always the same object."""
    key = VariantKey(recipe, mode)
    return gate.variants.on_host(key, lambda: VariantUnderTest(gate, recipe_named(recipe), mode))


def _given_variant(settings: ModelSettings, recipe: Recipe, source: Prepared) -> Variant:
    path = settings.base / str(settings.quantized)
    if not path.is_file():
        finding = Finding(
            "MNQ202",
            f"{settings.quantized}: no such file",
            cause=Cause(
                "converter-wrote-nothing", "the converter exits 0 and prints Success even when it writes nothing"
            ),
            fix="look at what the converter printed, and whether the folder is writable",
        )
        raise Unusable(finding)
    model = read_model(path)
    if settings.params is not None:
        params: Path | None = settings.base / settings.params
    else:
        beside = path.with_name(PARAMS_NAME)
        params = beside if beside.is_file() and recipe.activations else None
    return Variant(recipe, None, model, source.model, params, given=True)
