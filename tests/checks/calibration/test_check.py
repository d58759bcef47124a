"""The calibration check: on enough data, on the right data, and with scales that fit held-out data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.calibration.check import CalibrationEvidence, check_calibration
from pytest_mnnquant.checks.calibration.clipping import HeldOut
from pytest_mnnquant.checks.calibration.ranges import movement
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Finding, Result
from pytest_mnnquant.findings.run_metrics import CalibrationMetrics
from pytest_mnnquant.measurements.calibration import Observations, Record
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Losses
from tests.golden_text import check_golden, without_numbers
from tests.results import known, measured
from tests.synthetic_evidence import codes

Array = npt.NDArray[Any]


def images(seed: int, count: int = 200, channels: int = 1) -> Array:
    """Pixels in 0..1, no two images alike, the last channel darker than the first."""
    random = np.random.default_rng(seed)
    bright = random.uniform(0.3, 1.0, (count, 1, 1, 1)) * np.linspace(1.0, 0.5, channels)[:, None, None]
    return (bright * random.random((count, channels, 8, 8))).astype(np.float32)


def data(array: Array, **more: Array) -> Dataset:
    return Dataset({"x": array, **more})


def tensor(name: str = "t", clipped: float = 0.0, rounded: float = 1e-4, **changes: Any) -> HeldOut:
    """A tensor whose values span 0 to 4, with codes for 0 to 5."""
    losses = Losses(1000, 0.0, 4.0, 1.0, 2 * clipped, clipped, rounded)
    return HeldOut(**{"layer": f"{name}'s", "tensor": name, "scale": 0.02, "low": 0.0, "high": 5.0, "losses": losses,
                      **changes})  # fmt: skip


FIT = (tensor("a"), tensor("b"), tensor("c"), tensor("d"))


def batches(count: int = 10, tensors: int = 3, spread: float = 0.1) -> dict[str, Array]:
    """Ranges of 0 to about 4, batch by batch."""
    random = np.random.default_rng(0)
    highs = 4 - 4 * spread * random.random((tensors, count))
    return {f"{number}": np.column_stack([np.zeros(count), high]) for number, high in enumerate(highs)}


def check(
    own: Dataset | None = None,
    other: Dataset | None = None,
    *,
    samples: int = 200,
    observer: str = "minmax",
    ranges: dict[str, Array] | None = None,
    tensors: tuple[HeldOut, ...] = FIT,
    observations: Observations | None = None,
    **changes: Any,
) -> Result:
    """A healthy calibration, but for what is given."""
    ranges = batches() if ranges is None else ranges
    facts: dict[str, Any] = {
        "mode": "eval",
        "record": Record(observer, samples, 32, ranges, observations),
        "calibration": own or data(images(1)),
        "evaluation": other or data(images(2)),
        "floats": ("x",),
        "batches": ranges,
        "tensors": tensors,
    }
    return check_calibration(CalibrationEvidence(**{**facts, **changes}))


def only(result: Result, code: str) -> Finding:
    assert codes(result) == [code], result.findings
    return result.findings[0]


def test_a_healthy_calibration_has_no_finding_and_is_measured() -> None:
    result = check()
    assert (result.outcome, result.findings) == (PASSED, ())
    figures = measured(CalibrationMetrics, result)
    assert (figures.samples, figures.batches, figures.observer) == (200, 10, "minmax")
    assert 0 < known(figures.range_movement) < 0.1
    assert known(figures.inputs)["x"].calibration.mean == pytest.approx(0.325, abs=0.02)
    assert (figures.tensors, figures.tensors_measured, figures.clipped_energy) == (4, 4, 0.0)


def test_without_evaluation_data_the_calibration_itself_is_judged() -> None:
    unmeasured = tuple(tensor(name, losses=None) for name in "abcd")
    assert check(evaluation=None, tensors=unmeasured).outcome == PASSED
    same = data(np.repeat(images(1, 1), 200, 0))
    assert codes(check(same, evaluation=None, tensors=unmeasured)) == ["MNQ520"]


def test_a_finished_file_is_judged_by_its_scales_alone() -> None:
    result = check(record=None, calibration=None, batches={})
    assert (result.outcome, measured(CalibrationMetrics, result).samples) == (PASSED, None)
    broken = check(record=None, calibration=None, batches={}, tensors=(*FIT, tensor("e", rounded=1.0, scale=2.7e19)))
    finding = only(broken, "MNQ541")
    assert finding.layer == "e's"
    check_golden("calibration/a-finished-file-is-judged-by-its-scales-alone", finding.message)


def test_what_was_not_measured_is_no_pass() -> None:
    for none in ((), (tensor(losses=None),)):
        result = check(tensors=none)
        assert (result.outcome, codes(result)) == (INCONCLUSIVE, ["MNQ003"])


# Number, order and spread --------------------------------------------------------------------------------------------


def test_few_samples_are_told_with_what_the_ranges_move_by() -> None:
    result = check(samples=4, ranges=batches(4, spread=0.8))
    assert result.outcome == PASSED
    finding = only(result, "MNQ510")
    moved = movement(batches(4, spread=0.8), "minmax")
    assert moved is not None
    check_golden("calibration/few-samples-are-told-with-what-the-ranges", finding.message)
    assert "96" in finding.fix
    assert "%" not in only(check(samples=1, ranges=batches(1)), "MNQ510").message
    assert check(samples=100).findings == ()


def test_no_sample_fails() -> None:
    result = check(samples=0, ranges={}, calibration=None)
    assert (result.outcome, codes(result)) == (FAILED, ["MNQ501"])


def test_one_outlier_among_many_batches_has_not_converged() -> None:
    ranges = batches()
    ranges["2"][3, 1] = 9.0
    result = check(ranges=ranges)
    assert result.outcome == PASSED
    finding = only(result, "MNQ511")
    assert "tensor '2'" in finding.message
    check_golden("calibration/one-outlier-among-many-batches-has-not", finding.fix)
    assert check(ranges=ranges, observer="percentile99.99").findings == ()  # it does not look at single values
    check_golden(
        "calibration/one-outlier-among-many-batches-has-not-2", check(ranges=ranges, samples=2000).findings[0].fix
    )


def test_a_blank_first_batch_dominates_a_moving_average_only() -> None:
    ranges = {name: np.vstack([[[0.0, 0.0]], rows, rows]) for name, rows in batches().items()}
    result = check(ranges=ranges, observer="average0.99", tensors=(*FIT, tensor("e", clipped=0.8)))
    assert result.outcome == FAILED
    finding = only(result, "MNQ512")
    check_golden("calibration/a-blank-first-batch-dominates-a-moving", without_numbers(finding.message))
    check_golden("calibration/a-blank-first-batch-dominates-a-moving-2", finding.cause_text)
    assert finding.cause_id == "moving-average-keeps-first-batch"
    assert "82%" in finding.cause_text
    assert check(ranges=ranges).findings == ()
    assert check(ranges=ranges, observer="average0.5").findings == ()
    last = {name: rows[::-1] for name, rows in ranges.items()}
    assert check(ranges=last, observer="average0.99").findings == ()


def test_a_wild_first_batch_is_a_warning() -> None:
    ranges = {name: np.vstack([[[0.0, 40.0]], rows, rows]) for name, rows in batches().items()}
    result = check(ranges=ranges, observer="average0.99")
    assert result.outcome == PASSED
    check_golden("calibration/a-wild-first-batch-is-a-warning", only(result, "MNQ512").message)


# Samples -------------------------------------------------------------------------------------------------------------


def test_samples_that_are_all_the_same_fail() -> None:
    result = check(data(np.repeat(images(1, 1), 200, 0)))
    assert result.outcome == FAILED
    check_golden("calibration/samples-that-are-all-the-same-fail", only(result, "MNQ520").message)


@pytest.mark.parametrize("value", [np.zeros((200, 1, 1, 1)), np.linspace(0, 1, 200).reshape(-1, 1, 1, 1)])
def test_samples_of_a_single_value_each_fail(value: Array) -> None:
    result = check(data(np.broadcast_to(value, (200, 1, 8, 8)).astype(np.float32)))
    assert result.outcome == FAILED
    check_golden("calibration/samples-of-a-single-value-each-fail", only(result, "MNQ520").message)


def test_many_repeated_or_blank_samples_are_a_warning() -> None:
    repeated = only(check(data(np.concatenate([images(1, 20)] * 10))), "MNQ521")
    check_golden("calibration/many-repeated-or-blank-samples-are-a-warning", repeated.message)
    some = images(1)
    some[:60] = np.linspace(0, 1, 60)[:, None, None, None]
    check_golden(
        "calibration/many-repeated-or-blank-samples-are-a-warning-2", only(check(data(some)), "MNQ521").message
    )
    some = images(1)
    some[:10] = 0
    assert check(data(some)).findings == ()


def test_what_repeats_honestly_is_left_alone() -> None:
    random = np.random.default_rng(0)
    tokens, others = random.integers(0, 5, (2, 200, 64))
    assert check(data(tokens), data(others[:50]), floats=()).findings == ()
    one_hot = np.eye(40, dtype=np.float32)[random.integers(0, 40, 200)]
    assert check(data(one_hot), data(one_hot)).findings == ()
    few = random.integers(0, 3, (200, 4)).astype(np.float32)
    assert check(data(few), data(few)).findings == ()
    mask = np.zeros((200, 1, 8, 8), np.float32)
    pairs = [data(images(seed), mask=mask) for seed in (1, 2)]
    assert check(*pairs, floats=("x", "mask")).findings == ()
    frames = np.repeat(images(1, 50), 4, 0)  # still pictures of a film, in both sets
    assert check(data(frames), data(frames[::-1])).findings == ()


# Range ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "other", "told", "cause"),
    [
        (255 * images(1), images(2), "fill 1/25", "pixels-not-normalized"),
        (images(1), 255 * images(2), "100% of the", "pixels-not-normalized"),
        (255 * images(1), (images(2) - 0.4) / 0.2, "lie outside", "pixels-not-normalized"),
        (images(1) - 0.7, images(2), "lie outside", "mean-subtracted-once"),
        (images(1) / 16, images(2), "lie outside", "scaled-once"),
        ((images(1) - 0.3) / 0.02, images(2), "fill 1/", "normalized-differently"),
    ],
)
def test_inputs_in_another_range_fail(own: Array, other: Array, told: str, cause: str) -> None:
    result = check(data(own), data(other), tensors=(*FIT, tensor("e", rounded=1.0)))
    assert result.outcome == FAILED
    finding = only(result, "MNQ530")
    assert told in finding.message
    assert "(mean " in finding.message
    assert finding.cause_id == cause


def test_a_milder_difference_of_range_is_a_warning_and_a_small_one_none() -> None:
    result = check(data(3 * images(1)))
    assert (result.outcome, codes(result)) == (PASSED, ["MNQ530"])
    assert check(data(1.5 * images(1))).findings == ()
    assert check(data(images(1) + 0.05)).findings == ()


def test_channels_in_reverse_order_are_told_where_that_is_clear() -> None:
    own, other = images(1, channels=3), images(2, channels=3)
    assert check(data(own), data(other)).findings == ()
    reverse = check(data(own[:, ::-1]), data(other))
    assert reverse.outcome == PASSED
    finding = only(reverse, "MNQ531")
    check_golden("calibration/channels-in-reverse-order-are-told", finding.message)
    assert finding.cause_id == "channels-reversed"
    last = data(np.moveaxis(own[:, ::-1], 1, -1)), data(np.moveaxis(other, 1, -1))
    assert codes(check(*last)) == ["MNQ531"]
    grey = own.mean(1, keepdims=True).repeat(3, 1)
    assert check(data(grey), data(other)).findings == ()


# Saturation ----------------------------------------------------------------------------------------------------------


def test_a_ruined_tensor_fails_and_names_its_layer() -> None:
    bad = tensor("e", clipped=0.6, low=0.0, high=1.0)
    result = check(tensors=(*FIT, bad), ranges={**batches(), "e": np.array([[0.0, 1.0]] * 10)})
    assert result.outcome == FAILED
    finding = only(result, "MNQ540")
    assert finding.layer == "e's"
    check_golden("calibration/a-ruined-tensor-fails-and-names-its-layer", finding.message)
    check_golden("calibration/a-ruined-tensor-fails-and-names-its-layer-2", finding.cause_text)
    check_golden("calibration/a-ruined-tensor-fails-and-names-its-layer-3", finding.fix)
    assert finding.cause_id == "calibration-range-too-narrow"
    wide = check(tensors=(*FIT, bad), ranges={**batches(), "e": np.array([[0.0, 4.0]] * 10)})
    assert only(wide, "MNQ540").cause_id == "range-cut"
    assert "min-max" in only(wide, "MNQ540").fix


def test_one_tensor_clipped_a_little_is_a_warning_and_several_fail() -> None:
    one = check(tensors=(*FIT, tensor("e", clipped=0.3)))
    assert (one.outcome, codes(one)) == (PASSED, ["MNQ540"])
    assert check(tensors=(*FIT, tensor("e", clipped=0.3)), observer="kl").findings == ()  # it does so on purpose
    several = tuple(tensor(name, clipped=0.2) for name in "efg")
    result = check(tensors=(*FIT, *several), observer="kl")
    assert result.outcome == FAILED
    check_golden("calibration/one-tensor-clipped-a-little-is-a-warning", only(result, "MNQ540").message)
    assert check(tensors=(*FIT, tensor("e", clipped=0.05))).findings == ()


def test_steps_that_are_too_coarse_fail() -> None:
    result = check(tensors=(*FIT, tensor("e", rounded=0.9, scale=2.0)))
    assert result.outcome == FAILED
    finding = only(result, "MNQ541")
    check_golden("calibration/steps-that-are-too-coarse-fail", finding.message)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_scales_that_are_none_fail_without_evaluation_data(scale: float) -> None:
    result = check(tensors=(*FIT, tensor("e", scale=scale, losses=None)), evaluation=None)
    assert result.outcome == FAILED
    assert f"has the scale {scale:g}" in only(result, "MNQ417").message


def test_a_scale_of_zero_is_right_for_a_tensor_of_zeros() -> None:
    dead = tensor("e", rounded=0.0, scale=0.0)
    assert check(tensors=(*FIT, dead)).findings == ()
    result = check(tensors=(*FIT, tensor("e", clipped=1.0, scale=0.0)))
    assert result.outcome == FAILED
    check_golden("calibration/a-scale-of-zero-is-right-for-a-tensor", only(result, "MNQ540").message)


# Pipelines -----------------------------------------------------------------------------------------------------------

SEEN: dict[str, Any] = {"handed_out": 10, "forwards": 10}


@pytest.mark.parametrize(
    ("observations", "code", "outcome", "value"),
    [
        (Observations(**SEEN), "", PASSED, ""),
        (Observations(0, 0), "MNQ501", FAILED, "0 batches"),
        (
            Observations(0, 5),
            "MNQ501",
            PASSED,
            " 5 times",
        ),
        (Observations(**SEEN, gradients=True), "MNQ502", PASSED, " 10 times"),
        (
            Observations(**SEEN, training=True),
            "MNQ503",
            PASSED,
            "eval mode",
        ),
        (Observations(**SEEN, training=True, drift=0.4), "MNQ504", FAILED, "0.4 standard deviations"),
        (
            Observations(**SEEN, weight_change=0.01),
            "MNQ504",
            FAILED,
            "0.01",
        ),
        (Observations(**SEEN, drift=1e-7, weight_change=1e-7), "", PASSED, ""),
        (
            Observations(**SEEN, moved={"a": (0.032, 0.08)}),
            "MNQ505",
            FAILED,
            "from 0.032 to 0.08",
        ),
        (Observations(**SEEN, moved={"a": (0.032, 0.036)}), "MNQ505", PASSED, "from 0.032 to 0.036"),
        (Observations(**SEEN, moved={"a": (0.032, 0.0321)}), "", PASSED, ""),
    ],
)
def test_what_a_pipeline_did_has_its_code(observations: Observations, code: str, outcome: str, value: str) -> None:
    result = check(observations=observations)
    assert (result.outcome, codes(result)) == (outcome, [code] if code else [])
    assert value in "".join(finding.message for finding in result.findings)


def test_a_model_that_never_ran_is_judged_by_whether_its_scales_fit() -> None:
    """A pipeline may calibrate in MNN's runtime instead; not one with observers in PyTorch."""
    observations = Observations(handed_out=10, forwards=0)
    told = check(observations=observations)
    check_golden("calibration/a-model-that-never-ran-is-judged-by-whether", only(told, "MNQ501").message)
    assert (told.outcome, measured(CalibrationMetrics, told).samples) == (PASSED, None)
    assert check(observations=Observations(handed_out=10, forwards=0, observers=3)).outcome == FAILED
    assert codes(check(observations=observations, tensors=(*FIT, tensor("e", rounded=1.0)))) == ["MNQ501"]
    assert codes(check(observations=observations, evaluation=None, tensors=(tensor(losses=None),))) == ["MNQ501"]


