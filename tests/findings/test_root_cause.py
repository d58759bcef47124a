"""One cause, one error: what follows from what."""

from __future__ import annotations

import pytest

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import FAILED, PASSED, Finding, FindingId, Result
from pytest_mnnquant.findings.root_cause import with_root_causes
from pytest_mnnquant.findings.rule import Severity

STALE, CLIPPED = Cause("stale-output", "so it is"), Cause("weights-clipped", "so it is")


def told(**checks: list[Finding]) -> dict[str, Result]:
    return {name: Result.from_findings(name, findings) for name, findings in checks.items()}


def roots(results: dict[str, Result]) -> list[tuple[str, str, str]]:
    told_by = ((name, one) for name in results for one in with_root_causes(name, results).findings)
    return [(name, one.code, one.layer) for name, one in told_by if one.severity is Severity.ERROR]


def test_what_is_told_alone_stands_for_itself() -> None:
    results = told(coverage=[Finding("MNQ401", "is float", "a")])
    result = with_root_causes("coverage", results)
    assert result.outcome == FAILED
    assert [(one.code, one.follows, one.consequences) for one in result.findings] == [("MNQ401", None, ())]


def test_a_passed_check_stays_as_it_is() -> None:
    results = told(size=[], coverage=[Finding("MNQ401", "is float", "a")])
    assert with_root_causes("size", results) is results["size"]
    assert with_root_causes("size", results).outcome == PASSED


def test_a_lost_name_explains_its_layer_and_the_size() -> None:
    results = told(
        params=[Finding("MNQ304", "no such tensor", "a", fix="rename")],
        coverage=[Finding("MNQ401", "is float", "a")],
        size=[Finding("MNQ801", "too large")],
    )
    assert roots(results) == [("params", "MNQ304", "a")]
    (root,) = with_root_causes("params", results).findings
    assert [(one.check, one.code, one.layer) for one in root.consequences] == [
        ("coverage", "MNQ401", "a"),
        ("size", "MNQ801", ""),
    ]
    (effect,) = with_root_causes("coverage", results).findings
    assert (effect.severity, effect.fix) == (Severity.CONSEQUENCE, "rename")
    assert effect.follows == root.id == FindingId("MNQ304", "params", "a")
    assert str(effect.follows) == "MNQ304 params-name-mismatch in a (params)"
    assert with_root_causes("coverage", results).outcome == FAILED


def test_two_layers_lost_in_two_ways_are_two_errors() -> None:
    results = told(
        params=[Finding("MNQ304", "no such tensor", "a"), Finding("MNQ306", "no entry", "b")],
        coverage=[Finding("MNQ401", "is float", "a"), Finding("MNQ401", "is float", "b")],
        size=[Finding("MNQ801", "too large")],
    )
    assert roots(results) == [("params", "MNQ304", "a"), ("params", "MNQ306", "b")]
    assert [one.layer for one in with_root_causes("coverage", results).findings] == ["a", "b"]


def test_the_same_in_many_layers_is_one_error_that_names_them() -> None:
    lost = [
        Finding("MNQ304", f"{name!r} is not there", name, Cause("name-mismatch", f"this layer's tensor is {name!r}"))
        for name in "abc"
    ]
    results = told(params=lost, coverage=[Finding("MNQ401", "is float", name) for name in "abc"])
    assert roots(results) == [("params", "MNQ304", "a")]
    (root,) = with_root_causes("params", results).findings
    assert [one.layer for one in root.consequences] == ["b", "c", "a", "b", "c"]
    (effect,) = with_root_causes("coverage", results).findings
    assert [one.layer for one in effect.consequences] == ["b", "c"]


@pytest.mark.parametrize(("first", "second"), [("+0.49", "-0.51"), ("+0.49", "+0.51"), ("1.2e-05", "0.003")])
def test_one_mechanism_is_one_error_whatever_it_measured(first: str, second: str) -> None:
    causes = {
        layer: Cause("weights-truncated", f"{drift} steps off")
        for layer, drift in zip("ab", (first, second), strict=True)
    }
    results = told(weights=[Finding("MNQ410", f"{layer} is off", layer, cause) for layer, cause in causes.items()])
    assert roots(results) == [("weights", "MNQ410", "a")]
    (root,) = with_root_causes("weights", results).findings
    assert [finding.layer for finding in root.consequences] == ["b"]


def test_the_same_rule_for_other_reasons_is_two_errors() -> None:
    """Though the words are the same."""
    results = told(weights=[Finding("MNQ410", "x", "a", STALE), Finding("MNQ410", "y", "b", CLIPPED)])
    assert roots(results) == [("weights", "MNQ410", "a"), ("weights", "MNQ410", "b")]


