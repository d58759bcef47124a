"""A smoke test of the installed wheel, with MNN alone: `python benchmarks/matrix_smoke.py FOLDER`.

Runs recipes, finished files (healthy and planted), reports, a baseline, the commands, a test with the plugin's
assertions, and xdist if it is installed. With torch it also judges a PyTorch model through both exporters.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

OWN_TEST = """
import pytest
from pytest_mnnquant import assert_quantized

@pytest.mark.mnn(model="net.mnn", recipes=["w8"])
def test_own(mnn_quantized):
    assert_quantized(mnn_quantized)
"""
NET = """
import numpy as np
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))

def calibration():
    return np.random.default_rng(0).standard_normal((128, 16)).astype(np.float32)
"""


def call(folder: Path, *words: str) -> int:
    """Run a command of this Python in the folder, with its output shown; returns the exit status."""
    print("$", " ".join(words), flush=True)
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=False).returncode


def pytest(folder: Path, *words: str) -> int:
    """Run pytest."""
    return call(folder, "-m", "pytest", "-p", "no:cacheprovider", "--mnn-cache-dir=cache", *words)


def command(folder: Path, *words: str) -> int:
    """Run the package's command."""
    return call(folder, "-m", "pytest_mnnquant.cli.main", *words)


def write_model(folder: Path) -> None:
    """Write `net.mnn`, a float model of one matrix product, with MNN's own converter."""
    weights = np.random.default_rng(0).standard_normal(64 * 64).astype(float)
    common = {
        "kernelX": 1, "kernelY": 1, "strideX": 1, "strideY": 1, "outputCount": 64, "inputCount": 64, "group": 1,
        "padMode": "VALID", "relu": False,
    }  # fmt: skip
    net = {
        "oplists": [
            {"type": "Input", "name": "x", "outputIndexes": [0], "main_type": "Input",
             "main": {"dims": [1, 64, 8, 8], "dtype": "DT_FLOAT", "dformat": "NC4HW4"}},
            {"type": "Convolution", "name": "conv", "inputIndexes": [0], "outputIndexes": [1],
             "main_type": "Convolution2D",
             "main": {"common": common, "weight": weights.tolist(), "bias": [0.0] * 64}},
        ],
        "tensorName": ["x", "conv"], "tensorNumber": 2, "sourceType": "ONNX", "outputName": ["conv"],
        "usage": "INFERENCE",
    }  # fmt: skip
    (folder / "net.json").write_text(json.dumps(net))
    code = "import sys, _tools; _tools.mnnconvert(sys.argv)" if importlib.util.find_spec("_tools") else ""
    arguments = ["-f", "JSON", "--modelFile", "net.json", "--MNNModel", "net.mnn"]
    subprocess.run([sys.executable, "-c", f"import MNN; {code}", *arguments], cwd=folder, check=True)
    assert (folder / "net.mnn").stat().st_size > 4 * 64 * 64


def main(folder: Path) -> int:
    """Run all steps; returns 1 if one has another exit status than expected."""
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    write_model(folder)
    np.savez(folder / "data.npz", x=np.random.default_rng(1).standard_normal((8, 64, 8, 8)).astype(np.float32))
    (folder / "test_own.py").write_text(OWN_TEST)
    model, data = "--mnn-model=net.mnn", "--mnn-evaluation=data.npz"
    flags = ("-f", "MNN", "--modelFile", "net.mnn", "--MNNModel", "w8.mnn", "--weightQuantBits", "8")
    quantized = ("--mnn-recipe=w8", "--mnn-quantized=w8.mnn")
    recipes = ("--mnn-recipe=w8", "--mnn-recipe=fp16", "-k", "not accuracy")
    steps: dict[str, tuple[int, Callable[[], int]]] = {
        "convert": (0, lambda: command(folder, "convert", *flags)),
        "recipes": (
            0,
            lambda: pytest(folder, model, data, *recipes),
        ),
        "healthy file": (0, lambda: pytest(folder, model, data, *quantized)),
        "planted file": (1, lambda: pytest(folder, model, "--mnn-recipe=w8", "--mnn-quantized=net.mnn")),
        "reports": (0, lambda: pytest(folder, model, *quantized, "--mnn-report=r.json", "--mnn-report=r.md")),
        "baseline": (0, lambda: pytest(folder, model, *quantized, "--mnn-update-baseline")),
        "with baseline": (0, lambda: pytest(folder, model, *quantized)),
        "own test": (0, lambda: pytest(folder, "test_own.py")),
        "inspect": (0, lambda: command(folder, "inspect", "w8.mnn", "--expect", "w8")),
        "diff": (1, lambda: command(folder, "diff", "net.mnn", "w8.mnn")),
        "explain": (0, lambda: command(folder, "explain", "MNQ401")),
        "wrong option": (4, lambda: pytest(folder, "--mnn-model=none.onnx")),
    }
    if importlib.util.find_spec("xdist"):
        steps["xdist"] = (0, lambda: pytest(folder, model, *quantized, "-n", "2"))
    if importlib.util.find_spec("torch"):
        (folder / "torch_net.py").write_text(NET)
        for exporter in ("torchscript", "dynamo"):
            words = ("--mnn-model=torch_net.py:build", "--mnn-recipe=w8", f"--mnn-exporter={exporter}")
            steps[exporter] = (0, functools.partial(pytest, folder, *words, "-k", "not baseline"))
    failed = [name for name, (expected, step) in steps.items() if not _report(name, expected, step())]
    print("failed:", ", ".join(failed) or "none")
    return int(bool(failed))


def _report(name: str, expected: int, status: int) -> bool:
    print(f"{name}: exit status {status}, expected {expected}", flush=True)
    return status == expected


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
