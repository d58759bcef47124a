"""An exception inside the gate is one finding that names the step; what does not need the step is judged."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_mnnquant.evidence import variant, variant_runs
from tests.plugin.conftest import Run

INTERNAL = "MNQ004"
W8 = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "--benchmark-disable")


def _broken(*_arguments: object, **_keywords: object) -> Any:
    raise ValueError("operands could not be broadcast together with shapes (3,4) (5,4)")


def outcomes(run: Run, *options: str) -> dict[str, tuple[str, list[str]]]:
    """The outcome and the codes of each check."""
    found = run(*W8, *options)
    assert "Traceback" not in found.text
    return {check["check"]: (check["outcome"], [item["code"] for item in check["findings"]]) for check in found.checks}


def test_a_run_that_raises_fails_one_check_and_blocks_those_that_need_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_runs, "run", _broken)
    found = outcomes(run)
    assert found["execution"] == ("failed", [INTERNAL])
    assert found["accuracy"] == ("skipped", [])
    passed = {name for name, (outcome, _) in found.items() if outcome == "passed"}
    assert {"conversion", "coverage", "weights", "size", "bundle"} <= passed


def test_without_the_check_that_failed_first_the_next_one_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant_runs, "run", _broken)
    assert outcomes(run, "-k", "accuracy") == {"accuracy": ("failed", [INTERNAL])}


def test_an_exception_in_making_the_variant_is_reported_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "make_variant", _broken)
    assert outcomes(run, "-k", "conversion or size") == {"conversion": ("failed", [INTERNAL])}


def test_an_exception_in_the_report_of_a_check_shows_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant, "coverage", _broken)
    found = run(*W8, "-k", "size")
    assert (found.status, found.failed, INTERNAL in found.text) == (1, {"w8::size"}, True)