def test_train_mode_in_a_train_variant_is_what_was_asked_unless_it_changed_the_model() -> None:
    assert check(observations=Observations(**SEEN, training=True), mode="train").findings == ()
    changed = check(observations=Observations(**SEEN, training=True, drift=0.2), mode="train")
    assert changed.outcome == FAILED
    check_golden("calibration/train-mode-in-a-train-variant-is-what-was", only(changed, "MNQ504").message)


def test_codes_of_an_input_that_reach_far_beyond_the_data_were_made_for_other_values() -> None:
    """What a pipeline that preprocesses the data once more does; rounding may hide in the energy of the rest."""
    own = data(images(1))
    high = float(own.inputs["x"].max())
    ranges = {"in": np.array([[0.0, high * 0.9], [0.0, high]]), **batches()}
    wide, usual = tensor("in", high=20 * high, low=0.0), tensor("in", high=1.5 * high, low=0.0)
    observations = Observations(handed_out=10, forwards=10)
    finding = only(check(own, ranges=ranges, tensors=(*FIT, wide), observations=observations), "MNQ530")
    check_golden("calibration/codes-of-an-input-that-reach-far-beyond", finding.message)
    assert finding.cause_id == "calibrated-on-other-values"
    assert check(own, ranges=ranges, tensors=(*FIT, usual), observations=observations).findings == ()
    # Our own recipes and mnnquant were fed these data: a wider scale has another reason there.
    assert check(own, ranges=ranges, tensors=(*FIT, wide)).findings == ()


def test_tokens_may_repeat_but_not_be_the_same_in_all_samples() -> None:
    same = Dataset({"ids": np.tile(np.arange(6), (200, 1))})
    usual, other = (Dataset({"ids": np.random.default_rng(seed).integers(0, 3, (200, 6))}) for seed in (0, 1))
    assert codes(check(same, usual, floats=())) == ["MNQ520"]
    assert check(usual, other, floats=()).findings == ()
    assert codes(check(usual, usual, floats=())) == ["MNQ523"]


def test_how_many_samples_a_pipeline_used_is_what_it_ran_on() -> None:
    early = check(samples=320, observations=Observations(handed_out=2, forwards=1))
    assert measured(CalibrationMetrics, early).samples == 32
    assert measured(CalibrationMetrics, check(record=None)).samples is None
