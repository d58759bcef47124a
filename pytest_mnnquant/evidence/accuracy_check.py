"""The accuracy check of a variant: judges its outputs, and searches for the layer at fault and for a fix."""

from __future__ import annotations

import dataclasses
from typing import Final

from pytest_mnnquant.checks.accuracy.causes import KnownCauses
from pytest_mnnquant.checks.accuracy.check import (
    AccuracyEvidence,
    can_be_located,
    check_accuracy,
    unjudged_limits,
    unlocated,
    with_location,
    without_data,
)
from pytest_mnnquant.checks.accuracy.layers import Losses
from pytest_mnnquant.checks.accuracy.limits import COARSE_LIMITS, Criteria, UsualLimits
from pytest_mnnquant.checks.accuracy.parts import has_lost_parts
from pytest_mnnquant.checks.accuracy.proposals import with_search
from pytest_mnnquant.checks.accuracy.sequences import error_over_steps, judged_steps, with_error_over_steps
from pytest_mnnquant.checks.accuracy.sized import with_sized_outputs
from pytest_mnnquant.checks.accuracy.uncovered import unjudged_pools
from pytest_mnnquant.checks.target.check import compare_with_host, main_difference
from pytest_mnnquant.checks.target.mnn_versions import explained
from pytest_mnnquant.evidence.accuracy_search import search_accuracy
from pytest_mnnquant.evidence.check_inputs import CheckInputs, held_limits
from pytest_mnnquant.evidence.check_runner import attempt_check, result_alone, run_uncached
from pytest_mnnquant.evidence.output_parts import part_evidence
from pytest_mnnquant.evidence.steps import UNUSABLE, NothingToJudge, StepFailed, step
from pytest_mnnquant.evidence.target_variant import TargetVariant
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result, without_ignored
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.mnnfile.commands import layers_beside
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs
from pytest_mnnquant.sources.metric import load_metric

_NAME: Final = "accuracy"


def judge_accuracy(inputs: CheckInputs) -> Result:
    """Judge the outputs; name the layer that lost the accuracy, and propose recipes that were tried and pass."""
    variant, settings = inputs.variant, inputs.variant.source.settings
    if inputs.limits.max_kl is not None:
        fix = "remove the option for this model"
        return Result.from_findings(_NAME, [unjudged_limits(["--mnn-max-kl"], "not a language model's export", fix)])
    result = without_ignored(_judge_outputs(inputs), settings.ignore)
    if isinstance(variant, TargetVariant):
        return _on_target(inputs, variant, result)
    if not can_be_located(result):
        return result
    try:
        losses = variant.runs.losses(_criteria(inputs).metric)
    except UNUSABLE as error:  # The findings stand, whether their layer is known or not.
        return unlocated(result, str(error))
    return _with_suggestion(inputs, with_location(result, losses), losses)


def _with_suggestion(inputs: CheckInputs, result: Result, losses: Losses | None) -> Result:
    """A failed accuracy with what was tried and passes, on the machine where it fails, if that was requested.

    The layers beside an operator without weights are left float first, so that it does not run in int8.
    """
    variant, settings = inputs.variant, inputs.variant.source.settings
    if not settings.suggest:
        return result
    suspect = next((finding.layer for finding in result.findings if finding.severity is Severity.ERROR), "")
    beside = layers_beside(variant.variant.base, suspect)
    unresolved = {finding.code for finding in result.findings if finding.severity is Severity.GAP}
    ignored = (*settings.ignore, *unresolved)

    def judge(trial: VariantUnderTest) -> Result:
        where = variant.on_same_target(trial) if isinstance(variant, TargetVariant) else trial
        return judge_trial(inputs.for_variant(where), ignored)

    made = variant.on_host if isinstance(variant, TargetVariant) else variant
    try:
        with step("search for a recipe that passes"):
            search = search_accuracy(
                made, judge, losses, settings.suggest_time, beside, recipes_first=has_lost_parts(result)
            )
    except StepFailed as error:  # The findings stand without a proposal.
        return dataclasses.replace(result, findings=(*result.findings, error.finding))
    return with_search(result, search)


