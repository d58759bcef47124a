"""Calibration on the wrong data, on too few, or with scales that fit none: each fails or warns with its rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.mnnfile.params import LayerParams, read_params, write_params
from tests.conftest import FIXTURES
from tests.faults.conftest import Judge
from tests.faults.factory import LAST, NET, Factory
from tests.plugin.outcomes import Outcome

Array = npt.NDArray[Any]
Calibrate = Callable[..., Outcome]
COLOURED = '''
import numpy as np
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


def photos(seed):
    """Red is brighter than green, and green than blue."""
    random = np.random.default_rng(seed)
    colours = np.array([0.9, 0.6, 0.3])[:, None, None] * random.uniform(0.5, 1.0, (150, 3, 1, 1))
    return (colours * random.random((150, 3, 8, 8))).astype(np.float32)


def calibration():
    return {"input": photos(1)}


def evaluation():
    return {"input": photos(2)}


def backwards():
    """As OpenCV reads them."""
    return {"input": photos(1)[:, ::-1]}
'''


@pytest.fixture(scope="module")
def digits(factory: Factory) -> Array:
    """Images that the net was trained on."""
    images: Array = factory.module(NET).digits_data.train(16)[0]
    return images


@pytest.fixture
def calibrate(factory: Factory, gate: Callable[..., Outcome]) -> Calibrate:
    """Has the net calibrated on these images in eval mode, and judges that."""

    def run(images: Array, *more: object, recipe: str = "int8") -> Outcome:
        data = factory.fresh("calibration.npz")
        np.savez(data, x=images.astype(np.float32))
        model = ("--mnn-model", f"{FIXTURES / NET}.py:build", f"--mnn-recipe={recipe}", "--mnn-mode=eval")
        return gate(*model, "--mnn-calibration", data, "-k", "calibration", *more)

    return run


def passes(verdict: Outcome) -> None:
    """No finding at all."""
    assert verdict.status == 0, verdict.text
    assert verdict.codes() == set()


def warns(verdict: Outcome, code: str, *, where: str, why: str = "", fix: str) -> None:
    """It passes with this warning and no other; its user reads what was measured, the report holds the rest."""
    assert verdict.status == 0, verdict.text
    assert verdict.codes() == {code}
    verdict.tells(code, where=where)
    (finding,) = [finding for item in verdict.checks for finding in item["findings"]]
    assert finding["severity"] == "warning"
    assert why in (finding["cause"] or "")
    assert fix in finding["remedy"]


def fails(verdict: Outcome, code: str, **told: str) -> None:
    """It fails with this error and no other."""
    assert verdict.status == 1, verdict.text
    assert verdict.codes() == {code}
    verdict.tells(code, **told)


@pytest.mark.usefixtures("factory")  # It imports all of torch, before a run of pytester forgets its imports.
@pytest.mark.parametrize("name", ["digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer"])
def test_the_nets_of_the_repository_have_no_finding_in_either_mode(gate: Callable[..., Outcome], name: str) -> None:
    verdict = gate("--mnn-model", f"{FIXTURES / name}.py:build", "-k", "calibration")
    passes(verdict)
    assert verdict.passed == {"int8-train::calibration", "int8-eval::calibration"}


def test_four_samples_are_few_and_a_hundred_are_enough(calibrate: Calibrate, digits: Array) -> None:
    few = calibrate(digits[:4])
    warns(few, "MNQ510", where="on 4 samples", fix="96")
    assert few.metrics("calibration")["range_movement"] > 0.15
    passes(calibrate(digits[:100]))


def test_a_hundred_of_one_digit_serve(calibrate: Calibrate, factory: Factory) -> None:
    """Measured: ranges hardly depend on the class, so the gate must not cry wolf."""
    images, labels = factory.module(NET).digits_data.train(16)
    passes(calibrate(images[labels == 1]))


def test_ranges_that_hang_on_one_sample_are_told(calibrate: Calibrate, digits: Array) -> None:
    faint = 0.5 * digits[:200]
    faint[77] = digits[77]
    warns(calibrate(faint), "MNQ511", where="50%", why="few samples", fix="200")


def test_a_blank_first_batch_ruins_a_moving_average_and_no_other_observer(calibrate: Calibrate, digits: Array) -> None:
    blank = np.concatenate([np.zeros_like(digits[:32]), digits[:640]])
    verdict = calibrate(blank, recipe="int8-average")
    fails(verdict, "MNQ512", where="times as wide", why="the first of 21 batches a weight of 82%", fix="shuffle")
    verdict.tells("MNQ512", where="of the held-out energy")
    passes(calibrate(blank[::-1], recipe="int8-average"))
    passes(calibrate(blank))


def test_samples_that_are_all_alike_fail_and_repeated_ones_are_told(calibrate: Calibrate, digits: Array) -> None:
    fails(
        calibrate(np.repeat(digits[:1], 200, 0)), "MNQ520", where="all 200 samples", why="same sample", fix="different"
    )
    fails(calibrate(np.zeros_like(digits[:200])), "MNQ520", where="all 200 samples", why="never filled")
    warns(calibrate(np.tile(digits[:40], (4, 1, 1, 1))), "MNQ521", where="75% of the 160 samples", fix="copies")


@pytest.mark.parametrize(
    ("preprocess", "message", "why"),
    [
        (lambda x: 255 * x, "fill 1/255", "the calibration data are pixels"),
        (lambda x: x / 255, "outside the calibration range", "look like 0.00"),
        (lambda x: x - 0.5, "outside the calibration range", "a mean was subtracted"),
        (lambda x: 0.5 * x, "outside the calibration range", "only one set was scaled"),
    ],
    ids=["0..255", "divided twice", "mean", "half as bright"],
)
def test_calibration_data_that_are_preprocessed_otherwise_fail(
    calibrate: Calibrate, digits: Array, preprocess: Callable[[Array], Array], message: str, why: str
) -> None:
    verdict = calibrate(preprocess(digits[:320]))
    fails(verdict, "MNQ530", where=message, why=why, fix="preprocessing")
    verdict.tells("MNQ530", where="of the held-out energy")


def test_noise_of_about_the_same_size_is_a_warning(calibrate: Calibrate) -> None:
    noise = np.random.default_rng(0).standard_normal((320, 1, 16, 16))
    warns(calibrate(noise), "MNQ530", where="std 1), evaluation data 0 to 1", fix="preprocessing")


def test_colours_in_reverse_order_are_told(gate: Callable[..., Outcome], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(net=COLOURED)
    usual = ("--mnn-model=net.py:build", "--mnn-mode=eval", "-k", "calibration")
    passes(gate(*usual))
    verdict = gate(*usual, "--mnn-calibration=net.py:backwards")
    warns(verdict, "MNQ531", where="reverse order", why="BGR", fix="channel order")


def test_an_evaluation_on_calibration_samples_is_a_warning(gate: Callable[..., Outcome], factory: Factory) -> None:
    images, labels = factory.module(NET).digits_data.train(16)
    seen, half = (factory.fresh(name) for name in ("seen.npz", "half.npz"))
    np.savez(seen, x=images[:200], labels=labels[:200])
    np.savez(half, x=images[120:320], labels=labels[120:320])
    usual = ("--mnn-model", f"{FIXTURES / NET}.py:build", "--mnn-recipe=int8", "--mnn-mode=eval", "-k", "calibration")
    verdict = gate(*usual, "--mnn-calibration", seen, "--mnn-evaluation", seen)
    warns(verdict, "MNQ523", where="all 200 evaluation samples", fix="--mnn-evaluation")
    passes(gate(*usual, "--mnn-calibration", seen, "--mnn-evaluation", half))


# Finished files, judged by their scales alone ------------------------------------------------------------------------


def rescaled(factory: Factory, factor: float, *layers: str) -> Path:
    """A model of MNN's converter, made with the outputs of some layers scaled otherwise than calibrated."""
    params = read_params(factory.params())

    def changed(layer: LayerParams) -> LayerParams:
        if layer.weight.name not in layers or layer.output is None:
            return layer
        return dataclasses.replace(layer, output=dataclasses.replace(layer.output, scale=layer.output.scale * factor))

    path = factory.fresh("params.bin")
    write_params(dataclasses.replace(params, layers=tuple(map(changed, params.layers))), path)
    return factory.convert(factory.float(), "--compressionParamsFile", path)


