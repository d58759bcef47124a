"""Texts are for people: with "x" in place of each, findings have the same groups, roots and relations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.checks.bundle import check_bundle
from pytest_mnnquant.checks.coverage.causes import LayerEvidence, explain_layer
from pytest_mnnquant.checks.coverage.check import LayerRow, check_coverage, layer_rows
from pytest_mnnquant.checks.execution import ExecutionEvidence, check_execution
from pytest_mnnquant.checks.params.check import check_params
from pytest_mnnquant.checks.params.evidence import relate
from pytest_mnnquant.checks.size import check_size
from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import FAILED, Finding, Result, without_ignored
from pytest_mnnquant.findings.fix_command import ConvertCommand, mnn_source
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.measurements.run import TracedOp
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.variant_report import ReportedFinding
from tests.report.made import record
from tests.synthetic_evidence import as_int8, layer, model, with_weights

CHECKS = ("conversion", "params", "coverage", "weights", "execution", "size", "calibration", "accuracy")


def blank(result: Result) -> Result:
    """The result with "x" for each of its texts."""
    findings = (
        dataclasses.replace(
            finding,
            message="x",
            fix=finding.fix and "x",
            cause=Cause(finding.cause.id, "x") if finding.cause else None,
        )
        for finding in result.findings
    )
    return dataclasses.replace(result, findings=tuple(findings), reason=result.reason and "x")


Tree = tuple[Any, ...]


def trees(findings: Iterable[Finding | ReportedFinding]) -> tuple[Tree, ...]:
    """All of findings but their texts."""
    return tuple(
        (finding.id, finding.severity, finding.follows, bool(finding.fix), trees(finding.consequences))
        for finding in findings
    )


def decided(results: Mapping[str, Result]) -> list[Tree]:
    """Outcomes and relations, by themselves and in the report."""
    joined = {name: with_root_causes(name, results) for name in results}
    (reported,) = build_report([record(result) for result in joined.values()], {}).models if joined else (None,)
    checks = reported.variants[0].checks if reported else ()
    alone = [(name, result.outcome, bool(result.reason), trees(result.findings)) for name, result in joined.items()]
    return [*alone, *((check.check, check.outcome, trees(check.findings)) for check in checks)]


# Findings of any kind -------------------------------------------------------------------------------------------------

CAUSES = st.none() | st.builds(Cause, st.sampled_from(("stale", "clipped", "lost-name")), st.text(min_size=1))
FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(sorted(RULES)),
    message=st.text(min_size=1),
    layer=st.sampled_from(("", "a", "b")),
    cause=CAUSES,
    fix=st.text(),
    as_warning=st.booleans(),
)


@given(st.dictionaries(st.sampled_from(CHECKS), st.lists(FINDINGS, max_size=4), min_size=1))
def test_any_findings(found: dict[str, list[Finding]]) -> None:
    results = {name: Result.from_findings(name, findings) for name, findings in found.items()}
    assert decided(results) == decided({name: blank(result) for name, result in results.items()})
    for result in results.values():
        ignored = without_ignored(result, ("MNQ4", "MNQ701"))
        assert (ignored.outcome, ignored.ignored) == (
            without_ignored(blank(result), ("MNQ4", "MNQ701")).outcome,
            without_ignored(blank(result), ("MNQ4", "MNQ701")).ignored,
        )


# Findings of real checks ----------------------------------------------------------------------------------------------

FIRST, SECOND, THIRD, FOURTH = (layer(name, (16 + place, 8, 3, 3)) for place, name in enumerate("abcd"))
SOURCE = model([FIRST, SECOND, THIRD, FOURTH])
COMMAND = ConvertCommand(mnn_source(SOURCE.path), Path("out.mnn"))


def entry(name: str, tensor: str, scale: float = 0.25) -> LayerParams:
    return LayerParams(WeightParams(name), ActivationParams("in", 0.5), ActivationParams(tensor, scale))


def judged(stored: Sequence[Any], params: Params) -> dict[str, Result]:
    """The results of the checks that judge files, and of what ran, for a variant with these layers."""
    recipe, variant = RECIPES["int8"], model(stored)
    match = match_layers(SOURCE, variant)
    rows = layer_rows(match, recipe, lambda _op: False)
    evidence = relate(variant.path, params, SOURCE, variant, match)

    def explain(row: LayerRow) -> Explanation:
        return explain_layer(row, LayerEvidence(recipe, rows, evidence, variant, COMMAND))

    trace = [TracedOp(op.name, op.kind, op.weights[0].full_int8) for op in stored]
    results = (
        check_params(evidence, variant, tuple(row.layer for row in rows)),
        check_coverage(rows, recipe, 0.99, explain),
        check_execution(rows, recipe, ExecutionEvidence(trace, same_as_float=None)),
        check_size(SOURCE.size, variant.size, rows, recipe, None),
        check_bundle(variant, evidence),
    )
    return {result.check: result for result in results}


def test_real_findings() -> None:
    """Layers left float by a lost entry, stored by another tool, with a broken buffer and with other scales."""
    broken = with_weights(THIRD, storage=Storage.INTEGER, bits=8, full_int8=True, intact=False)
    entries = [entry("a", "old name"), entry("b", "b:out"), entry("c", "c:out"), entry("d", "d:out", scale=0.125)]
    results = judged([FIRST, with_weights(SECOND, storage=Storage.INTEGER, bits=8), broken, as_int8(FOURTH)],
                     Params(tuple(entries), uuid="another"))  # fmt: skip
    assert [name for name, result in results.items() if result.outcome == FAILED] == ["params", "coverage", "size"]
    causes = {finding.cause_id for result in results.values() for finding in result.findings}
    assert len(causes) > 4
    relations = decided(results)
    assert relations == decided({name: blank(result) for name, result in results.items()})
    assert any(effects for *_, findings in relations for *_, effects in findings)
