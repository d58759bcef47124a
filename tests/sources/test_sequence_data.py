"""Sequences come as arrays of sequences and steps, or as one file per sequence, of any lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.spec import DataError

FRAMES = np.arange(3 * 4 * 5.0).reshape(3, 4, 5)
STATES = np.arange(3 * 6.0).reshape(3, 6)
NAMES = ("frame", "state")


def read(value: Any) -> Any:
    return as_dataset(value, NAMES, "test", {"state"})


def test_samples_are_the_steps_of_all_sequences() -> None:
    data = read({"frame": FRAMES, "state": STATES, "labels": np.arange(12).reshape(3, 4)})
    np.testing.assert_array_equal(data.inputs["frame"], FRAMES.reshape(12, 5))
    np.testing.assert_array_equal(data.inputs["state"], np.repeat(STATES, 4, 0))
    assert (data.lengths, data.labels.tolist(), data.per_sequence) == ((4, 4, 4), list(range(12)), False)
    assert (data.first(5).lengths, data.spread(5).lengths) == ((), ())


def test_a_sequence_may_have_one_label_and_no_first_state() -> None:
    data = read({"frame": FRAMES, "labels": np.array([7, 8, 9])})
    assert (data.labels.tolist(), data.per_sequence) == ([7] * 4 + [8] * 4 + [9] * 4, True)
    assert list(data.inputs) == ["frame"]


def test_batches_of_sequences_may_differ_in_length() -> None:
    data = read([{"frame": FRAMES}, {"frame": FRAMES[:, :2]}])
    assert data.lengths == (4, 4, 4, 2, 2, 2)
    assert data.samples == 18


def test_a_value_without_axes_holds_for_all_steps() -> None:
    data = as_dataset({"frame": FRAMES, "rate": np.array(16000)}, ("frame", "rate", "state"), "test", {"state"})
    assert data.inputs["rate"].tolist() == [16000] * 12


def test_a_file_is_a_sequence(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number, length in enumerate((4, 2, 3)):
        label = np.array(number)
        np.savez(tmp_path / "set" / f"{number}.npz", frame=FRAMES[number, :length], state=STATES[None, 0], labels=label)
    data = load_data("set", tmp_path, NAMES, states={"state"})
    assert (data.lengths, data.per_sequence) == ((4, 2, 3), True)
    assert data.inputs["state"].shape == (9, 1, 6)
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 3


@pytest.mark.parametrize(
    "value",
    [
        {"frame": FRAMES, "other": FRAMES[:, :2], "state": STATES},
        {"frame": FRAMES[:2], "other": FRAMES, "state": STATES},
        {"frame": FRAMES[:, :0], "other": FRAMES[:, :0]},
        [{"frame": FRAMES, "other": FRAMES}, {"frame": FRAMES}],
        {"frame": FRAMES, "other": FRAMES, "labels": np.zeros((2, 2))},
    ],
    ids=["other steps", "other sequences", "no steps", "other arrays", "other labels"],
)
def test_sequences_that_do_not_match_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"^test: "):
        as_dataset(value, ("frame", "other", "state"), "test", {"state"})
