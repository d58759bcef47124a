"""A failed check: whole names, each cause once, never longer than a screen."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.report.failure import COLUMNS, LINES, failure_text, findings_text
from pytest_mnnquant.report.width import width
from tests.golden_text import check_golden


def text(*findings: Finding) -> str:
    return failure_text("digits int8-eval", Result.from_findings("coverage", findings))


def test_a_failure_says_where_what_why_and_how() -> None:
    said = text(
        Finding("MNQ401", "is stored as float32", "/conv1", Cause("name-mismatch", "name does not match"), "rename it")
    )
    check_golden("report-failure/where-what-why-and-how", said)


def test_errors_come_before_warnings() -> None:
    said = text(Finding("MNQ804", "uuids differ"), Finding("MNQ401", "is float", "b"))
    assert said.index("MNQ401") < said.index("MNQ804")
    check_golden("report-failure/errors-come-before-warnings", said)


def test_the_headline_counts_further_places() -> None:
    findings = [Finding("MNQ401", "is float", name) for name in ("a", "b", "c")]
    check_golden("report-failure/the-headline-counts-further-places", text(*findings))


def test_a_cause_is_told_once_until_another_comes() -> None:
    same = [
        Finding("MNQ401", "is float", name, Cause("same", "the same cause"), "the same remedy") for name in ("a", "b")
    ]
    said = text(*same, Finding("MNQ401", "is float", "c", Cause("another", "another cause"), "the same remedy"))
    assert said.count("the same cause") == 1
    assert said.count("the same remedy") == 1
    assert said.count("another cause") == 1


def test_many_findings_are_cut_with_their_number() -> None:
    said = text(*(Finding("MNQ401", "is float", f"layer{number}") for number in range(9)))
    assert "layer5" in said
    assert "layer6:" not in said
    check_golden("report-failure/many-findings-are-cut-with-their-number", said)


def test_without_a_report_nothing_refers_to_it() -> None:
    findings = [Finding("MNQ401", "is float", f"layer{number}") for number in range(9)]
    result = Result.from_findings("coverage", findings)
    first, second = failure_text("net", result), failure_text("net", result, in_report=False)
    assert "--mnn-report" in first
    assert "--mnn-report" not in second
    assert len(first.splitlines()) == len(second.splitlines())


def test_a_check_without_findings_says_its_reason() -> None:
    check_golden(
        "report-failure/a-check-without-findings-says-its-reason",
        failure_text("digits int8-eval", Result.skipped("accuracy", "no data")),
    )


NAMES = st.lists(
    st.text(st.characters(categories=["L", "N"], include_characters="/._-"), min_size=1, max_size=30),
    min_size=1,
    max_size=7,
)


@given(names=NAMES)
@example(names=["my-net/conv-bn-relu-of-the-first-stage", "a-name-with-many-hyphens-in-it"] * 3)
def test_names_and_commands_stay_whole(names: list[str]) -> None:
    long = " ".join(f"--flag={name}" for name in names)
    said = text(Finding("MNQ401", long, names[0], None, long))
    words = [word for word in said.split() if word.startswith("--flag=")]
    assert words == 2 * long.split()
    lines = said.splitlines()[1:]
    assert all(width(line) <= COLUMNS or len(line.split()) <= 3 for line in lines)


WORDS = st.text(max_size=120) | st.sampled_from(["x" * 500, "层" * 300, "a\nb\n" * 40, "word " * 200, "\x1b[2J", ""])
FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(sorted(RULES)),
    message=WORDS,
    layer=WORDS,
    cause=st.none() | st.builds(Cause, st.just("some"), WORDS),
    fix=WORDS,
    follows=st.sampled_from([None, FindingId("MNQ304", "params", "conv")]),
)
TREES = st.builds(
    lambda head, below: dataclasses.replace(head, consequences=tuple(below)),
    FINDINGS,
    st.lists(st.builds(lambda one, check: dataclasses.replace(one, check=check), FINDINGS, WORDS), max_size=9),
)


def rows(said: str) -> int:
    """How many rows of a terminal of 80 columns a text takes."""
    return sum(max(1, math.ceil(width(line) / COLUMNS)) for line in said.split("\n"))


@given(st.lists(TREES, min_size=1, max_size=9), WORDS)
@example([Finding("MNQ401", "m " * 400, "层" * 200, Cause("c", "c\n" * 90), "r " * 400)] * 8, "net")
def test_a_failure_is_never_longer_than_25_lines_of_80_columns(findings: list[Finding], name: str) -> None:
    for said in (
        failure_text(name, Result.skipped("latency", name)),
        failure_text(name, Result.from_findings("coverage", findings)),
    ):
        lines = said.split("\n")
        assert rows(said) <= 25 == LINES
        assert all(line.isprintable() for line in lines)
    assert any(f" {one.code} {one.rule.name}" in lines[0] or one.follows for one in findings)


def test_findings_fill_the_lines_and_no_more() -> None:
    found = [
        rows(
            text(
                *(
                    Finding("MNQ401", "m " * words, f"a{one}", Cause("some", f"{one} " * causes), f"{one} fix ")
                    for one in range(count)
                )
            )
        )
        for words in (1, 60, 240)
        for causes in (1, 60, 240)
        for count in (2, 3, 7)
    ]
    assert max(found) == LINES


def test_what_a_long_failure_leaves_out_is_in_the_report() -> None:
    log = "\n".join(f"line {number}" for number in range(40))
    said = text(
        Finding(
            "MNQ201",
            "running net.mnn: MNN crashed",
            "",
            Cause("native-log", f"last lines of MNN's log:\n{log}"),
            "look at it",
        )
    )
    for part in (
        "running net.mnn: MNN crashed",
        "why: last lines of MNN's log:",
        "line 0",
        "line 39",
        "fix: look at it",
    ):
        assert part in said
    assert "line 20" not in said
    check_golden("report-failure/what-a-long-failure-leaves-out", said)


def test_the_first_finding_keeps_what_was_measured_why_and_what_to_do() -> None:
    said = text(
        *(
            Finding("MNQ401", "word " * 300, f"layer{number}", Cause("some", "cause " * 300), "remedy " * 300)
            for number in "ab"
        )
    )
    assert [said.count(part) for part in ("layera", "    why: ", "    fix: ")] == [2, 1, 1]
    check_golden("report-failure/the-first-finding-keeps-what-was-measured-why", said)


def test_text_for_the_cursor_is_shown_and_not_obeyed() -> None:
    said = findings_text(
        "baseline failed:", Result.from_findings("entries", [Finding("MNQ912", "a\x1b[31mred\x07", "b\x1b")])
    )
    assert "\x1b" not in said
    assert "a\\x1b[31mred\\x07" in said


def test_fewer_other_layers_are_listed_if_the_consequences_would_not_fit() -> None:
    def found(check: str, code: str, layer: str, words: int) -> Finding:
        return Finding(code, "word " * words, layer, check=check)

    also = [found("params", "MNQ304", f"/layer.{number}", 40) for number in range(3)]
    effects = [*also, found("coverage", "MNQ401", "/layer.0", 1), found("size", "MNQ801", "", 1)]
    shown_layers = []
    for words in (1, 60, 100, 140):
        first = dataclasses.replace(
            found("params", "MNQ304", "/first", words), fix="word " * 90, consequences=tuple(effects)
        )
        lines = findings_text("net int8: params failed:", Result.from_findings("params", [first])).splitlines()
        assert [line.split()[3] for line in lines if line.startswith("    leads to: ")] == ["MNQ401", "MNQ801"]
        assert rows("\n".join(lines)) <= LINES
        shown_layers.append(sum(line.startswith("    also /layer.") for line in lines))
    assert shown_layers[0] == 2
    assert shown_layers[-1] == 0
