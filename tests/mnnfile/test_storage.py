"""What stored weights say of themselves."""

from __future__ import annotations

import pytest

from pytest_mnnquant.mnnfile.flatbuffer import BadModel
from pytest_mnnquant.mnnfile.storage import Storage, Weights


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        (Weights(Storage.FLOAT32, 32, 6, 24), "float32"),
        (Weights(Storage.FLOAT16, 16, 6, 12), "float16"),
        (Weights(Storage.INTEGER, 8, 6, 6), "w8"),
        (Weights(Storage.INTEGER, 4, 64, 6, block=32), "w4 block 32"),
        (Weights(Storage.INTEGER, 8, 6, 6, full_int8=True), "int8"),
        (Weights(Storage.SPARSE_INTEGER, 4, 6, 6), "sparse integer"),
        (Weights(Storage.OTHER, 4, 6, 6), "other"),
    ],
)
def test_label_tells_the_storage(weights: Weights, label: str) -> None:
    assert weights.label == label


def test_float_storage_has_no_steps_and_weights_without_a_source_do_not_decode() -> None:
    weights = Weights(Storage.FLOAT32, 32, 6, 24)
    assert weights.steps().size == 0
    with pytest.raises(BadModel, match="no weights"):
        weights.decoded()
