"""Options that request a judgement are refused in a run without a model and without a test that uses the fixtures."""

from __future__ import annotations

import pytest

from pytest_mnnquant.config.given import demands
from pytest_mnnquant.config.options import DEMANDS, OPTIONS, SETTINGS
from pytest_mnnquant.plugin import fixtures
from tests.golden_text import check_golden

PLAIN = "def test_passes():\n    assert True\n"
USES = "import pytest\n\ndef test_uses(mnn_tolerances):\n    assert True\n"
REFUSED = ": no model is given"
DESELECTED = "WARNING: --mnn-recipe: no model was judged"


def test_a_demand_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("-p", "no:xdist", "--mnn-quantized", "q.mnn")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.startswith("ERROR: ")]
    assert line.startswith(f"ERROR: --mnn-quantized{REFUSED}")
    check_golden("plugin-options/no-model", line)


def test_the_options_that_demand_a_model(pytester: pytest.Pytester) -> None:
    words = ("--mnn-evaluation=e.npz", "--mnn-min-cosine", "0.5", "--mnn-state=a=b", "--mnn-timeout=9", "--mnn-strict")
    assert demands(pytester.parseconfig(*words)) == ("--mnn-evaluation", "--mnn-state", "--mnn-min-cosine")
    assert not demands(pytester.parseconfig())


def test_settings_are_none() -> None:
    names = {option.name for option in OPTIONS}
    assert names == {*SETTINGS, *(option.name for option in DEMANDS), "model", "config", "update_baseline"}


@pytest.mark.parametrize(
    "options", [("--mnn-report=r.json", "--mnn-strict", "--mnn-durations=3"), ("-o", "addopts=--mnn-recipe=w8")]
)
def test_settings_change_no_run_without_models(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.makepyfile(PLAIN)
    assert pytester.runpytest_inprocess(*options).ret == 0


@pytest.mark.parametrize("place", ["ini", "addopts", "environment"])
def test_what_applies_to_every_run_is_a_setting(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    pytester.makepyfile(PLAIN)
    lines = {"ini": "mnn_recipe = w8", "addopts": "addopts = --mnn-recipe=w8"}
    pytester.makeini(f"[pytest]\n{lines.get(place, '')}\n")
    if place == "environment":
        monkeypatch.setenv("PYTEST_ADDOPTS", "--mnn-recipe w8")
    assert pytester.runpytest_inprocess().ret == 0
    assert pytester.runpytest_inprocess("--mnn-mode=eval").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        ((), 0, ""),
        (("--co",), 0, ""),
        (("-k", "passes"), 0, DESELECTED),
        (("-k", "passes", "--mnn-strict"), 1, DESELECTED),
        (("-k", "no_such_test"), 5, DESELECTED),
        (("--deselect=test_uses.py", "-n1"), 0, DESELECTED),
        (("test_plain.py", "-n1"), 4, f"ERROR: --mnn-recipe{REFUSED}"),
    ],
)
def test_tests_that_use_the_fixtures_use_the_options(
    pytester: pytest.Pytester, options: tuple[str, ...], status: int, line: str
) -> None:
    pytester.makepyfile(test_plain=PLAIN, test_uses=USES)
    result = pytester.runpytest_inprocess("--mnn-recipe=w8", *options)
    assert result.ret == status
    lines = [text for text in result.outlines if text.startswith(("WARNING: ", "ERROR: "))]
    assert [text.startswith(line) for text in lines] == ([True] if line else [])


def test_an_option_is_not_unused_if_a_file_can_not_be_loaded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_broken="import no_such_module")
    assert pytester.runpytest_inprocess("--mnn-recipe=w8").ret == pytest.ExitCode.INTERRUPTED


def test_the_names_of_fixtures_are_complete() -> None:
    found = {name for name in vars(fixtures) if name.startswith("mnn_")}
    assert found == fixtures.NAMES
