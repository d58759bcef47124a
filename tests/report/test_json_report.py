"""The JSON report: schema 1, valid JSON whatever was measured, whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import write_report
from pytest_mnnquant.report.json_report import json_value, render
from pytest_mnnquant.report.model import Report
from tests.report.made import record, variant_report
from tests.report.schema import assert_fits_schema
from tests.results import size


def made_by(**provenance: Any) -> Report:
    result = Result.from_findings("size", [Finding("MNQ804", "x")], size(4.0))
    return build_report([record(result, variant=variant_report(provenance=provenance))], {"MNN": "3.6.1"})


def test_it_has_the_form_of_the_schema() -> None:
    report = json.loads(render(made_by(maker="tool")))
    assert_fits_schema({**report, "tool": dict.fromkeys(("pytest-mnnquant", "MNN", "torch", "numpy"), "")})
    assert (report["schema"], report["tool"], report["strict"]) == (1, {"MNN": "3.6.1"}, False)
    (model,) = report["models"]
    assert (model["name"], model["source"], model["float"]["bytes"]) == ("digits", "digits.py:build", 40)
    (found,) = model["variants"]
    assert (found["recipe"], found["mode"], found["coverage"]) == ("int8", "eval", 1.0)
    assert found["provenance"] == {"maker": "tool"}
    assert not {"target", "worker"} & set(found)
    (check,) = found["checks"]
    assert (check["check"], check["outcome"], check["metrics"]["size_ratio"]) == ("size", "passed", 4.0)
    (finding,) = check["findings"]
    assert (finding["code"], finding["rule"], finding["severity"]) == ("MNQ804", "bundle-mismatch", "warning")
    assert (finding["layer"], finding["cause"], finding["remedy"], finding["follows"]) == (None,) * 4


def test_a_variant_without_a_model_has_no_coverage() -> None:
    unusable = record(Result.from_findings("size", []), variant=variant_report(quantized=None))
    (model,) = json.loads(render(build_report([unusable], {})))["models"]
    assert set(model["variants"][0]) == {"recipe", "mode", "quantized", "params", "layers", "checks"}


def test_a_consequence_names_the_error_that_it_follows_from() -> None:
    root = Finding("MNQ304", "no such tensor", "conv")
    effect = Finding("MNQ401", "is float", "conv", follows=FindingId("MNQ304", "params", "conv"))
    records = [record(Result.from_findings("params", [root])), record(Result.from_findings("coverage", [effect]))]
    (model,) = json.loads(render(build_report(records, {})))["models"]
    first, second = (check["findings"][0] for check in model["variants"][0]["checks"])
    assert second["follows"] == "MNQ304 params-name-mismatch in conv (params)"
    assert first["consequences"] == [{"check": "coverage", **second}]


def test_what_is_written_is_json_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    write_report(made_by(a=math.nan, b=[math.inf, -math.inf, 1.5], c=("ä", None), d=np.float64("nan")), path)
    (model,) = json.loads(path.read_text(encoding="utf-8"))["models"]
    assert model["variants"][0]["provenance"] == {
        "a": None,
        "b": [None, None, 1.5],
        "c": ["ä", None],
        "d": None,
    }
    assert list(path.parent.iterdir()) == [path]


def test_what_can_not_be_written_leaves_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_report(made_by(maker="tool"), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_report(made_by(maker=object()), path)
    assert path.read_bytes() == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_values_are_json_and_change_in_nothing_but_what_json_lacks(value: Any) -> None:
    found = json.loads(json.dumps(json_value(value), allow_nan=False))
    assert found == json_value(value) == json_value(json_value(value))
    if "nan" not in repr(value) and "inf" not in repr(value):
        assert found == value
