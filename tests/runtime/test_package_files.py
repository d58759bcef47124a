"""The package works from a zip file: its programs run in other processes, and its pages can be read."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.package_files import package_folder
from tests.workshop import Workshop

PACKAGE = Path(__file__).resolve().parents[2] / "pytest_mnnquant"
RULES = PACKAGE.parent / "docs" / "rules"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in a zip file, as in a wheel."""
    path = tmp_path_factory.mktemp("zip") / "package.zip"
    with zipfile.ZipFile(path, "w") as file:
        for source in PACKAGE.rglob("*.*"):
            if source.is_file() and "__pycache__" not in source.parts:
                file.write(source, source.relative_to(PACKAGE.parent))
        file.write(RULES / "MNQ401.md", "pytest_mnnquant/rules/MNQ401.md")
    return path


def run(archive: Path, temporary: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(archive), "TMPDIR": str(temporary)}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, cwd="/")


def test_a_folder_is_used_as_it_is() -> None:
    assert package_folder() == PACKAGE
    assert PROGRAMS.is_relative_to(PACKAGE)


def test_models_are_converted_from_a_zip_file(archive: Path, workshop: Workshop, tmp_path: Path) -> None:
    float_model = workshop.floats(nn.Sequential(nn.Linear(64, 64)), {"input": np.ones((2, 64), np.float32)}).path
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = ("-f", "MNN", "--modelFile", float_model, "--MNNModel", tmp_path / "w8.mnn", "--weightQuantBits", "8")
    converted = run(archive, temporary, "-m", "pytest_mnnquant.cli.main", "convert", *words)
    assert (converted.returncode, (tmp_path / "w8.mnn").exists()) == (0, True), converted.stderr
    assert not list(temporary.iterdir())


def test_pages_are_read_from_a_zip_file(archive: Path, tmp_path: Path) -> None:
    explained = run(archive, tmp_path, "-m", "pytest_mnnquant.cli.main", "explain", "MNQ401")
    assert explained.stdout.startswith("# MNQ401 layer-is-float")
    assert "## " in explained.stdout
