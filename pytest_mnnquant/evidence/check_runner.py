"""Asks the checks: hands each the evidence it judges by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from pytest_mnnquant.checks.accuracy.causes import KnownCauses
from pytest_mnnquant.checks.accuracy.check import (
    AccuracyEvidence,
    can_be_located,
    check_accuracy,
    unlocated,
    with_location,
)
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.proposals import with_search
from pytest_mnnquant.checks.bundle import check_bundle
from pytest_mnnquant.checks.calibration.check import check_calibration
from pytest_mnnquant.checks.conversion.check import check_conversion
from pytest_mnnquant.checks.coverage.causes import explain_layer
from pytest_mnnquant.checks.coverage.check import LayerRow, check_coverage
from pytest_mnnquant.checks.execution import check_execution
from pytest_mnnquant.checks.latency import check_latency, limit_on
from pytest_mnnquant.checks.memory import check_memory
from pytest_mnnquant.checks.params import check_params
from pytest_mnnquant.checks.size import check_size
from pytest_mnnquant.checks.target.check import compare_with_host
from pytest_mnnquant.checks.target.mnn_versions import crashed, explained
from pytest_mnnquant.checks.weights.check import check_weights
from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.accuracy_search import search
from pytest_mnnquant.evidence.caches import CheckKey
from pytest_mnnquant.evidence.source import UNUSABLE, Unusable, why
from pytest_mnnquant.evidence.target_variant import TargetVariant
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.cause import Explanation
from pytest_mnnquant.findings.check_metrics import AccuracyMetrics, metrics_of
from pytest_mnnquant.findings.check_registry import CHECK_NAMES, CHECKS, check_named
from pytest_mnnquant.findings.defaults import COARSE_COSINE, COSINE
from pytest_mnnquant.findings.finding import FAILED, PASSED, SKIPPED, Result, without_ignored
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.findings.rules import Severity
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, VARIANTS_FLOAT
from pytest_mnnquant.measurements.timing import TimingSettings
from pytest_mnnquant.mnnfile.structure import differences, foreign_casts
from pytest_mnnquant.quantize.convert_twice import repeated
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.sources.metric import load_metric


def check(
    case: VariantUnderTest, name: str, limits: Limits | None = None, strict: bool = False, beside: Collection[str] = ()
) -> Result:
    """Run one of `CHECK_NAMES`. Never raises for a bad model: what is wrong with it is in the result.

    `beside` are the checks of this variant that are told in the same run, by the same limits: what follows from a
    finding of theirs is told as that.
    """
    limits = limits or case.gate.settings.limits
    own = _found(case, name, limits, strict)
    if own.outcome != FAILED:
        return own
    # What judges files alone is asked even before its turn, so that causes and consequences are known at once.
    causes = [other.name for other in CHECKS if other.is_static or other.name in check_named(name).after]
    known = {other: _found(case, other, limits, strict) for other in causes if other in beside and other != name}
    ran = case.results.of_checks(beside, limits, strict)
    told = {**ran, **known, name: own}
    return with_root_causes(name, {other: told[other] for other in CHECK_NAMES if other in told})


def _found(case: VariantUnderTest, name: str, limits: Limits, strict: bool) -> Result:
    """What a check finds by itself, remembered."""

    def run() -> Result:
        result = _on_target(case, _usable(name, lambda: _JUDGES[name](case, limits, strict)))
        # Where there is nothing to judge, no code to ignore makes that a pass.
        return result if case.is_unusable else without_ignored(result, case.gate.settings.ignore)

    return case.results.get_or_run(CheckKey(name, limits, strict), run)


def _usable(name: str, asked: Callable[[], Result]) -> Result:
    """The result of a check; what keeps it from being made is its finding."""
    try:
        return asked()
    except Unusable as error:
        return Result.from_findings(name, [error.finding])
    except UNUSABLE as error:
        return Result.from_findings(name, [why(error)])


def _on_target(case: VariantUnderTest, result: Result) -> Result:
    """The result, with more on a model that crashes the MNN of a target."""
    failed = any(finding.code == "MNQ620" for finding in result.findings)
    if not isinstance(case, TargetVariant) or not failed or not case.crashes:
        return result
    stored = (
        weights.label + (" with 16-bit scales" if weights.half_scales else "")
        for layer in case.model.layers
        for weights in layer.weights
    )
    told = ", ".join(dict.fromkeys(stored))
    found = (crashed(finding, case.runtimes, case.runs_float, told) for finding in result.findings)
    return dataclasses.replace(result, findings=tuple(found))


def _conversion(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    source, variant = case.gate.prepared, case.variant
    models = {FLOAT_MNN: source.model, VARIANTS_FLOAT: variant.base, "quantized .mnn": variant.model}
    return check_conversion(
        source.model,
        source.proof,
        source.unproven,
        case.match,
        variant.given,
        chain=(*source.chain, *variant.chain),
        unchained=source.unchained,
        repeated=repeated(models),
        otherwise=differences(variant.base, variant.model, case.match),
        casts=foreign_casts(variant.model),
    )


def _params(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    case.gate.prepared  # noqa: B018  A source that can't be used is told by every check.
    evidence = case.params
    if evidence is not None and not case.recipe.activations and evidence.params and not evidence.params.is_blank:
        return Result.skipped(
            "params", f"{case.recipe.name} has no scales of activations to find in the model", not_applicable=True
        )
    if evidence is None:
        kind = "was given" if case.recipe.activations else f"is needed for {case.recipe.name}"
        return Result.skipped("params", f"no params file {kind}", not_applicable=not case.recipe.activations)
    filled = case.recipe.fill is not None
    wanted = tuple(row.layer for row in case.rows if row.wanted and (can_compute(row.layer) or not filled))
    return check_params(evidence, case.model, wanted)


def _coverage(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    def explain(row: LayerRow) -> Explanation:
        return explain_layer(row, case.recipe, case.rows, case.params, case.model)

    return check_coverage(case.rows, case.recipe, limits.min_coverage, explain, case.idle_patterns)


def _weights(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    return check_weights(case.variant.base, case.model, case.match, case.days_older, case.recipe)


def _execution(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    return check_execution(
        case.rows, case.recipe, case.run.trace, case.same_as_float, case.clamping, case.int8_scales, case.untraced
    )


def _size(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    return check_size(case.variant.base.size, case.model.size, case.rows, case.recipe, limits.min_size_ratio)


def _bundle(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    return check_bundle(case.model, case.params, applied=_found(case, "params", limits, strict).outcome == PASSED)


def _calibration(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    source, variant = case.gate.prepared, case.variant
    if not case.recipe.activations:
        return Result.skipped(
            "calibration",
            f"{case.recipe.name} needs no calibration: it has no scales of activations",
            not_applicable=True,
        )
    if variant.given and source.calibration is None and source.evaluation is None:
        return Result.skipped("calibration", "no calibration or evaluation data were given (--mnn-evaluation)")
    return check_calibration(case.calibration)


def _accuracy(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    settings = case.gate.settings
    result = without_ignored(_likeness(case, limits, strict), settings.ignore)
    if isinstance(case, TargetVariant):
        return _elsewhere(case, limits, strict, result)
    if not can_be_located(result):
        return result
    try:
        losses = case.losses(criteria_of(limits, case.recipe, settings.base, strict).metric)
    except UNUSABLE as error:  # What was found stands, whether its place is known or not.
        return unlocated(result, str(error))
    result = with_location(result, losses)
    if not settings.suggest:
        return result
    open_before = {finding.code for finding in result.findings if finding.severity is Severity.GAP}

    def trial(other: VariantUnderTest) -> Result:
        return _tried(other, limits, strict, (*settings.ignore, *open_before))

    return with_search(result, search(case, trial, losses, settings.suggest_time))


def _elsewhere(case: TargetVariant, limits: Limits, strict: bool, result: Result) -> Result:
    """The accuracy on a target: with what it computes otherwise than this machine, and the layer that lost it."""
    if result.outcome == SKIPPED:
        return result
    metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
    found, metrics = compare_with_host(case.elsewhere, metrics)
    own = result.findings
    if result.outcome == FAILED and _found(case.home, "accuracy", limits, strict).outcome != FAILED:
        own = tuple(explained(own, found, case.runtimes))
    metrics = dataclasses.replace(metrics, place=case.place)
    result = dataclasses.replace(result, findings=(*own, *found), metrics=metrics)
    result = without_ignored(result, case.gate.settings.ignore)
    if not can_be_located(result) or found:  # What only the target computes so can't be looked for here.
        return result
    try:
        return with_location(
            result, case.home.losses(criteria_of(limits, case.recipe, case.gate.settings.base, strict).metric)
        )
    except UNUSABLE as error:
        return unlocated(result, str(error))


def _tried(case: VariantUnderTest, limits: Limits, strict: bool, ignored: tuple[str, ...]) -> Result:
    """The accuracy of a variant that may be proposed; one that fails another check that was asked fails here too."""
    result = without_ignored(_usable("accuracy", lambda: _likeness(case, limits, strict)), ignored)
    for name in ("coverage", "size") if result.outcome == PASSED else ():
        other = without_ignored(_usable(name, partial(_JUDGES[name], case, limits, strict)), ignored)
        if other.outcome == FAILED:
            return Result.from_findings("accuracy", other.findings, result.metrics)
    return result


def _likeness(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    data = case.gate.prepared.evaluation
    case.variant  # noqa: B018  A variant that can't be used is told by every check.
    if data is None:
        return Result.skipped("accuracy", "no evaluation data were given (--mnn-evaluation)")
    exact, pools = case.exact_run
    evidence = AccuracyEvidence(
        reference=case.gate.float_run.outputs,
        outputs=exact.outputs,
        labels=data.labels,
        as_run=case.run.outputs,
        pools=pools,
        suspects=KnownCauses(case.variant.drift, case.clamping, case.int8_scales, case.recipe),
    )
    return check_accuracy(evidence, criteria_of(limits, case.recipe, case.gate.settings.base, strict))


def criteria_of(limits: Limits, recipe: Recipe, base: Path, strict: bool) -> Criteria:
    """What the outputs of a variant must meet. Raises `SourceError` for a metric that can't be loaded."""
    return Criteria(
        metric=load_metric(limits.metric, base) if limits.metric else None,
        max_drop=limits.max_accuracy_drop,
        min_ratio=limits.min_accuracy_ratio,
        min_float=limits.min_float_accuracy,
        min_cosine=limits.min_cosine,
        min_sqnr=limits.min_sqnr,
        min_agreement=limits.min_agreement,
        usual_cosine=COARSE_COSINE if recipe.bits <= 4 else COSINE,
        strict=strict,
    )


def _latency(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    times = case.times(timing_of(case, limits))
    return check_latency(times, limits.max_latency_ratio, case.recipe.activations, case.op_times)


def timing_of(case: VariantUnderTest, limits: Limits) -> TimingSettings:
    """How a variant is timed: as the settings say, until it is known on which side of the limit it is."""
    ratio = limits.max_latency_ratio
    limit = limit_on(ratio, case.host) if isinstance(ratio, Mapping) else ratio  # A device has to be asked what it is.
    return dataclasses.replace(case.gate.settings.timing, limit=limit)


def _memory(case: VariantUnderTest, limits: Limits, strict: bool) -> Result:
    if case.model.has_subgraphs or case.gate.prepared.model.has_subgraphs:
        return Result.skipped("memory", "MNN does not tell the memory of models with While or If bodies")
    mode = case.gate.settings.timing.memory_mode
    return check_memory(case.float_memory, case.memory, case.recipe.activations, mode)


_JUDGES: Final[dict[str, Callable[[VariantUnderTest, Limits, bool], Result]]] = {
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
    "memory": _memory,
}
