"""Places side by side: a row for the float model, this machine, what it computes where it is wrong, and each target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_mnnquant.report.json_report import build_report
from pytest_mnnquant.report.places import place_lines, places_of
from pytest_mnnquant.report.rows import rows_of
from pytest_mnnquant.report.width import width


def record(target: str = "", task: tuple[float, float] | None = (0.9, 0.8), **metrics: Any) -> Mapping[str, Any]:
    compared = None if task is None else {"label": "top-1", "float": task[0], "quantized": task[1]}
    found = {"task": compared, "outputs": {"y": {"cosine": 0.99}}, **metrics}
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


AS_RUN = {"task": 0.1, "cosine": 0.3}
THERE = {"difference": {"steps": 2.0}}


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
