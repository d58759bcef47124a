"""The host and targets side by side: a row for the float model, for the host, and for each target."""

from __future__ import annotations

import dataclasses
import json

from pytest_mnnquant.findings.accuracy_metrics import AsRun, TargetDifference
from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.report import json_report, markdown
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.html_view import model_views
from pytest_mnnquant.report.model import ModelReport
from pytest_mnnquant.report.record import CheckRecord
from pytest_mnnquant.report.target_table import target_cells, target_lines
from pytest_mnnquant.report.width import width
from tests.golden_text import check_golden
from tests.report import made
from tests.results import accuracy, latency, memory, task


def record(
    target: str = "",
    accuracies: tuple[float, float] | None = (0.9, 0.8),
    as_run: AsRun | None = None,
    difference: TargetDifference | None = None,
) -> CheckRecord:
    compared = None if accuracies is None else task("top-1", *accuracies)
    metrics = dataclasses.replace(accuracy(compared, y=0.99), as_run=as_run, difference=difference)
    return measured("accuracy", metrics, target)


def measured(check: str, metrics: Metrics, target: str = "phone") -> CheckRecord:
    return made.record(Result(check, "passed", metrics=metrics), variant=made.variant_report(target=target))


def model(*records: CheckRecord) -> ModelReport:
    (built,) = build_report(records, {}).models
    return built


AS_RUN = AsRun(task=0.1, cosine=0.3)
TWO_STEPS = TargetDifference(2.0, {"y": 2.0})


def test_each_target_is_a_row() -> None:
    found = model(record(as_run=AS_RUN), record("phone", (0.9, 0.85), difference=TWO_STEPS))
    assert [(row.value, row.cosine, row.steps) for row in found.targets] == [
        (0.9, None, None),
        (0.1, 0.3, None),
        (0.8, 0.99, None),
        (0.85, 0.99, 2.0),
    ]
    check_golden("report-targets/rows", "\n".join(row.target for row in found.targets))
    lines = target_lines(found.targets)
    assert lines[2].split() == ["int8-eval", "float", "0.9000"]
    assert lines[5].split() == ["phone", "0.8500", "0.9900", "2", "steps"]


def test_the_json_report_calls_them_places() -> None:
    report = build_report([record(), record("phone", difference=TWO_STEPS)], {})
    (found,) = json.loads(json_report.render(report))["models"]
    assert [(row["place"], row["variant"], row["value"]) for row in found["places"]] == [
        ("float", "int8-eval", 0.9),
        ("host", "int8-eval", 0.8),
        ("phone", "int8-eval", 0.8),
    ]
    (found,) = json.loads(json_report.render(build_report([record()], {})))["models"]
    assert "places" not in found


def test_time_and_memory_stand_beside_where_a_device_was_measured() -> None:
    timed = [measured("latency", latency(0.5)), measured("memory", memory(0.25))]
    rows = model(record(), record("phone", difference=TWO_STEPS), *timed).targets
    assert [(row.latency, row.memory) for row in rows] == [(None, None), (None, None), (0.5, 0.25)]
    head, *_, phone = target_cells(rows)
    assert (head[-2:], phone[-2:]) == (("latency", "memory"), ("0.50x", "0.25x"))
    assert "latency" not in target_cells(model(record(), record("phone")).targets)[0]


def test_targets_stand_in_markdown_and_html_too() -> None:
    report = build_report([record(as_run=AS_RUN), record("a|phone", difference=TWO_STEPS)], {})
    said = markdown.render(report)
    assert "a&#124;phone" in said
    check_golden("report-targets/markdown", said.rpartition("\n\n")[0])
    (view,) = model_views(report)
    assert view.targets[0] == ("", "target", "top-1", "cosine", "from host")
    assert len(view.targets) == 5


def test_without_a_target_there_is_nothing_to_put_side_by_side() -> None:
    assert model(record(as_run=AS_RUN)).targets == ()
    assert target_lines(()) == []


def test_without_labels_similarity_stands_alone_and_lines_fit() -> None:
    found = model(
        record(accuracies=None), record("a-phone-with-a-name-that-is-quite-long", accuracies=None, difference=TWO_STEPS)
    )
    lines = target_lines(found.targets, 40)
    assert "top-1" not in "".join(lines)
    assert max(map(width, lines)) <= 40


def test_a_target_alone_has_its_row() -> None:
    assert [row.target for row in model(record("phone")).targets] == ["float", "phone"]
