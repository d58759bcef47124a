"""How far a step is reaches who listens, from this process and from children; and no one else is bothered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.torch_ranges import collect_extremes
from pytest_mnnquant.quantize.torch_watch import Value
from pytest_mnnquant.runtime.command import Command
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job
from pytest_mnnquant.runtime.progress import has_listener, report_progress, set_listener

Heard = list[tuple[int, int, str]]
CHILD = """
import pathlib, time
pathlib.Path("progress").write_text("3 7 pairs")
time.sleep(1)
pathlib.Path("result.json").write_text("{}")
"""


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What was told while the test ran."""
    told: Heard = []
    set_listener(lambda *how_far: told.append(how_far))
    yield told
    set_listener(None)


def child(folder: Path, text: str, timeout: float = 60) -> None:
    (folder / "child.py").write_text(text)
    run_job(Job("any", "it", timeout), folder, Command(folder / "child.py"))


def test_a_child_is_heard_of_while_it_works(tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "progress").write_text("9 9 batches of the job before")
    child(tmp_path, CHILD)
    assert (3, 7, "pairs") in heard
    assert {*heard} <= {(3, 7, "pairs"), (0, 0, "")}


def test_a_child_that_tells_nothing_is_waited_for_aloud(tmp_path: Path, heard: Heard) -> None:
    child(tmp_path, CHILD.replace("3 7 pairs", "soon"))
    assert {*heard} == {(0, 0, "")}


def test_a_child_that_hangs_ends_in_time_whoever_listens(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(NativeFailure, match=r"not finished after 0\.6 s"):
        child(tmp_path, "import time\ntime.sleep(60)", timeout=0.6)
    assert heard


def test_a_child_that_makes_progress_may_take_longer_than_the_limit(tmp_path: Path) -> None:
    steady = """
import pathlib, time
for number in range(8):
    pathlib.Path("progress").write_text(f"{number} 8 batches")
    time.sleep(0.4)
pathlib.Path("result.json").write_text("{}")
"""
    child(tmp_path, steady, timeout=1.5)


def test_a_child_that_stops_ends_after_the_limit_and_the_failure_says_where(tmp_path: Path) -> None:
    stuck = """
import pathlib, time
pathlib.Path("progress").write_text("3 8 batches")
time.sleep(60)
"""
    with pytest.raises(
        NativeFailure, match=r"no progress for 1 s, after 3 of 8 batches \(limit: --mnn-timeout\)"
    ) as error:
        child(tmp_path, stuck, timeout=1)
    assert error.value.kind is FailureKind.TIMED_OUT


def test_calibration_in_pytorch_tells_its_batches(heard: Heard) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 2)).eval()
    data = Dataset({"x": np.ones((70, 4), np.float32)})
    collect_extremes(network, {Value("", "input0", 0)}, data)
    assert heard == [(0, 3, "batches"), (1, 3, "batches"), (2, 3, "batches")]


def test_where_nobody_listens_nothing_is_told() -> None:
    assert not has_listener()
    report_progress(1, 2, "batches")
