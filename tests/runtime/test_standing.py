"""Jobs of this machine run in forks of a process per thread, which starts again if the environment changes."""

from __future__ import annotations

import contextlib
import resource
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mnnquant.runtime import standing
from pytest_mnnquant.runtime.jobs import Job, NativeFailure, run_job
from tests.conftest import TIMEOUT
from tests.runtime.test_jobs import ends

#: More than the 1024 descriptors that `select.select` takes.
MANY = 1100


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No process of earlier tests."""
    standing._ready.worker = standing._ready.environment = None
    yield
    standing._ready.worker = standing._ready.environment = None


def process_of(folder: Path) -> int:
    """Run a job; returns the id of the process that stands ready."""
    folder.mkdir(exist_ok=True, parents=True)
    run_job(Job("example", "making a model", TIMEOUT), folder)
    assert (folder / "example.mnn").stat().st_size > 100
    assert standing._ready.worker is not None
    process = standing._ready.worker._process
    assert process is not None
    return process.pid


def test_the_process_stays_until_the_environment_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = process_of(tmp_path)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "another test")
    assert process_of(tmp_path) == first
    monkeypatch.setenv("MNNQUANT_ANYTHING", "1")
    assert process_of(tmp_path) != first


def test_each_thread_has_its_process(tmp_path: Path) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda name=name: found.append(process_of(tmp_path / name))) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found, process_of(tmp_path / "c")}) == 3


def test_a_folder_with_a_line_break_in_its_name_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    run_job(Job("example", "making a model", TIMEOUT), folder)
    assert (folder / "example.mnn").exists()
    assert standing._ready.worker is None


def test_an_interrupt_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = process_of(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(select, "poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process_of(tmp_path)
    assert ends(process)
    assert process_of(tmp_path) != process


def test_more_open_files_than_select_takes_are_no_obstacle(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 100:
        pytest.skip(f"this system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY + 100), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(MANY):
            stack.enter_context(Path("/dev/null").open("rb"))
        assert process_of(tmp_path)


def test_each_job_reports_that_mnn_can_not_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "MNN").mkdir(parents=True)
    (tmp_path / "site" / "MNN" / "__init__.py").write_text("raise ImportError('libstdc++ is too old')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    for _ in range(2):
        with pytest.raises(NativeFailure, match="libstdc"):
            run_job(Job("example", "making a model", TIMEOUT), tmp_path)
