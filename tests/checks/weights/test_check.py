"""The weights check, on real models into which faults are planted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.checks.weights.check import check_weights
from pytest_mnnquant.checks.weights.errors import WeightError, weight_errors
from pytest_mnnquant.findings.file_metrics import WeightsMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result
from pytest_mnnquant.mnnfile.matching import Match, match_layers
from pytest_mnnquant.mnnfile.model import Floats, Model, read_model
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.names import recipe_named
from tests.golden_text import check_golden
from tests.results import measured
from tests.smallnets import one_layer
from tests.synthetic_evidence import codes
from tests.workshop import Workshop

RECIPES = [("int8", "eval"), ("w8", None), ("w4", None), ("fp16", None)]


def check(base: Model, model: Model, older: float | None = None) -> Result:
    return check_weights(base, model, match_layers(base, model), older)


@pytest.mark.parametrize(("recipe", "mode"), RECIPES)
@pytest.mark.parametrize("name", ["digits_cnn", "mobile_net", "tiny_transformer"])
def test_honest_quantization_passes(workshop: Workshop, name: str, recipe: str, mode: str | None) -> None:
    variant = workshop.variant(name, recipe, mode)
    result = check(variant.base, variant.model)
    assert result.outcome == PASSED
    assert measured(WeightsMetrics, result).layers_compared == len(variant.base.layers)
    assert (measured(WeightsMetrics, result).worst_sqnr_db or 0) > 10


@pytest.mark.parametrize(
    "flags",
    [
        ("--weightQuantBits", "2"),
        ("--weightQuantBits", "3", "--weightQuantAsymmetric=0"),
        ("--weightQuantBits", "4", "--weightQuantBlock", "32"),
        ("--weightQuantBits", "4", "--hqq"),
        ("--weightQuantBits", "8", "--saveExternalData"),
    ],
    ids=str,
)
def test_coarse_steps_excuse_coarse_weights(workshop: Workshop, digits: Prepared, flags: tuple[str, ...]) -> None:
    assert check(digits.model, workshop.quantized(digits.model, *flags)).outcome == PASSED


def retrained(workshop: Workshop, digits: Prepared, *layers: str, bias: str = "") -> Model:
    """The float model of the same net, some of its layers with other weights, or one with another bias."""
    assert digits.network is not None
    assert digits.calibration is not None
    network = type(digits.network)()
    network.load_state_dict(digits.network.state_dict())
    torch.manual_seed(1)
    for name in layers:
        weight = network.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        nn.init.kaiming_normal_(weight)
    if bias:
        vector = network.get_submodule(bias).bias
        assert isinstance(vector, torch.Tensor)
        vector.data += 3 * vector.data.abs().max()
    return workshop.floats(network.eval(), digits.calibration.head(2))


ALL = ("features.0", "features.4", "classifier.2", "classifier.4")


@pytest.mark.parametrize("flags", [("--weightQuantBits", "8"), ("--weightQuantBits", "2"), ("--fp16",)], ids=str)
def test_a_model_of_another_training_fails_in_every_layer(
    workshop: Workshop, digits: Prepared, flags: tuple[str, ...]
) -> None:
    other = workshop.quantized(retrained(workshop, digits, *ALL), *flags)
    result = check(digits.model, other)
    assert codes(result) == ["MNQ410"] * 4
    assert {finding.cause_id for finding in result.findings} == {"other-training"}


@pytest.mark.parametrize(("days", "age"), [(3.0, "3 days"), (0.25, "360 minutes")])
def test_an_older_file_is_told_as_stale(workshop: Workshop, digits: Prepared, days: float, age: str) -> None:
    other = retrained(workshop, digits, *ALL)
    causes = {finding.cause for finding in check(digits.model, other, days).findings}
    (cause,) = causes
    assert cause is not None
    assert cause.id == "stale-output"
    assert age in cause.text
    assert {finding.cause_id for finding in check(digits.model, other, -days).findings} == {"other-training"}


@pytest.mark.parametrize("flags", [("--weightQuantBits", "4"), ("--fp16",)], ids=str)
def test_one_layer_of_other_weights_is_named_alone(
    workshop: Workshop, digits: Prepared, flags: tuple[str, ...]
) -> None:
    other = workshop.quantized(retrained(workshop, digits, "classifier.2"), *flags)
    result = check(digits.model, other)
    assert codes(result) == ["MNQ410"]
    assert result.findings[0].layer == digits.model.layers[2].name
    assert result.findings[0].cause is None


def test_scales_made_for_other_weights_clip_and_are_told_so(
    workshop: Workshop, digits_int8: Variant, tmp_path: Path
) -> None:
    """The params of an earlier training, applied to this one: every name and the uuid are right."""
    assert digits_int8.params is not None
    params = read_params(digits_int8.params)
    second = params.layers[1]
    small = dataclasses.replace(second.weight, scales=tuple(scale / 3 for scale in second.weight.scales))
    layers = (params.layers[0], dataclasses.replace(second, weight=small), *params.layers[2:])
    write_params(dataclasses.replace(params, layers=layers), tmp_path / "p.bin")
    model = workshop.quantized(digits_int8.base, "--compressionParamsFile", str(tmp_path / "p.bin"))
    result = check(digits_int8.base, model)
    assert codes(result) == ["MNQ410"]
    (finding,) = result.findings
    assert finding.layer == digits_int8.base.layers[1].name
    check_golden("weights/scales-made-for-other-weights-clip", finding.cause_text)
    assert finding.cause_id == "weights-clipped"


@pytest.mark.parametrize(("factor", "found"), [(2, []), (6, ["MNQ413"])])
def test_scales_that_are_far_too_coarse_are_told(
    workshop: Workshop, digits_int8: Variant, tmp_path: Path, factor: float, found: list[str]
) -> None:
    assert digits_int8.params is not None
    params = read_params(digits_int8.params)
    third = params.layers[2]
    wide = dataclasses.replace(third.weight, scales=tuple(scale * factor for scale in third.weight.scales))
    layers = (*params.layers[:2], dataclasses.replace(third, weight=wide), params.layers[3])
    write_params(dataclasses.replace(params, layers=layers), tmp_path / "p.bin")
    model = workshop.quantized(digits_int8.base, "--compressionParamsFile", str(tmp_path / "p.bin"))
    result = check(digits_int8.base, model)
    assert codes(result) == found
    assert all(finding.layer == digits_int8.base.layers[2].name for finding in result.findings)


def patched(model: Model, number: int, edit: dict[int, bytes], slot: int, size: int, path: Path) -> Model:
    """A copy of the file with bytes of one vector of a layer's quantization replaced."""
    parameters = model.layers[number].parameters
    assert parameters is not None
    table = parameters.table(3)
    assert table is not None
    start, _ = table.span(slot, size)
    data = bytearray(model.path.read_bytes())
    for at, content in edit.items():
        data[start + at : start + at + len(content)] = content
    path.write_bytes(data)
    return read_model(path)


