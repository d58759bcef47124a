"""Runs checks: calls the function of each with the evidence that its parameters name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from pytest_mnnquant.checks.target.mnn_versions import crashed
from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.caches import CheckKey
from pytest_mnnquant.evidence.check_inputs import CheckInputs
from pytest_mnnquant.evidence.source import as_finding
from pytest_mnnquant.evidence.steps import INTERNAL, UNUSABLE, NothingToJudge, Unusable, step
from pytest_mnnquant.evidence.target_variant import TargetVariant
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.catalogue import CHECK_NAMES, CHECKS, check_named
from pytest_mnnquant.findings.check import Check
from pytest_mnnquant.findings.finding import FAILED, Result, without_ignored
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.sources.user_code import contained


def run_check(
    variant: VariantUnderTest,
    name: str,
    limits: Limits | None = None,
    strict: bool = False,
    selected: Collection[str] = (),
) -> Result:
    """Run a check of the catalogue. Never raises for a bad model: its faults are in the result.

    `selected` are the checks of this variant that run in the same session, with the same limits: a finding that
    follows from one of their findings is reported as its consequence.
    """
    limits = limits or variant.source.settings.limits
    variant.selected.update(selected)
    result = result_alone(variant, name, limits, strict)
    if result.outcome != FAILED:
        return result
    # Static checks run even before their turn, so that causes and consequences are known at once.
    causes = [check.name for check in CHECKS if check.is_static or check.name in check_named(name).after]
    is_restatement = any(finding.rule.effects.restates for finding in result.findings)
    related = (*causes, *(check_named(name).restated_by if is_restatement else ()))
    known = {other: result_alone(variant, other, limits, strict) for other in related if other in selected}
    results = {**variant.results.of_checks(selected, limits, strict), **known, name: result}
    ordered = {other: results[other] for other in CHECK_NAMES if other in results}
    blocked = _blocked(variant, name, ordered)
    return with_root_causes(name, ordered) if blocked is None else blocked


def _blocked(variant: VariantUnderTest, name: str, results: Mapping[str, Result]) -> Result | None:
    """The result of a check that needs a step which failed in an earlier check; None for others."""
    failed = _failed_step(results[name])
    for other, result in results.items():
        if other == name or not failed:
            return None
        if _failed_step(result) == failed:
            return Result.skipped(name, f"blocked: a step that it needs failed, see {variant.label}::{other}")
    return None


def _failed_step(result: Result) -> str:
    """The id of the step whose failure is all that a check reports; empty for other results."""
    codes = {finding.code for finding in result.findings}
    return result.findings[0].cause_id if codes == {INTERNAL} else ""


def result_alone(variant: VariantUnderTest, name: str, limits: Limits, strict: bool) -> Result:
    """The result of a single check, before findings of several checks are related; it runs once."""

    def run() -> Result:
        inputs = CheckInputs(variant, limits, strict, lambda other: result_alone(variant, other, limits, strict))
        result = _with_stored_formats(variant, run_uncached(check_named(name), inputs))
        # An ignored code must not make an unusable variant pass.
        return result if variant.is_unusable else without_ignored(result, variant.source.settings.ignore)

    return variant.results.get_or_run(CheckKey(name, limits, strict), run)


def run_uncached(check: Check, inputs: CheckInputs) -> Result:
    """Call the function of a check with the evidence that it names."""
    function = check.load_function()
    return attempt_check(check.name, inputs.variant, lambda: function(**inputs.arguments(function)))


def attempt_check(name: str, variant: VariantUnderTest, judge: Callable[[], Result]) -> Result:
    """The result of `judge`; an error that prevents it becomes its finding, or the reason why it is skipped."""
    try:
        variant.variant  # noqa: B018  Every check reports a variant that can't be used.
        with contained(), step(f"judge {name}"):
            return judge()
    except NothingToJudge as error:
        return Result.skipped(name, str(error), error.not_applicable)
    except Unusable as error:
        return Result.from_findings(name, [error.finding])
    except UNUSABLE as error:
        return Result.from_findings(name, [as_finding(error)])


def _with_stored_formats(variant: VariantUnderTest, result: Result) -> Result:
    """The result, with the storage formats of the model if it crashes the MNN of a target."""
    failed = any(finding.code == "MNQ620" for finding in result.findings)
    if not isinstance(variant, TargetVariant) or not failed or not variant.runs.crashed:
        return result
    labels = (
        weights.label + (" with 16-bit scales" if weights.half_scales else "")
        for layer in variant.model.layers
        for weights in layer.weights
    )
    stored = ", ".join(dict.fromkeys(labels))
    findings = (crashed(finding, variant.runtimes, variant.runs.runs_float, stored) for finding in result.findings)
    return dataclasses.replace(result, findings=tuple(findings))
