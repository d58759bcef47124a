"""A job runs once for the same files, arguments and machine; then its result comes from the store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.cache.manifest import MANIFEST
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime import job_results
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.job_results import JobResults, set_job_results
from pytest_mnnquant.runtime.jobs import Job, JobResult, NativeFailure, run_job
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.standing import StandingCommand
from tests.conftest import TIMEOUT

Runs = list[str]
FEW = 3


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """The tasks that really ran."""
    ran: Runs = []
    start = StandingCommand.run

    def counted(command: StandingCommand, job_file: Path, timeout: float) -> int:
        ran.append(json.loads(job_file.read_bytes())["task"])
        return start(command, job_file, timeout)

    monkeypatch.setattr(StandingCommand, "run", counted)
    yield ran
    set_job_results(None)


def equal(first: Run, second: Run) -> bool:
    return first.trace == second.trace and all(
        np.array_equal(array, second.outputs[name]) for name, array in first.outputs.items()
    )


def images(source: Prepared, count: int = FEW) -> dict[str, npt.NDArray[Any]]:
    assert source.evaluation is not None
    return source.evaluation.head(count)


def test_a_model_runs_once_on_the_same_data(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    results = []
    for _ in range(2):  # The second time with another process's view of the store.
        set_job_results(JobResults(Store(tmp_path)))
        results.append(run(digits.model, images(digits), RunOptions(TIMEOUT)))
    assert runs == ["run"]
    assert equal(*results)


def test_other_data_models_and_options_run(digits: Prepared, digits_int8: Variant, runs: Runs, tmp_path: Path) -> None:
    set_job_results(JobResults(Store(tmp_path)))
    usual = RunOptions(TIMEOUT)
    run(digits.model, images(digits), usual)
    run(digits.model, images(digits, FEW + 1), usual)
    run(digits_int8.model, images(digits), usual)
    run(digits.model, images(digits), RunOptions(TIMEOUT, batched=False))
    assert runs == ["run"] * 4


def test_the_content_of_a_file_decides(digits: Prepared, digits_w4: Variant, runs: Runs, tmp_path: Path) -> None:
    model = tmp_path / "net.mnn"
    set_job_results(JobResults(Store(tmp_path / "store")))
    outputs = []
    for variant in (digits.model, digits_w4.model, digits.model):
        model.write_bytes(variant.path.read_bytes())
        outputs.append(run(read_model(model), images(digits), RunOptions(TIMEOUT)))
    assert runs == ["run"] * 2
    assert equal(outputs[0], outputs[2])
    assert not equal(outputs[0], outputs[1])


def test_a_damaged_result_is_made_again(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    set_job_results(JobResults(Store(tmp_path)))
    first = run(digits.model, images(digits), RunOptions(TIMEOUT))
    for path in tmp_path.glob("runs/*/output0.npy"):
        path.write_bytes(path.read_bytes()[:-4])
    store = Store(tmp_path)
    set_job_results(JobResults(store))
    assert equal(first, run(digits.model, images(digits), RunOptions(TIMEOUT)))
    assert runs == ["run"] * 2
    assert len(store.repaired) == 1


def test_a_failure_is_not_stored(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    set_job_results(JobResults(Store(tmp_path)))
    cut = tmp_path / "cut.mnn"
    cut.write_bytes(digits.model.path.read_bytes()[:1000])
    model = dataclasses.replace(digits.model, path=cut)
    for _ in range(2):
        with pytest.raises(NativeFailure):
            run(model, images(digits), RunOptions(TIMEOUT))
    assert runs == ["run"] * 2


def test_a_result_that_is_too_large_is_not_stored(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    for _ in range(2):
        set_job_results(JobResults(Store(tmp_path), limit=100))
        assert run(digits.model, images(digits), RunOptions(TIMEOUT)).outputs["output"].shape[0] == FEW
    assert runs == ["run"] * 2
    assert not list(tmp_path.glob("runs/*"))


def test_old_results_make_room(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    set_job_results(JobResults(Store(tmp_path), limit=6000))
    for count in range(1, 9):
        run(digits.model, images(digits, count), RunOptions(TIMEOUT))
    assert len(runs) == 8
    assert 1 <= len(list(tmp_path.glob("runs/*"))) < 8


def test_a_result_that_another_process_deletes_is_made_again(
    digits: Prepared, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_job_results(JobResults(Store(tmp_path)))
    run(digits.model, images(digits), RunOptions(TIMEOUT))

    def gone(_entry: Path, _folder: Path) -> JobResult:
        raise FileNotFoundError

    monkeypatch.setattr(job_results, "_read", gone)
    assert run(digits.model, images(digits), RunOptions(TIMEOUT)).outputs
    assert runs == ["run"] * 2


def test_an_entry_that_lost_a_file_leaves_nothing_of_itself_in_the_folder(
    digits: Prepared, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    set_job_results(JobResults(store))
    first = run(digits.model, images(digits), RunOptions(TIMEOUT))
    (entry,) = tmp_path.glob("runs/*")
    before = (entry / "output0.npy").read_bytes()
    manifest = json.loads((entry / MANIFEST).read_bytes())
    (entry / MANIFEST).write_text(json.dumps({**manifest, "output1.npy": [0, ""]}))
    assert equal(first, run(digits.model, images(digits), RunOptions(TIMEOUT)))
    assert runs == ["run"] * 2
    assert (entry / "output0.npy").read_bytes() == before


def test_a_full_disk_does_not_fail_a_job_that_succeeded(
    digits: Prepared, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job_results, "_link", full)
    set_job_results(JobResults(Store(tmp_path)))
    assert run(digits.model, images(digits), RunOptions(TIMEOUT)).outputs
    assert runs == ["run"]


def test_the_store_may_be_on_another_file_system(
    digits: Prepared, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    set_job_results(JobResults(Store(tmp_path)))
    first, second = (run(digits.model, images(digits), RunOptions(TIMEOUT)) for _ in range(2))
    assert runs == ["run"]
    assert equal(first, second)


def test_what_a_target_does_always_runs(digits: Prepared, runs: Runs, tmp_path: Path) -> None:
    set_job_results(JobResults(Store(tmp_path)))
    sent: Runs = []

    def send(job: Job, folder: Path) -> JobResult:
        sent.append(job.task)
        return run_job(job, folder)

    for _ in range(2):
        run(digits.model, images(digits), RunOptions(TIMEOUT, send=send))
    assert sent == runs == ["run"] * 2
