"""What the reader decodes is what MNN computes with: one-layer models run on inputs that show their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.smallnets import Floats, OneLayer, one_layer
from tests.workshop import Workshop

# Products and sums of float32: MNN may add in another order than the reader multiplies.
ROUNDING = 2e-6
W8, W4, W3, W2 = (("--weightQuantBits", str(bits)) for bits in (8, 4, 3, 2))
SYMMETRIC = "--weightQuantAsymmetric=0"  # any form of this flag means symmetric
EXTERNAL = "--saveExternalData"
BLOCKS = ("--weightQuantBlock", "32")


def computed(layer: OneLayer, model: Model) -> Floats:
    """The weights as MNN uses them."""
    (outputs,) = run(model, {"input": layer.identity}, RunOptions(TIMEOUT)).outputs.values()
    return layer.as_stored(outputs)


def made(workshop: Workshop, layer: OneLayer, *flags: str) -> Model:
    model = workshop.floats(layer.network, {"input": layer.identity})
    return workshop.quantized(model, *flags) if flags else model


CASES = [
    ("linear", (), "float32", 32, False),
    ("linear", W8, "w8", 8, True),
    ("linear", W4, "w4", 4, True),
    ("linear", W3, "w3", 3, True),
    ("linear", W2, "w2", 2, True),
    ("linear", (*W8, SYMMETRIC), "w8", 8, False),
    ("linear", (*W3, SYMMETRIC), "w3", 3, False),
    ("linear", (*W4, *BLOCKS), "w4 block 32", 4, True),
    ("linear", (*W8, *BLOCKS, SYMMETRIC), "w8 block 32", 8, False),
    ("linear", (*W4, "--weightQuantScaleBit", "16"), "w4", 4, True),
    ("linear", (*W4, "--hqq"), "w4", 4, True),
    ("linear", ("--fp16",), "float16", 16, False),
    ("linear", (EXTERNAL,), "float32", 32, False),
    ("linear", (*W8, EXTERNAL), "w8", 8, True),
    ("linear", (*W4, *BLOCKS, EXTERNAL), "w4 block 32", 4, True),
    ("linear", (*W2, SYMMETRIC, EXTERNAL), "w2", 2, False),
    ("linear", ("--fp16", EXTERNAL), "float16", 16, False),
    ("linear", (*W4, "--weightQuantScaleBit", "16", EXTERNAL), "w4", 4, True),
    ("conv", (*W3, SYMMETRIC), "w3", 3, False),
    ("conv", (*W4, EXTERNAL), "w4", 4, True),
    ("depthwise", W4, "w4", 4, True),
    ("depthwise", ("--fp16",), "float16", 16, False),
    ("deconv", W8, "w8", 8, True),
]


@pytest.mark.parametrize(
    ("kind", "flags", "label", "bits", "asymmetric"), CASES, ids=lambda value: str(value).replace("--", "")
)
def test_decoded_weights_are_those_that_mnn_multiplies_with(
    workshop: Workshop, kind: str, flags: tuple[str, ...], label: str, bits: int, asymmetric: bool
) -> None:
    layer = one_layer(kind)
    model = made(workshop, layer, *flags)
    (op,) = model.layers
    (weights,) = op.weights
    decoded = model.decoded(op)
    np.testing.assert_allclose(decoded, computed(layer, model), rtol=0, atol=ROUNDING)
    assert (weights.label, weights.bits, weights.asymmetric) == (label, bits, asymmetric)
    assert weights.count == decoded.size == layer.network[0].weight.numel()  # type: ignore[index]
    assert weights.intact
    assert not weights.full_int8
    assert (model.external_path is not None) == (EXTERNAL in flags)
    assert model.external_missing == 0


@pytest.mark.parametrize("kind", ["linear", "conv", "depthwise"])
def test_full_int8_weights_are_those_that_mnn_multiplies_with(workshop: Workshop, kind: str) -> None:
    """Input 1.0 has code 127, and outputs have the weights' own scale, so that no rounding hides a code."""
    layer = one_layer(kind)
    base = made(workshop, layer)
    (op,) = base.layers
    params = make_params(base, (op,), {op.inputs[0]: Range(-1, 1), op.outputs[0]: Range(-1, 1)})
    model = quantized_by(workshop, base, params)
    (stored,) = model.layers
    (weights,) = stored.weights
    assert (weights.label, weights.bits, weights.full_int8, weights.asymmetric) == ("int8", 8, True, False)
    assert weights.scale_in == pytest.approx(1 / 127)
    assert weights.scale_out == pytest.approx(1 / 127)
    np.testing.assert_allclose(model.decoded(stored), computed(layer, model), rtol=0, atol=ROUNDING)
    assert np.abs(model.decoded(stored) - base.decoded(op)).max() <= 0.5 / 127 + 1e-6
    np.testing.assert_allclose(model.steps(stored), 1 / 127, rtol=1e-5)


