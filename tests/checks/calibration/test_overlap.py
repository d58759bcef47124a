"""Evaluation samples that are calibration samples are reported, if they can't be equal by chance."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mnnquant.checks.calibration.overlap import judge_overlap
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.measurements.dataset import Dataset

X = np.random.default_rng(0).standard_normal((40, 48))
IDS = np.random.default_rng(1).integers(0, 9, (40, 3))


def is_reported(first: np.ndarray, second: np.ndarray) -> bool:
    findings = judge_overlap(Dataset({"x": first}), Dataset({"x": second}))
    assert all((item.code, item.severity) == ("MNQ523", Severity.WARNING) for item in findings)
    return bool(findings)


@pytest.mark.parametrize(
    "second",
    [X, X[::-1], X.astype(np.float32), np.concatenate([X[:20], -X[:20]])],
    ids=["all", "order", "type", "half"],
)
def test_repeated_samples_are_reported(second: np.ndarray) -> None:
    assert is_reported(X, second)


@pytest.mark.parametrize(
    "second", [-X, np.concatenate([X[:19], -X[:21]]), X[:1].repeat(9, 0), X[:, :3]], ids=["new", "few", "one", "shape"]
)
def test_other_samples_are_not(second: np.ndarray) -> None:
    assert not is_reported(X, second)


def test_small_samples_may_be_equal_by_chance() -> None:
    assert is_reported(IDS, IDS[:36])
    assert not is_reported(IDS, IDS[:31])
    assert not is_reported(IDS, np.concatenate([IDS[:39], IDS[:1] + 20]))


def test_samples_of_few_values_repeat_in_every_set() -> None:
    random = np.random.default_rng(2)
    one_hot = [np.eye(40)[random.integers(0, 40, 200)] for _ in range(2)]
    assert not is_reported(*one_hot)


def test_all_inputs_count() -> None:
    data = Dataset({"x": X, "y": X})
    assert judge_overlap(data, Dataset({"x": X, "y": -X})) == []
    assert judge_overlap(data, Dataset({"x": X})) == []
