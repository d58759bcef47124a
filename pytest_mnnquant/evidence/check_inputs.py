"""The arguments of the functions of checks: evidence, found by the names of their parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from pytest_mnnquant.checks.calibration.check import CalibrationEvidence
from pytest_mnnquant.checks.conversion.check import ConversionEvidence
from pytest_mnnquant.checks.coverage.causes import LayerEvidence, explain_layer
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.execution import ExecutionEvidence
from pytest_mnnquant.checks.latency import limit_on
from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.checks.size import graph_growth
from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.steps import NothingToJudge
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.evidence.variant_costs import VariantCosts
from pytest_mnnquant.evidence.variant_files import VariantFiles
from pytest_mnnquant.evidence.variant_runs import VariantRuns
from pytest_mnnquant.findings.cause import Explanation
from pytest_mnnquant.findings.finding import PASSED, Result
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, VARIANTS_FLOAT
from pytest_mnnquant.measurements.timing import MemoryUse, PairedTimes, TimingSettings
from pytest_mnnquant.mnnfile.commands import layers_known_ahead
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.structure import differences, foreign_casts
from pytest_mnnquant.quantize.convert_twice import load_differences
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Recipe

#: The objects that hold parameters of checks besides `CheckInputs` itself: its attributes, and their types.
_PARTS: Final[dict[str, type]] = {
    "variant": VariantUnderTest,
    "variant.files": VariantFiles,
    "variant.runs": VariantRuns,
    "variant.costs": VariantCosts,
    "limits": Limits,
}


class CheckInputs:
    """The evidence about one variant for its checks, and the limits that they judge by.

    A parameter of a check is a property (or a method, for evidence that is rarely needed) of this class, of
    `VariantUnderTest`, its files, its runs, its costs, or of `Limits`, in this order. Evidence is gathered when a check
    first needs it. Missing evidence raises `NothingToJudge`, unusable evidence `Unusable` or one of `UNUSABLE`.
    `result_of` gives the result of another check of this variant, by its name.
    """

    def __init__(
        self, variant: VariantUnderTest, limits: Limits, strict: bool, result_of: Callable[[str], Result]
    ) -> None:
        self.variant = variant
        self.limits = limits
        self.strict = strict
        self._result_of = result_of

    def arguments(self, function: Callable[..., Result]) -> dict[str, Any]:
        """The arguments of a check's function, by name. Raises `LookupError` for a parameter that is not evidence."""
        return {name: self._value(name) for name in inspect.signature(function).parameters}

    def _value(self, name: str) -> Any:
        if hasattr(CheckInputs, name):
            return getattr(self, name)
        for part, kind in _PARTS.items():
            if hasattr(kind, name):
                return getattr(attrgetter(part)(self), name)
        raise LookupError(f"no evidence is called {name!r}")

    def for_variant(self, variant: VariantUnderTest) -> CheckInputs:
        """The inputs of another variant, with the same limits."""
        return CheckInputs(variant, self.limits, self.strict, self._result_of)

    @property
    def inputs(self) -> CheckInputs:
        """These inputs themselves, for a check that needs more evidence, depending on its findings."""
        return self

    @property
    def recipe(self) -> Recipe:
        """The requested recipe."""
        return self.variant.recipe

    @property
    def activations(self) -> bool:
        """Whether the variant is intended to run in int8."""
        return self.recipe.activations

    @property
    def base(self) -> Model:
        """The float model that the variant was quantized from."""
        return self.variant.variant.base

    @property
    def float_bytes(self) -> int:
        """The size of the float model's file, in bytes."""
        return self.base.size

    @property
    def quantized_bytes(self) -> int:
        """The size of the variant's file, in bytes."""
        return self.variant.model.size

    @property
    def growth(self) -> int:
        """The bytes that the variant's tool added to the graph."""
        return graph_growth(self.base, self.variant.model)

    @property
    def conversion(self) -> ConversionEvidence:
        """How the float model and the variant were converted."""
        source, variant = self.variant.source.prepared, self.variant.variant
        models = {FLOAT_MNN: source.model, VARIANTS_FLOAT: variant.base, "quantized .mnn": variant.model}
        return ConversionEvidence(
            float_model=source.model,
            proof=source.proof,
            unproven=source.unproven,
            given=variant.given,
            chain=(*source.chain, *variant.chain),
            unchained=source.unchained,
            repeated=load_differences(models),
            otherwise=tuple(differences(variant.base, variant.model, self.variant.files.match)),
            casts=foreign_casts(variant.model),
            batches=source.batches,
            signatures=source.signatures,
        )

    @property
    def params_file(self) -> ParamsEvidence:
        """The params file compared with the model."""
        recipe, evidence = self.recipe, self.variant.files.params
        if evidence is None:
            reason = "no params file was given" if recipe.activations else f"{recipe.name} needs no params file"
            raise NothingToJudge(reason, not_applicable=not recipe.activations)
        if not recipe.activations and evidence.params and not evidence.params.is_blank:
            raise NothingToJudge(f"{recipe.name} quantizes no activations, so the model has no scales of them", True)
        return evidence

    @property
    def wanted_layers(self) -> tuple[Op, ...]:
        """The layers of the float model that the params file should list with scales."""
        is_filled = self.recipe.fill is not None
        rows = (row for row in self.variant.files.rows if row.wanted and not row.is_known_ahead)
        return tuple(row.layer for row in rows if can_compute(row.layer) or not is_filled)

    @property
    def params_applied(self) -> bool:
        """Whether the model holds everything in the params file."""
        return self._result_of("params").outcome == PASSED

    def explain(self, row: LayerRow) -> Explanation:
        """Why a layer is not stored as requested."""
        files = self.variant.files
        evidence = LayerEvidence(self.recipe, files.rows, files.params, self.variant.model, files.convert_command)
        return explain_layer(row, evidence)

    @property
    def execution(self) -> ExecutionEvidence:
        """Which operators ran, and how."""
        variant = self.variant
        return ExecutionEvidence(
            trace=variant.runs.run.trace,
            same_as_float=variant.runs.same_as_float,
            faults=variant.runs.int8_faults,
            wrong_pools=variant.runs.wrong_pools,
            untraced=variant.runs.untraced,
            apis=variant.runs.api_difference,
            on_arm=variant.runs.host.is_arm,
            known_ahead=layers_known_ahead(variant.model),
            is_undescribed=variant.model.is_static and not variant.model.tensor_quants,
        )

    @property
    def calibration(self) -> CalibrationEvidence:
        """How the variant was calibrated, and how its scales fit held-out data."""
        source = self.variant.source.prepared
        if not self.recipe.activations:
            raise NothingToJudge(f"{self.recipe.name} needs no calibration: it quantizes no activations", True)
        if self.variant.variant.given and source.calibration is None and source.evaluation is None:
            raise NothingToJudge("no calibration or evaluation data were given (--mnn-evaluation)")
        return self.variant.runs.calibration

    @property
    def times(self) -> PairedTimes:
        """The variant and the float model, timed in pairs."""
        return self.variant.costs.times(timing_of(self.variant, self.limits))

    @property
    def memory_mode(self) -> int:
        """MNN's memory mode that the app runs the model in."""
        return self.variant.source.settings.timing.memory_mode

    @property
    def memory(self) -> Mapping[int, MemoryUse]:
        """The memory of the running variant, by memory mode."""
        return self.variant.costs.memory

    @property
    def float_memory(self) -> Mapping[int, MemoryUse]:
        """The memory of the running float model, by memory mode."""
        return self.variant.costs.float_memory


def timing_of(variant: VariantUnderTest, limits: Limits) -> TimingSettings:
    """How a variant is timed: by the settings, until the side of the limit is known."""
    ratio = limits.max_latency_ratio
    # A target must be queried for what it is.
    limit = limit_on(ratio, variant.runs.host) if isinstance(ratio, Mapping) else ratio
    return dataclasses.replace(variant.source.settings.timing, limit=limit)


def held_limits(function: Callable[..., Result]) -> tuple[str, ...]:
    """The limits that a check's function judges by: its parameters that are fields of `Limits`."""
    names = {field.name for field in dataclasses.fields(Limits)}
    return tuple(name for name in inspect.signature(function).parameters if name in names)
