"""The plugin beside pytest-xdist and pytest-benchmark, and without parts of pytest that it uses."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from tests.plugin.conftest import Files, Run
from tests.plugin.outcomes import Outcome

MODEL, W8 = "--mnn-model=net.py:build", "--mnn-recipe=w8"


def summary(found: Outcome) -> list[str]:
    """The plugin's own part of the summary, without the column and the count of latencies, which workers don't time."""
    start = next(number for number, line in enumerate(found.lines) if "MNN quantization" in line)
    end = next(n for n, line in enumerate(found.lines) if n > start and (not line or line.startswith("==")))
    text = "\n".join(" ".join(line.split()) for line in found.lines[start:end] if not line.startswith("::"))
    text = re.sub(r"latency skipped: .*\n.*\n", "", text)
    text = re.sub(r"\d+\.\d+x float", "-", text).replace(" - -", " -").replace(" latency memory", " memory")
    return re.sub(r"\(\d+ passed.*\)", "", text).splitlines()


def test_workers_give_the_same_summary_and_status(
    run: Run, files: Files, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = [f"--mnn-model={files.float}", W8, "--mnn-recipe=fp16", "--mnn-min-size-ratio=2"]
    alone = run(*two, "-k", "not execution")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    spread = run(*two, "-k", "not execution", "-n2", "--junit-xml=junit.xml", alone=True)
    assert alone.status == spread.status == 1
    assert spread.failed == alone.failed == {"fp16::size"}
    assert summary(spread) == summary(alone)
    assert "latency skipped: " in spread.text
    assert "workers (-n)" in spread.text
    assert alone.passed - spread.passed == {"w8::latency", "fp16::latency"}
    assert [line[:25] for line in spread.lines if "::error" in line] == ["::error title=MNQ802 size"]
    assert (pytester.path / "summary.md").read_text().count("## MNN quantization: FAILED") == 1
    cases = ET.parse(pytester.path / "junit.xml").iter("testcase")
    told = {f"{case.get('classname')}": {one.get("name") for one in case.iter("property")} for case in cases}
    assert told
    assert all({"mnn.model", "mnn.recipe", "mnn.check", "mnn.outcome"} <= names for names in told.values())


def test_a_latency_limit_that_workers_can_not_judge_is_no_pass(run: Run) -> None:
    usual = [MODEL, W8, "-k", "latency", "--mnn-max-latency-ratio=1000", "--benchmark-disable"]
    assert run(*usual).skipped == {"w8::latency"}
    assert run(*usual, "--mnn-strict").failed == {"w8::latency"}


@pytest.mark.parametrize(
    "missing",
    ["cacheprovider", "xdist", "benchmark", "terminalreporter", "faulthandler", "junitxml", "logging", "capture"],
)
def test_no_other_plugin_is_needed(run: Run, missing: str) -> None:
    found = run(MODEL, W8, "-p", f"no:{missing}", "-k", "size or latency")
    assert (found.status, found.passed) == (0, {"w8::size", "w8::latency"}), found.text


@pytest.mark.usefixtures("run")
def test_without_the_cache_and_a_chosen_folder_nothing_is_left_behind(pytester: pytest.Pytester) -> None:
    before = {path.name for path in pytester.path.iterdir()}
    found = pytester.runpytest(MODEL, W8, "-p", "no:cacheprovider", "-p", "no:benchmark", "-k", "size")
    assert found.ret == 0
    assert {path.name for path in pytester.path.iterdir()} - before <= {"__pycache__"}


def test_strict_markers_know_ours(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="import pytest\n\n@pytest.mark.mnn(recipes=['w8'])\ndef test_plain():\n    pass")
    found = run(MODEL, W8, "--strict-markers", "--strict-config", "-k", "plain or size", "test_own.py")
    assert (found.status, found.passed) == (0, {"w8::size", "test_own.py::test_plain"})
    assert "mnn_size: " in run("--markers").text


def test_the_junit_report_names_each_check(run: Run, pytester: pytest.Pytester) -> None:
    run(MODEL, W8, "--mnn-min-size-ratio=9", "-k", "size or params or bundle", "--junitxml=j.xml")
    text = (pytester.path / "j.xml").read_text()
    assert re.search(r'<testsuite [^>]*failures="1" skipped="1" tests="3"', text)
    assert "MNQ802 size-ratio" in text


@pytest.fixture
def benchmarks(run: Run, pytester: pytest.Pytester) -> list[dict[str, Any]]:
    """What pytest-benchmark stores of a latency check."""
    found = run(MODEL, W8, "-k", "latency", "--benchmark-json=b.json")
    assert found.status == 0, found.text
    stored: list[dict[str, Any]] = json.loads((pytester.path / "b.json").read_text())["benchmarks"]
    return stored


def test_latency_is_among_the_results_of_pytest_benchmark(benchmarks: list[dict[str, Any]]) -> None:
    assert [item["name"] for item in benchmarks] == ["net::float", "net::w8"]
    assert {item["group"] for item in benchmarks} == {"net w8"}
    for item in benchmarks:
        assert item["stats"]["rounds"] >= 30
        assert 0 < item["stats"]["min"] <= item["stats"]["median"] <= item["stats"]["max"] < 1


def test_the_stored_results_say_what_was_timed(benchmarks: list[dict[str, Any]]) -> None:
    plain, quantized = (item["extra_info"] for item in benchmarks)
    assert (plain["model"], plain["recipe"], quantized["recipe"]) == ("net", "float", "w8")
    assert plain["bytes"] > 1.5 * quantized["bytes"]
    assert quantized["latency_ratio_low"] <= quantized["latency_ratio"] <= quantized["latency_ratio_high"]


def test_a_stored_result_can_be_compared_with(run: Run) -> None:
    usual = [MODEL, W8, "-k", "latency", "--benchmark-storage=kept", "--benchmark-autosave"]
    assert run(*usual).status == 0
    again = run(*usual, "--benchmark-compare", "--benchmark-compare-fail=min:100000%")
    assert again.status == 0, again.text
    assert "Comparing against benchmarks from" in again.text
