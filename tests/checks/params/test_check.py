"""The params check, on real params files and models into which faults are planted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.params.check import check_params
from pytest_mnnquant.checks.params.evidence import ParamsEvidence, relate
from pytest_mnnquant.findings.file_metrics import ParamsMetrics
from pytest_mnnquant.findings.finding import FAILED, PASSED, Result
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams, Params, WeightParams, read_params, write_params
from pytest_mnnquant.quantize.variant import Variant
from tests.synthetic_evidence import codes
from tests.workshop import Workshop

PATH = Path("compress_params_index.bin")


@pytest.fixture(scope="module")
def params(digits_int8: Variant) -> Params:
    assert digits_int8.params is not None
    return read_params(digits_int8.params)


def related(params: Params, base: Model, model: Model) -> ParamsEvidence:
    return relate(PATH, params, base, model, match_layers(base, model))


def check(params: Params, base: Model, model: Model, wanted: tuple[Op, ...] | None = None) -> Result:
    return check_params(related(params, base, model), model, base.convolutions if wanted is None else wanted)


def edited(params: Params, number: int, **changes: Any) -> Params:
    """The params with one layer's entry changed."""
    layers = list(params.layers)
    layers[number] = dataclasses.replace(layers[number], **changes)
    return dataclasses.replace(params, layers=tuple(layers))


def applied(workshop: Workshop, base: Model, params: Params, folder: Path) -> Model:
    """What MNN's converter makes of these params."""
    write_params(params, folder / "p.bin")
    return workshop.quantized(base, "--compressionParamsFile", str(folder / "p.bin"))


def test_params_that_were_applied_pass(digits_int8: Variant, params: Params) -> None:
    result = check(params, digits_int8.base, digits_int8.model)
    assert result.outcome == PASSED
    assert result.metrics == ParamsMetrics(entries=4, bound=4, misnamed=0)


def test_an_entry_under_another_name_leaves_its_layer_float_and_is_told_with_the_right_name(
    workshop: Workshop, digits_int8: Variant, params: Params, tmp_path: Path
) -> None:
    """As mnncompress names a Linear before a ReLU."""
    base = digits_int8.base
    misnamed = params.renamed({"ConvertTensor17": "/classifier/classifier.2/Gemm_output_0"})
    model = applied(workshop, base, misnamed, tmp_path)
    assert [op.weights[0].label for op in model.layers] == ["int8", "int8", "float32", "int8"]
    evidence = related(misnamed, base, model)
    assert [(item.entry.name, item.layer) for item in evidence.misnamed] == [
        ("/classifier/classifier.2/Gemm_output_0", base.layers[2])
    ]
    assert evidence.misnamed_of(base.layers[2]) is evidence.misnamed[0]
    assert evidence.misnamed_of(base.layers[1]) is None
    result = check_params(evidence, model, base.convolutions)
    assert codes(result) == ["MNQ304"]
    (finding,) = result.findings
    assert finding.layer == base.layers[2].name
    assert "'ConvertTensor17'" in finding.cause_text + finding.fix


def test_names_without_mnns_ending_for_linear_layers_are_right(
    workshop: Workshop, digits_int8: Variant, params: Params, tmp_path: Path
) -> None:
    shortened = params.renamed({"output__matmul_converted": "output"})
    model = applied(workshop, digits_int8.base, shortened, tmp_path)
    assert model.layers[3].weights[0].label == "int8"
    assert check(shortened, digits_int8.base, model).outcome == PASSED


def test_like_layers_are_told_apart_by_their_weights(workshop: Workshop) -> None:
    """Query, key, value and output of attention have one shape."""
    variant = workshop.variant("tiny_transformer", "int8", "eval")
    assert variant.params is not None
    params = read_params(variant.params)
    alike = [entry.name for entry in params.layers if "/attention/" in entry.name]
    assert len(alike) == 8
    scrambled = params.renamed({name: f"mystery{7 - number}" for number, name in enumerate(alike)})
    evidence = related(scrambled, variant.base, variant.model)
    found = {item.entry.name: item.layer.output_names[0] for item in evidence.misnamed if item.layer}
    assert found == {f"mystery{7 - number}": name for number, name in enumerate(alike)}


def test_learned_scales_still_tell_their_layer(digits_int8: Variant, params: Params) -> None:
    """Scales that were trained are not max |w| / 127, but follow it from channel to channel."""
    random = np.random.default_rng(0)
    weight = params.layers[1].weight
    learned = tuple(float(scale * (0.8 + 0.02 * random.random())) for scale in weight.scales)
    misnamed = edited(params, 1, weight=dataclasses.replace(weight, scales=learned)).renamed(
        {params.layers[1].name: "other"}
    )
    evidence = related(misnamed, digits_int8.base, digits_int8.model)
    assert [item.layer for item in evidence.misnamed] == [digits_int8.base.layers[1]]


def test_a_layer_that_is_not_listed_fails_unless_it_is_not_wanted(
    workshop: Workshop, digits_int8: Variant, params: Params, tmp_path: Path
) -> None:
    base = digits_int8.base
    fewer = dataclasses.replace(params, layers=params.layers[1:])
    model = applied(workshop, base, fewer, tmp_path)
    result = check(fewer, base, model)
    assert codes(result) == ["MNQ306"]
    assert result.findings[0].layer == base.layers[0].name
    assert check(fewer, base, model, base.convolutions[1:]).outcome == PASSED


