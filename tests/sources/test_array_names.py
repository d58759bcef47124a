"""The names of arrays are read from data of any form before the data; what fails is left to the reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.sources.array_names import array_names


class Loader:
    """Batches that can be iterated again, in a random order."""

    def __iter__(self) -> Iterator[Any]:
        yield {"x": np.random.rand(2), "mask": np.ones(2)}


class Failing:
    """Batches that can't be made."""

    def __iter__(self) -> Iterator[Any]:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"x": 1, "mask": 2}, ("x", "mask")),
        (({"x": 1}, 2), ("x",)),
        ([{"x": 1}], ("x",)),
        (Loader(), ("x", "mask")),
        (Failing(), ()),
        (iter([{"x": 1}]), ()),
        (np.ones(3), ()),
        (5, ()),
    ],
)
def test_names_are_those_of_the_first_batch(value: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    assert array_names([value], tmp_path) == names


def test_only_names_of_all_data_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=1, labels=2)
    assert array_names([{"x": 1, "mask": 2}, None, "d.npz"], tmp_path) == ("x",)


def test_looking_draws_no_random_numbers(tmp_path: Path) -> None:
    np.random.seed(0)
    first = np.random.rand()
    np.random.seed(0)
    array_names([Loader()], tmp_path)
    assert np.random.rand() == first
