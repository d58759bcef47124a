"""Options and files that can't be used end the run at once: exit status 4 and one line that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.golden_text import check_golden
from tests.plugin.conftest import Run

Refused = Callable[..., str]
MODEL = "--mnn-model=net.py:build"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("none.py:build", "none.py: no such file"),
        ("none.onnx", "none.onnx: no such file"),
        ("deep/none.mnn", "deep/none.mnn: no such file"),
        (
            "net.py",
            "'net.py' is not a model: give file.py:callable, package.module:callable, x.onnx",
        ),
        ("net.py:", "is not a model"),
        ("net.txt", "'net.txt' is not a model"),
        ("net.py:build()", "is not a model"),
        ("net.pt2", "net.pt2: no such file"),
        ("net.tflite", "net.tflite: no such file"),
        ("no-name:build", "'no-name' is neither a Python file nor a module name"),
        ("", "the value is empty"),
    ],
)
def test_a_model_that_is_none_is_refused(refused: Refused, spec: str, says: str) -> None:
    assert says in refused(f"--mnn-model={spec}")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--mnn-recipe=int7", "argument --mnn-recipe: "),
        ("--mnn-mode=test", "both, train, eval"),
        ("--mnn-exporter=jit", "torchscript, dynamo"),
        ("--mnn-min-coverage=1.01", "argument --mnn-min-coverage: 1.01"),
        ("--mnn-min-coverage=99%", "argument --mnn-min-coverage: '99%'"),
        ("--mnn-min-coverage=nan", "argument --mnn-min-coverage: 'nan'"),
        (
            "--mnn-max-accuracy-drop=2",
            "-1 to 1",
        ),
        ("--mnn-min-cosine=-2", "-1 to 1"),
        ("--mnn-min-size-ratio=-1", "at least 0"),
        ("--mnn-max-latency-ratio=x", "argument --mnn-max-latency-ratio: 'x'"),
        ("--mnn-timeout=0", "allowed: 1 to 604800"),
        ("--mnn-report=r.txt", ".json, .md, .html"),
        ("--mnn-calibration=none.npz", "none.npz: no such file"),
        ("--mnn-evaluation=none.py:data", "none.py: no such file"),
        ("--mnn-config=", "argument --mnn-config: "),
        ("--mnn-quantized=", "argument --mnn-quantized: "),
        ("--mnn-baseline= ", "argument --mnn-baseline: "),
        ("--mnn-threads=1.5", "argument --mnn-threads: '1.5'"),
        ("--mnn-params=p.bin", "--mnn-quantized"),
        ("--mnn-ignore=MNQ9999", "MNQ9999"),
        ("--mnn-ignore=size-ratio", "size-ratio"),
        ("--mnn-cache-dir=net.py", "--mnn-cache-dir"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(refused: Refused, option: str, says: str) -> None:
    text = refused(MODEL, option)
    assert says in text
    assert option.partition("=")[0] in text


def test_options_that_exclude_each_other_are_refused(refused: Refused) -> None:
    finished = "--mnn-quantized=q.mnn"
    check_golden("plugin-options/two-recipes", refused(MODEL, finished, "--mnn-recipe=w8", "--mnn-recipe=w4"))
    check_golden("plugin-options/two-models", refused(MODEL, "--mnn-model=b=net.py:build", finished))
    check_golden("plugin-options/two-models-of-one-name", refused(MODEL, MODEL))


def test_an_unknown_option_is_refused_by_pytest(run: Run) -> None:
    found = run(MODEL, "--mnn-recipies=w8")
    assert found.status == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --mnn-recipies=w8" in found.text


def test_an_option_is_not_guessed_from_its_beginning(run: Run) -> None:
    assert run(MODEL, "--mnn-reci=w8").status == pytest.ExitCode.USAGE_ERROR
