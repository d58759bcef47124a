"""Many processes in one folder: MNN writes a temporary file of a fixed name there, and would mix up their weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.cli.conftest import Net, Result, by_hand, without_uuid, write_sample
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

PROCESSES = 8
WIDTH = 320
_VARIANTS = """
import json, sys
from pathlib import Path
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.sources.spec import parse_spec

root, store, recipes = Path(sys.argv[1]), Store(Path(sys.argv[2])), sys.argv[3:]
choices = Choices(root, calibration="data.npz", timeout=120.0)
source = prepare(parse_spec("net.mnn", root), choices, store, lambda _: None)
jobs = [Job(source, recipe_named(name), None, (), choices) for name in recipes]
made = [make_variant(job, store, lambda _: None) for job in jobs]
print(json.dumps([str(variant.model.path) for variant in made]))
"""


def together(commands: list[list[object]], folder: Path) -> list[str]:
    """Run all commands at the same time in one working folder; returns what each printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = [process.communicate(timeout=TIMEOUT) for process in running]
    assert [process.returncode for process in running] == [0] * len(commands), ended
    return [out for out, _ in ended]


def outputs(path: Path, inputs: dict[str, Floats]) -> dict[str, Floats]:
    return run(read_model(path), inputs, RunOptions(TIMEOUT)).outputs


def wide(workshop: Workshop, seed: int, inputs: dict[str, Floats]) -> Path:
    """A net whose layers MNN puts through the temporary file: Linear, of 65,536 weights or more."""
    torch.manual_seed(seed)
    layers = nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10)
    return workshop.floats(nn.Sequential(*layers).eval(), inputs).path


def test_converting_and_calibrating_at_once_in_one_folder(
    workshop: Workshop, tool: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each net has weights of its own, so that a mix-up shows."""
    at_once, alone = tmp_path / "at_once", tmp_path / "alone"
    inputs = {"input": np.random.default_rng(0).random((6, WIDTH), np.float32)}
    nets = [wide(workshop, seed, inputs) for seed in range(PROCESSES)]
    for number, row in enumerate(inputs["input"]):
        write_sample(tmp_path / f"data/{number}", {"input": row[np.newaxis]})
    config = {"input_type": "sequence", "path": "../data", "feature_quantize_method": "KL"}
    params = [by_hand(read_model(net), tmp_path / f"{number}.bin", 0.01) for number, net in enumerate(nets)]

    def onnx(number: int, *flags: object) -> tuple[object, ...]:
        source = nets[number].with_name("float.onnx")
        return "convert", "-f", "ONNX", "--modelFile", source, "--MNNModel", f"{number}.mnn", *flags

    def mnn(number: int, *flags: object) -> tuple[object, ...]:
        return "convert", "-f", "MNN", "--modelFile", nets[number], "--MNNModel", f"{number}.mnn", *flags

    lines = [
        onnx(0, "--weightQuantBits", "8"),
        mnn(1, "--compressionParamsFile", params[1]),
        ("calibrate", nets[2], "2.mnn", "config.json"),
        onnx(3, "--fp16", "--saveExternalData"),
        onnx(4, "--weightQuantBits", "4", "--weightQuantBlock", "32"),
        ("calibrate", nets[5], "5.mnn", "config.json"),
        onnx(6, "--weightQuantBits", "8", "--saveExternalData"),
        onnx(7),
    ]
    assert len(lines) == PROCESSES
    for folder in (at_once, alone):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    together([["-m", "pytest_mnnquant.cli.main", *line] for line in lines], at_once)
    monkeypatch.chdir(alone)
    for line in lines:
        assert tool(*line).status == 0
    assert {path.name for path in at_once.iterdir()} == {path.name for path in alone.iterdir()}
    for number, net in enumerate(nets):
        name = f"{number}.mnn"
        assert without_uuid(at_once / name) == without_uuid(alone / name)
        assert read_model(at_once / name).external_missing == 0
        (values,), (expected,) = (list(outputs(path, inputs).values()) for path in (at_once / name, net))
        off = np.abs(values - expected).max() / np.abs(expected).max()
        assert off < 0.15, (name, off)
    for weights in at_once.glob("*.weight"):
        assert weights.read_bytes() == (alone / weights.name).read_bytes()


@pytest.mark.parametrize("recipes", [("int8", "w4")])
def test_variants_at_once_in_one_cache(net: Net, digits: Prepared, tmp_path: Path, recipes: tuple[str, ...]) -> None:
    assert digits.calibration is not None
    (tmp_path / "net.mnn").write_bytes(net.mnn.read_bytes())
    np.savez(tmp_path / "data.npz", x=digits.calibration.inputs["x"][:40])
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    command: list[object] = ["-c", _VARIANTS, tmp_path]
    found = [json.loads(out) for out in together([[*command, shared, *recipes]] * PROCESSES, tmp_path)]
    expected = json.loads(together([[*command, alone, *recipes]], tmp_path)[0])
    assert all(paths == found[0] for paths in found)
    for ours, theirs in zip(found[0], expected, strict=True):
        assert without_uuid(Path(ours)) == without_uuid(Path(theirs))
        first, second = (outputs(Path(path), digits.calibration.head(8)) for path in (ours, theirs))
        assert all(np.array_equal(values, second[name]) and np.isfinite(values).all() for name, values in first.items())
    assert not list(shared.glob("*/unfinished-*"))
