"""The product's own promises about the quantized network."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pytest_mnnquant import (
    assert_accuracy,
    assert_bundle_complete,
    assert_converted,
    assert_int8_executed,
    assert_quantized,
    assert_size_reduction,
    assert_weights_preserved,
)

BUDGET = 20_000  # bytes that the app has for this model


@pytest.mark.mnn(recipes=["int8", "w8"], modes=["eval"])
def test_quantized_as_asked(mnn_quantized):
    """Runs once for each recipe."""
    assert_converted(mnn_quantized)
    assert_quantized(mnn_quantized, min_coverage=0.99)
    assert_weights_preserved(mnn_quantized)
    assert_accuracy(mnn_quantized)


@pytest.mark.mnn(recipes=["int8"], modes=["eval"])
def test_runs_in_int8(mnn_quantized):
    assert_int8_executed(mnn_quantized)


@pytest.mark.mnn(recipes=["int8"], modes=["eval"])
def test_fits_the_app(mnn_quantized):
    assert_size_reduction(mnn_quantized, at_least=2.5)
    assert mnn_quantized.path.stat().st_size <= BUDGET


@pytest.mark.mnn(recipes=["int8"], modes=["eval"])
def test_no_digit_gets_much_worse(mnn_quantized):
    """A custom metric: the accuracy of each digit, averaged over the digits."""
    found = assert_accuracy(mnn_quantized, metric="metrics.py:balanced", max_drop=0.02)
    assert found["task"]["quantized"] > 0.9


@pytest.mark.mnn(recipes=["int8"], modes=["eval"])
def test_what_passes_is_what_ships(mnn_quantized):
    """The last test leaves the files that the release takes."""
    assert_bundle_complete(mnn_quantized)
    out = Path("out")
    out.mkdir(exist_ok=True)
    shutil.copy(mnn_quantized.path, out / "digits.mnn")
    shutil.copy(mnn_quantized.params_path, out / "digits.params.bin")


def test_the_data_are_what_they_should_be(mnn_evaluation):
    """Tests without a model are tests like any other."""
    assert sorted(set(mnn_evaluation["labels"])) == list(range(10))
    assert np.all(mnn_evaluation["x"] <= 1)