def _judge_outputs(inputs: CheckInputs) -> Result:
    """Compare the outputs with the labels and with the float model's. Raises `NothingToJudge` without data."""
    variant = inputs.variant
    data = variant.source.prepared.evaluation
    if data is None:
        if (failure := without_data(_criteria(inputs))) is not None:
            return failure
        raise NothingToJudge("no evaluation data were given (--mnn-evaluation)")
    exact, pools = variant.runs.exact_run
    if variant.runs.uncovered_pools:
        return unjudged_pools(variant.runs.uncovered_pools)
    evidence = AccuracyEvidence(
        reference=variant.source.float_run.outputs,
        outputs=exact.outputs,
        labels=data.labels,
        classes=data.classes,
        as_run=variant.runs.run.outputs,
        pools=pools,
        inputs=variant.source.inputs,
        parts=part_evidence(variant.source.prepared.model, variant.source.output_parts, variant.model),
        suspects=KnownCauses(
            variant.variant.drift,
            variant.runs.int8_faults,
            variant.recipe,
            on_arm=variant.runs.host.is_arm,
        ),
    )
    sequences = variant.source.prepared.sequences
    if sequences is not None:
        result = check_accuracy(judged_steps(evidence, sequences, data.per_sequence), _criteria(inputs))
        return with_error_over_steps(result, error_over_steps(evidence.reference, evidence.outputs, sequences.lengths))
    sized = data_sized_outputs(variant.source.prepared.model)
    return with_sized_outputs(check_accuracy(evidence, _criteria(inputs)), sized)


def _criteria(inputs: CheckInputs) -> Criteria:
    """The limits for the outputs of a variant. Raises `SourceError` for a metric that can't be loaded."""
    limits, base = inputs.limits, inputs.variant.source.settings.base
    return Criteria(
        metric=load_metric(limits.metric, base) if limits.metric else None,
        max_drop=limits.max_accuracy_drop,
        min_ratio=limits.min_accuracy_ratio,
        min_float=limits.min_float_accuracy,
        min_cosine=limits.min_cosine,
        min_sqnr=limits.min_sqnr,
        min_agreement=limits.min_agreement,
        usual=COARSE_LIMITS if inputs.recipe.bits <= 4 else UsualLimits(),
        strict=inputs.strict,
    )


def _on_target(inputs: CheckInputs, variant: TargetVariant, result: Result) -> Result:
    """The accuracy on a target, with its differences from this host and the layer that lost the accuracy."""
    metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
    differing, metrics = compare_with_host(variant.difference_evidence, metrics)
    findings = result.findings
    # Rounding otherwise is not a finding by itself, but the cause if the accuracy is lost on the target only.
    rounding = None if differing else main_difference(metrics)
    is_on_target_only = result.outcome == FAILED and not _fails_on_host(inputs, variant)
    if is_on_target_only:
        findings = tuple(explained(findings, differing, variant.runtimes, rounding))
    metrics = dataclasses.replace(metrics, place=variant.facts)
    result = dataclasses.replace(result, findings=(*findings, *differing), metrics=metrics)
    result = without_ignored(result, variant.source.settings.ignore)
    if not can_be_located(result):
        return result
    try:
        losses = variant.on_host.runs.losses(_criteria(inputs).metric)
    except UNUSABLE as error:
        return unlocated(result, str(error))
    if not differing and not (is_on_target_only and rounding):  # Else the fault is the target's own.
        result = with_location(result, losses)
    return result if variant.runtimes.differ else _with_suggestion(inputs, result, losses)


def _fails_on_host(inputs: CheckInputs, variant: TargetVariant) -> bool:
    return result_alone(variant.on_host, _NAME, inputs.limits, inputs.strict).outcome == FAILED


def judge_trial(inputs: CheckInputs, ignored: tuple[str, ...]) -> Result:
    """The accuracy of a variant that may be proposed; it also fails if the files of the variant break another limit."""
    judged = attempt_check(_NAME, inputs.variant, lambda: _judge_outputs(inputs))
    result = without_ignored(judged, ignored)
    limited = (check for check in CHECKS if check.is_static and held_limits(check.load_function()))
    for check in limited if result.outcome == PASSED else ():
        other = without_ignored(run_uncached(check, inputs), ignored)
        if other.outcome == FAILED:
            return Result.from_findings(_NAME, other.findings, result.metrics)
    return result
