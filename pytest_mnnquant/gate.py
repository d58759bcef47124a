"""Brings it together: prepares a source once, makes its variants, gathers evidence, asks the checks.

The only place that knows both how evidence is made and who judges it. Everything is made when first needed, and kept.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.bundle import check_bundle
from pytest_mnnquant.checks.causes import explain_layer
from pytest_mnnquant.checks.conversion import check_conversion
from pytest_mnnquant.checks.coverage import LayerRow, check_coverage, coverage, layer_rows
from pytest_mnnquant.checks.execution import check_execution
from pytest_mnnquant.checks.finding import Finding, Result, judge, skipped, without_ignored
from pytest_mnnquant.checks.latency import check_latency
from pytest_mnnquant.checks.params import ParamsEvidence, check_params, relate
from pytest_mnnquant.checks.size import check_size
from pytest_mnnquant.checks.weights import check_weights
from pytest_mnnquant.mnnfile.matching import Match, match_layers
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.params import BadParams, read_params, write_params
from pytest_mnnquant.mnnfile.pooling import write_exact_copy
from pytest_mnnquant.quantize.prepare import PROOF_TOLERANCE, Choices, Prepared, prepare
from pytest_mnnquant.quantize.recipes import RECIPES, Recipe
from pytest_mnnquant.quantize.store import Store, file_digest
from pytest_mnnquant.quantize.variant import PARAMS_NAME, Variant, is_skipped, make_variant
from pytest_mnnquant.runtime.child import NativeFailure
from pytest_mnnquant.runtime.execute import PairedTimes, Run, paired_times, run
from pytest_mnnquant.settings import Limits, ModelSettings
from pytest_mnnquant.sources.spec import SourceError, Spec

_COSINE: Final = {4: 0.95}
_USUAL_COSINE: Final = 0.99
Say = Callable[[str], None]


class Unusable(Exception):
    """There is no variant to judge; `finding` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Gate:
    """One source under test.

    Fixtures may bring a PyTorch model (`given`) instead of a specification, and data instead of what the settings name.
    """

    def __init__(
        self,
        settings: ModelSettings,
        spec: Spec,
        store: Store,
        say: Say,
        given: Any = None,
        calibration: Any = None,
        evaluation: Any = None,
    ) -> None:
        self.settings = settings
        self.spec = spec
        self.store = store
        self.say = say
        self._given = given
        self._calibration = settings.calibration if calibration is None else calibration
        self._evaluation = settings.evaluation if evaluation is None else evaluation
        self._cases: dict[tuple[str, str | None], Case] = {}

    @property
    def choices(self) -> Choices:
        """What decides how the source is prepared."""
        chosen = self.settings
        return Choices(chosen.base, self._calibration, self._evaluation, chosen.exporter, chosen.timeout)

    @cached_property
    def _prepared(self) -> Prepared | Unusable:
        try:
            return prepare(self.spec, self.choices, self.store, self.say, self._given)
        except (SourceError, NativeFailure, BadModel) as error:
            return Unusable(_finding(error))

    @property
    def prepared(self) -> Prepared:
        """The source and its float model. Raises `Unusable`, always the same."""
        if isinstance(self._prepared, Unusable):
            raise self._prepared
        return self._prepared

    def case(self, recipe: str, mode: str | None) -> Case:
        """One variant of this source."""
        key = (recipe, mode)
        if key not in self._cases:
            self._cases[key] = Case(self, RECIPES[recipe], mode)
        return self._cases[key]

    @cached_property
    def float_run(self) -> Run:
        """The float model on the evaluation data (or, without any, on made-up inputs)."""
        source = self.prepared
        self.say("running the float model")
        inputs = self.inputs
        return run(source.model, inputs, timeout=self.settings.timeout, batched=source.batched)

    def float_json(self) -> dict[str, Any] | None:
        """The float model in the report; None when there is none."""
        return None if isinstance(self._prepared, Unusable) else _file_json(self._prepared.model)

    @property
    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """Evaluation data, else calibration data, else one sample of noise, enough to see what runs."""
        data = self.prepared.data
        return dict(data.inputs) if data is not None else _noise(self.prepared.model)


