"""The JSON report: schema 1, valid JSON whatever was measured, whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.files import write_report
from pytest_mnnquant.report.json_report import build_report, plain
from tests.results import size as size_metrics


def record(check: Result, label: str = "int8[eval]", model: str = "digits") -> Mapping[str, Any]:
    recipe, _, mode = label.rstrip("]").partition("[")
    variant: dict[str, Any] = {
        "recipe": recipe,
        "mode": mode or None,
        "quantized": {"bytes": 10},
        "params": None,
        "layers": [],
    }
    return {
        "model": model,
        "source": f"{model}.py:build",
        "file": f"/home/{model}.py",
        "float": {"bytes": 40},
        "variant": variant,
        "label": label,
        "order": 0,
        "check": check.as_json(),
    }


def test_checks_are_gathered_by_model_and_variant() -> None:
    size, coverage = (
        Result.from_findings("size", [], size_metrics(4.0)),
        Result.from_findings("coverage", [Finding("MNQ401", "x", "conv")]),
    )
    report = build_report(
        [record(size), record(coverage), record(size, "w8"), record(size, "w8", "other")], {"MNN": "3.6.1"}
    )
    assert report["schema"] == 1
    assert report["tool"] == {"MNN": "3.6.1"}
    assert set(report["host"]) >= {"machine", "system", "python"}
    first, second = report["models"]
    assert (first["name"], first["source"], first["float"]) == ("digits", "digits.py:build", {"bytes": 40})
    assert [(item["recipe"], item["mode"]) for item in first["variants"]] == [("int8", "eval"), ("w8", None)]
    assert [check["check"] for check in first["variants"][0]["checks"]] == ["size", "coverage"]
    assert first["variants"][0]["checks"][1]["findings"][0]["layer"] == "conv"
    assert [item["recipe"] for item in second["variants"]] == ["w8"]


def test_a_check_that_ran_twice_is_reported_as_it_last_was() -> None:
    first, second = Result.from_findings("size", [Finding("MNQ801", "x")]), Result.from_findings("size", [])
    (model,) = build_report([record(first), record(second)], {})["models"]
    (variant,) = model["variants"]
    assert [check["outcome"] for check in variant["checks"]] == ["passed"]


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_check_that_two_tests_asked_for_ends_as_the_worst_of_them(failed_first: bool) -> None:
    failed = Result.from_findings("size", [Finding("MNQ802", "x")], size_metrics(5.0))
    passed = Result.from_findings("size", [Finding("MNQ804", "y")], size_metrics(2.0))
    both = [failed, passed] if failed_first else [passed, failed]
    records = [{**record(check), "order": number} for number, check in enumerate(both)]
    (model,) = build_report(records, {})["models"]
    (check,) = model["variants"][0]["checks"]
    assert (check["outcome"], check["metrics"]["size_ratio"]) == ("failed", 5.0)
    assert [finding["code"] for finding in check["findings"]] == ["MNQ802", "MNQ804"]
    (same,) = build_report([*records, *records], {})["models"]
    assert same["variants"] == model["variants"]


def test_no_records_are_an_empty_report() -> None:
    assert build_report([], {})["models"] == []


def test_what_is_written_is_json_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    write_report({"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": ("ä", None), "d": np.float64("nan")}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": None,
        "b": [None, None, 1.5],
        "c": ["ä", None],
        "d": None,
    }
    assert list(path.parent.iterdir()) == [path]


def test_what_can_not_be_written_leaves_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_report({"old": 1}, path)
    with pytest.raises(TypeError):
        write_report({"new": object()}, path)
    assert json.loads(path.read_text()) == {"old": 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_plain_values_are_json_and_change_in_nothing_but_what_json_lacks(value: Any) -> None:
    found = json.loads(json.dumps(plain(value), allow_nan=False))
    assert found == plain(value) == plain(plain(value))
    if "nan" not in repr(value) and "inf" not in repr(value):
        assert found == value
