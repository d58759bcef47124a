"""Outputs that are no answer: each way of being none has its rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.outputs import broken

Array = npt.NDArray[Any]
GOOD = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)


def spoiled(value: float) -> Array:
    out = GOOD.copy()
    out[3, 2] = value
    return out


@pytest.mark.parametrize(
    ("output", "code", "value"),
    [
        (None, "MNQ705", "z"),
        (GOOD[:, :3], "MNQ705", "[20, 3]"),
        (GOOD[:10], "MNQ705", "[10, 6]"),
        (spoiled(np.nan), "MNQ703", "1%"),
        (spoiled(np.inf), "MNQ703", "1%"),
        (spoiled(3.4e38), "MNQ703", "1e+30"),
        (np.tile(GOOD[:1], (20, 1)), "MNQ704", "20"),
        (np.repeat(GOOD[:, :1], 6, axis=1), "MNQ706", "6"),
    ],
)
def test_each_kind_of_unusable_output_has_its_code(output: Array | None, code: str, value: str) -> None:
    outputs = {"z": GOOD} if output is None else {"y": output}
    (finding,) = broken({"y": GOOD}, outputs)
    assert finding.code == code
    assert value in finding.message
    assert "'y'" in finding.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_model_that_is_not_finite_has_its_own_code(value: float) -> None:
    (finding,) = broken({"y": spoiled(value)}, {"y": spoiled(value)})
    assert finding.code == "MNQ707"
    assert "1%" in finding.message


@pytest.mark.parametrize(
    "same",
    [GOOD, np.tile(GOOD[:1], (20, 1)), np.repeat(GOOD[:, :1], 6, axis=1), GOOD[:1], np.arange(20)[:, None]],
)
def test_what_the_float_model_gives_too_is_no_fault(same: Array) -> None:
    assert broken({"y": same}, {"y": same.copy()}) == []


def test_each_output_is_looked_at() -> None:
    found = broken({"a": GOOD, "b": GOOD, "c": GOOD}, {"a": spoiled(np.nan), "b": GOOD})
    assert [finding.code for finding in found] == ["MNQ703", "MNQ705"]
