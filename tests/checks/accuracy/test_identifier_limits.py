"""Limits on class numbers and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.identifier_limits import identifier_demands
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.metrics.identifiers import compare_identifiers

Array = npt.NDArray[Any]


def fails(reference: Array, output: Array) -> bool:
    compared = compare_identifiers(reference, output)
    return any(demand.fails for demand in identifier_demands(reference, output, compared, Criteria()))


def squares(samples: int = 20) -> Array:
    """Class 1 in the middle of each sample."""
    masks = np.zeros((samples, 64, 64), np.int64)
    masks[:, 10:50, 10:50] = 1
    return masks


def test_a_few_wrong_elements_of_a_background_are_allowed() -> None:
    reference = np.zeros((20, 64, 64), np.int64)
    output = reference.copy()
    output.reshape(-1)[:: reference.size // 60] = 1
    assert not fails(reference, output)


def test_a_value_in_one_sample_is_not_judged_by_itself() -> None:
    reference, output = squares(), squares()
    reference[3, 20:26, 20:30] = 7
    output[3, 20:25, 20:26] = 7
    assert not fails(reference, output)


@pytest.mark.parametrize("samples", [8, 20])
def test_a_value_that_all_samples_lose_fails(samples: int) -> None:
    reference, output = squares(samples), squares(samples)
    reference[:, 20:24, 20:24] = 7
    assert fails(reference, output)


def test_a_tiny_share_is_not_judged_by_itself() -> None:
    reference, output = squares(), squares()
    reference[:, 20, 20:24] = 7
    assert not fails(reference, output)


def test_lost_objects_fail() -> None:
    reference, output = squares(), squares()
    output[:8] = 0
    assert fails(reference, output)
