"""Operators that are set or connected otherwise than the float model's."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, Op, read_model
from pytest_mnnquant.mnnfile.settings import settings
from pytest_mnnquant.mnnfile.structure import Difference, differences
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.golden_text import check_golden
from tests.workshop import Workshop


def found(first: Model, second: Model) -> list[Difference]:
    return differences(first, second, match_layers(first, second))


def changed(model: Model, position: int, form: str, value: int, target: Path) -> Model:
    """A copy with one number set otherwise."""
    content = bytearray(model.path.read_bytes())
    struct.pack_into(form, content, position, value)
    target.write_bytes(content)
    return read_model(target)


def table_of(model: Model, kind: str, number: int = 0) -> tuple[Op, Table]:
    op = [op for op in model.ops if op.kind == kind][number]
    assert op.parameters is not None
    common = op.parameters.table(0) if op.is_convolution else op.parameters
    assert common is not None
    return op, common


@pytest.mark.parametrize("recipe", ["int8", "w8", "w4b32", "fp16", "mnnquant-kl", "mnnquant-ema"])
@pytest.mark.parametrize("name", ["digits_cnn", "mobile_net", "tiny_transformer"])
def test_quantization_changes_no_operator(workshop: Workshop, name: str, recipe: str) -> None:
    variant = workshop.variant(name, recipe, "eval" if recipe == "int8" else None)
    assert found(variant.base, variant.model) == []


@pytest.mark.parametrize(("slot", "what"), [(4, "strideX"), (7, "dilateY")])
def test_a_convolution_that_is_set_otherwise(digits_int8: Variant, tmp_path: Path, slot: int, what: str) -> None:
    op, common = table_of(digits_int8.model, "Convolution", 1)
    wrong = changed(digits_int8.model, common.field(slot), "<i", 2, tmp_path / "net.mnn")
    (difference,) = found(digits_int8.base, wrong)
    assert difference.operator == op.name
    check_golden("mnnfile/a-convolution-that-is-set-otherwise", difference.text, what=what)


def test_an_activation_that_is_gone(digits_int8: Variant, tmp_path: Path) -> None:
    op, common = table_of(digits_int8.model, "Convolution")
    assert common.field(12)
    wrong = changed(digits_int8.model, common.field(12), "<B", 0, tmp_path / "net.mnn")
    (difference,) = found(digits_int8.base, wrong)
    assert difference.operator == op.name
    check_golden("mnnfile/an-activation-that-is-gone", difference.text)


def test_a_pooling_of_another_kind(digits_int8: Variant, tmp_path: Path) -> None:
    op, pool = table_of(digits_int8.model, "Pooling")
    wrong = changed(digits_int8.model, pool.field(5), "<i", 1, tmp_path / "net.mnn")
    (difference,) = found(digits_int8.base, wrong)
    assert difference.operator == op.name
    check_golden("mnnfile/a-pooling-of-another-kind", difference.text)


def test_an_operator_that_takes_something_else(workshop: Workshop, tmp_path: Path) -> None:
    variant = workshop.variant("mobile_net", "w8")
    op = next(op for op in variant.model.ops if op.kind == "BinaryOp")
    model = variant.model
    content = model.bytes_at(0, model.main_size)
    assert content is not None
    (table,) = (one for one in Table.root(content).tables(3) if one.string(3) == op.name)
    at, _ = table.span(0, 4)
    other = next(one for one in model.ops if one.is_convolution).outputs[0]
    wrong = changed(model, at, "<i", other, tmp_path / "net.mnn")
    (difference,) = found(variant.base, wrong)
    assert difference.operator == op.name
    assert difference.text.startswith("takes ")


def with_input(model: Model, **values: Any) -> Model:
    return dataclasses.replace(model, inputs=(dataclasses.replace(model.inputs[0], **values),))


def test_an_input_of_another_size_is_minor_and_one_of_other_numbers_is_not(digits_int8: Variant) -> None:
    model = digits_int8.model
    (size,) = found(digits_int8.base, with_input(model, shape=(1, 1, 24, 24)))
    assert size.is_minor
    check_golden("mnnfile/an-input-of-another-size", size.text)
    for shape in ((7, 1, 16, 16), (-1, 1, -1, -1), (1, 1, 16)):
        assert found(digits_int8.base, with_input(model, shape=shape)) == []
    (numbers,) = found(digits_int8.base, with_input(model, data_type="uint8"))
    assert not numbers.is_minor
    check_golden("mnnfile/an-input-of-other-numbers", numbers.text)


def test_outputs_in_another_order(workshop: Workshop) -> None:
    model = workshop.variant("digits_cnn", "w8").model
    two = (*model.output_names, model.layers[0].output_names[0])
    first, second = (dataclasses.replace(model, output_names=names) for names in (two, two[::-1]))
    (difference,) = found(first, second)
    check_golden("mnnfile/outputs-in-another-order", difference.text, first=two[0], second=two[1])


def test_settings_have_the_names_of_the_schema(digits: Prepared) -> None:
    op, _ = table_of(digits.model, "Convolution")
    known = settings(op)
    assert known["strideX"] == 1
    assert known["relu"] == 1
    assert known["pads"] == (1, 1, 1, 1)
    assert settings(Op("x", "Concat", (), (), (), ())) == {}
