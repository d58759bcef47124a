"""The HTML report of real runs: what it gathers, and how it looks in a real browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Page, needs_chromium
from tests.golden_text import check_golden
from tests.plugin.conftest import CONV, HEAD, Files, Run
from tests.report.made import charted

MODEL = "--mnn-model=net.py:build"
REPORT = "--mnn-report=r.html"


def variants(folder: Path) -> dict[str, Any]:
    """What the charts of the only model draw, by variant."""
    (model,) = charted((folder / "r.html").read_text(encoding="utf-8"))
    return {one["label"]: one for one in model["variants"]}


def is_flawless(browser: Page, path: Path) -> None:
    """No message, no request, no serious violation, in light and in dark."""
    for dark in (False, True):
        browser.open(path, dark=dark)
        browser.js("all('details').forEach(one => one.open = true)")
        browser.draw_all()
        assert browser.violations() == []
        browser.gather()
        assert browser.messages == []
        assert browser.requests == [path.as_uri()]


@needs_chromium
def test_a_run_that_passes(run: Run, browser: Page, pytester: pytest.Pytester) -> None:
    given = (MODEL, "--mnn-recipe=int8", "--mnn-recipe=w8", "--mnn-latency-time=1", "--benchmark-storage=past")
    assert run(*given, "-k", "size").status == 0
    found = run(*given, REPORT, "--mnn-report=r.json")
    assert found.status == 0, found.text
    shows_what_was_gathered(variants(pytester.path))
    assert "charts" not in (pytester.path / "r.json").read_text()
    is_flawless(browser, pytester.path / "r.html")
    assert browser.js("document.title").split(" · ")[0] == "3 passed"
    assert browser.js("all('.beside thead th').map(e => e.innerText).slice(1)") == ["int8-train", "int8-eval", "w8"]
    assert browser.js("all('[data-chart=history] .main-svg').length") > 0
    assert browser.js("all('.nothing:not([hidden])').map(e => e.textContent)") == []


def shows_what_was_gathered(found: dict[str, Any]) -> None:
    assert set(found) == {"int8-train", "int8-eval", "w8"}
    for label, one in found.items():
        assert {name for name, *_ in one["layers"]} == set(one["weights"]) == {CONV, HEAD}
        for bars in one["weights"].values():
            assert sum(bars["float"]) == pytest.approx(100_000, rel=0.01)
            assert sum(bars["stored"]) == pytest.approx(100_000, rel=0.01)
        assert [name for name, *_ in one["losses"]] == [CONV, HEAD]  # in the order of execution
        assert all(10 < own < 90 for *_, own, _ in one["losses"]), one["losses"]
        assert len(one["ratios"]) >= 30
        assert one["ratio"][1] <= one["ratio"][0] <= one["ratio"][2]
        entering, leaving = (one["tensors"][name] for name in one["ends"][CONV])
        assert 0 <= entering["low"] < entering["high"] <= 1  # the images of net.py
        for tensor in (entering, leaving):
            assert sum(tensor["float"]) == pytest.approx(100_000, rel=0.01)
        if label == "w8":
            assert entering["codes"] is None
        else:
            assert entering["codes"][1] == pytest.approx(1, rel=0.1)


@needs_chromium
def test_a_run_that_fails(run: Run, files: Files, browser: Page, pytester: pytest.Pytester) -> None:
    found = run("--mnn-model", files.float, "--mnn-quantized", files.float, REPORT, "-k", "not latency")
    assert found.status == 1
    is_flawless(browser, pytester.path / "r.html")
    assert browser.js("document.title").split(" · ")[0] == "1 failed"
    first = browser.js("document.querySelector('.finding').innerText")
    told = next(one for one in found.told() if one["severity"] == "error")
    assert all(part in first for part in (told["code"], told["message"], told["remedy"]))
    assert browser.js("all('tr.fault .pick').map(e => e.value)") == [HEAD, CONV]
    label = browser.js("document.querySelector('[data-chart=map] .plot').getAttribute('aria-label')")
    check_golden("report-html/map-of-a-model-that-stayed-float", label)
    rules = set(browser.js("all('.rule').map(e => e.id.slice(5))"))
    assert found.codes() <= rules


def test_a_model_that_can_not_be_used_is_shown_with_the_reason(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "bad.onnx").write_bytes(b"no model")
    run("--mnn-model=bad.onnx", REPORT)
    written = (pytester.path / "r.html").read_text(encoding="utf-8")
    assert "failed: conversion" in written
    assert 'id="rule-MNQ201"' in written
    assert variants(pytester.path)["int8"]["layers"] == []


def test_chinese_names_of_model_and_folder(run: Run, pytester: pytest.Pytester) -> None:
    found = run(
        "--mnn-model=模型=net.py:build", "--mnn-recipe=w8", "-k", "size or weights", "--mnn-report=报告/量化.html"
    )
    assert found.status == 0, found.text
    written = (pytester.path / "报告" / "量化.html").read_text(encoding="utf-8")
    assert '<h2 id="m0-name">模型</h2>' in written


def test_workers_send_what_they_gathered(run: Run, pytester: pytest.Pytester) -> None:
    found = run(MODEL, "--mnn-recipe=w8", "-k", "weights or calibration or accuracy", REPORT, "-n2", alone=True)
    assert found.status == 0, found.text
    (one,) = variants(pytester.path).values()
    assert set(one["weights"]) == set(one["ends"]) == {name for name, *_ in one["losses"]} == {CONV, HEAD}


def test_nothing_is_gathered_for_other_reports(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_mnnquant.evidence.chart_samples", None)  # importing it would fail
    assert run(MODEL, "--mnn-recipe=w8", "-k", "weights", "--mnn-report=r.json").status == 0


@pytest.mark.parametrize("module", ["jinja2", "markdown_it", "plotly"])
def test_a_missing_extra_is_told_before_the_run(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for known in [name for name in sys.modules if name.startswith((f"{module}.", "pytest_mnnquant.report.html"))]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    line = refused(MODEL, REPORT)
    check_golden("plugin-options/a-missing-extra", line, module=module)


@pytest.mark.parametrize("name", ["r.htm", "r", ".html", "r.HTML"])
def test_other_endings_are_refused(refused: Callable[..., str], name: str) -> None:
    option, file, reason = refused(MODEL, f"--mnn-report={name}").removeprefix("ERROR: ").split(": ")
    assert (option, file) == ("--mnn-report", name)
    check_golden("plugin-options/another-ending", reason)


def test_a_report_that_can_not_be_written_is_one_line(run: Run, pytester: pytest.Pytester) -> None:
    pytester.mkdir("folder.html")
    found = run(MODEL, "--mnn-recipe=w8", "-k", "size", "--mnn-report=folder.html")
    assert found.status == pytest.ExitCode.USAGE_ERROR
    check_golden("plugin-reports/a-folder-in-its-place", found.starting("ERROR: "), file=pytester.path / "folder.html")


def test_the_page_of_ones_own_tests(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        from pytest_mnnquant import assert_weights_preserved

        @pytest.mark.mnn(model="net.py:build", recipes=["w8"])
        def test_own(mnn_quantized):
            assert_weights_preserved(mnn_quantized)
        """
    )
    assert run(REPORT).status == 0
    assert set(variants(pytester.path)["w8"]["weights"]) == {CONV, HEAD}
