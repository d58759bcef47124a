"""The size of arrays in files: what a file holds is read, what it only claims is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.sources import array_files
from pytest_mnnquant.sources.array_files import UnreadableArrays, load_arrays
from pytest_mnnquant.sources.data import load_data
from pytest_mnnquant.sources.spec import DataError

LIMIT = 10_000


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "MEMORY_LIMIT", LIMIT)


def values(count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(0).random(count, np.float32)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_above_the_limit_are_read_from_archives(write: object, tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path / "x.npz", x=values(LIMIT), mask=np.zeros(LIMIT, bool))
    loaded = load_arrays(tmp_path / "x.npz")
    assert isinstance(loaded, dict)
    np.testing.assert_array_equal(loaded["x"], values(LIMIT))


def test_an_array_above_the_limit_is_read_from_its_own_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", values(LIMIT))
    assert load_data("x.npy", tmp_path, ("x",)).samples == LIMIT


def test_an_array_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, values(LIMIT))
    path.write_bytes(path.read_bytes()[: 2 * LIMIT])
    with pytest.raises(DataError) as raised:
        load_data("x.npy", tmp_path, ("x",))
    assert "numpy" not in raised.value.fix


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(100 * LIMIT))
    assert 200 * (tmp_path / "x.npz").stat().st_size < 100 * LIMIT * 8
    with pytest.raises(UnreadableArrays) as raised:
        load_arrays(tmp_path / "x.npz")
    assert raised.value.fix


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_read_where_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any) -> None:
    monkeypatch.setattr(array_files, "MAPPED", 1000)
    values = np.asarray(np.random.default_rng(0).standard_normal((20, 30)), order=order)
    small = np.arange(3)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", large=values, small=small)
    np.savez_compressed(tmp_path / "c.npz", large=values, small=small)
    alone = load_arrays(tmp_path / "a.npy")
    stored, packed = (load_arrays(tmp_path / name) for name in ("b.npz", "c.npz"))
    assert isinstance(stored, dict)
    assert isinstance(packed, dict)
    assert not isinstance(alone, dict)
    for array in (alone, stored["large"], packed["large"]):
        np.testing.assert_array_equal(array, values)
    for array in (stored["small"], packed["small"]):
        np.testing.assert_array_equal(array, small)
    assert [array.flags.writeable for array in (alone, stored["large"], packed["large"])] == [False, False, True]
