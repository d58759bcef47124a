"""Copies whose tensors are quantized in another way: the weights stay, the arithmetic changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.workshop import Workshop


def test_without_quantized_tensors_stored_weights_are_computed_with_in_float(
    workshop: Workshop, tmp_path: Path
) -> None:
    variant = workshop.variant("mobile_net", "int8", "eval")
    data = workshop.prepared("mobile_net").data
    assert data is not None
    write_with_quants(variant.model, {}, tmp_path / "weights.mnn")
    copy = read_model(tmp_path / "weights.mnn")
    assert copy.tensor_quants == {}
    inputs = data.head(16)
    exact, whole, weights = (run(one, inputs, RunOptions(TIMEOUT)) for one in (variant.base, variant.model, copy))
    assert sum(op.int8 for op in whole.trace or ()) > 20
    assert sum(op.int8 for op in weights.trace or ()) == 0
    reference = exact.outputs["output"]
    assert sqnr_db(reference, whole.outputs["output"]) + 6 < sqnr_db(reference, weights.outputs["output"]) < 60
    for one, other in zip(variant.model.layers, copy.layers, strict=True):
        assert np.array_equal(variant.model.decoded(one), copy.decoded(other))


def test_quantized_tensors_are_written_as_they_are_read(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.variant("digits_cnn", "int8", "eval").model
    wanted = {index: dataclasses.replace(quant, zero=quant.zero + 1) for index, quant in model.tensor_quants.items()}
    write_with_quants(model, wanted, tmp_path / "copy.mnn")
    assert read_model(tmp_path / "copy.mnn").tensor_quants == wanted


def test_a_model_that_describes_no_tensor_stays_as_it_is(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.variant("digits_cnn", "w8").model
    write_with_quants(model, {}, tmp_path / "copy.mnn")
    first, second = (run(one, {"x": np.ones((2, 1, 16, 16), np.float32)}, RunOptions(TIMEOUT)) for one in
                     (model, read_model(tmp_path / "copy.mnn")))  # fmt: skip
    assert np.array_equal(first.outputs["output"], second.outputs["output"])
