"""The files of outputs are those that numpy would write of all batches together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.runtime.programs.output_files import HEADER, OutputFiles, header
from pytest_mnnquant.runtime.programs.sample_axes import as_samples

Parts = list[npt.NDArray[Any]]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job works in its folder."""
    monkeypatch.chdir(tmp_path)


def written(parts: Parts, count: int, axis: int | None = None, fixed: bool = False) -> npt.NDArray[Any]:
    """The file of one output of these batches, of a job with `count` samples."""
    np.save("x.npy", np.zeros((count, 1), np.float32))
    axes = {} if axis is None else {"y": axis}
    files = OutputFiles({"inputs": {"x": "x.npy"}, "axes": {"outputs": axes}, "fixed": fixed})
    for part in parts:
        files.add({"y": part})
    assert files.close() == ["y"]
    return np.asarray(np.load("output0.npy", mmap_mode="r"))


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize(
    ("shapes", "count", "axis"),
    [
        (((32, 3, 4), (6, 3, 4)), 38, None),
        (((1, 3), (1, 3)), 2, None),
        (((5, 3), (5, 3)), 2, None),
        (((2, 3), (4, 3)), 2, None),
        (((), ()), 2, None),
        (((4, 7), (4, 2)), 9, 1),
        (((0, 6), (3, 6)), 2, None),
    ],
    ids=["batches", "singles", "stacked", "of-many-sizes", "scalars", "time-major", "empty"],
)
def test_it_is_what_the_batches_make_together(
    kind: Any, shapes: tuple[tuple[int, ...], ...], count: int, axis: int | None
) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(0, 2, shape).astype(kind) for shape in shapes]
    expected = as_samples(parts, axis, len(parts) == count)
    found = written(parts, count, axis)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_what_fills_the_last_batch_is_left_out() -> None:
    parts = [np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2)]
    found = written(parts, 5, fixed=True)
    assert found.shape == (5, 2)
    assert Path("output0.npy").stat().st_size == HEADER + 5 * 2 * 8


def test_outputs_that_do_not_fit_together_are_an_error() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        written([np.zeros((1, 2)), np.zeros((1, 3))], 2)


def test_outputs_have_files_in_the_order_of_their_names() -> None:
    np.save("x.npy", np.zeros((2, 1)))
    files = OutputFiles({"inputs": {"x": "x.npy"}})
    for value in (1.0, 2.0):
        files.add({"b": np.full((1, 1), value), "a": np.full((1, 1), -value)})
    assert files.close() == ["b", "a"]
    assert [np.load(f"output{number}.npy").ravel().tolist() for number in range(2)] == [[1, 2], [-1, -2]]


@given(shape=st.lists(st.integers(0, 2**40), max_size=8).map(tuple))
def test_the_header_has_its_size_for_any_shape(shape: tuple[int, ...]) -> None:
    assert len(header(shape, np.dtype(np.float32))) == HEADER