def test_scrambled_codes_are_found_though_the_file_is_whole(
    digits: Prepared, digits_w4: Variant, tmp_path: Path
) -> None:
    size = digits_w4.model.layers[1].weight_bytes // 2
    scrambled = patched(digits_w4.model, 1, {100: bytes(range(256)) * (size // 512)}, 0, 1, tmp_path / "s.mnn")
    assert scrambled.layers[1].weights[0].intact
    assert codes(check(digits.model, scrambled)) == ["MNQ410"]


def faint(workshop: Workshop, size: float) -> tuple[Model, Model]:
    """A layer whose channel 3 is small, as float and in 4 bits."""
    layer = one_layer("linear")
    with torch.no_grad():
        layer.network.get_parameter("0.weight")[3] *= size
    base = workshop.floats(layer.network, {"input": layer.identity})
    return base, workshop.quantized(base, "--weightQuantBits", "4")


def test_one_lost_channel_is_named_though_the_layer_as_a_whole_looks_right(workshop: Workshop, tmp_path: Path) -> None:
    base, model = faint(workshop, 0.1)
    assert check(base, model).outcome == PASSED
    header, channel = 1 + 2 * 2 + 1 + 16, 64 // 2
    flattened = patched(model, 0, {header + 3 * channel: bytes(channel)}, 0, 1, tmp_path / "flat.mnn")
    (error,), _ = weight_errors(base, flattened, match_layers(base, flattened))
    assert not error.is_other
    result = check(base, flattened)
    assert codes(result) == ["MNQ412"]
    check_golden("weights/one-lost-channel-is-named-though-the-layer", result.findings[0].message)


def test_what_becomes_of_a_channel_of_next_to_nothing_does_not_matter(workshop: Workshop) -> None:
    """MNN gives it no scale."""
    base, model = faint(workshop, 1e-7)
    assert np.unique(model.decoded(model.layers[0])[3]).size == 1
    assert check(base, model).outcome == PASSED


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_no_numbers_fail(digits: Prepared, digits_w4: Variant, value: float, tmp_path: Path) -> None:
    broken = patched(digits_w4.model, 1, {4: np.float32(value).tobytes()}, 1, 4, tmp_path / "n.mnn")
    result = check(digits.model, broken)
    assert codes(result) == ["MNQ403"]
    assert result.findings[0].layer == digits.model.layers[1].name


def test_weights_that_are_not_there_fail(workshop: Workshop, digits: Prepared, tmp_path: Path) -> None:
    model = workshop.quantized(digits.model, "--weightQuantBits", "8", "--saveExternalData")
    (tmp_path / "alone.mnn").write_bytes(model.path.read_bytes())
    result = check(digits.model, read_model(tmp_path / "alone.mnn"))
    assert codes(result) == ["MNQ403"] * 4


def test_weights_in_place_of_zeros_fail(workshop: Workshop, digits: Prepared) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    network = type(digits.network)()
    network.load_state_dict(digits.network.state_dict())
    weight = network.get_submodule("classifier.2").weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        weight.zero_()
    silent = workshop.floats(network.eval(), digits.calibration.head(2))
    honest = workshop.quantized(silent, "--weightQuantBits", "8")
    assert check(silent, honest).outcome == PASSED
    result = check(silent, digits.model)
    assert codes(result) == ["MNQ410"]
    assert result.findings[0].layer == digits.model.layers[2].name


def test_one_bias_or_normalization_of_other_values_is_named_alone(workshop: Workshop, digits: Prepared) -> None:
    other = workshop.quantized(retrained(workshop, digits, bias="classifier.2"), "--weightQuantBits", "4")
    result = check(digits.model, other)
    assert codes(result) == ["MNQ411"]
    assert result.findings[0].layer == digits.model.layers[2].name
    shifted = retrained(workshop, digits, bias="features.5")  # a BatchNorm, folded into the convolution before it
    assert [(item.code, item.layer) for item in check(digits.model, shifted).findings] == [
        ("MNQ411", digits.model.layers[1].name)
    ]


def test_nothing_compared_is_no_pass(digits: Prepared) -> None:
    result = check_weights(digits.model, digits.model, Match((), digits.model.layers, ()), None)
    assert result.outcome == FAILED
    assert codes(result) == ["MNQ001"]
    assert measured(WeightsMetrics, result).worst_sqnr_db is None


def test_figures_are_near_what_rounding_gives(digits: Prepared, digits_w4: Variant) -> None:
    errors, findings = weight_errors(digits.model, digits_w4.model, match_layers(digits.model, digits_w4.model))
    assert findings == []
    heaviest = sorted(digits.model.layers, key=lambda op: -op.weight_count)
    assert [error.layer for error in errors] == [op.name for op in heaviest]
    for error in errors:
        assert error.measured == pytest.approx(error.expected, abs=2.0)
        assert not error.is_other
    assert WeightError("x", measured=10.0, expected=30.0).is_other


def test_a_block_that_was_dropped_is_named_where_mnn_could_have_given_it(workshop: Workshop, digits: Prepared) -> None:
    flags = ("--weightQuantBits", "4")
    match = match_layers(digits.model, workshop.quantized(digits.model, *flags))
    model = workshop.quantized(digits.model, *flags)
    result = check_weights(digits.model, model, match_layers(digits.model, model), None, recipe_named("w8b32"))
    errors = [item for item in result.findings if not item.as_warning]
    linear = [layer.name for layer, _ in match.pairs if layer.shape[2:] == (1, 1) and layer.shape[1] % 32 == 0]
    assert [(item.code, item.layer) for item in errors] == [("MNQ414", name) for name in linear]
    assert linear
    assert [item.code for item in result.findings if item.as_warning] == ["MNQ414"]  # The 3x3 kernels, which MNN can't.
    blocked = workshop.quantized(digits.model, *flags, "--weightQuantBlock", "32")
    assert (
        check_weights(digits.model, blocked, match_layers(digits.model, blocked), None, recipe_named("w8b32")).outcome
        == PASSED
    )
    other = check_weights(digits.model, blocked, match_layers(digits.model, blocked), None, recipe_named("w8b64"))
    check_golden("weights/a-block-that-was-dropped-is-named-where-mnn", other.findings[0].message)


def test_a_layer_that_holds_the_weights_of_another_one_is_told_whose(workshop: Workshop, tmp_path: Path) -> None:
    """Query and key of a transformer have one shape."""
    variant = workshop.variant("tiny_transformer", "w8")
    layers = {op.name: op for op in variant.model.layers}
    names = (f"/blocks/blocks.0/attention/{one}/Add_output_0__matmul_converted" for one in ("query", "key"))
    first, second = (layers[name] for name in names)
    content = bytearray(variant.model.path.read_bytes())
    for slot, size in ((0, 1), (1, 4)):  # Codes and scales.
        spans = []
        for op in (first, second):
            assert op.parameters is not None
            table = op.parameters.table(3)
            assert table is not None
            start, count = table.span(slot, size)
            spans.append(slice(start, start + count * size))
        content[spans[0]], content[spans[1]] = content[spans[1]], content[spans[0]]
    (tmp_path / "net.mnn").write_bytes(content)
    result = check(variant.base, read_model(tmp_path / "net.mnn"))
    causes = {finding.layer: finding.cause for finding in result.findings if finding.code == "MNQ410"}
    assert set(causes) == {first.name, second.name}
    for other, cause in ((second, causes[first.name]), (first, causes[second.name])):
        assert cause is not None
        assert cause.id == "weights-of-other-layer"
        check_golden("weights/weights-of-another-layer", cause.text, other=other.name)


def test_weights_that_were_cut_off_instead_of_rounded_are_told() -> None:
    error = WeightError("a", 12.1, 18.0, drift=-0.49)
    assert error.is_other
    assert error.is_truncated
    assert not WeightError("a", 18.0, 18.0, drift=-0.01).is_other
    assert not WeightError("a", 37.7, 37.6, drift=0.31).is_truncated  # Of a few weights, with the noise of rounding.
    assert not WeightError("a", 3.0, 18.0, drift=0.4).is_truncated  # Clipped weights are off to one side too.


def test_vectors_of_another_checkpoint_are_told_together(digits: Prepared) -> None:
    shifted = {name: vector * 1.002 for name, vector in digits.model.vectors().items()}

    class Later(Model):
        def vectors(self) -> dict[str, Floats]:
            return shifted

    later = Later(**{item.name: getattr(digits.model, item.name) for item in dataclasses.fields(Model)})
    result = check(digits.model, later)
    assert set(codes(result)) == {"MNQ411"}
    check_golden("weights/vectors-of-another-checkpoint-are-told", result.findings[0].cause_text)
    assert result.findings[0].cause_id == "other-training"
    assert "4 of 4" in result.findings[0].cause_text
    ema = check_weights(digits.model, later, match_layers(digits.model, later), None, recipe_named("mnnquant-ema"))
    assert ema.outcome == PASSED
