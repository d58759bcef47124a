"""Forms of storage that few files have: all that this converter can write, and what older wheels wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pytest_mnnquant.mnnfile.ledger import account
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import Job, run_job
from pytest_mnnquant.runtime.options import RunOptions
from tests.conftest import TIMEOUT
from tests.smallnets import Floats, OneLayer, one_layer
from tests.workshop import Workshop

# Products and sums of float32: MNN may add in another order than the reader multiplies.
ROUNDING = 2e-6
SYMMETRIC, EXTERNAL, SPARSE = "--weightQuantAsymmetric=0", "--saveExternalData", "--detectSparseSpeedUp"
HALF_SCALES, BLOCKS = ("--weightQuantScaleBit", "16"), ("--weightQuantBlock", "16")
DATA = Path(__file__).parent / "data"
OLD = sorted(path.stem for path in DATA.glob("*.mnn"))


def bits(number: int) -> tuple[str, str]:
    return "--weightQuantBits", str(number)


def computed(layer: OneLayer, model: Model) -> Floats:
    """The weights as MNN uses them."""
    (outputs,) = run(model, {"input": layer.identity}, RunOptions(TIMEOUT)).outputs.values()
    return layer.as_stored(outputs)


CASES = [
    *(("linear", bits(number), 0.0, f"w{number}") for number in (5, 6, 7)),
    ("conv", (*bits(4), "--hqq", *BLOCKS), 0.0, "w4 block 144"),
    ("linear", (*bits(8), "--hqq", *BLOCKS, EXTERNAL), 0.0, "w8 block 16"),
    ("linear", (*bits(4), *BLOCKS, *HALF_SCALES, EXTERNAL), 0.0, "w4 block 16"),
    ("linear", (*bits(8), SYMMETRIC, *HALF_SCALES), 0.0, "w8"),
    ("deconv", (*bits(3), EXTERNAL), 0.0, "w3"),
    ("depthwise", (*bits(2), SYMMETRIC, EXTERNAL), 0.0, "w2"),
    ("conv", (SPARSE, EXTERNAL), 0.95, "sparse float"),
    ("conv", (*bits(8), SPARSE), 0.95, "sparse integer"),
    ("linear", (*bits(4), SPARSE, *BLOCKS), 0.95, "sparse integer"),
    ("linear", (*bits(8), SPARSE, *HALF_SCALES), 0.95, "sparse integer"),
    ("conv", (*bits(3), SPARSE, SYMMETRIC), 0.95, "sparse integer"),
    ("conv", (*bits(8), SPARSE, EXTERNAL), 0.95, "sparse integer"),
]


@pytest.mark.parametrize(
    ("kind", "flags", "zeros", "label"),
    CASES,
    ids=lambda value: str(value).replace("--", "").replace("weightQuant", ""),
)
def test_decoded_weights_are_those_that_mnn_multiplies_with(
    workshop: Workshop, kind: str, flags: tuple[str, ...], zeros: float, label: str
) -> None:
    layer = one_layer(kind, zeros=zeros)
    model = workshop.quantized(workshop.floats(layer.network, {"input": layer.identity}), *flags)
    (op,) = model.layers
    (weights,) = op.weights
    np.testing.assert_allclose(model.decoded(op), computed(layer, model), rtol=0, atol=ROUNDING)
    assert (weights.label, weights.intact) == (label, True)
    assert weights.count == model.decoded(op).size
    assert account(model).total == model.size


def test_native_grouped_convolutions_are_decoded(workshop: Workshop) -> None:
    """Otherwise the converter splits them into one convolution a group."""
    network = nn.Sequential(nn.Conv2d(16, 8, 3, groups=2, bias=False)).eval()
    identity = np.tile(np.eye(72, dtype=np.float32).reshape(-1, 8, 3, 3), (1, 2, 1, 1))
    base = workshop.floats(network, {"input": identity})
    model = convert(
        base.path.with_suffix(".onnx"),
        base.path.with_name("native.mnn"),
        (*bits(4), "--groupConvNative"),
        timeout=TIMEOUT,
    )
    (op,) = model.layers
    assert (op.shape, op.group, op.weight_count) == ((8, 16, 3, 3), 2, 8 * 72)
    (outputs,) = run(model, {"input": identity}, RunOptions(TIMEOUT)).outputs.values()
    np.testing.assert_allclose(model.decoded(op), outputs.reshape(72, 8).T, rtol=0, atol=ROUNDING)


def test_layers_of_more_than_65535_columns_have_a_header_of_their_own(workshop: Workshop) -> None:
    layer = nn.Linear(65_600, 2, bias=False)
    inputs = np.random.default_rng(0).standard_normal((3, 65_600)).astype(np.float32)
    for flags in (bits(4), (*bits(8), EXTERNAL)):
        model = workshop.quantized(workshop.floats(nn.Sequential(layer).eval(), {"input": inputs}), *flags)
        (op,) = model.layers
        (outputs,) = run(model, {"input": inputs}, RunOptions(TIMEOUT)).outputs.values()
        assert op.weights[0].intact, flags
        np.testing.assert_allclose(inputs @ model.decoded(op).T, outputs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OLD)
def test_files_of_older_wheels_decode_to_what_those_wheels_computed(name: str) -> None:
    model = read_model(DATA / f"{name}.mnn")
    recipe, _, version = name.partition("@")
    assert model.version == version
    with np.load(DATA / "computed.npz") as values:
        expected = values[name]
    (op,) = model.layers
    (weights,) = op.weights
    np.testing.assert_allclose(model.decoded(op), expected, rtol=0, atol=ROUNDING)
    assert weights.intact
    labels = {"w4-sym": "w4", "w8-ext": "w8", "fp16": "float16", "params": "int8", "sparse": "sparse float"}
    assert weights.label == labels.get(recipe, "sparse integer" if "sparse" in recipe else "w8")
    assert weights.full_int8 is (recipe == "params")
    assert account(model).total == model.size


@pytest.mark.parametrize("name", ["params@3.2.0", "w8-ext@3.0.0", "sparse-w8@3.0.0"])
def test_files_of_older_wheels_run_in_this_one_with_the_weights_that_are_read(name: str) -> None:
    model = read_model(DATA / f"{name}.mnn")
    identity = np.eye(72, dtype=np.float32).reshape(-1, 8, 3, 3)
    (outputs,) = run(model, {"input": identity}, RunOptions(TIMEOUT)).outputs.values()
    (op,) = model.layers
    np.testing.assert_allclose(model.decoded(op), outputs.reshape(72, -1).T, rtol=0, atol=ROUNDING)


def test_params_of_an_older_wheel_are_plain_codes() -> None:
    """Up to 3.2 they had no code book."""
    model = read_model(DATA / "params@3.2.0.mnn")
    (weights,) = model.layers[0].weights
    assert (weights.storage, weights.bits, weights.count) == (Storage.INTEGER, 8, 6 * 72)
    assert weights.size == 6 * 72 + 4 * 6
    assert weights.scale_in == pytest.approx(1 / 127)


Json = dict[str, Any]
EDITS: dict[str, Callable[[Json], None]] = {
    "a factor to the scales": lambda quan: quan.update(quantScale=0.5),
    "codes that count from -128": lambda quan: quan.update(aMin=0),
    "a minimum above zero": lambda quan: quan.update(aMin=3),
    "a code book in another order": lambda quan: quan["buffer"].__setitem__(slice(6, 262), range(127, -129, -1)),
    "a code book of its own": lambda quan: quan.update(buffer=own_book()),
    "plain codes": lambda quan: quan.update(type=4, buffer=quan["buffer"][262:]),
    "the first plain codes": lambda quan: quan.update(
        type=4, buffer=quan["buffer"][262:], readType=0, aMin=0, quantScale=0.0
    ),
}


def own_book() -> list[int]:
    """6 x 72 codes of 2 bits, for a code book of three."""
    codes = np.random.default_rng(0).integers(0, 3, 432).reshape(-1, 4)
    packed = (codes @ [64, 16, 4, 1]).astype(np.uint8).view(np.int8)
    return [2, 6, 0, 72, 0, 3, 90, -70, 11, *packed.tolist()]


@pytest.mark.parametrize("edit", EDITS)
def test_forms_that_no_wheel_at_hand_writes_are_read_as_mnn_reads_them(edit: str, tmp_path: Path) -> None:
    """Made from a real file by way of the converter's JSON."""

    def converter(*arguments: str) -> None:
        run_job(Job("convert", "converting", TIMEOUT, {"arguments": [*arguments, "--bizCode", "MNN"]}), tmp_path)

    text, target = tmp_path / "model.json", tmp_path / "model.mnn"
    converter("-f", "MNN", "--modelFile", str(DATA / "w8@3.2.0.mnn"), "--JsonFile", str(text))
    dump = json.loads(text.read_text(encoding="utf-8"))
    (layer,) = (item for item in dump["oplists"] if item["type"] == "Convolution")
    EDITS[edit](layer["main"]["quanParameter"])
    text.write_text(json.dumps(dump), encoding="utf-8")
    converter("-f", "JSON", "--modelFile", str(text), "--MNNModel", str(target))
    model = read_model(target)
    identity = np.eye(72, dtype=np.float32).reshape(-1, 8, 3, 3)
    (outputs,) = run(model, {"input": identity}, RunOptions(TIMEOUT)).outputs.values()
    (op,) = model.layers
    assert op.weights[0].intact
    np.testing.assert_allclose(model.decoded(op), outputs.reshape(72, -1).T, rtol=0, atol=ROUNDING)
    assert np.abs(model.decoded(op)).max() > 0.1
