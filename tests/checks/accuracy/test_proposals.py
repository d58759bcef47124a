"""The alternatives that were tried for a failing accuracy, and the fix line that they become."""

from __future__ import annotations

import pytest

from pytest_mnnquant.checks.accuracy.proposals import Proposal, SearchResult, with_search
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from tests.golden_text import check_golden
from tests.results import known, measured


def proposal(
    *options: str, passes: bool = True, quality: float = 0.0, share: float = 0.0, ratio: float = 3.5
) -> Proposal:
    return Proposal(options, passes, f"top-1 {0.99 + quality:.2f}", quality, ratio, share)


def test_the_one_that_leaves_least_float_is_told_first() -> None:
    found = SearchResult(
        (
            proposal("--mnn-skip-layer='a'", share=0.08),
            proposal("--mnn-skip-layer='b'", share=0.02),
            proposal("--mnn-recipe=int8-kl", passes=False, quality=-0.05),
            proposal("--mnn-recipe=w8", ratio=3.4),
        ),
        12.0,
        True,
    )
    check_golden("accuracy/the-one-that-leaves-least-float-is-told-first", found.text)


@pytest.mark.parametrize(("complete", "end"), [(True, "none-passes"), (False, "time-over")])
def test_where_none_passes_the_best_is_told_and_nothing_is_proposed(complete: bool, end: str) -> None:
    tried = (proposal("--mnn-recipe=w3", passes=False, quality=-0.3), proposal("-x", passes=False, quality=-0.5))
    text = SearchResult(tried, 12.0, complete, "more data would not help").text
    check_golden(f"accuracy/best-proposal-{end}", text)


def test_a_long_list_that_does_not_pass_is_cut() -> None:
    options = tuple(f"--mnn-skip-layer='{number}'" for number in range(9))
    check_golden("accuracy/a-long-list-that-does-not-pass-is-cut", proposal(*options, passes=False).text)
    assert "--mnn-skip-layer='8' (top-1" in proposal(*options).text


def test_what_gives_up_more_is_told_as_that() -> None:
    tried = (
        proposal("-x", passes=False, quality=-0.5),
        Proposal(("-r",), True, "top-1 0.99", 0.0, 3.4, 0.0, "int8 arithmetic"),
    )
    text = SearchResult(tried, 12.0, True).text
    check_golden("accuracy/what-gives-up-more-is-told", text)


def test_the_command_that_makes_the_model_ends_the_fix_alone_on_its_line() -> None:
    command = "pytest-mnnquant convert -f MNN --modelFile float.mnn --MNNModel net.mnn --compressionParamsFile p.bin"
    tried = (
        proposal(command, "--mnn-params=p.bin", "--mnn-skip-layer=/a", "--mnn-skip-layer=/b", share=0.1),
        proposal(command, "--mnn-params=p.bin", "--mnn-skip-layer=/a", share=0.02),
    )
    text = SearchResult(tried, 12.0, True).text
    check_golden("accuracy/the-command-that-makes-the-model-ends-the-fix", text)
    assert text.splitlines()[1:] == [command]


def test_the_remedy_of_a_lost_accuracy_becomes_what_was_found() -> None:
    findings = [Finding("MNQ701", "worse", fix="use more bits"), Finding("MNQ710", "pools", fix="nothing")]
    result = with_search(
        Result.from_findings("accuracy", findings), SearchResult((proposal("--mnn-recipe=w8"),), 1.0, True)
    )
    check_golden("accuracy/the-remedy-of-a-lost-accuracy-becomes", result.findings[0].fix)
    assert result.findings[1].fix == "nothing"
    assert known(measured(AccuracyMetrics, result).tried)[0].options == ("--mnn-recipe=w8",)


def test_where_nothing_could_be_tried_the_way_to_try_is_told() -> None:
    check_golden("accuracy/where-nothing-could-be-tried-the-way-to-try", SearchResult((), 0.0, True).text)


def test_a_passed_check_is_left_alone() -> None:
    passed = Result.from_findings("accuracy", [])
    assert with_search(passed, SearchResult((), 0.0, True)) is passed
