"""Every option of the accuracy check decides, on the command line and in the configuration."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import numpy as np
import pytest

from tests.golden_text import check_golden, without_numbers
from tests.plugin.conftest import Run

MODEL = "--mnn-model=net.py:build"
USUAL = (MODEL, "--mnn-recipe=w2", "-k", "accuracy")
METRICS = """
import numpy as np


def right(outputs, labels):
    return outputs["output"].argmax(1) == labels


def margin(outputs, labels):
    top = np.sort(outputs["output"], 1)
    return float((top[:, -1] - top[:, -2]).mean())


def error(outputs, labels):
    return 1 - right(outputs, labels).mean()


error.lower_is_better = True
broken = 5


def crash(outputs, labels):
    raise RuntimeError("no GPU")
"""


@pytest.fixture
def data(pytester: pytest.Pytester) -> None:
    """Images of which the float model is not always right, so that the labels say something."""
    pytester.makepyfile(metrics=METRICS)
    pytester.makepyfile(
        mixed="""
        import net, numpy as np, torch

        def evaluation():
            x = net.images(2, 300)
            x[:, :, :4] *= np.linspace(0, 3, 300, dtype=np.float32).reshape(-1, 1, 1, 1)
            with torch.no_grad():
                logits = net.build()(torch.from_numpy(x)).numpy()
            logits = logits - logits.mean(0)
            labels = logits.argmax(1)
            return {"x": x, "labels": labels}
        """
    )


@pytest.mark.parametrize(
    ("passing", "failing", "code"),
    [
        ("--mnn-min-accuracy-ratio=0.01", "--mnn-min-accuracy-ratio=1.5", "MNQ701"),
        ("--mnn-min-float-accuracy=0.9", "--mnn-min-float-accuracy=1.1", "MNQ708"),
        ("--mnn-min-sqnr=-20", "--mnn-min-sqnr=output=60", "MNQ702"),
        ("--mnn-metric=top3", "--mnn-metric=words", "MNQ721"),
    ],
)
def test_each_limit_decides(run: Run, passing: str, failing: str, code: str) -> None:
    usual = (MODEL, "--mnn-recipe=w8", "-k", "accuracy", "--mnn-max-accuracy-drop=1")
    found = run(*usual, passing)
    assert found.status == 0, found.text
    found = run(*usual, failing)
    assert found.status == 1, found.text
    assert code in found.codes()


def test_the_least_agreement_decides(run: Run) -> None:
    usual = (*USUAL, "--mnn-max-accuracy-drop=1")
    assert run(*usual, "--mnn-min-agreement=0.1").status == 0
    found = run(*usual, "--mnn-min-agreement=output=1")
    assert found.status == 1
    found.tells("MNQ702", where="required 100.00%")


@pytest.mark.usefixtures("data")
def test_a_metric_of_ones_own_decides(run: Run) -> None:
    usual = (MODEL, "--mnn-recipe=w8", "-k", "accuracy", "--mnn-max-accuracy-drop=0.01")
    assert run(*usual, "--mnn-metric=metrics.py:right").status == 0
    found = run(*usual, "--mnn-metric=metrics.py:error")
    assert found.status == 0
    assert found.metrics("accuracy")["task"]["lower_is_better"]
    found = run(
        MODEL, "--mnn-recipe=w8", "-k", "accuracy", "--mnn-metric=metrics.py:margin", "--mnn-max-accuracy-drop=-9"
    )
    assert found.status == 1
    found.tells("MNQ701", where="margin")
    found = run(*usual, "--mnn-metric=metrics.py:crash")
    found.tells("MNQ721", where="raised RuntimeError: no GPU")


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--mnn-metric=f1"], "--mnn-metric: unknown metric 'f1'"),
        (["--mnn-metric=top0"], "--mnn-metric: 'top0': the number of classes must be at least 1"),
        (["--mnn-metric=none.py:f"], "--mnn-metric: none.py: no such file"),
        (["--mnn-metric=metrics.py:broken"], "metrics.py has no callable 'broken'"),
        (["--mnn-metric=mae"], "--mnn-metric=mae has its own unit"),
        (["--mnn-metric=metrics.py:right"], "--mnn-metric=metrics.py:right has its own unit"),
        (["--mnn-max-accuracy-drop=1.5"], "--mnn-max-accuracy-drop: a drop of 1.5 is out of range"),
        (["--mnn-min-agreement=output=1.5"], "1.5 is out of range, allowed: 0 to 1"),
        (["--mnn-min-sqnr=loud"], "'loud' is not a number"),
        (["--mnn-suggest-time=0"], "0 is out of range, allowed: 1 to 604800"),
    ],
)
def test_what_makes_no_sense_is_one_line(refused: Callable[..., str], options: list[str], line: str) -> None:
    assert line in refused(MODEL, *options)


def test_a_unit_has_no_upper_bound(run: Run, pytester: pytest.Pytester) -> None:
    images = np.random.default_rng(2).random((24, 1, 8, 8), np.float32)
    np.savez(pytester.path / "values.npz", x=images, labels=np.zeros((24, 4)))
    usual = (MODEL, "--mnn-recipe=w8", "-k", "accuracy", "--mnn-evaluation=values.npz", "--mnn-metric=mae")
    found = run(*usual, "--mnn-max-accuracy-drop=5")
    assert found.status == 0, found.text
    assert found.metrics("accuracy")["task"]["label"] == "mean absolute error"
    assert "mean absolute error" in found.text


def test_limits_of_outputs_stand_in_a_table(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        """
        [tool.mnnquant.models.net]
        source = "net.py:build"
        recipes = ["w8"]
        max_accuracy_drop = 1.0
        min_sqnr = {output = 99.0}
        """
    )
    found = run("--mnn-model=net", "-k", "accuracy")
    assert found.status == 1
    found.tells("MNQ702", where="required 99 dB")


def test_few_samples_are_a_warning_and_strictly_a_failure(run: Run) -> None:
    usual = (MODEL, "--mnn-recipe=w8", "-k", "accuracy")
    found = run(*usual)
    assert found.status == 0
    assert "MNQ730 too-few-samples" in found.text
    check_golden("plugin-accuracy/too-few-samples", without_numbers(found.wording("MNQ730")))
    found = run(*usual, "--mnn-strict")
    assert found.failed == {"w8::accuracy"}


def test_a_way_that_passes_is_proposed_once_it_was_tried(run: Run) -> None:
    plain = run(*USUAL, "--mnn-min-sqnr=25")
    assert plain.status == 1
    assert "--mnn-suggest " in plain.text
    found = run(*USUAL, "--mnn-min-sqnr=25", "--mnn-suggest", "--mnn-suggest-time=60")
    assert found.status == 1
    tried = found.metrics("accuracy")["tried"]
    assert any(one["passes"] for one in tried)
    proposal = next(one for one in tried if one["passes"])
    assert found.told("accuracy")[0]["remedy"].count(proposal["options"][0]) == 1
    options = shlex.split(" ".join(proposal["options"]))
    if not any("recipe" in option for option in options):
        options.append("--mnn-recipe=w2")
    again = run(MODEL, "-k", "accuracy", "--mnn-min-sqnr=25", *options)
    assert again.status == 0, again.text


def test_the_search_ends_when_its_time_is_over(run: Run) -> None:
    found = run(*USUAL, "--mnn-min-sqnr=200", "--mnn-suggest", "--mnn-suggest-time=1", "--mnn-no-cache")
    assert found.status == 1
    assert "--mnn-suggest-time" in found.text
    assert not any(one["passes"] for one in found.metrics("accuracy")["tried"])


def test_a_limit_of_language_models_fails_for_others(run: Run) -> None:
    found = run(MODEL, "--mnn-recipe=w8", "-k", "accuracy", "--mnn-max-kl=0.5")
    assert (found.status, "MNQ723" in found.text) == (1, True)
