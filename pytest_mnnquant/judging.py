"""Asks the checks: hands each the evidence it judges by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pytest_mnnquant.case import Case
from pytest_mnnquant.checks.accuracy import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.bundle import check_bundle
from pytest_mnnquant.checks.calibration import check_calibration
from pytest_mnnquant.checks.causes import explain_layer
from pytest_mnnquant.checks.conversion import check_conversion
from pytest_mnnquant.checks.coverage import LayerRow, check_coverage
from pytest_mnnquant.checks.execution import check_execution
from pytest_mnnquant.checks.finding import Result, judge, skipped, without_ignored
from pytest_mnnquant.checks.latency import check_latency
from pytest_mnnquant.checks.params import check_params
from pytest_mnnquant.checks.size import check_size
from pytest_mnnquant.checks.weights import check_weights
from pytest_mnnquant.gate import UNUSABLE, Unusable, why
from pytest_mnnquant.quantize.calibration import can_compute
from pytest_mnnquant.settings import Limits

# Where the user set no limit: of 4 bits and fewer less is asked.
_COSINE: Final = 0.99
_COARSE_COSINE: Final = 0.95


def check(case: Case, name: str, limits: Limits | None = None, strict: bool = False) -> Result:
    """Run one of `CHECKS`. Never raises for a bad model: what is wrong with it is in the result."""
    limits = limits or case.gate.settings.limits
    try:
        result = _JUDGES[name](case, limits, strict)
    except Unusable as error:
        return judge(name, [error.finding], {})  # There is nothing to judge: no code to ignore makes that a pass.
    except UNUSABLE as error:
        return judge(name, [why(error)], {})
    return without_ignored(result, case.gate.settings.ignore)


def _conversion(case: Case, limits: Limits, strict: bool) -> Result:
    source, variant = case.gate.prepared, case.variant
    return check_conversion(source.model, source.proof, source.unproven, case.match, variant.given)


def _params(case: Case, limits: Limits, strict: bool) -> Result:
    case.gate.prepared  # noqa: B018  A source that can't be used is told by every check.
    evidence = case.params
    if evidence is not None and not case.recipe.activations and evidence.params and not evidence.params.is_guide:
        return skipped("params", f"{case.recipe.name} has no scales of activations to find in the model")
    if evidence is None:
        kind = "was given" if case.recipe.activations else f"is needed for {case.recipe.name}"
        return skipped("params", f"no params file {kind}")
    wanted = tuple(row.layer for row in case.rows if row.wanted and can_compute(row.layer))
    return check_params(evidence, case.model, wanted)


def _coverage(case: Case, limits: Limits, strict: bool) -> Result:
    def explain(row: LayerRow) -> tuple[str, str]:
        return explain_layer(row, case.recipe, case.rows, case.params, case.model)

    return check_coverage(case.rows, case.recipe, limits.min_coverage, explain, case.idle_patterns)


def _weights(case: Case, limits: Limits, strict: bool) -> Result:
    return check_weights(case.variant.base, case.model, case.match, case.days_older, case.recipe.block)


def _execution(case: Case, limits: Limits, strict: bool) -> Result:
    return check_execution(case.rows, case.recipe, case.run.trace, case.same_as_float, case.clamping, case.int8_scales)


def _size(case: Case, limits: Limits, strict: bool) -> Result:
    return check_size(case.variant.base.size, case.model.size, case.rows, case.recipe, limits.min_size_ratio)


def _bundle(case: Case, limits: Limits, strict: bool) -> Result:
    return check_bundle(case.model, case.params)


def _calibration(case: Case, limits: Limits, strict: bool) -> Result:
    source, variant = case.gate.prepared, case.variant
    if not case.recipe.activations:
        return skipped("calibration", f"{case.recipe.name} needs no calibration: it has no scales of activations")
    if variant.given and source.calibration is None and source.evaluation is None:
        return skipped("calibration", "no calibration or evaluation data were given (--mnn-evaluation)")
    return check_calibration(case.calibration)


def _accuracy(case: Case, limits: Limits, strict: bool) -> Result:
    data = case.gate.prepared.evaluation
    case.variant  # noqa: B018  A variant that can't be used is told by every check.
    if data is None:
        return skipped("accuracy", "no evaluation data were given (--mnn-evaluation)")
    exact, pools = case.exact_run
    evidence = AccuracyEvidence(
        reference=case.gate.float_run.outputs,
        outputs=exact.outputs,
        labels=data.labels,
        as_run=case.run.outputs,
        pools=pools,
        drift=case.variant.drift,
        clamping=case.clamping,
        scales=case.int8_scales,
        recipe=case.recipe,
    )
    least = limits.min_cosine
    if least is None:
        least = _COARSE_COSINE if case.recipe.bits <= 4 else _COSINE
    return check_accuracy(evidence, limits.max_accuracy_drop, least)


def _latency(case: Case, limits: Limits, strict: bool) -> Result:
    return check_latency(case.times, limits.max_latency_ratio, strict)


_JUDGES: Final[dict[str, Callable[[Case, Limits, bool], Result]]] = {
    "conversion": _conversion,
    "params": _params,
    "coverage": _coverage,
    "weights": _weights,
    "execution": _execution,
    "size": _size,
    "bundle": _bundle,
    "calibration": _calibration,
    "accuracy": _accuracy,
    "latency": _latency,
}
