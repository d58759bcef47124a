"""The folder of a job holds all that the job needs, each file known by its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.jobs import Job
from pytest_mnnquant.targets.packing import pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "job"
    path.mkdir()
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model elsewhere, with weights beside it."""
    path = tmp_path / "net.mnn"
    path.write_bytes(b"model")
    (tmp_path / "net.mnn.weight").write_bytes(b"weights")
    return path


def packed(folder: Path, **arguments: Any) -> dict[str, Any]:
    return dict(pack(Job("run", "running", 60, arguments), folder, "3.6.1").arguments)


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_all_programs_are_sent(folder: Path) -> None:
    arguments = packed(folder)
    names = [f"programs/{path.name}" for path in PROGRAMS.glob("*.py")]
    assert arguments == {"sent": digests(folder, names), "mnn": "3.6.1"}
    assert digests(folder, names) == digests(PROGRAMS.parent, names)


def test_a_model_comes_with_its_weights_and_arrays_stay(folder: Path, model: Path) -> None:
    (folder / "input0.npy").write_bytes(b"array")
    arguments = packed(folder, model=str(model), inputs={"x": str(folder / "input0.npy")}, batch=32)
    assert (arguments["model"], arguments["inputs"], arguments["batch"]) == ("model.mnn", {"x": "input0.npy"}, 32)
    sent = {name: digest for name, digest in arguments["sent"].items() if not name.startswith("programs/")}
    assert sent == digests(folder, ["input0.npy", "model.mnn", "model.mnn.weight"])


def test_two_models_have_names_of_their_own(folder: Path, model: Path) -> None:
    arguments = packed(folder, models=[str(model), str(model)])
    assert arguments["models"] == ["model0.mnn", "model1.mnn"]
    assert {"model0.mnn", "model0.mnn.weight", "model1.mnn", "model1.mnn.weight"} <= arguments["sent"].keys()


def test_the_job_itself_is_not_changed(folder: Path, model: Path) -> None:
    job = Job("run", "running", 60, {"model": str(model)})
    pack(job, folder, "3.6.1")
    assert job.arguments == {"model": str(model)}
