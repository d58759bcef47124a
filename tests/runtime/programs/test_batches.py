"""The inputs of a job, batch by batch, and how far the job is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.runtime.programs.batches import batches


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job works in its folder."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(70.0, dtype=np.float32).reshape(70, 1))


def test_each_batch_is_reported() -> None:
    reports = [Path("progress").read_text() for _ in batches({"inputs": {"x": "x.npy"}, "batch": 32})]
    assert reports == ["0 3 batches", "1 3 batches", "2 3 batches"]


def test_a_single_batch_is_not_reported() -> None:
    assert len([*batches({"inputs": {"x": "x.npy"}, "batch": 70})]) == 1
    assert not Path("progress").exists()


def test_all_samples_are_taken_once() -> None:
    parts = [batch["x"] for batch in batches({"inputs": {"x": "x.npy"}, "batch": 32})]
    assert [len(part) for part in parts] == [32, 32, 6]
    np.testing.assert_array_equal(np.concatenate(parts), np.load("x.npy"))


def test_chosen_samples_alone_are_taken() -> None:
    parts = [batch["x"] for batch in batches({"inputs": {"x": "x.npy"}, "batch": 2}, np.array([3, 5, 69]))]
    assert [part.ravel().tolist() for part in parts] == [[3, 5], [69]]
