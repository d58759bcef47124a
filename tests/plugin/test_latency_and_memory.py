"""How variants are timed, and what they hold in memory, as the options say."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from tests.golden_text import check_golden, without_numbers
from tests.plugin.conftest import Run

MODEL, W8 = "--mnn-model=net.py:build", "--mnn-recipe=w8"
SKIPS = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.skip(reason="not today"))
"""
OWN = """
from pytest_mnnquant import assert_latency

def test_own(mnn_quantized):
    assert_latency(mnn_quantized, max_ratio=1000)
"""


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("--mnn-threads=2", "threads", 2),
        ("--mnn-precision=low", "precision", "low"),
        ("--mnn-memory-mode=low", "memory_mode", 2),
        ("--mnn-batch=3", "batch", 3),
    ],
)
def test_how_it_was_timed_is_in_the_record(run: Run, option: str, key: str, value: Any) -> None:
    found = run(MODEL, W8, "-k", "latency", option)
    assert found.status == 0, found.text
    assert "OPS: " not in found.text  # The summary has the figure, in 80 columns.
    settings = found.metrics("latency")["settings"]
    usual = {"threads": 1, "precision": "normal", "memory_mode": 0, "batch": 1}
    assert settings == {**usual, key: value}


def test_timing_ends_with_its_time(run: Run) -> None:
    """So little of it that too few pairs fit into it."""
    found = run(MODEL, W8, "-k", "latency", "--mnn-latency-time=0.1", "--mnn-batch=2000")
    assert found.status == 0, found.text
    assert found.skipped == {"w8::latency"}
    check_golden("plugin-latency/few-pairs", without_numbers(found.reason("latency")))


def test_a_limit_may_be_that_of_a_host(run: Run) -> None:
    usual = (MODEL, W8, "-k", "latency")
    assert run(*usual, "--mnn-max-latency-ratio=another=0.0001").status == 0
    found = run(*usual, f"--mnn-max-latency-ratio={platform.machine()}=0.0001", "--mnn-max-latency-ratio=1000")
    assert (found.status, found.codes()) == (1, {"MNQ901"}), found.text


def test_what_a_host_without_int8_instructions_does_is_said(run: Run) -> None:
    found = run(MODEL, "--mnn-mode=eval", "-k", "latency")
    assert found.status == 0, found.text
    metrics = found.metrics("latency")
    if metrics["latency_ratio"] > 1 and not metrics["host"]["int8"]:
        assert "no int8 instructions" in metrics["note"]
        assert " ".join(metrics["note"].split()) in found.text


def test_weights_that_are_held_as_float_are_told(run: Run) -> None:
    found = run(MODEL, W8, "-k", "memory")
    assert found.status == 0, found.text
    metrics = found.metrics("memory")
    assert metrics["session_bytes"] > 0
    assert metrics["peak_bytes"] is None or metrics["peak_bytes"] > 0
    assert f"{metrics['session_bytes'] / 1e6:.2f} MB" in metrics["note"]
    assert " ".join(metrics["note"].split()) in found.text
    assert f"{metrics['memory_ratio']:.2f}x float" in found.text


def test_all_figures_are_with_the_timings(run: Run, pytester: pytest.Pytester) -> None:
    found = run(MODEL, W8, "--benchmark-json=b.json", "--benchmark-columns=median")
    assert found.status == 0, found.text
    assert "benchmark 'net w8': 2 tests" in found.text  # Who asks for pytest-benchmark's table gets it.
    stored = json.loads((pytester.path / "b.json").read_text())["benchmarks"]
    _, quantized = (item["extra_info"] for item in stored)
    assert quantized["size_ratio"] > 1.5
    assert quantized["coverage"] == 1
    assert quantized["outputs"]
    assert quantized["session_bytes"] > 0  # The memory check runs after the timing.
    assert {"sha256", "mode", "recipe", "pairs", "drift", "outliers", "settings", "host"} <= quantized.keys()


def test_the_memory_that_is_kept_is_that_of_the_mode(run: Run) -> None:
    found = run(MODEL, W8, "-k", "memory", "--mnn-memory-mode=low")
    assert found.status == 0, found.text
    metrics = found.metrics("memory")
    assert metrics["memory_mode"] == 2
    assert metrics["memory_ratio"] == metrics["session_bytes_low"] / metrics["float_session_bytes_low"] < 0.9


def test_a_limit_for_no_host_that_is_here_is_told(run: Run) -> None:
    """It may be misspelt."""
    found = run(MODEL, W8, "-k", "latency", "--mnn-max-latency-ratio=x86-64=0.01")
    assert found.status == 0, found.text
    assert "x86-64" in found.text


def test_only_benchmarks_are_the_latency_checks(run: Run) -> None:
    found = run(MODEL, W8, "--benchmark-only")
    assert (found.status, found.passed) == (0, {"w8::latency"}), found.text


def test_what_is_skipped_by_others_is_skipped(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "conftest.py").write_text(SKIPS)
    found = run(MODEL, W8)
    assert (found.status, found.passed) == (0, set()), found.text


def test_two_tests_that_ask_for_the_same_times_keep_them_once(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "test_own.py").write_text(OWN)
    found = run(MODEL, W8, "-k", "latency or own", "test_own.py", "--benchmark-json=b.json")
    assert found.status == 0, found.text
    stored = json.loads((pytester.path / "b.json").read_text())["benchmarks"]
    assert [item["name"] for item in stored] == ["net::float", "net::w8"]
