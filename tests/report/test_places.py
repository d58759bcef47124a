"""Places side by side: a row for the float model, this machine, what it computes where it is wrong, and each target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_mnnquant.report import markdown
from pytest_mnnquant.report.html_view import model_views
from pytest_mnnquant.report.json_report import build_report
from pytest_mnnquant.report.places import place_lines, place_table, places_of
from pytest_mnnquant.report.rows import rows_of
from pytest_mnnquant.report.width import width


def record(target: str = "", task: tuple[float, float] | None = (0.9, 0.8), **metrics: Any) -> Mapping[str, Any]:
    compared = None if task is None else {"label": "top-1", "float": task[0], "quantized": task[1], "drop": 0.1}
    likeness = {"cosine": 0.99, "sqnr_db": 30.0, "agreement": 1.0}
    found = {"task": compared, "samples": 10, "outputs": {"y": likeness}, **metrics}
    check: dict[str, Any] = {
        "check": "accuracy",
        "outcome": "passed",
        "reason": None,
        "metrics": found,
        "ignored": {},
        "findings": [],
    }
    variant = {"recipe": "int8", "mode": "eval", **({"target": target} if target else {})}
    label = f"int8[eval]@{target}" if target else "int8[eval]"
    own = {"model": "digits", "source": "digits.py:build", "file": None, "float": None}
    return {**own, "label": label, "variant": variant, "check": check, "order": 0}


def model(*records: Mapping[str, Any]) -> Any:
    (found,) = build_report(records, {})["models"]
    return found


AS_RUN: dict[str, Any] = {"task": 0.1, "cosine": 0.3}
THERE: dict[str, Any] = {"difference": {"steps": 2.0}}


def test_each_place_is_a_row() -> None:
    found = model(record(as_run=AS_RUN), record("phone", (0.9, 0.85), **THERE))
    assert [(row["place"], row["value"], row["cosine"], row["steps"]) for row in found["places"]] == [
        ("float", 0.9, None, None),
        ("host as it runs", 0.1, 0.3, None),
        ("host", 0.8, 0.99, None),
        ("phone", 0.85, 0.99, 2.0),
    ]
    assert [row.label for row in rows_of(found)] == ["int8[eval]", "int8[eval]@phone"]
    lines = place_lines(places_of(found))
    assert lines[2].split() == ["int8[eval]", "float", "0.9000"]
    assert lines[5].split() == ["phone", "0.8500", "0.9900", "2", "steps"]


def measured(check: str, **metrics: float) -> Mapping[str, Any]:
    found = record("phone")
    return {**found, "check": {**found["check"], "check": check, "metrics": metrics}}


def test_time_and_memory_stand_beside_where_a_device_was_measured() -> None:
    timed = [measured("latency", latency_ratio=0.5), measured("memory", memory_ratio=0.25)]
    found = model(record(), record("phone", **THERE), *timed)
    assert [(row["latency"], row["memory"]) for row in found["places"]] == [(None, None), (None, None), (0.5, 0.25)]
    head, *_, phone = place_table(places_of(found))
    assert (head[-2:], phone[-2:]) == (("latency", "memory"), ("0.50x", "0.25x"))
    assert "latency" not in place_table(places_of(model(record(), record("phone"))))[0]


def test_places_stand_in_markdown_and_html_too() -> None:
    report = build_report([record(as_run=AS_RUN), record("a|phone", **THERE)], {})
    lines = markdown.render(report).splitlines()
    assert "Places side by side:" in lines
    assert "|  | a&#124;phone | 0.8000 | 0.9900 | 2 steps |" in lines
    (view,) = model_views(report, {})
    assert view.places[0] == ("", "place", "top-1", "cosine", "from host")
    assert len(view.places) == 5


def test_without_a_target_there_is_nothing_to_put_side_by_side() -> None:
    found = model(record(as_run=AS_RUN))
    assert "places" not in found
    assert place_lines(places_of(found)) == []


def test_without_labels_likeness_stands_alone_and_lines_fit() -> None:
    found = model(record(task=None), record("a-phone-with-a-name-that-is-quite-long", task=None, **THERE))
    lines = place_lines(places_of(found), 40)
    assert "top-1" not in "".join(lines)
    assert max(map(width, lines)) <= 40


def test_a_target_alone_has_its_row() -> None:
    assert [row.place for row in places_of(model(record("phone")))] == ["float", "phone"]
