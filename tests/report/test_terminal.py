"""The summary of the terminal: one row a variant, one line of verdict a model, no line wider than the terminal."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.record import CheckRecord
from pytest_mnnquant.report.rows import COLUMNS, rows_of
from pytest_mnnquant.report.terminal import write_summary
from pytest_mnnquant.report.width import width
from tests.golden_text import check_golden
from tests.report.made import record
from tests.results import accuracy, coverage, latency, memory, size, task

Records = list[CheckRecord]


TOP1 = accuracy(task("top-1", 0.9, 0.8875))


def full(label: str = "w8", of_outputs: AccuracyMetrics = TOP1) -> Records:
    return [
        record(Result.from_findings("size", [], size(3.456)), label),
        record(Result.from_findings("coverage", [], coverage(0.98765)), label),
        record(Result.from_findings("accuracy", [], of_outputs), label),
        record(Result.from_findings("latency", [], latency(1.234)), label),
    ]


def rows(records: Records, strict: bool = False) -> list[tuple[str, ...]]:
    (model,) = build_report(records, {}).models
    return [(row.label, *row.texts, row.verdict) for row in rows_of(model, strict)]


def test_a_variant_is_a_row_of_its_figures() -> None:
    assert rows(full()) == [("w8", "3.46x smaller", "98.8%", "top-1 -0.0125", "1.23x float", "-", "ok")]
    assert len(COLUMNS) == 5


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        (accuracy(task("top-1", 0.5, 0.5)), "top-1 +-0"),
        (accuracy(task("mean IoU", 0.5, 0.51)), "mean IoU +0.0100"),
        (accuracy(a=0.99, b=0.5), "cosine 0.5000"),
        (accuracy(a=None), "-"),
    ],
    ids=str,
)
def test_accuracy_is_shown_as_what_was_judged(metrics: AccuracyMetrics, shown: str) -> None:
    (row,) = rows(full("w8", metrics))
    assert row[3] == shown


def test_the_verdict_names_what_failed_or_stayed_open() -> None:
    records = [
        record(Result.from_findings("size", [Finding("MNQ801", "x")]), "a"),
        record(Result.from_findings("coverage", [Finding("MNQ401", "x")]), "a"),
        record(Result.from_findings("execution", [Finding("MNQ002", "x")]), "b"),
        record(Result.skipped("accuracy", "no data"), "c"),
    ]
    assert [row[-1] for row in rows(records)] == ["FAILED: size, coverage", "inconclusive: execution", "not judged"]
    assert all(row[1:6] == ("-",) * 5 for row in rows(records))
    strict = [row[-1] for row in rows(records, strict=True)]
    assert strict == ["FAILED: size, coverage", "FAILED: execution", "FAILED: accuracy"]


def test_models_have_tables_of_their_own_and_a_repeated_check_counts_once() -> None:
    first, second = (
        Result.from_findings("size", [Finding("MNQ801", "x")]),
        Result.from_findings("size", [], size(2.0)),
    )
    records = [record(first), record(second), record(second, model="other")]
    lines = summary(records)
    assert [line.partition(":")[0] for line in lines if "(1 passed)" in line] == ["digits", "other"]
    check_golden("report-terminal/tables-of-two-models", "\n".join(lines))


class Reporter:
    """Takes down what is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_sep(self, _: str, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str, **_: Any) -> None:
        self.lines.append(line)


def summary(records: Records, verbosity: int = 0, columns: int = 80) -> list[str]:
    reporter = Reporter()
    write_summary(reporter, build_report(records, {}), verbosity, columns)
    return reporter.lines


def test_the_summary_has_a_table_with_columns_in_line_and_a_verdict() -> None:
    lines = summary([*full("w8"), *full("a much longer label")], columns=120)
    assert lines[:2] == ["MNN quantization", "digits"]
    head, first, second = lines[2:5]
    assert head.split() == ["variant", "size", "coverage", "accuracy", "latency", "verdict"]
    assert first.index("3.46x") == second.index("3.46x") == head.index("size")
    check_golden("report-terminal/a-table-in-line", "\n".join(lines))
    assert summary([]) == []


