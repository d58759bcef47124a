"""One source under test: its float model, and the reference run that variants are compared with.

Everything is made when it is first needed, and cached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.conversion.check import FLOAT_SOURCE
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.caches import VariantCache
from pytest_mnnquant.evidence.output_parts import find_parts
from pytest_mnnquant.evidence.steps import UNUSABLE, StepFailed, Unusable, step, step_property
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.measurements.timing import MemoryUse
from pytest_mnnquant.mnnfile.model import BadModel, Model
from pytest_mnnquant.mnnfile.output_parts import OutputParts
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.quantize.static_float import as_static
from pytest_mnnquant.report.variant_report import ModelFile
from pytest_mnnquant.runtime.background import Ahead, start_ahead
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import DataError, QuantizedSource, SourceError, Spec, describe
from pytest_mnnquant.sources.user_code import UserCodeExit, contained
from pytest_mnnquant.targets.target import TargetFailure

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FixtureValues:
    """The values of fixtures that replace the settings: a PyTorch model, and data; None: the settings decide."""

    model: Any = None
    calibration: Any = None
    evaluation: Any = None


class SourceUnderTest:
    """One source under test."""

    def __init__(
        self, settings: ModelSettings, spec: Spec, store: Store, say: Say, values: FixtureValues | None = None
    ) -> None:
        self.settings = settings
        self.spec = spec
        self.store = store
        self.say = say
        self._values = values or FixtureValues()
        self.variants = VariantCache()
        self._ahead: Ahead[Run] | None = None
        #: The float model's runs on targets, and its memory on targets and on this host (target ""), by target name.
        self._target_runs: dict[str, Run] = {}
        self._memories: dict[str, Mapping[int, MemoryUse]] = {}

    @property
    def choices(self) -> Choices:
        """The settings for the preparation of the source."""
        settings, values = self.settings, self._values
        return Choices(
            root=settings.base,
            calibration=settings.calibration if values.calibration is None else values.calibration,
            evaluation=settings.evaluation if values.evaluation is None else values.evaluation,
            exporter=settings.exporter,
            timeout=settings.timeout,
            preprocess=settings.preprocess,
            states=settings.states,
            is_given=settings.quantized is not None,
        )

    @cached_property
    def _prepared(self) -> Attempt[Prepared]:
        def make() -> Prepared:
            made = prepare(self.spec, self.choices, self.store, self.say, self._values.model)
            quantized, settings = self.settings.quantized, self.settings
            return (
                made if quantized is None else as_static(made, settings.base / quantized, self.store, settings.timeout)
            )

        return attempt("prepare the source", make)

    @property
    def prepared(self) -> Prepared:
        """The source and its float model. Raises `Unusable`, always the same object."""
        return self._prepared.value

    @step_property("run the float model")
    def float_run(self) -> Run:
        """The float model's run on the evaluation data (or, without data, on noise)."""
        self.say("running the float model")
        ran = self._ahead.take() if self._ahead else None
        return ran or run(self.prepared.model, self.inputs, self._options)

    @property
    def _options(self) -> RunOptions:
        """How the float model runs: through the sequences of the data, if it has states."""
        options = self.prepared.options(self.settings.timeout)
        return dataclasses.replace(options, sequences=self.prepared.sequences)

    def run_ahead(self) -> None:
        """Run the float model in the background; `float_run` then takes the result."""
        if self._ahead is None and "float_run" not in vars(self):
            model, inputs, options = self.prepared.model, self.inputs, self._options
            self._ahead = start_ahead(lambda: run(model, inputs, options))

    @cached_property
    def output_parts(self) -> dict[str, OutputParts]:
        """The parts of the float model's outputs, by output; see `mnnfile.output_parts`."""
        return find_parts(self.prepared.model, self.inputs, self.settings.timeout, self.prepared.axes)

    @cached_property
    def float_file(self) -> ModelFile | None:
        """The float model in the report; None if it could not be made."""
        return None if self._prepared.error else model_file(self.prepared.model)

    def float_run_on(self, target: str, run_model: Callable[[Model], Run]) -> Run:
        """The float model's run on a target; `run_model` runs a model there, and is called the first time."""
        if target not in self._target_runs:
            self._target_runs[target] = run_model(self.prepared.model)
        return self._target_runs[target]

    def float_memory_on(
        self, target: str, measure: Callable[[Model], Mapping[int, MemoryUse]]
    ) -> Mapping[int, MemoryUse]:
        """The float model's memory by memory mode, on a target or on this host (target ""); measured the first time."""
        if target not in self._memories:
            self._memories[target] = measure(self.prepared.model)
        return self._memories[target]

    @property
    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """Evaluation data, else calibration data, else one sample of noise, which is enough for a trace."""
        data = self.prepared.data
        return dict(data.inputs) if data is not None else _noise(self.prepared.model)


def attempt(name: str, make: Callable[[], T]) -> Attempt[T]:
    """Make something of a model, in the step `name`; an error of it is stored as `Unusable`."""

    def make_or_explain() -> T:
        try:
            with contained(), step(name):
                return make()
        except UNUSABLE as error:
            raise Unusable(as_finding(error)) from None

    return Attempt.of(make_or_explain, Unusable)


def as_finding(error: Exception) -> Finding:
    """One of `UNUSABLE` as a finding."""
    if isinstance(error, StepFailed):
        return error.finding
    if isinstance(error, TargetFailure):
        cause = Cause("target-log", f"last lines of its log:\n{error.log}") if error.log else None
        return Finding("MNQ620", error.what, cause=cause, fix=error.fix)
    if isinstance(error, NativeFailure):
        cause = Cause("native-log", f"last lines of MNN's log:\n{error.log}") if error.log else None
        return Finding("MNQ201", error.what, error.operator, cause=cause, fix=error.fix)
    if isinstance(error, BadModel):
        return Finding("MNQ202", str(error), fix="convert again, and check the output of the converter")
    if isinstance(error, QuantizedSource):
        return Finding("MNQ104", str(error), fix=FLOAT_SOURCE)
    if isinstance(error, UserCodeExit):
        fix = "raise an ordinary error there, such as RuntimeError; skips and exits are for tests"
        if not error.is_exit:
            fix = "correct that code: a library that it uses failed; run it alone for the whole traceback"
        what = f"the code of the model, of its data or of its metric raised {describe(error)}"
        return Finding("MNQ101", what, fix=fix)
    code = "MNQ102" if isinstance(error, DataError) else "MNQ101"
    fix, operator = (error.fix, error.operator) if isinstance(error, SourceError) else ("", "")
    return Finding(code, str(error), operator, fix=fix)


def model_file(model: Model) -> ModelFile:
    """A model's file in reports."""
    digest = file_digest(model.path) if model.path.exists() else None
    return ModelFile(str(model.path), model.size, digest, model.uuid)


def _noise(model: Model) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(0)
    shapes = {item.name: tuple(max(1, size) for size in item.shape) for item in model.inputs}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
