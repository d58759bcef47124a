"""Folders of images as calibration and evaluation data, with the preprocessing that the configuration declares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.golden_text import check_golden
from tests.pictures import flat, png
from tests.plugin.conftest import Files, Run
from tests.plugin.test_bad_models_and_data import fails

IMAGES = ("--mnn-calibration=images", "--mnn-mode=eval")


def declare(pytester: pytest.Pytester, text: str) -> None:
    pytester.makepyprojecttoml(f"[tool.mnnquant]\npreprocess = {{{text}}}")


@pytest.fixture
def folder(pytester: pytest.Pytester, random: np.random.Generator) -> Path:
    """A few grey pictures, larger than the model's input."""
    folder: Path = pytester.mkdir("images")
    for number in range(24):
        (folder / f"{number}.png").write_bytes(png(random.integers(0, 256, (12, 16, 1))))
    return folder


def test_a_model_is_calibrated_on_images(run: Run, pytester: pytest.Pytester, folder: Path) -> None:
    declare(pytester, 'format = "GRAY", size = [8, 8], mean = [0.0], normal = [0.00392]')
    found = run("--mnn-model=net.py:build", *IMAGES)
    assert found.status == 0, found.text
    assert {"int8-eval::coverage", "int8-eval::accuracy"} <= found.passed


@pytest.mark.parametrize("source", ["net.py:build", "onnx"])
@pytest.mark.parametrize(
    ("declared", "size"),
    [
        ('format = "RGB", size = [8, 8], mean = [0, 0, 0], normal = [1, 1, 1]', "RGB, 8 wide, 8 high"),
        ('format = "GRAY", size = [9, 8], mean = [0], normal = [1]', "GRAY, 9 wide, 8 high"),
    ],
)
def test_what_does_not_fit_the_model_is_told_with_the_key_at_fault(
    run: Run, pytester: pytest.Pytester, folder: Path, files: Files, source: str, declared: str, size: str
) -> None:
    declare(pytester, declared)
    model = files.onnx if source == "onnx" else source
    message = fails(run, f"--mnn-model={model}", "--mnn-calibration=images", "--mnn-evaluation=images", *IMAGES)
    assert f"images (preprocess: {size})" in message


def test_a_file_that_is_no_image_is_told(run: Run, pytester: pytest.Pytester, folder: Path, files: Files) -> None:
    declare(pytester, 'format = "GRAY", size = [8, 8], mean = [0], normal = [1]')
    (folder / "7.png").write_bytes(b"no image")
    check_golden("plugin-data/a-file-that-is-no-image", fails(run, f"--mnn-model={files.onnx}", *IMAGES))


def test_a_folder_without_declared_preprocessing_is_refused_with_what_to_paste(
    refused: Callable[..., str], pytester: pytest.Pytester
) -> None:
    (pytester.mkdir("images") / "a.png").write_bytes(flat(8, 8, 1))
    line = refused("--mnn-model=net.py:build", "--mnn-calibration=images")
    check_golden("plugin-data/no-preprocessing", line)
