"""PSNR and SSIM, and the range of values that they take pictures to have."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.task_metric import Compared, judge_task
from pytest_mnnquant.metrics.pictures import (
    BYTES,
    HIGHEST,
    SIGNED,
    UNIT,
    ValueRange,
    aligned,
    are_pictures,
    psnr,
    ssim,
    value_range,
)
from pytest_mnnquant.metrics.task import MetricError, Scores, TaskMetric, metric_named, output_for, scores

Array = npt.NDArray[Any]


def pairs(count: int, height: int, width: int, channels: int, span: ValueRange, noise: float) -> tuple[Array, Array]:
    """Smooth pictures, and the same with a pattern added."""
    y, x = np.mgrid[:height, :width]
    k = np.arange(count * channels).reshape(count, channels, 1, 1)
    first = (np.sin(0.3 * x * (1 + k % 3) + 0.2 * y) + np.cos(0.5 * y + k)) / 4 + 0.5
    second = np.clip(first + noise * np.sin(1.7 * x * y + k), 0, 1)
    return span.low + span.span * first, span.low + span.span * second


# From scikit-image 0.26.0: structural_similarity(a, b, data_range=span, gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False), mean over channels; and peak_signal_noise_ratio(a, b, data_range=span).
SCIKIT_IMAGE = [
    ((2, 16, 20, 1, UNIT, 0.05), [0.9688485804323995, 0.981056711064762], [29.480972057317807, 28.870069111242977]),
    ((2, 24, 12, 3, SIGNED, 0.2), [0.6438208925053054, 0.7119766882880838], [17.38951669305709, 17.331071713380055]),
    ((1, 11, 11, 3, BYTES, 0.02), [0.996989685295817], [37.031191064921856]),
]


@pytest.mark.parametrize(("case", "similarity", "decibels"), SCIKIT_IMAGE)
def test_both_equal_those_of_scikit_image(case: Any, similarity: list[float], decibels: list[float]) -> None:
    first, second = pairs(*case)
    span = case[4]
    assert ssim(second, first, span) == pytest.approx(similarity, abs=1e-9)
    assert psnr(second, first, span) == pytest.approx(decibels, abs=1e-9)


def test_equal_pictures_have_the_highest_values() -> None:
    first, _ = pairs(2, 16, 16, 1, UNIT, 0)
    assert psnr(first, first, UNIT).tolist() == [HIGHEST, HIGHEST]
    assert ssim(first, first, UNIT) == pytest.approx([1, 1])


def test_what_is_outside_of_the_range_is_clipped_as_on_a_screen() -> None:
    white = np.ones((1, 1, 16, 16))
    assert psnr(white * 1.5, white, UNIT).tolist() == [HIGHEST]


def test_the_range_is_that_of_the_targets() -> None:
    assert value_range(np.array([0.0, 0.9])) == UNIT
    assert value_range(np.array([0.0, 1.04])) == UNIT
    assert value_range(np.array([-0.9, 0.2])) == SIGNED
    assert value_range(np.array([3.0, 250.0])) == BYTES
    assert value_range(np.array([0, 1], np.uint8)) == BYTES
    for values in ([0.0, 4000.0], [-100.0, 200.0], [0.0, np.nan], [-1.7, 0.5]):
        with pytest.raises(ValueError):
            value_range(np.array(values))


def test_targets_may_have_their_channels_last_or_none() -> None:
    output = np.random.default_rng(0).random((2, 3, 8, 12)).astype(np.float32)
    made, real = aligned(output, np.moveaxis(output, 1, -1))
    assert np.array_equal(made, real)
    grey = output[:, :1]
    assert are_pictures(grey, grey[:, 0])
    assert aligned(grey, grey[:, 0])[1].shape == grey.shape
    last = np.moveaxis(output, 1, -1)
    assert aligned(last, last)[0].shape == output.shape
    assert not are_pictures(output, output[:, :2])
    assert not are_pictures(output[:, 0, 0], output[:, 0, 0])


def scored(name: str, output: Array, labels: Array) -> tuple[TaskMetric, Scores]:
    metric = metric_named(name)
    assert metric is not None
    return metric, scores(metric, {"y": output}, output_for(metric, {"y": output}, labels), labels)


def test_a_user_gets_half_a_decibel_by_default_and_the_range_in_the_label() -> None:
    clean = pairs(8, 16, 16, 3, UNIT, 0)[0].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, clean.shape).astype(np.float32)
    metric, before = scored("psnr", clean + 0.05 * noise, clean)
    for factor, codes in ((1.04, []), (1.08, ["MNQ701"])):
        _, after = scored("psnr", clean + 0.05 * factor * noise, clean)
        findings, task = judge_task(Compared(metric, before, after), Criteria())
        assert [finding.code for finding in findings] == codes
        assert task.drop == pytest.approx(20 * np.log10(factor), abs=0.05)
        assert task.label == "PSNR in dB (values 0..1)"


def test_other_ranges_of_target_and_output_are_refused() -> None:
    picture = pairs(2, 16, 16, 1, UNIT, 0)[0].astype(np.float32)
    for output, labels in (
        (picture, (picture * 255).astype(np.uint8)),
        (picture * 255, picture),
        (picture * 2 - 1, picture),
    ):
        with pytest.raises(MetricError):
            scored("psnr", output, labels)
    with pytest.raises(MetricError):
        scored("ssim", picture[..., :10], picture[..., :10])


def test_errors_below_one_grey_level_do_not_change_psnr() -> None:
    real = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3, 16, 16))
    assert psnr(real + 0.002, real, UNIT).tolist() == psnr(real + 0.0003, real, UNIT).tolist() == [HIGHEST] * 4
    assert psnr(real + 0.01, real, UNIT) == pytest.approx([40.0] * 4)
