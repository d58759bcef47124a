"""Every byte of a model's files falls in one class, and the classes add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.mnnfile.ledger import CONSTANT, GRAPH, SCALES, UNUSED, VECTOR, account
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.variant import Variant
from tests.smallnets import Words, one_layer
from tests.workshop import Workshop

FLAGS = {
    "float": (),
    "w8": ("--weightQuantBits", "8"),
    "w4 block": ("--weightQuantBits", "4", "--weightQuantBlock", "32"),
    "half scales": ("--weightQuantBits", "4", "--weightQuantScaleBit", "16"),
    "fp16": ("--fp16",),
    "sparse": ("--detectSparseSpeedUp",),
    "sparse w8": ("--weightQuantBits", "8", "--detectSparseSpeedUp"),
}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", FLAGS)
def test_classes_add_up_to_the_files(workshop: Workshop, name: str, external: bool) -> None:
    layer = one_layer("linear", zeros=0.95 if "sparse" in name else 0.0)
    base = workshop.floats(layer.network, {"input": layer.identity})
    flags = (*FLAGS[name], *(("--saveExternalData",) if external else ()))
    model = workshop.quantized(base, *flags) if flags else base
    ledger = account(model)
    (op,) = model.layers
    label = op.weights[0].label
    assert ledger.total == model.size
    assert UNUSED not in ledger.classes
    scales = ledger.classes.get(SCALES, 0)
    assert ledger.classes[label] + scales == op.weight_bytes
    assert (scales > 0) == (name not in ("float", "fp16", "sparse"))
    assert ledger.classes[VECTOR] == 4 * 24  # the bias, which the converter adds
    assert all(part.external == external for part in ledger.parts if part.kind in (label, SCALES))


def test_the_whole_of_a_real_net_is_accounted_for(digits_int8: Variant) -> None:
    for model in (digits_int8.base, digits_int8.model):
        ledger = account(model)
        assert ledger.total == model.size == model.path.stat().st_size
        labels = {op.weights[0].label for op in model.layers}
        stored = sum(op.weight_bytes for op in model.layers)
        assert sum(ledger.classes[label] for label in labels) + ledger.classes.get(SCALES, 0) >= stored
        assert ledger.classes[VECTOR] >= 4 * (24 + 48 + 64 + 10)
        assert 0 < ledger.classes[GRAPH] < 12_000


def test_tables_count_as_weights_and_shapes_as_constants(workshop: Workshop) -> None:
    torch.manual_seed(0)
    words = workshop.floats(Words().eval(), {"tokens": np.arange(24, dtype=np.int64).reshape(4, 6)})
    classes = account(words).classes
    assert classes["float32"] == sum(op.weight_bytes for op in words.layers)
    assert classes[CONSTANT] > 0
    assert sum(classes.values()) == words.size


def twice(workshop: Workshop) -> Model:
    """One layer called twice, which MNN stores as two."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(torch.tanh(self.layer(x)))
            return out

    torch.manual_seed(0)
    return workshop.floats(Shared().eval(), {"x": np.ones((2, 32), np.float32)})


def test_weights_that_are_stored_twice_are_found(workshop: Workshop) -> None:
    model = twice(workshop)
    ledger = account(model)
    assert set(ledger.duplicated) == {tuple(op.name for op in model.layers)}
    assert ledger.classes["float32"] == 2 * 4 * 32 * 32


def test_weights_that_differ_or_are_small_are_no_duplicates(workshop: Workshop) -> None:
    assert account(workshop.prepared("digits_cnn").model).duplicated == ()


def test_bytes_that_nothing_points_at_are_unused(workshop: Workshop) -> None:
    layer = one_layer("linear")
    model = workshop.quantized(workshop.floats(layer.network, {"input": layer.identity}), "--saveExternalData")
    assert model.external_path is not None
    path = model.path.with_name("longer.mnn")
    path.write_bytes(model.path.read_bytes())
    path.with_name("longer.mnn.weight").write_bytes(model.external_path.read_bytes() + bytes(100))
    longer = read_model(path)
    ledger = account(longer)
    assert ledger.classes[UNUSED] == 100
    assert ledger.total == longer.size == model.size + 100