@pytest.mark.parametrize("side", ["input", "output"])
def test_another_scale_of_a_tensor_than_in_the_model_fails(digits_int8: Variant, params: Params, side: str) -> None:
    tensor = getattr(params.layers[2], side)
    other = edited(params, 2, **{side: dataclasses.replace(tensor, scale=tensor.scale * 1.001)})
    result = check(other, digits_int8.base, digits_int8.model)
    assert codes(result) == ["MNQ305"]
    assert result.findings[0].layer == digits_int8.model.layers[2].name
    assert f"{side} scale" in result.findings[0].message
    near = edited(params, 2, **{side: dataclasses.replace(tensor, scale=tensor.scale * 1.00001)})
    assert check(near, digits_int8.base, digits_int8.model).outcome == PASSED


def test_another_scale_of_one_channel_fails_and_names_the_channel(digits_int8: Variant, params: Params) -> None:
    weight = params.layers[1].weight
    scales = list(weight.scales)
    scales[31] *= 1.01
    other = edited(params, 1, weight=dataclasses.replace(weight, scales=tuple(scales)))
    result = check(other, digits_int8.base, digits_int8.model)
    assert codes(result) == ["MNQ305"]
    assert "channel 31" in result.findings[0].message


def spoiled(model: Model, number: int, **changes: Any) -> Model:
    """The model with one layer's weights described otherwise."""
    ops = list(model.ops)
    at = ops.index(model.layers[number])
    ops[at] = dataclasses.replace(ops[at], weights=(dataclasses.replace(ops[at].weights[0], **changes),))
    return dataclasses.replace(model, ops=tuple(ops))


@pytest.mark.parametrize(
    "changes",
    [{"scale_in": float("nan")}, {"scale_out": float("inf")}, {"full_int8": False}, {"intact": False}],
    ids=str,
)
def test_a_layer_that_does_not_hold_its_params_fails(
    digits_int8: Variant, params: Params, changes: dict[str, Any]
) -> None:
    result = check(params, digits_int8.base, spoiled(digits_int8.model, 1, **changes))
    assert codes(result) == ["MNQ305"]
    assert result.findings[0].layer == digits_int8.model.layers[1].name


def test_scales_in_a_weight_file_that_is_not_there_fail(
    workshop: Workshop, digits_int8: Variant, params: Params, tmp_path: Path
) -> None:
    write_params(params, tmp_path / "p.bin")
    flags = ("--compressionParamsFile", str(tmp_path / "p.bin"), "--saveExternalData")
    model = workshop.quantized(digits_int8.base, *flags)
    assert check(params, digits_int8.base, model).outcome == PASSED
    alone = spoiled(model, 0, external=(0, 0, 0, 0, 0))
    assert codes(check(params, digits_int8.base, alone)) == ["MNQ305"]


def test_a_model_that_was_never_given_the_params_fails_at_every_layer(
    workshop: Workshop, digits_int8: Variant, params: Params
) -> None:
    weight_only = workshop.quantized(digits_int8.base, "--weightQuantBits", "8")
    for model in (digits_int8.base, weight_only, dataclasses.replace(weight_only, uuid="another")):
        result = check(params, digits_int8.base, model)
        assert codes(result) == ["MNQ305"] * 4
        assert all(finding.cause_id == "params-never-read" for finding in result.findings)


def test_params_of_another_network_fail(workshop: Workshop, digits_int8: Variant) -> None:
    other = workshop.variant("garment_classifier", "int8", "eval").params
    assert other is not None
    foreign = Params(tuple(entry for entry in read_params(other).layers if entry.weight.name.startswith("/conv")))
    found = check(foreign, digits_int8.base, digits_int8.model)
    assert found.outcome == FAILED
    assert set(codes(found)) == {"MNQ304", "MNQ306"}


def test_guides_and_empty_files_quantize_nothing(digits_int8: Variant) -> None:
    guide = Params((LayerParams(WeightParams("a", bits=0)), LayerParams(WeightParams("b", bits=0))))
    for nothing in (guide, Params(())):
        result = check(nothing, digits_int8.base, digits_int8.base)
        assert codes(result) == ["MNQ303"]


def test_files_that_are_missing_or_unreadable_fail(digits_int8: Variant) -> None:
    missing = ParamsEvidence(PATH, missing="p.bin")
    unreadable = ParamsEvidence(PATH, unreadable="p.bin: byte 7: a number does not end")
    for evidence, code in ((missing, "MNQ301"), (unreadable, "MNQ302")):
        result = check_params(evidence, digits_int8.model, digits_int8.base.convolutions)
        assert codes(result) == [code]
        assert "p.bin" in result.findings[0].message


def test_two_calibrations_in_one_file_are_told_as_that(digits_int8: Variant) -> None:
    evidence = ParamsEvidence(PATH, unreadable="p.bin: output tensor 'a' is listed twice", doubled=True)
    (finding,) = check_params(evidence, digits_int8.model, ()).findings
    assert finding.code == "MNQ302"
    assert finding.cause_id == "two-calibrations"


def test_nothing_compared_is_no_pass(digits_int8: Variant, params: Params) -> None:
    assert codes(check_params(ParamsEvidence(PATH, params), digits_int8.model, ())) == ["MNQ001"]
