"""What `inspect` and `diff` say of real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_mnnquant.cli.inspect import difference, difference_text, inspection, inspection_text
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.report.json_report import json_value
from tests.golden_text import check_golden
from tests.workshop import Workshop


def test_an_int8_model_is_told_layer_by_layer(digits_int8: Variant) -> None:
    found = inspection(digits_int8.model)
    assert [(layer["stored"], layer["bits"], layer["quantized"]) for layer in found["layers"]] == [
        ("int8", 8, True)
    ] * 4
    assert found["layers"][1]["shape"] == [48, 24, 3, 3]
    assert found["quantized_share"] == 1
    assert sum(found["classes"].values()) == found["bytes"] == digits_int8.model.size
    json.dumps(json_value(found), allow_nan=False)
    said = inspection_text(found)
    for op in digits_int8.model.layers:
        assert op.name in said
    check_golden("inspect/verdict-of-an-int8-model", said.splitlines()[-1])


def test_a_float_model_is_told_as_such(digits: Prepared) -> None:
    found = inspection(digits.model)
    assert found["quantized_share"] == 0
    check_golden("inspect/verdict-of-a-float-model", inspection_text(found).splitlines()[-1])


def test_a_model_that_is_quantized_in_part_gives_its_share(workshop: Workshop) -> None:
    found = inspection(workshop.variant("tiny_transformer", "w8").model)
    assert 0.99 < found["quantized_share"] < 1
    assert "(float32, w8)" in inspection_text(found)


def test_missing_weights_are_broken(workshop: Workshop, digits: Prepared, tmp_path: Path) -> None:
    whole = workshop.quantized(digits.model, "--weightQuantBits", "8", "--saveExternalData")
    (tmp_path / "net.mnn").write_bytes(whole.path.read_bytes())
    found = inspection(read_model(tmp_path / "net.mnn"))
    assert found["external_missing"] == whole.external_needed
    assert "verdict: BROKEN" in inspection_text(found)


def told(first: Model, second: Model) -> str:
    found = difference(first, second)
    json.dumps(json_value(found), allow_nan=False)
    return difference_text(found)


def test_a_model_does_not_differ_from_itself(digits: Prepared, tmp_path: Path) -> None:
    assert told(digits.model, digits.model) == "no difference"
    other = tmp_path / "other.mnn"
    other.write_bytes(digits.model.path.read_bytes().replace(digits.model.uuid.encode(), b"0" * 36))
    check_golden("inspect/another-uuid", told(digits.model, read_model(other)))


def test_quantizing_is_told_by_layer_storage_and_bytes(digits: Prepared, digits_w4: Variant) -> None:
    said = told(digits.model, digits_w4.model)
    assert "x smaller)" in said
    assert "x LARGER)" in told(digits_w4.model, digits.model)
    for op in digits.model.layers:
        assert f"{op.name}: stored float32 -> w4" in said
    found = difference(digits.model, digits_w4.model)
    assert not found["same"]
    assert found["classes"]["float32"][1] == 0
    assert all(10 < row["weight_sqnr_db"] < 40 for row in found["layers"])


@pytest.mark.parametrize("swap", [False, True])
def test_layers_of_one_model_only_are_named(workshop: Workshop, digits: Prepared, swap: bool) -> None:
    models = [digits.model, workshop.prepared("garment_classifier").model]
    found = difference(*reversed(models)) if swap else difference(*models)
    assert len(found["only_in_first"]) == (5 if swap else 4)
    assert "in the second: " in difference_text(found)


def test_other_scales_are_told(workshop: Workshop) -> None:
    models = [workshop.variant("digits_cnn", "int8", mode).model for mode in ("train", "eval")]
    rows = difference(*models)["layers"]
    assert any("scale_out" in row for row in rows)
