"""A folder of .npz files: one file per sample, each array exactly as the model takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.sources.data import load_data
from pytest_mnnquant.sources.spec import DataError


def write(folder: Path, *samples: dict[str, Any]) -> None:
    folder.mkdir()
    for number, arrays in enumerate(samples):
        np.savez(folder / f"{number:03d}.npz", **arrays)


def test_each_file_is_a_sample(tmp_path: Path) -> None:
    rows = [
        {"frame": np.full((1, 5), n), "state": np.full((2, 1, 4), n), "rate": np.array(16000), "labels": np.array(n)}
        for n in range(3)
    ]
    write(tmp_path / "set", *rows)
    data = load_data("set", tmp_path, ("frame", "state", "rate"))
    assert {name: array.shape for name, array in data.inputs.items()} == {
        "frame": (3, 5),
        "state": (3, 2, 1, 4),
        "rate": (3,),
    }
    assert data.axes == {"state": None, "rate": None}
    assert data.is_single
    batches = list(data.batches(32))
    assert [batch["state"].shape for batch in batches] == [(2, 1, 4)] * 3
    assert [batch["rate"].shape for batch in batches] == [()] * 3
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "second", [{"x": np.zeros((1, 4))}, {"y": np.zeros((1, 5))}, {"x": np.zeros((1, 5)), "labels": np.zeros(1)}]
)
def test_files_that_differ_are_named(second: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "set", {"x": np.zeros((1, 5))}, second)
    with pytest.raises(DataError, match=r"^set: .*(001\.npz|'x')"):
        load_data("set", tmp_path, ("x",))


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    write(tmp_path / "set", {"x": np.zeros((1, 5))})
    (tmp_path / "set" / "000.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"000\.npz"):
        load_data("set", tmp_path, ("x",))
