"""What differs between samples, without what all of them have in common."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_mnnquant.metrics.variation import chance_db, variation

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("common", [0.0, 10.0, 1000.0])
def test_a_common_part_of_any_size_changes_nothing(common: float) -> None:
    values = RANDOM.standard_normal((200, 6))
    noisy = values + 0.1 * RANDOM.standard_normal((200, 6))
    assert variation(common + values, common + noisy).sqnr_db == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("samples", [2, 3, 5, 50])
def test_few_samples_do_not_lower_the_signal(samples: int) -> None:
    """The expected energy about the mean of n samples is (n - 1) / n of the true one."""
    sets = [RANDOM.standard_normal((samples, 4000)) for _ in range(3)]
    signals = [variation(values, values + 1).signal.sum() / values.size for values in sets]
    assert np.mean(signals) == pytest.approx(1, abs=0.05)


def test_a_constant_reference_and_a_frozen_output_are_recognized() -> None:
    values = RANDOM.standard_normal((20, 4))
    frozen = np.repeat(values[:1], 20, 0)
    assert variation(frozen + 1e-6 * values, values).is_constant
    assert not variation(values, frozen).is_constant
    assert variation(values, frozen).is_frozen
    assert variation(values, frozen).sqnr_db < 1
    assert variation(values, values).sqnr_db == math.inf


def test_the_allowance_for_chance_covers_nineteen_of_twenty_sets() -> None:
    for samples in (5, 16, 64):
        sets = RANDOM.standard_normal((4000, samples))
        below = 10 * np.log10(sets.var(1, ddof=1)) < -chance_db(samples)
        assert below.mean() == pytest.approx(0.05, abs=0.015)
    assert chance_db(2) > 20
    assert chance_db(1) == math.inf


@pytest.mark.parametrize("value", [-1e4, -1e9, float(np.finfo(np.float32).min)])
def test_masked_elements_do_not_count(value: float) -> None:
    values = RANDOM.standard_normal((50, 10))
    noisy = values + 0.1 * RANDOM.standard_normal((50, 10))
    masked, output = (np.insert(array, 3, value, axis=1) for array in (values, noisy))
    output[:, 3] *= 1 + 1e-7  # The rounding of a mask.
    measured, expected = variation(masked, output), variation(values, noisy)
    assert not measured.is_constant
    assert measured.sqnr_db == pytest.approx(expected.sqnr_db)
    assert (measured.rms, measured.range) == pytest.approx((expected.rms, expected.range))


def test_a_saturated_probability_stays_constant() -> None:
    small = np.abs(1e-9 * RANDOM.standard_normal((50, 1)))
    assert variation(np.hstack([1 - small, small]), np.hstack([1 - small, 0 * small])).is_constant