def test_a_narrow_terminal_loses_units_then_places_then_names() -> None:
    failed = [
        record(Result.from_findings(name, [Finding("MNQ801", "x")]), "w8")
        for name in ("params", "weights", "execution")
    ]
    records = [*full("w8"), *failed]
    for columns in (120, 90, 67):
        lines = summary(records, columns=columns)
        assert max(map(len, lines[2:5])) < columns
        check_golden(f"report-terminal/{columns}-columns", "\n".join(lines))
    long = summary(full("a-pipeline-of-ones-own"), columns=67)
    assert len(long[4]) < 67
    check_golden("report-terminal/a-name-too-long-for-67-columns", "\n".join(long))


def test_the_widest_figures_of_all_do_not_break_the_lines() -> None:
    records = [
        *full("int8-train", accuracy(task("characters", 0.5, 0.4))),
        record(Result.from_findings("memory", [], memory(12.5)), "int8-train"),
        record(Result.from_findings("execution", [Finding("MNQ002", "no trace")]), "int8-train"),
        record(Result.from_findings("size", [], size(0.5)), "int8-train"),
    ]
    for columns in (80, 100, 120, 200):
        lines = summary(records, columns=columns)
        assert max(map(width, lines)) < columns
        assert any("2.00x LARGER" in line and "12.50x" in line and "1.23x" in line for line in lines)


def test_quiet_is_the_verdict_alone() -> None:
    lines = summary([*full("w8"), record(Result.skipped("params", "none"))], verbosity=-1)
    check_golden("report-terminal/quiet", "\n".join(lines))


def test_the_verdict_of_a_failing_model_names_the_root() -> None:
    root = Finding("MNQ304", "no such tensor", "/conv1/Conv")
    effect = Finding("MNQ401", "is float", "/conv1/Conv", follows=FindingId("MNQ304", "params", "/conv1/Conv"))
    records = [record(Result.from_findings("params", [root])), record(Result.from_findings("coverage", [effect]))]
    said = summary(records, verbosity=-1)[1]
    check_golden("report-terminal/verdict-of-a-root", said)
    assert summary(records, verbosity=-1, columns=100)[1] == f"{said} (2 failed)"
    long = [
        record(Result.from_findings("params", [dataclasses.replace(root, layer="/stage1/block2/conv3/Conv_output_0")]))
    ]
    said = summary(long, verbosity=-1)[1]
    check_golden("report-terminal/verdict-of-a-long-layer", said)
    assert len(said) == 79


def test_names_in_chinese_are_in_line() -> None:
    lines = summary([*full("w8"), *full("流水线")], columns=100)
    head, first, second = (line[: line.index("s" if "size" in line else "3.46x")] for line in lines[2:5])
    assert width(head) == width(first) == width(second) == 11


@given(
    label=st.text(max_size=60),
    model=st.text(min_size=1, max_size=60),
    layer=st.text(max_size=60),
    columns=st.integers(80, 200),
    verbosity=st.integers(-1, 1),
)
def test_no_line_is_wider_than_the_terminal(label: str, model: str, layer: str, columns: int, verbosity: int) -> None:
    bad = record(Result.from_findings("params", [Finding("MNQ304", f"{layer} is not there", layer)]), label, model)
    lines = summary([*(dataclasses.replace(one, model=model) for one in full(label)), bad], verbosity, columns)
    for line in lines:
        assert line.isprintable()
        assert width(line) < columns or max(map(width, line.split())) > 40


def test_warnings_and_unjudged_checks_are_said() -> None:
    warned = Result.from_findings("bundle", [Finding("MNQ804", "uuids differ")])
    labels = ("a", "b", "c")
    records = [record(warned, label) for label in labels]
    records += [record(Result.skipped("accuracy", "no data"), label) for label in labels]
    records += [record(Result.from_findings("execution", [Finding("MNQ002", "no trace")]), "a")]
    brief, verbose = summary(records), summary(records, verbosity=1)
    check_golden("report-terminal/warnings-and-unjudged", "\n".join(brief))
    check_golden("report-terminal/warnings-and-unjudged-at-length", "\n".join(verbose))
