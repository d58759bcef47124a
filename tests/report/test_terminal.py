"""What the terminal says: whole names, each cause once, one row a variant, nothing unjudged unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_mnnquant.checks.finding import Finding, Result, judge, skipped
from pytest_mnnquant.report.terminal import COLUMNS, failure_text, tables, write_summary

Records = list[Mapping[str, Any]]


@dataclass
class Case:
    label: str = "int8[eval]"
    gate: Any = field(default_factory=lambda: SimpleNamespace(settings=SimpleNamespace(name="digits")))


def text(*findings: Finding) -> str:
    return failure_text(Case(), judge("coverage", findings, {}))


def test_a_failure_says_where_what_why_and_how() -> None:
    said = text(Finding("MNQ401", "is stored as float32", "/conv1", "name does not match", "rename it"))
    assert said.splitlines() == [
        "digits int8[eval]: coverage failed: MNQ401 layer-is-float in /conv1",
        "  MNQ401 layer-is-float  /conv1: is stored as float32",
        "    why: name does not match",
        "    fix: rename it",
    ]


def test_errors_come_before_warnings() -> None:
    said = text(Finding("MNQ804", "uuids differ"), Finding("MNQ401", "is float", "b"))
    assert said.index("MNQ401") < said.index("MNQ804")
    assert said.splitlines()[0].endswith("MNQ401 layer-is-float in b")


def test_the_headline_counts_further_places() -> None:
    findings = [Finding("MNQ401", "is float", name) for name in ("a", "b", "c")]
    assert text(*findings).splitlines()[0].endswith("MNQ401 layer-is-float in a and 2 more")


def test_a_cause_is_told_once_until_another_comes() -> None:
    same = [Finding("MNQ401", "is float", name, "the same cause", "the same remedy") for name in ("a", "b")]
    said = text(*same, Finding("MNQ401", "is float", "c", "another cause", "the same remedy"))
    assert said.count("the same cause") == 1
    assert said.count("the same remedy") == 1
    assert said.count("another cause") == 1


def test_many_findings_are_cut_with_their_number() -> None:
    said = text(*(Finding("MNQ401", "is float", f"layer{number}") for number in range(9)))
    assert "layer5" in said
    assert "layer6:" not in said
    assert "and 3 more (--mnn-report=report.json lists all)" in said


def test_a_check_without_findings_says_its_reason() -> None:
    assert failure_text(Case(), skipped("accuracy", "no data")) == "digits int8[eval]: accuracy skipped: no data"


NAMES = st.lists(st.text(st.characters(categories=["L", "N"], include_characters="/._-"), min_size=1), min_size=1)


@given(names=NAMES)
@example(names=["my-net/conv-bn-relu-of-the-first-stage", "a-name-with-many-hyphens-in-it"] * 3)
def test_names_and_commands_stay_whole(names: list[str]) -> None:
    long = " ".join(f"--flag={name}" for name in names)
    said = text(Finding("MNQ401", long, names[0], "", long))
    words = [word for word in said.split() if word.startswith("--flag=")]
    assert words == 2 * long.split()
    lines = said.splitlines()[1:]
    assert all(len(line) <= 80 or len(line.split()) <= 3 for line in lines)


def record(check: Result, label: str = "int8[eval]", model: str = "digits") -> Mapping[str, Any]:
    variant = {"recipe": "w8", "mode": None}
    return {"model": model, "label": label, "variant": variant, "check": check.as_json()}


def full(label: str = "w8", **more: Any) -> Records:
    accuracy = {"task": {"label": "top-1", "float": 0.9, "quantized": 0.8875}, "outputs": {}}
    return [
        record(judge("size", [], {"size_ratio": 3.456}), label),
        record(judge("coverage", [], {"coverage": 0.98765}), label),
        record(judge("accuracy", [], {**accuracy, **more}), label),
        record(judge("latency", [], {"latency_ratio": 1.234}), label),
    ]


def test_a_variant_is_a_row_of_its_figures() -> None:
    assert tables(full()) == [("digits", [("w8", "3.46x smaller", "98.8%", "top-1 -0.0125", "1.23x float", "-", "ok")])]
    assert len(COLUMNS) == 7


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"task": {"label": "top-1", "float": 0.5, "quantized": 0.5}}, "top-1 +-0"),
        ({"task": {"label": "mean IoU", "float": 0.5, "quantized": 0.51}}, "mean IoU +0.0100"),
        ({"task": None, "outputs": {"a": {"cosine": 0.99}, "b": {"cosine": 0.5}}}, "cosine 0.5000"),
        ({"task": None, "outputs": {"a": {"cosine": None}}}, "-"),
    ],
    ids=str,
)
def test_accuracy_is_shown_as_what_was_judged(metrics: dict[str, Any], shown: str) -> None:
    ((_, (row,)),) = tables(full(**metrics))
    assert row[3] == shown


def test_the_verdict_names_what_failed_or_stayed_open() -> None:
    records = [
        record(judge("size", [Finding("MNQ801", "x")], {}), "a"),
        record(judge("coverage", [Finding("MNQ401", "x")], {}), "a"),
        record(judge("execution", [Finding("MNQ002", "x")], {}), "b"),
        record(skipped("accuracy", "no data"), "c"),
    ]
    ((_, rows),) = tables(records)
    assert [row[-1] for row in rows] == ["FAILED: size, coverage", "ok (inconclusive: execution)", "ok"]
    assert all(row[1:5] == ("-", "-", "-", "-") for row in rows)


def test_models_have_tables_of_their_own_and_a_repeated_check_counts_once() -> None:
    first, second = judge("size", [Finding("MNQ801", "x")], {}), judge("size", [], {"size_ratio": 2.0})
    records = [record(first), record(second), record(second, model="other")]
    assert [(name, [row[-1] for row in rows]) for name, rows in tables(records)] == [
        ("digits", ["ok"]),
        ("other", ["ok"]),
    ]


class Reporter:
    """Takes down what is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str, **_: Any) -> None:
        self.lines.append(title)

    def write_line(self, line: str, **_: Any) -> None:
        self.lines.append(line)


def summary(records: Records, verbose: bool = False) -> list[str]:
    reporter = Reporter()
    write_summary(reporter, records, verbose)
    return reporter.lines


def test_the_summary_has_a_table_with_columns_in_line() -> None:
    lines = summary([*full("w8"), *full("a much longer label")])
    assert lines[:2] == ["MNN quantization", "digits"]
    head, first, second = lines[2:5]
    assert head.split()[:2] == ["variant", "size"]
    assert first.index("3.46x") == second.index("3.46x") == head.index("size")
    assert summary([]) == []


def test_warnings_and_unjudged_checks_are_said() -> None:
    warned = judge("bundle", [Finding("MNQ804", "uuids differ")], {})
    labels = ("a", "b", "c")
    records = [record(warned, label) for label in labels]
    records += [record(skipped("accuracy", "no data"), label) for label in labels]
    records += [record(judge("execution", [Finding("MNQ002", "no trace")], {}), "a")]
    brief, verbose = summary(records), summary(records, verbose=True)
    assert "  warning MNQ804 bundle-mixed: digits a: uuids differ (and 2 more)" in brief
    assert "  accuracy skipped: no data (3 variants)" in brief
    assert "  execution inconclusive: no trace (digits a)" in brief
    assert "    digits c: uuids differ" in verbose
    assert "  accuracy skipped: no data (digits a, digits b, digits c)" in verbose
