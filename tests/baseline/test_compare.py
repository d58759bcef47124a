"""Figures against accepted ones: each by its tolerance; no evidence is no pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.baseline.compare import check_baseline
from pytest_mnnquant.baseline.entry import Entry, Tolerances
from pytest_mnnquant.baseline.fixes import Commands
from pytest_mnnquant.baseline.judges import Evidence
from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics, Compared
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Finding, Result
from pytest_mnnquant.findings.metric import KEYS
from pytest_mnnquant.statistics.paired_ratio import PairedRatio
from tests.golden_text import check_golden
from tests.history.accepted import HOST, entry, figures
from tests.results import known, measured

COMMANDS = Commands(
    "pytest net.py:build::w8::baseline --mnn-update-baseline", "pytest net.py:build::w8::baseline -p no:xdist"
)


def compared(accepted: Entry | None = None, *, host: dict[str, str] = HOST, **now: Any) -> Result:
    evidence = Evidence(figures(**now), {"MNN": "3.6.1"}, host)
    return check_baseline(evidence, accepted or entry(), COMMANDS)


def codes(result: Result) -> list[str]:
    return [finding.code for finding in result.findings]


def test_the_same_passes_and_both_are_in_the_metrics() -> None:
    result = compared()
    assert (result.outcome, result.findings) == (PASSED, ())
    assert known(measured(BaselineMetrics, result).compared)["size"] == Compared(accepted=6000, now=6000)
    assert set(known(measured(BaselineMetrics, result).compared)) == set(KEYS)


@pytest.mark.parametrize(
    ("name", "value"), [("size", 6061), ("coverage", 0.99), ("accuracy", 0.894), ("memory", 73_501)]
)
def test_what_is_worse_fails_and_says_how_much_was_allowed(name: str, value: float) -> None:
    now: dict[str, Any] = {name: value}
    result = compared(**now)
    assert (result.outcome, codes(result)) == (FAILED, ["MNQ913"])
    (finding,) = result.findings
    check_golden(f"baseline/worse-{name}", finding.message)
    check_golden("baseline/fix", finding.fix)


@pytest.mark.parametrize(
    "now", [{"size": 6060}, {"coverage": 0.999999}, {"accuracy": 0.895}, {"memory": 73_500}, {"size": 5900}]
)
def test_what_is_allowed_passes(now: dict[str, Any]) -> None:
    assert compared(**now).outcome == PASSED


@given(st.sampled_from(["size", "memory"]), st.integers(1, 10**12), st.floats(0, 3), st.floats(0.5, 5))
def test_bytes_fail_exactly_beyond_their_share(name: str, was: int, allowed: float, factor: float) -> None:
    now = round(was * factor)
    limits = dataclasses.replace(Tolerances(accuracy=0.005), **{name: allowed})
    before: dict[str, Any] = {name: was}
    after: dict[str, Any] = {name: now}
    change = now / was - 1 - allowed
    if abs(change) > 1e-5:
        assert ("MNQ913" in codes(compared(entry(tolerances=limits, **before), **after))) == (change > 0)


def test_errors_are_worse_when_they_rise_and_relative_to_what_they_were() -> None:
    accepted = entry(tolerances=Tolerances(accuracy_relative=0.01), accuracy=20.0, metric="rmse", lower_is_better=True)
    how: dict[str, Any] = {"metric": "rmse", "lower_is_better": True}
    assert compared(accepted, accuracy=20.19, **how).outcome == PASSED
    assert compared(accepted, accuracy=19.9, **how).outcome == PASSED
    (finding,) = compared(accepted, accuracy=20.3, **how).findings
    assert finding.code == "MNQ913"
    check_golden("baseline/a-rise-of-an-error", finding.message)


def test_where_both_limits_of_accuracy_are_given_both_hold() -> None:
    for limits in (Tolerances(accuracy=0.1, accuracy_relative=0.01), Tolerances(accuracy=0.009, accuracy_relative=1.0)):
        assert codes(compared(entry(tolerances=limits), accuracy=0.89)) == ["MNQ913"]
        assert compared(entry(tolerances=limits), accuracy=0.892).outcome == PASSED


@pytest.mark.parametrize("name", KEYS)
def test_a_figure_that_was_not_measured_is_a_gap(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    evidence = Evidence(figures(**unknown), host=HOST, unmeasured={name: "there was no data"})
    result = check_baseline(evidence, entry(), COMMANDS)
    assert (result.outcome, codes(result)) == (INCONCLUSIVE, ["MNQ003"])
    check_golden(f"baseline/not-measured-{name}", result.reason)


@pytest.mark.parametrize("name", KEYS)
def test_a_figure_without_tolerance_is_not_compared(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    limits = dataclasses.replace(Tolerances(accuracy=0.005), **unknown)
    assert compared(entry(tolerances=limits), **unknown).outcome == PASSED


@pytest.mark.parametrize("name", KEYS)
def test_a_figure_that_is_not_accepted_yet_is_told(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    result = compared(entry(**unknown))
    assert (result.outcome, codes(result)) == (INCONCLUSIVE, ["MNQ917"])
    check_golden(f"baseline/not-accepted-yet-{name}", result.findings[0].message)
    if name == "accuracy":
        unknown |= {"accuracy_relative": None}
    limits = dataclasses.replace(Tolerances(accuracy=0.005), **unknown)
    missing: dict[str, Any] = {name: None}
    assert compared(entry(tolerances=limits, **missing)).outcome == PASSED


def test_the_kept_model_is_no_slower_than_itself() -> None:
    stored = entry(ratio=0.1, ratio_low=0.1, ratio_high=0.1)
    assert codes(compared(stored)) == ["MNQ915"]
    assert check_baseline(Evidence(figures(), host=HOST, is_kept=True), stored, COMMANDS).outcome == PASSED


def test_another_metric_is_another_figure() -> None:
    result = compared(accuracy=0.99, metric="cosine")
    assert (result.outcome, codes(result)) == (INCONCLUSIVE, ["MNQ003"])
    check_golden("baseline/another-metric", result.reason)


@pytest.mark.parametrize("now", [{"size": 5000}, {"accuracy": 0.95}, {"memory": 50_000}])
def test_what_is_far_better_is_told(now: dict[str, Any]) -> None:
    result = compared(**now)
    assert (result.outcome, codes(result)) == (PASSED, ["MNQ916"])
    assert COMMANDS.accept in result.findings[0].fix
    assert codes(compared(entry(coverage=0.9))) == ["MNQ916"]


def test_layers_that_are_stored_otherwise_are_named() -> None:
    result = compared(layers={"conv": "float32", "new": "w8"})
    assert result.outcome == FAILED
    assert [(one.code, one.layer) for one in result.findings] == [("MNQ914", name) for name in ("conv", "new", "head")]
    check_golden("baseline/layers-stored-otherwise", "\n".join(one.message for one in result.findings))
    assert measured(BaselineMetrics, result).stored_otherwise == ("conv", "new", "head")


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(1.26, 1.4, FAILED), (1.2, 1.3, INCONCLUSIVE), (1.0, 1.24, PASSED)]
)
def test_a_stored_ratio_fails_only_where_its_interval_is_above(low: float, high: float, outcome: str) -> None:
    result = compared(ratio=(low + high) / 2, ratio_low=low, ratio_high=high)
    assert result.outcome == outcome
    assert codes(result) == {FAILED: ["MNQ915"], INCONCLUSIVE: ["MNQ003"], PASSED: []}[outcome]


def test_figures_of_another_machine_are_not_compared() -> None:
    other_processor = {**HOST, "processor": "another"}
    result = compared(host=other_processor)
    assert (result.outcome, codes(result)) == (INCONCLUSIVE, ["MNQ003"])
    assert "ratio" in result.reason
    assert codes(compared(host=other_processor, memory=90_000)) == ["MNQ003", "MNQ913"]
    assert codes(compared(host={**HOST, "machine": "aarch64"}, memory=90_000)) == ["MNQ003", "MNQ003"]
    assert codes(compared(host={**HOST, "threads": "4"}, memory=90_000)) == ["MNQ003", "MNQ003"]


@pytest.mark.parametrize(
    ("low", "high", "pairs", "outcome"),
    [(1.11, 1.2, 150, FAILED), (1.05, 1.15, 150, INCONCLUSIVE), (0.9, 1.09, 150, PASSED), (2.0, 2.1, 9, INCONCLUSIVE)],
)
def test_timed_beside_the_accepted_model_ten_percent_are_allowed(
    low: float, high: float, pairs: int, outcome: str
) -> None:
    # The stored ratio says nothing then: it is of two runs.
    now = figures(ratio=9.0, ratio_low=8.9, ratio_high=9.1)
    evidence = Evidence(now, host=HOST, paired=PairedRatio((low + high) / 2, low, high, pairs))
    result = check_baseline(evidence, entry(), COMMANDS)
    assert result.outcome == outcome
    assert measured(BaselineMetrics, result).paired_ratio_low == low


def test_an_accepted_model_that_can_not_be_timed_is_told() -> None:
    gap = Finding("MNQ003", "ratio: the accepted model is not kept")
    assert check_baseline(Evidence(figures(), host=HOST, unpaired=gap), entry(), COMMANDS).outcome == INCONCLUSIVE
    limits = Tolerances(accuracy=0.005, ratio_paired=None)
    assert (
        check_baseline(Evidence(figures(), host=HOST, unpaired=gap), entry(tolerances=limits), COMMANDS).findings == ()
    )


def test_what_else_changed_is_the_cause() -> None:
    def cause(sha256: str, float_sha256: str, version: str) -> Cause | None:
        now = figures(size=9000, sha256=sha256, float_sha256=float_sha256)
        (finding,) = check_baseline(Evidence(now, {"MNN": version}, HOST), entry(), COMMANDS).findings
        return finding.cause

    def cause_id(*given: str) -> str:
        found = cause(*given)
        return found.id if found else ""

    assert cause_id("aa", "ff", "3.6.1") == "file-unchanged"
    assert cause_id("bb", "00", "3.6.1") == "float-model-changed"
    assert cause_id("bb", "00", "3.7.0") == "float-model-changed+versions-changed"
    assert cause("bb", "ff", "3.7.0") == Cause("versions-changed", "MNN 3.6.1 -> 3.7.0")
    assert cause("bb", "ff", "3.6.1") is None
