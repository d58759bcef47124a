"""Each channel of probabilities is compared by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.metrics.probability_channels import worst_channel

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)


def candidates() -> Array:
    """[samples, candidates, 4]: probabilities, of which the second is high where the others rarely are."""
    made = RANDOM.uniform(0, 0.1, (40, 30, 4))
    made[:, ::7, 1] = RANDOM.uniform(0.5, 1, made[:, ::7, 1].shape)
    made[:, ::3, 2] = RANDOM.uniform(0, 1, made[:, ::3, 2].shape)
    return made


@pytest.mark.parametrize("axis", [1, 2])
def test_a_frozen_channel_is_the_worst(axis: int) -> None:
    reference = candidates()
    output = reference + RANDOM.normal(0, 0.01, reference.shape)
    output[..., 1] = reference[..., 1].mean(0)
    reference, output = (np.moveaxis(array, 2, axis) for array in (reference, output))
    worst = worst_channel(reference, output, np.ones(reference.shape[1:], bool))
    assert worst is not None
    assert (worst.axis, worst.index) == (axis, 1)
    assert worst.variation.sqnr_db == pytest.approx(0, abs=0.2)


def test_other_parts_and_what_never_occurs_are_left_out() -> None:
    reference = candidates()
    output = reference.copy()
    output[..., [0, 3]] = 0
    flags = np.zeros(reference.shape[1:], bool)
    assert worst_channel(reference, output, flags) is None
    flags[:, 1:] = True
    worst = worst_channel(reference, output, flags)
    assert worst is not None
    assert worst.index in (1, 2)
    assert worst_channel(reference[:5], output[:5], flags) is None
    assert worst_channel(reference[:, 0], output[:, 0], flags[0]) is None
