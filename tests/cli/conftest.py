"""Real sources, params files and calibration data for MNN's tools, and the tools themselves as users run them."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.conftest import TIMEOUT

_RAW = "import _tools, sys; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


@dataclass(frozen=True)
class Result:
    """What a command did: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


@pytest.fixture
def without_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Leaves the folders of this run out of a text; blanks and line ends become single blanks."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def without(text: str) -> str:
        return re.sub(rf"{re.escape(str(root))}[^\s:']*/", "", " ".join(text.split()))

    return without


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `pytest-mnnquant` in this process."""

    def run(*arguments: object) -> Result:
        status = main([str(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return run


def raw_convert(*arguments: object, cwd: Path) -> None:
    """MNN's converter as it is, in a child process."""
    words = [str(argument) for argument in arguments]
    subprocess.run([sys.executable, "-c", _RAW, *words], cwd=cwd, check=True, capture_output=True, timeout=TIMEOUT)


def without_uuid(path: Path) -> bytes:
    """A model's bytes with its random uuid blanked."""
    data, uuid = path.read_bytes(), read_model(path).uuid.encode()
    assert 16 <= len(uuid) <= 36
    assert data.count(uuid) == 1
    return data.replace(uuid, bytes(len(uuid)))


def by_hand(model: Model, path: Path, scale: float = 0.05) -> Path:
    """A params file for all convolutions of a float model, as a calibration might write it."""

    def layer(name: str, input_: str, output: str, weights: npt.NDArray[np.float32]) -> LayerParams:
        scales = tuple(float(value) for value in np.abs(weights).max(1) / 127)
        sides = ActivationParams(input_, scale), ActivationParams(output, scale)
        return LayerParams(WeightParams(name, scales), *sides)

    layers = [layer(op.name, op.input_names[0], op.output_names[0], model.decoded(op)) for op in model.convolutions]
    write_params(Params(tuple(layers), "made-by-hand-made-by-hand"), path)
    return path


@dataclass(frozen=True)
class Net:
    """A network as `.onnx` and float `.mnn`, and the params file of its calibration."""

    onnx: Path
    mnn: Path
    params: Path
    model: Model


@pytest.fixture(scope="session")
def net(digits: Prepared, digits_int8: Variant) -> Net:
    """The convolutional net of the repository."""
    assert digits_int8.params is not None
    model = digits.model
    return Net(model.path.with_name("float.onnx"), model.path, digits_int8.params, model)


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """An 8-bit image of one channel (two axes) or three."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def write_sample(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """One sample in mnnquant's `sequence` form."""
    folder.mkdir(parents=True)
    shapes = [{"name": name, "shape": list(array.shape)} for name, array in arrays.items()]
    (folder / "input.json").write_text(json.dumps({"inputs": shapes}))
    for name, array in arrays.items():
        (folder / f"{name}.txt").write_text(" ".join(repr(float(value)) for value in array.reshape(-1)))