def test_a_finished_file_with_scales_that_fit_passes(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.onnx(), factory.int8(), "-k", "calibration")
    passes(verdict)
    assert verdict.passed == {"int8::calibration"}
    figures = verdict.metrics("calibration")
    assert figures["tensors"] == figures["tensors_measured"] == 8
    assert figures["clipped_energy"] < 0.001


@pytest.mark.parametrize(
    ("factor", "code", "told"),
    [
        (0.05, "MNQ540", "clipped: values span"),
        (2000, "MNQ541", "steps (254 "),
        (1e20, "MNQ541", "100.0%"),
        (0.0, "MNQ540", "scale is 0"),
    ],
)
def test_a_finished_file_with_one_scale_that_fits_nothing_fails(
    factory: Factory, judge: Judge, factor: float, code: str, told: str
) -> None:
    verdict = judge(factory.onnx(), rescaled(factory, factor, LAST), "-k", "calibration")
    fails(verdict, code, where=told, fix="calibrat")
    assert verdict.layers(code) == {LAST}


def test_a_finished_file_is_judged_on_the_calibration_data_too_where_they_are_given(
    factory: Factory, judge: Judge, digits: Array
) -> None:
    data = factory.fresh("pixels.npz")
    np.savez(data, x=255 * digits[:120])
    verdict = judge(factory.onnx(), factory.int8(), "--mnn-calibration", data, "-k", "calibration")
    fails(verdict, "MNQ530", where="fill 1/255")


def test_there_is_nothing_to_judge_without_data_or_scales(factory: Factory, gate: Callable[..., Outcome]) -> None:
    files = ("--mnn-model", factory.onnx(), "--mnn-quantized", factory.int8(), "-k", "calibration")
    nothing = gate(*files)
    assert (nothing.status, nothing.skipped) == (0, {"int8::calibration"})
    weights = gate("--mnn-model", f"{FIXTURES / NET}.py:build", "--mnn-recipe=w8", "-k", "calibration")
    assert (weights.status, weights.skipped) == (0, {"w8::calibration"})


def test_a_float_file_is_no_pass(factory: Factory, judge: Judge) -> None:
    verdict = judge(factory.onnx(), factory.float(), "-k", "calibration or coverage")
    assert verdict.failed == {"int8::coverage"}
    assert verdict.skipped == {"int8::calibration"}
    assert {"MNQ003"} == verdict.codes("calibration")