def test_an_unrelated_layer_is_an_error_of_its_own() -> None:
    results = told(
        weights=[Finding("MNQ411", "bias", "a")],
        accuracy=[Finding("MNQ702", "unlike", "b")],
    )
    assert roots(results) == [("weights", "MNQ411", "a"), ("accuracy", "MNQ702", "b")]
    near = results["accuracy"]
    results["accuracy"] = Result("accuracy", FAILED, near.findings, AccuracyMetrics(next_suspects=("a",)))
    assert roots(results) == [("weights", "MNQ411", "a")]


def test_bad_calibration_explains_accuracy_wherever_it_was_lost() -> None:
    results = told(calibration=[Finding("MNQ530", "range", "a")], accuracy=[Finding("MNQ701", "drop", "z")])
    assert roots(results) == [("calibration", "MNQ530", "a")]


def test_what_keeps_all_checks_from_judging_is_told_once() -> None:
    missing = Finding("MNQ202", "no such file")
    results = told(conversion=[missing], coverage=[missing], weights=[missing], size=[missing])
    assert roots(results) == [("conversion", "MNQ202", "")]


def test_a_crash_follows_from_a_broken_buffer() -> None:
    results = told(
        coverage=[Finding("MNQ403", "4 bytes a weight", "a")],
        weights=[Finding("MNQ403", "can't be decoded", "a")],
        execution=[Finding("MNQ201", "SIGSEGV")],
    )
    assert roots(results) == [("coverage", "MNQ403", "a")]


def test_a_model_that_crashes_is_one_cause_in_whatever_step() -> None:
    results = told(
        execution=[Finding("MNQ201", "running w8.mnn: MNN crashed with SIGSEGV")],
        latency=[Finding("MNQ201", "timing w8.mnn: MNN crashed with SIGSEGV")],
        memory=[Finding("MNQ201", "measuring the memory of w8.mnn: MNN crashed with SIGABRT")],
    )
    assert roots(results) == [("execution", "MNQ201", "")]
    (root,) = with_root_causes("execution", results).findings
    assert [one.check for one in root.consequences] == ["latency", "memory"]


def test_nothing_left_to_judge_is_no_cause() -> None:
    results = told(
        weights=[Finding("MNQ001", "nothing compared")],
        conversion=[Finding("MNQ203", "another network")],
    )
    assert roots(results) == [("conversion", "MNQ203", "")]


def test_warnings_and_gaps_stay_beside_the_error() -> None:
    results = told(
        coverage=[Finding("MNQ404", "matches nothing"), Finding("MNQ401", "is float", "a"), Finding("MNQ003", "gap")]
    )
    assert [one.code for one in with_root_causes("coverage", results).findings] == ["MNQ401", "MNQ404", "MNQ003"]


IGNORES = Cause("scale-ignores-input", "it ignores its input")
LOCATED = Cause("scale-ignores-input+operator-computes-otherwise", "it ignores its input; it computes otherwise")


def test_a_difference_between_apis_follows_from_what_its_mechanism_does_to_the_outputs() -> None:
    results = told(
        execution=[Finding("MNQ630", "the APIs differ", "norm", IGNORES, "export it otherwise")],
        accuracy=[Finding("MNQ702", "unlike", "norm", LOCATED, "leave head float")],
    )
    assert roots(results) == [("accuracy", "MNQ702", "norm")]
    (root,) = with_root_causes("accuracy", results).findings
    assert [(one.check, one.code, one.layer) for one in root.consequences] == [("execution", "MNQ630", "norm")]
    (effect,) = with_root_causes("execution", results).findings
    assert (effect.severity, effect.follows) == (Severity.CONSEQUENCE, root.id)


@pytest.mark.parametrize("cause", [None, STALE], ids=["unknown", "another"])
def test_a_difference_between_apis_of_another_mechanism_explains_the_outputs(cause: Cause | None) -> None:
    results = told(
        execution=[Finding("MNQ630", "the APIs differ", "up", cause)],
        accuracy=[Finding("MNQ702", "unlike", "norm", LOCATED)],
    )
    assert roots(results) == [("execution", "MNQ630", "up")]


def test_what_explains_the_outputs_explains_the_difference_between_apis_too() -> None:
    results = told(
        weights=[Finding("MNQ418", "by address", "add")],
        execution=[Finding("MNQ630", "the APIs differ", "norm", IGNORES)],
        accuracy=[Finding("MNQ702", "unlike", "norm", LOCATED)],
    )
    assert roots(results) == [("weights", "MNQ418", "add")]
