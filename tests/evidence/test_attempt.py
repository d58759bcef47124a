"""An attempt is made once, and its error is the same every time."""

from __future__ import annotations

import pytest

from pytest_mnnquant.evidence.attempt import Attempt


def _fail() -> int:
    raise ValueError("broken")


def test_a_value_is_given_back() -> None:
    attempt = Attempt.of(lambda: 0, ValueError)
    assert attempt.value == 0
    assert attempt.error is None


def test_an_error_is_raised_at_each_reading() -> None:
    attempt = Attempt.of(_fail, ValueError)
    with pytest.raises(ValueError) as first:
        attempt.value  # noqa: B018
    with pytest.raises(ValueError) as second:
        attempt.value  # noqa: B018
    assert first.value is second.value is attempt.error


def test_other_errors_pass_through() -> None:
    with pytest.raises(ValueError):
        Attempt.of(_fail, OSError)
