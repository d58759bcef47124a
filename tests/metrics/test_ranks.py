"""The order of scores."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.metrics.ranks import rank_correlation

SCORES = np.random.default_rng(0).standard_normal(200)


def test_the_order_is_compared_by_ranks() -> None:
    # The ranks are 1, 2.5, 2.5, 4 and 1, 2, 3, 4, forty times: a covariance of 4.5 by variances of 4.5 and 5.
    first, second = np.tile([1.0, 2.0, 2.0, 3.0], 10), np.tile([1.0, 2.0, 2.1, 3.0], 10)
    assert rank_correlation(first, second) == pytest.approx(np.sqrt(0.9), abs=1e-6)
    assert rank_correlation(SCORES, SCORES.clip(-2, 2)) == pytest.approx(1, abs=1e-3)


def test_the_order_says_little_about_few_samples_constants_and_large_errors() -> None:
    assert rank_correlation(SCORES[:20], SCORES[:20]) is None
    assert rank_correlation(SCORES, 2 * SCORES) is None
    assert rank_correlation(SCORES, np.zeros(200)) is None
    assert rank_correlation(np.ones(200), np.ones(200)) is None


def test_a_tail_that_is_cut_off_makes_the_order_say_little() -> None:
    scores = np.exp(np.random.default_rng(1).standard_normal(2000))
    assert rank_correlation(scores, np.minimum(scores, np.quantile(scores, 0.91))) is None
    assert rank_correlation(scores, np.minimum(scores, np.quantile(scores, 0.98))) == pytest.approx(1, abs=1e-3)