class Case:
    """One variant and the evidence about it."""

    def __init__(self, gate: Gate, recipe: Recipe, mode: str | None) -> None:
        self.gate = gate
        self.recipe = recipe
        self.mode = mode
        self.label = recipe.name + (f"[{mode}]" if mode else "")

    # What it is -----------------------------------------------------------------------------------------------------

    @cached_property
    def _variant(self) -> Variant | Unusable:
        gate = self.gate
        try:
            source = gate.prepared
            if gate.settings.quantized is not None:
                return _given_variant(gate.settings, self.recipe, source)
            skip = gate.settings.skip_layers
            return make_variant(source, self.recipe, self.mode, skip, gate.choices, gate.store, self._say)
        except Unusable as error:
            return error
        except (SourceError, NativeFailure, BadModel) as error:
            return Unusable(_finding(error))

    def _say(self, what: str) -> None:
        self.gate.say(f"{self.label}: {what}")

    @property
    def variant(self) -> Variant:
        """The quantized model. Raises `Unusable`."""
        if isinstance(self._variant, Unusable):
            raise self._variant
        return self._variant

    @property
    def is_unusable(self) -> bool:
        """Whether there is no variant to judge; the conversion check says why."""
        return isinstance(self._variant, Unusable)

    @property
    def model(self) -> Model:
        """The quantized model's file."""
        return self.variant.model

    # Evidence -------------------------------------------------------------------------------------------------------

    @cached_property
    def match(self) -> Match:
        """Which layer of the float model is which of the variant."""
        return match_layers(self.variant.base, self.model)

    @cached_property
    def rows(self) -> tuple[LayerRow, ...]:
        """What became of each layer."""
        patterns, modules = self.gate.settings.skip_layers, self.variant.modules
        return layer_rows(self.match, self.recipe, lambda op: is_skipped(op, patterns, modules.get(op.name, "")))

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
            return ParamsEvidence(path, unreadable=str(error))
        evidence = relate(path, params, self.variant.base, self.model, self.match)
        if names := evidence.names():
            repaired = params.renamed(names)
            inputs = {"params": file_digest(path), "names": names}
            folder = self.gate.store.folder("repaired", inputs, lambda made: write_params(repaired, made / PARAMS_NAME))
            evidence = dataclasses.replace(evidence, repaired=folder / PARAMS_NAME)
        return evidence

    @cached_property
    def run(self) -> Run:
        """The variant on the same inputs as the float model."""
        self._say("running")
        source, timeout = self.gate.prepared, self.gate.settings.timeout
        return run(self.model, self.gate.inputs, timeout=timeout, batched=source.batched)

    @cached_property
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run as ARM would compute it, and the MaxPool operators for which that needed a copy."""
        pools = {op.name for op in self.run.trace or () if op.int8 and op.kind == "Pooling"}
        with tempfile.TemporaryDirectory(prefix="mnnquant-") as folder:
            copy = Path(folder) / "exact.mnn"
            changed = write_exact_copy(self.model, pools, copy) if pools and not _pools_right() else ()
            if not changed:
                return self.run, ()
            source, timeout = self.gate.prepared, self.gate.settings.timeout
            return run(read_model(copy), self.gate.inputs, timeout=timeout, batched=source.batched), changed

    @cached_property
    def times(self) -> PairedTimes:
        """The variant and the float model, timed in pairs."""
        self._say("timing against float")
        timeout = self.gate.settings.timeout
        return paired_times(self.gate.prepared.model, self.model, self.gate.inputs, timeout=timeout)

    # Judgement ------------------------------------------------------------------------------------------------------

    def check(self, name: str, limits: Limits | None = None, strict: bool = False) -> Result:
        """Run one of `CHECKS`. Never raises for a bad model: what is wrong with it is in the result."""
        limits = limits or self.gate.settings.limits
        try:
            result = getattr(self, f"_check_{name}")(limits, strict)
        except Unusable as error:
            result = judge(name, [error.finding], {})
        except (NativeFailure, SourceError, BadModel) as error:
            result = judge(name, [_finding(error)], {})
        return without_ignored(result, self.gate.settings.ignore)

    def _check_conversion(self, limits: Limits, strict: bool) -> Result:
        source, variant = self.gate.prepared, self.variant
        return check_conversion(source.model, source.proof, source.unproven, PROOF_TOLERANCE, self.match, variant.given)

    def _check_params(self, limits: Limits, strict: bool) -> Result:
        self.gate.prepared  # noqa: B018  A source that can't be used is told by every check.
        if self.params is None:
            kind = "was given" if self.recipe.activations else f"is needed for {self.recipe.name}"
            return skipped("params", f"no params file {kind}")
        wanted = tuple(row.layer for row in self.rows if row.wanted and row.layer.is_convolution)
        return check_params(self.params, self.model, wanted)

    def _check_coverage(self, limits: Limits, strict: bool) -> Result:
        def explain(row: LayerRow) -> tuple[str, str]:
            return explain_layer(row, self.recipe, self.rows, self.params, self.model)

        return check_coverage(self.rows, self.recipe, limits.min_coverage, explain)

    def _check_weights(self, limits: Limits, strict: bool) -> Result:
        older = _days_older(self.model.path, self.gate.spec.path) if self.variant.given else None
        return check_weights(self.variant.base, self.model, self.match, older)

    def _check_execution(self, limits: Limits, strict: bool) -> Result:
        same = _same_bits(self.gate.float_run, self.run)
        return check_execution(self.rows, self.recipe, self.run.trace, same)

    def _check_size(self, limits: Limits, strict: bool) -> Result:
        return check_size(self.variant.base.size, self.model.size, self.rows, self.recipe, limits.min_size_ratio)

    def _check_bundle(self, limits: Limits, strict: bool) -> Result:
        return check_bundle(self.model, self.params)

    def _check_accuracy(self, limits: Limits, strict: bool) -> Result:
        data = self.gate.prepared.evaluation
        self.variant  # noqa: B018  A variant that can't be used is told by every check.
        if data is None:
            return skipped("accuracy", "no evaluation data were given (--mnn-evaluation)")
        exact, pools = self.exact_run
        evidence = AccuracyEvidence(
            self.gate.float_run.outputs, exact.outputs, data.labels, self.run.outputs, pools, self.variant.drift
        )
        least = limits.min_cosine
        if least is None:
            least = _COSINE.get(self.recipe.bits, _USUAL_COSINE)
        return check_accuracy(evidence, limits.max_accuracy_drop, least)

    def _check_latency(self, limits: Limits, strict: bool) -> Result:
        return check_latency(self.times, limits.max_latency_ratio, strict)

    # Report ---------------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """The variant in the report, without its checks."""
        record: dict[str, Any] = {"recipe": self.recipe.name, "mode": self.mode, "quantized": None, "params": None}
        if isinstance(self._variant, Unusable):
            return {**record, "layers": []}
        variant = self._variant
        record["quantized"] = _file_json(variant.model)
        if variant.params is not None and variant.params.is_file():
            record["params"] = {"path": str(variant.params), "sha256": file_digest(variant.params)}
        rows = [row.as_json() | {"module": variant.modules.get(row.layer.name)} for row in self.rows]
        return {**record, "coverage": coverage(self.rows), "bn_drift": variant.drift, "layers": rows}


def _file_json(model: Model) -> dict[str, Any]:
    digest = file_digest(model.path) if model.path.exists() else None
    return {"path": str(model.path), "bytes": model.size, "sha256": digest, "uuid": model.uuid}


def _finding(error: Exception) -> Finding:
    if isinstance(error, NativeFailure):
        return Finding("MNQ201", error.what, cause=f"last lines of MNN's log:\n{error.log}" if error.log else "")
    if isinstance(error, BadModel):
        return Finding("MNQ202", str(error), remedy="convert again, and look at what the converter prints")
    return Finding("MNQ101", str(error))


def _given_variant(settings: ModelSettings, recipe: Recipe, source: Prepared) -> Variant:
    path = settings.base / str(settings.quantized)
    if not path.is_file():
        finding = Finding(
            "MNQ202",
            f"{settings.quantized}: no such file",
            cause="the converter exits 0 and prints Success even when it writes nothing",
            remedy="look at what the converter printed, and whether the folder is writable",
        )
        raise Unusable(finding)
    model = read_model(path)
    if settings.params is not None:
        params: Path | None = settings.base / settings.params
    else:
        beside = path.with_name(PARAMS_NAME)
        params = beside if beside.is_file() and recipe.activations else None
    return Variant(recipe, None, model, source.model, params, given=True)


def _days_older(path: Path, source: Path | None) -> float | None:
    if source is None:
        return None
    return (source.stat().st_mtime - path.stat().st_mtime) / 86_400


def _same_bits(reference: Run, other: Run) -> bool | None:
    if reference.outputs.keys() != other.outputs.keys():
        return None
    return all(np.array_equal(array, other.outputs[name]) for name, array in reference.outputs.items())


def _pools_right() -> bool:
    """Whether this machine's int8 MaxPool is right: it is wrong on x86 only."""
    return os.uname().machine not in ("x86_64", "i386", "i686", "AMD64")


def _noise(model: Model) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(0)
    shapes = {item.name: tuple(max(1, size) for size in item.shape) for item in model.inputs}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