def quantized_by(workshop: Workshop, base: Model, params: Params) -> Model:
    path = save_params(params, base.path.with_name("params.bin"))
    return workshop.quantized(base, "--compressionParamsFile", str(path))


SPARSE = "--detectSparseSpeedUp"
SPARSE_CASES = [
    ((SPARSE,), Storage.SPARSE_FLOAT),
    ((SPARSE, EXTERNAL), Storage.SPARSE_FLOAT),
    ((*W8, SPARSE), Storage.SPARSE_INTEGER),
    ((*W8, SPARSE, SYMMETRIC), Storage.SPARSE_INTEGER),
    ((*W4, SPARSE), Storage.SPARSE_INTEGER),
    ((*W4, SPARSE, SYMMETRIC, EXTERNAL), Storage.SPARSE_INTEGER),
]


@pytest.mark.parametrize(("flags", "storage"), SPARSE_CASES, ids=lambda value: str(value).replace("--", ""))
def test_sparse_weights_are_those_that_mnn_multiplies_with(
    workshop: Workshop, flags: tuple[str, ...], storage: Storage
) -> None:
    layer = one_layer("linear", zeros=0.95)
    model = made(workshop, layer, *flags)
    (op,) = model.layers
    assert op.weights[0].storage is storage
    assert op.weights[0].label == storage.value
    assert op.weights[0].intact
    np.testing.assert_allclose(model.decoded(op), computed(layer, model), rtol=0, atol=ROUNDING)


def test_a_channel_of_zeros_stays_zero_in_every_storage(workshop: Workshop) -> None:
    layer = one_layer("linear")
    layer.network[0].weight.data[3] = 0  # type: ignore[index]
    for flags in (W8, W4, (*W8, SYMMETRIC), ("--fp16",)):
        model = made(workshop, layer, *flags)
        assert (model.decoded(model.layers[0])[3] == 0).all(), flags


def test_blocks_have_steps_of_their_own(workshop: Workshop) -> None:
    layer = one_layer("linear")
    layer.network[0].weight.data[:, :32] *= 0.01  # type: ignore[index]
    model = made(workshop, layer, *W4, *BLOCKS)
    steps = model.steps(model.layers[0]).reshape(24, 2)
    assert (steps[:, 0] * 20 < steps[:, 1]).all()
    error = np.abs(model.decoded(model.layers[0]) - layer.network[0].weight.detach().numpy())  # type: ignore[index]
    assert (error.reshape(24, 2, 32).max(2) <= steps * 0.51).all()


@pytest.mark.parametrize("flags", [(EXTERNAL,), (*W4, *BLOCKS, EXTERNAL), ("--fp16", EXTERNAL)], ids=str)
def test_without_the_weight_file_the_model_reads_but_does_not_decode(
    workshop: Workshop, flags: tuple[str, ...], tmp_path: Path
) -> None:
    whole = made(workshop, one_layer("linear"), *flags)
    path = tmp_path / "alone.mnn"
    path.write_bytes(whole.path.read_bytes())
    alone = read_model(path)
    assert alone.layers[0].weights == whole.layers[0].weights
    assert alone.external_needed == alone.external_missing == whole.external_needed > 0
    assert alone.size < whole.size
    with pytest.raises(BadModel, match=r"\.mnn\.weight"):
        alone.decoded(alone.layers[0])
    short = whole.external_path.read_bytes()[:-100]  # type: ignore[union-attr]
    path.with_name("alone.mnn.weight").write_bytes(short[: whole.layers[0].weights[0].external[1] - 1])
    with pytest.raises(BadModel, match="bytes"):
        read_model(path).decoded(alone.layers[0])


def test_the_sizes_of_the_layers_account_for_the_weight_file(workshop: Workshop) -> None:
    for flags in ((EXTERNAL,), (*W8, EXTERNAL), (*W4, *BLOCKS, EXTERNAL), ("--fp16", EXTERNAL)):
        model = made(workshop, one_layer("linear"), *flags)
        bias = 4 * 24
        assert model.external_path is not None
        assert model.external_path.stat().st_size == model.layers[0].weight_bytes + bias, flags
        assert model.size == model.path.stat().st_size + model.external_path.stat().st_size
