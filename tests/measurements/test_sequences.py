"""Outputs of a step are the states before the next step, within each sequence."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.measurements.sequences import Sequences, ends_of, fed_back, starts_of
from pytest_mnnquant.runtime.programs.feedback import Feedback

LENGTHS = (3, 1, 2)


def test_sequences_start_and_end() -> None:
    assert (starts_of(LENGTHS).tolist(), ends_of(LENGTHS).tolist()) == ([0, 3, 4], [2, 3, 5])


def test_states_are_the_outputs_of_the_step_before() -> None:
    outputs, first = np.arange(6.0)[:, None, None] + 10, np.repeat([[-1.0], [-1], [-1], [-2], [-3], [-3]], 1, 1)
    assert fed_back(outputs, first, LENGTHS)[:, 0].tolist() == [-1, 10, 11, -2, -3, 14]
    with pytest.raises(ValueError, match="shapes differ"):
        fed_back(np.zeros((6, 2)), first, LENGTHS)


def test_the_program_feeds_back_what_the_steps_left() -> None:
    feedback = Feedback({"sequences": Sequences({"h": "h_out"}, LENGTHS).as_job})
    seen = []
    for step in range(6):
        batch = feedback.enter({"x": np.ones((1, 2)), "h": np.full((1, 1), -1, np.float32)})
        seen.append(float(batch["h"][0, 0]))
        feedback.leave({"y": np.zeros(1), "h_out": np.array([step + 10.0])})
    assert seen == [-1, 10, 11, -1, -1, 14]


def test_without_sequences_nothing_is_fed_back() -> None:
    feedback, batch = Feedback({}), {"h": np.ones((1, 1))}
    feedback.leave({"y": np.zeros(1)})
    assert feedback.enter(batch) is batch


def test_states_have_the_names_of_another_model() -> None:
    sequences = Sequences({"h": "h_out"}, LENGTHS, ("y", "h_out"))
    assert sequences.renamed({"h": "in2"}, ("out1", "out2")).states == {"in2": "out2"}
    assert sequences.renamed({"h": "h"}, ("h_out", "y")).states == {"h": "h_out"}
