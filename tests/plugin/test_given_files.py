"""What has no end, such as a pipe or a device, is refused before it is read, whatever option names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_mnnquant.sources.array_names import array_names

MODEL = "--mnn-model=net.py:build"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mnn-model=p.onnx",),
        ("--mnn-model=p.mnn",),
        ("--mnn-model=p.pt2",),
        ("--mnn-model=p.py:build",),
        (MODEL, "--mnn-calibration=p.npz"),
        (MODEL, "--mnn-evaluation=p"),
        (MODEL, "--mnn-metric=p.py:metric"),
        (MODEL, "--mnn-config=p.toml"),
    ],
)
def test_a_pipe_is_refused_in_one_line(
    refused: Callable[..., str], pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    name = arguments[-1].partition("=")[2].partition(":")[0]
    os.mkfifo(pytester.path / name)
    line = refused(*arguments)
    assert f"{name}: not a regular file" in line


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_the_names_of_arrays_are_not_read_from_it(tmp_path: Path, name: str) -> None:
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    assert array_names([name], tmp_path) == ()
