"""The published schema says what reports are, no less: what is not a report of ours does not fit."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pytest_mnnquant.cache.store import versions
from pytest_mnnquant.findings.catalogue import ALL_NAMES, RULES
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED, Finding, FindingId, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.json_report import render
from pytest_mnnquant.report.model import BaselineReport
from pytest_mnnquant.report.record import reported
from pytest_mnnquant.report.variant_report import LayerReport, ModelFile, ParamsFile, VariantReport
from tests.report.made import record
from tests.report.schema import SCHEMA, VALIDATOR, assert_fits_schema
from tests.report.test_modes import compared
from tests.results import coverage, size

FILE = ModelFile("net.mnn", 10, "0" * 64, "")
LAYER = LayerReport("conv", "Convolution", 9, "int8", 8, 9, 36, 0.1, None, True, False, "conv")
VARIANT = VariantReport("int8", "eval", "", "", FILE, ParamsFile("p.bin", "1" * 64), 0.5, layers=(LAYER,))


@pytest.fixture
def report() -> dict[str, Any]:
    """A report that has every part."""
    effect = Finding("MNQ401", "is float", "conv", check="coverage")
    root = Finding("MNQ304", "no such tensor", "conv", Cause("renamed", "renamed"), "rename it", consequences=(effect,))
    follows = Finding("MNQ401", "is float", "conv", follows=FindingId("MNQ304", "params", "conv"))
    results = [
        Result.from_findings("params", [root]),
        Result.from_findings("coverage", [follows], coverage(0.5)),
        Result.from_findings("execution", [Finding("MNQ002", "no trace")]),
        Result.from_findings("size", [], size(2.0)),
        Result.skipped("accuracy", "no data"),
    ]
    records = [dataclasses.replace(record(result, variant=VARIANT), base=FILE) for result in results]
    baseline = BaselineReport("b.json", reported(Result.from_findings("entries", [Finding("MNQ912", "gone")])))
    built = build_report(records, versions(), baseline=baseline)
    (model,) = built.models
    models = (dataclasses.replace(model, modes=(compared({"drift": 0.2}, {}),)),)
    return json.loads(render(dataclasses.replace(built, models=models)))  # type: ignore[no-any-return]


def test_the_schema_is_one_and_knows_every_word_of_the_report(report: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert_fits_schema(report)
    words = SCHEMA["$defs"]
    assert words["checkName"]["enum"] == list(ALL_NAMES)
    assert words["severity"]["enum"] == [one.value for one in Severity]
    assert words["check"]["properties"]["outcome"]["enum"] == [PASSED, FAILED, SKIPPED, INCONCLUSIVE]
    for rule in RULES.values():
        finding = Finding(rule.code, "x", as_warning=True, follows=FindingId(rule.code, "coverage"))
        built = build_report([record(Result.from_findings("coverage", [finding]))], versions())
        assert_fits_schema(json.loads(render(built)))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each key in the parts of a report whose shape is ours."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            if key not in ("metrics", "provenance", "tool", "ignored", "scale_change"):
                yield from places(inner, (*path, key))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


def changed(report: dict[str, Any], path: tuple[Any, ...], value: Any = None, *, drop: bool = False) -> dict[str, Any]:
    found = copy.deepcopy(report)
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return found


def test_every_key_is_needed_and_none_may_be_added(report: dict[str, Any]) -> None:
    optional = {"coverage", "bn_drift", "provenance"}
    every = [*places(report)]
    assert len(every) > 120
    for path in every:
        assert path[-1] in optional or not VALIDATOR.is_valid(changed(report, path, drop=True)), path
        assert not VALIDATOR.is_valid(changed(report, (*path[:-1], "colour"), "red")), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("models", 0, "name"), ""),
        (("models", 0, "variants"), []),
        (("models", 0, "variants", 0, "mode"), "both"),
        (("models", 0, "variants", 0, "coverage"), 1.5),
        (("models", 0, "variants", 0, "quantized", "sha256"), "short"),
        (("models", 0, "variants", 0, "layers", 0, "quantized"), 1),
        (("models", 0, "variants", 0, "checks", 0, "outcome"), "ok"),
        (("models", 0, "variants", 0, "checks", 0, "outcome"), "passed"),  # with an error in it
        (("models", 0, "variants", 0, "checks", 0, "findings"), []),  # of a check that failed
        (("models", 0, "variants", 0, "checks", 0, "check"), "speed"),
        (("models", 0, "variants", 0, "checks", 0, "findings", 0, "code"), "MNQ1"),
        (("models", 0, "variants", 0, "checks", 0, "findings", 0, "severity"), "fatal"),
        (("models", 0, "variants", 0, "checks", 0, "findings", 0, "message"), ""),
        (("models", 0, "variants", 0, "checks", 1, "findings", 0, "follows"), None),  # of a consequence
        (("models", 0, "variants", 0, "checks", 4, "reason"), None),  # of a check that was skipped
    ],
    ids=str,
)
def test_what_no_report_says_does_not_fit(report: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    assert VALIDATOR.is_valid(report)
    assert not VALIDATOR.is_valid(changed(report, path, value))
