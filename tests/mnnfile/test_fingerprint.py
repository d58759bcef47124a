"""Two conversions of the same hold the same; what else differs between two files is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.mnnfile.fingerprint import difference, fingerprint
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT
from tests.workshop import Workshop


def changed(model: Model, folder: Path, position: int) -> Model:
    """A copy with one bit of one byte flipped."""
    content = bytearray(model.path.read_bytes())
    content[position] ^= 1
    path = folder / "changed.mnn"
    path.unlink(missing_ok=True)  # it may be mapped
    path.write_bytes(content)
    return read_model(path)


@pytest.mark.parametrize(
    "flags",
    [(), ("--weightQuantBits", "4", "--hqq"), ("--fp16",), ("--weightQuantBits", "8", "--saveExternalData")],
    ids=" ".join,
)
def test_two_conversions_differ_in_their_uuid_alone(digits: Prepared, tmp_path: Path, flags: tuple[str, ...]) -> None:
    onnx = digits.model.path.with_suffix(".onnx")
    first, second = (convert(onnx, tmp_path / number / "net.mnn", flags, timeout=TIMEOUT) for number in "12")
    assert first.uuid != second.uuid
    assert first.path.read_bytes() != second.path.read_bytes()
    assert fingerprint(first) == fingerprint(second)
    assert difference(first, second) == ""


def test_any_byte_but_the_uuids_counts(digits: Prepared, tmp_path: Path, random: np.random.Generator) -> None:
    content, uuid = digits.model.path.read_bytes(), digits.model.uuid.encode()
    start, whole = content.index(uuid), fingerprint(digits.model)
    places = {0, 1, len(content) - 1, start - 1, start + len(uuid), *random.integers(0, len(content), 40).tolist()}
    for position in places - set(range(start, start + len(uuid))):
        path = tmp_path / f"{position}.mnn"
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            assert fingerprint(read_model(path)) != whole
        except ValueError:
            continue  # It is no model any more.
    assert fingerprint(changed(digits.model, tmp_path, start + 3)) == whole


def test_external_weights_count(digits: Prepared, tmp_path: Path) -> None:
    model = convert(digits.model.path, tmp_path / "net.mnn", ("--saveExternalData",), timeout=TIMEOUT)
    shutil.copytree(tmp_path, tmp_path / "copy")
    weights = tmp_path / "copy" / "net.mnn.weight"
    content = bytearray(weights.read_bytes())
    content[5] ^= 1
    weights.write_bytes(content)
    other = read_model(tmp_path / "copy" / "net.mnn")
    assert fingerprint(other) != fingerprint(model)
    assert difference(model, other).startswith(f"{model.layers[0].name}: 1 of ")


def test_a_single_weight_is_named_with_its_layer(digits: Prepared, tmp_path: Path) -> None:
    layer = digits.model.layers[1]
    weights = digits.model.decoded(layer)
    position = digits.model.path.read_bytes().index(weights.tobytes())
    found = difference(digits.model, changed(digits.model, tmp_path, position + 4 * 7 + 2))
    assert found.startswith(f"{layer.name}: 1 of {weights.size}")


def test_a_bias_and_a_scale_are_named(digits_int8: Variant, tmp_path: Path) -> None:
    model = digits_int8.model
    content, (name, bias) = model.path.read_bytes(), next(iter(model.vectors().items()))
    assert difference(model, changed(model, tmp_path, content.index(bias.tobytes()))) == f"the vectors of {name}"
    tensor, quant = next(iter(model.tensor_quants.items()))
    position = content.index(np.float32(quant.scale).tobytes())
    found = difference(model, changed(model, tmp_path, position))
    assert found.endswith((repr(model.tensor_names[tensor]), "weights and scales"))


def test_another_storage_is_named(digits: Prepared, digits_w4: Variant) -> None:
    first = digits.model.layers[0]
    size, smaller = first.weight_bytes, digits_w4.model.layers[0].weight_bytes
    said = f"{first.name}: stored as float32 of {size} bytes, then as w4 of {smaller} bytes"
    assert difference(digits.model, digits_w4.model) == said


def test_another_graph_is_named(digits: Prepared, workshop: Workshop) -> None:
    assert "operator" in difference(digits.model, workshop.prepared("garment_classifier").model)
