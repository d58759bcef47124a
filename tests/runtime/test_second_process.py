"""Half of a run's samples in a second process: the same outputs, and the same failures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime import background
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.programs.output_files import OutputFiles
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

OPTIONS = RunOptions(TIMEOUT, batched=True)


@pytest.fixture(scope="module")
def inputs() -> dict[str, npt.NDArray[np.float32]]:
    return {"x": np.random.default_rng(0).standard_normal((150, 1, 8, 8), np.float32)}


class Two(nn.Module):
    """Two outputs of different shapes and types."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.conv(x)
        return made, made.mean((2, 3)).argmax(1)


@pytest.fixture(scope="module")
def model(workshop: Workshop, inputs: dict[str, npt.NDArray[np.float32]]) -> Model:
    torch.manual_seed(0)
    return workshop.floats(Two().eval(), inputs)


@pytest.mark.parametrize("samples", [127, 128, 129, 150])
def test_two_processes_give_the_outputs_of_one(
    model: Model,
    inputs: dict[str, npt.NDArray[np.float32]],
    samples: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = {"x": inputs["x"][:samples]}
    monkeypatch.setattr(background, "spare_cores", lambda: 0)
    alone = run(model, data, OPTIONS)
    monkeypatch.setattr(background, "spare_cores", lambda: 1)
    divided = run(model, data, OPTIONS)
    assert len(alone.outputs) == 2
    for name, array in alone.outputs.items():
        assert len(array) == samples
        assert array.dtype == divided.outputs[name].dtype
        assert np.array_equal(array, divided.outputs[name])
    assert alone.trace == divided.trace


@pytest.mark.parametrize(("samples", "divided"), [(127, False), (128, True)])
def test_four_batches_are_worth_a_second_process(
    model: Model, inputs: dict[str, npt.NDArray[np.float32]], samples: int, divided: bool
) -> None:
    jobs = []

    def send(job: Job, folder: Path) -> Any:
        jobs.append(job)
        return run_job(job, folder)

    run(model, {"x": inputs["x"][:samples]}, RunOptions(TIMEOUT, batched=True, send=send))
    assert [job.is_divisible for job in jobs] == [divided]


FAILING = """
import os, signal, sys
import numpy as np
from pytest_mnnquant.runtime.programs.output_files import OutputFiles
from pytest_mnnquant.runtime.programs.second_process import SecondProcess

np.save("x.npy", np.zeros((10, 3), np.float32))
job, parent = {"batch": 2, "inputs": {"x": "x.npy"}}, os.getpid()


def run(samples, files):
    if os.getpid() != parent:
        files.add({"y": np.ones((2, 3), np.float32)})
        %s
    files.add({"y": np.zeros((len(samples), 3), np.float32)})


os.makedirs("second/left-over")
second, files = SecondProcess(job, run), OutputFiles(job)
run(second.first, files)
if not second.add_to(files):
    print("failed")
    run(second.later, files)
files.close()
print(np.load("output0.npy").shape, np.load("output0.npy").sum())
"""


@pytest.mark.parametrize("end", ["raise OSError", "os._exit(0)", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_what_a_second_process_did_not_run_runs_here(tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-c", FAILING % end]
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["failed", "(10, 3) 0.0"]


def test_outputs_of_another_number_or_type_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((4, 3), np.float32))
    files = OutputFiles({"batch": 2, "inputs": {"x": "x.npy"}})
    files.add({"y": np.zeros((2, 3), np.float32)})
    with pytest.raises(ValueError, match="1 outputs"):
        files.join(tmp_path, [])
    with pytest.raises(ValueError, match="two types"):
        files.join(tmp_path, [["output0.npy", "<i4", [[2, 3]]]])
