"""A run that collects models and judges none of them says so in a line; with `--mnn-strict` it fails."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Run

LINE = "no model was judged"
MODEL = ("--mnn-model=net.py:build", "--mnn-recipe=w8", "--benchmark-disable")
PASSES = "def test_passes():\n    assert True\n"


@pytest.mark.parametrize(
    ("chosen", "status", "strict"),
    [
        (("-k", "latency"), 0, 1),  # Skipped: benchmarks are disabled.
        (("-k", "passes", "."), 0, 1),  # All checks are deselected, another test runs.
        (("-k", "no_such_test"), 5, 5),
    ],
)
def test_it_is_said_and_fails_if_strict(
    run: Run, pytester: pytest.Pytester, chosen: tuple[str, ...], status: int, strict: int
) -> None:
    pytester.makepyfile(test_of_users=PASSES)
    usual = run(*MODEL, *chosen)
    assert (usual.status, LINE in usual.text) == (status, True)
    assert run(*MODEL, "--mnn-strict", *chosen).status == strict


def test_a_model_of_skipped_checks_is_not_ok(run: Run) -> None:
    assert "net: not judged" in run(*MODEL, "-k", "latency").text


@pytest.mark.parametrize("chosen", [("-k", "size"), ("--collect-only",)])
def test_it_is_not_said_otherwise(run: Run, chosen: tuple[str, ...]) -> None:
    found = run(*MODEL, "--mnn-strict", *chosen)
    assert (found.status, LINE in found.text) == (0, False)


def test_models_of_the_ini_file_may_be_deselected(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmnn_model = net.py:build\nmnn_recipe = w8\nmnn_strict = true\n")
    pytester.makepyfile(test_of_users=PASSES)
    found = run("-k", "passes")
    assert (found.status, LINE in found.text) == (0, True)
