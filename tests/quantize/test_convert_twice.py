"""A conversion is made twice, and what differs is noted beside the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mnnquant.quantize import convert_twice as convert_twice_module
from pytest_mnnquant.quantize.convert_twice import convert_twice, load_differences
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.convert import convert
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

HEALTHY = ("digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer")


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("recipe", ["int8", "w4"])
def test_healthy_conversions_are_the_same_twice(workshop: Workshop, name: str, recipe: str) -> None:
    variant = workshop.variant(name, recipe, "train" if recipe == "int8" else None)
    models = {"float": workshop.prepared(name).model, "base": variant.base, "quantized": variant.model}
    own = ["base"] if variant.base.path != models["float"].path else []
    assert load_differences(models) == dict.fromkeys(["float", *own, "quantized"], "")


@pytest.mark.parametrize("flags", ["--weightQuantBits 4 --hqq", "--weightQuantBits 4 --weightQuantBlock 32 --hqq"])
def test_hqq_whose_threads_share_the_work_is_the_same_twice(workshop: Workshop, tmp_path: Path, flags: str) -> None:
    source = workshop.prepared("mobile_net").model.path
    model = convert_twice(source, tmp_path / "net.mnn", flags.split(), timeout=TIMEOUT)
    assert load_differences({"it": model}) == {"it": ""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.mnn", "net.mnn.repeated.txt"]


def test_a_model_that_comes_out_differently_is_told_with_the_layer(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time with symmetric weights: other codes in a file of another size."""

    def other(source: Path, output: Path, flags: tuple[str, ...], *, timeout: float) -> object:
        again = output.parent != tmp_path
        return convert(source, output, (*flags, *(["--weightQuantAsymmetric=0"] if again else [])), timeout=timeout)

    monkeypatch.setattr(convert_twice_module, "convert", other)
    model = convert_twice(digits.model.path, tmp_path / "net.mnn", ("--weightQuantBits", "8"), timeout=TIMEOUT)
    said = load_differences({"it": model})["it"]
    assert said.startswith(f"{digits.model.layers[0].name}: stored as w8 of ")


def test_what_was_converted_once_is_not_spoken_of(digits: Prepared, digits_w4: Variant, tmp_path: Path) -> None:
    once = convert(digits.model.path, tmp_path / "net.mnn", timeout=TIMEOUT)
    assert load_differences({"once": once}) == {}
    assert load_differences({"float": digits.model, "base": digits_w4.base}) == {"float": ""}
