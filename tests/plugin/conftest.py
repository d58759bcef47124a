"""Runs the plugin on a tiny model of a user's own, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# Runs in this process forget what they imported, and these can't be imported twice.
import onnx  # noqa: F401
import pytest
import torch
import torch._inductor.test_operators

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.sources.spec import parse_spec
from tests.conftest import TIMEOUT, quietly

pytest.register_assert_rewrite("tests.plugin.outcomes")

from tests.plugin.outcomes import Outcome, outcome  # noqa: E402
from tests.report.schema import assert_fits_schema  # noqa: E402

#: A user's model file. The labels are what the model itself says, on images that it is sure about.
NET = '''
"""A model, and data for it."""

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.norm = nn.BatchNorm2d(16, momentum=0.01)
        self.head = nn.Linear(16 * 36, 4)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


def build():
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():  # All classes are found, not the same one everywhere.
        some = np.random.default_rng(3).random((200, 1, 8, 8), np.float32)
        net.head.bias -= net(torch.from_numpy(some)).mean(0)
    return net


def images(seed, count=24):
    return np.random.default_rng(seed).random((count, 1, 8, 8), np.float32)


def calibration():
    return {"x": images(1)}


def evaluation():
    x = images(2, 200)
    with torch.no_grad():
        logits = build()(torch.from_numpy(x)).numpy()
    best, second = np.sort(logits, 1)[:, :-3:-1].T
    clear = np.argsort(second - best)[:24]
    return {"x": x[clear], "labels": logits[clear].argmax(1)}
'''
CONV, HEAD = "/conv/Conv_output_0", "output__matmul_converted"


@pytest.fixture(autouse=True)
def _outside_of_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline isn't updated where one of these is set."""
    for name in ("CI", "BUILD_NUMBER", "TF_BUILD", "TEAMCITY_VERSION"):
        monkeypatch.delenv(name, raising=False)


def of_nobody() -> dict[str, str]:
    """The environment without what the run of these tests, or GitHub, has put there."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTEST_", "GITHUB_")) and key not in ("CI", "COLUMNS")
    }


class Files:
    """The tiny model as finished files, for runs that need no PyTorch."""

    def __init__(self, folder: Path, store: Store) -> None:
        torch.set_num_threads(1)  # Waiting threads of torch would fight MNN's processes for the cores.
        (folder / "net.py").write_text(NET)
        choices = Choices(folder, timeout=TIMEOUT)
        source = prepare(parse_spec("net.py:build", folder), choices, store, quietly)
        variants = [make_variant(Job(source, RECIPES[name], mode, (), choices), store, quietly)
                    for name, mode in (("int8", "train"), ("int8", "eval"), ("w8", None))]  # fmt: skip
        self.float = source.model.path
        self.onnx = self.float.with_name("float.onnx")
        self.int8, self.w8 = variants[1].model.path, variants[2].model.path
        self.params = variants[1].params or Path()


@pytest.fixture(scope="session")
def files(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Made before any run, since the runs in this process must find all of torch imported that they need."""
    return Files(tmp_path_factory.mktemp("net"), store)


class Run(Protocol):
    """Runs pytest in the test's own folder; all warnings are errors."""

    def __call__(self, *args: object, alone: bool = False) -> Outcome: ...


@pytest.fixture
def run(pytester: pytest.Pytester, store: Store, files: Files, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest where `net.py` lies; `alone` in an own process, which takes seconds. Reports fit their schema."""
    for name in ("PYTEST_XDIST_WORKER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    # Runs in this process find no model of another run.
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not Path(folder, "net.py").is_file()])
    pytester.makepyfile(net=NET)

    def run(*args: object, alone: bool = False) -> Outcome:
        usual = ["-W", "error", f"--mnn-cache-dir={store.root}", *map(str, args)]
        result = pytester.runpytest_subprocess(*usual, "-rA") if alone else pytester.runpytest_inprocess(*usual)
        for name in (arg.partition("=")[2] for arg in usual if arg.startswith("--mnn-report=")):
            if name.endswith(".json") and (pytester.path / name).is_file():
                assert_fits_schema(json.loads((pytester.path / name).read_text(encoding="utf-8")))
        return outcome(result)

    return run


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Runs pytest, which must refuse its options: exit status 4 and a line that says why. Returns that line."""

    def refuse(*args: object) -> str:
        found = run(*args)
        errors = [line for line in found.lines if re.match(r"ERROR: (?!usage)|.* error: argument", line)]
        assert (found.status, len(errors)) == (pytest.ExitCode.USAGE_ERROR, 1), found.text
        return errors[0]

    return refuse
