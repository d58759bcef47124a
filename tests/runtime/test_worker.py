"""A runner that stands ready: jobs run in forks of one process, and what ends one of them ends no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.jobs import Job, NativeFailure, run_job
from pytest_mnnquant.runtime.worker import Worker
from tests.conftest import TIMEOUT
from tests.runtime.test_jobs import ends


@pytest.fixture
def standing() -> Iterator[Worker]:
    made = Worker([sys.executable, str(PROGRAMS)])
    yield made
    made.close()


def example(standing: Worker, folder: Path, timeout: float = TIMEOUT) -> int:
    """Have a job done; returns the process behind it."""
    folder.mkdir(exist_ok=True)
    run_job(Job("example", "making a model", timeout), folder, standing)
    assert (folder / "example.mnn").stat().st_size > 100
    assert standing._process is not None
    return standing._process.pid


def test_jobs_run_in_forks_of_one_process_each_in_its_folder(standing: Worker, tmp_path: Path) -> None:
    first = example(standing, tmp_path / "one")
    assert example(standing, tmp_path / "two") == first
    assert "The device supports" in (tmp_path / "two" / "log.txt").read_text()
    standing.close()
    assert ends(first)


def test_a_job_that_crashes_takes_nothing_with_it(standing: Worker, tmp_path: Path) -> None:
    process = example(standing, tmp_path)
    (tmp_path / "junk.mnn").write_bytes(b"junk" * 100)
    arguments = ["-f", "MNN", "--modelFile", "junk.mnn", "--MNNModel", "out.mnn"]
    with pytest.raises(NativeFailure, match="MNN crashed with SIGSEGV"):
        run_job(Job("convert", "converting", TIMEOUT, {"arguments": arguments}), tmp_path, standing)
    with pytest.raises(NativeFailure, match="KeyError: 'no such task'"):
        run_job(Job("no such task", "nothing", TIMEOUT), tmp_path, standing)
    assert example(standing, tmp_path) == process


def test_a_job_that_takes_too_long_ends_the_process_and_the_next_has_a_new_one(
    standing: Worker, tmp_path: Path
) -> None:
    process = example(standing, tmp_path)
    with pytest.raises(NativeFailure, match=r"making a model: not finished after 1e-06 s \(limit: --mnn-timeout\)"):
        example(standing, tmp_path, timeout=1e-6)
    assert ends(process)
    assert example(standing, tmp_path) != process


def test_a_process_that_can_not_begin_is_a_failure(tmp_path: Path) -> None:
    broken = Worker([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(NativeFailure, match="ended with exit status 3 and no result"):
        example(broken, tmp_path)
