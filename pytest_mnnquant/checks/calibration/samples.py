"""Calibration samples: repeated or blank ones, and a range or channel order that differs from the evaluation data's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.run_metrics import InputMetrics, InputStatistics
from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly
from pytest_mnnquant.metrics.blocks import bounds_of, is_true_of_all, release, sample_blocks

MOST_SAMPLES: Final = 128
# The largest number of values of these samples that statistics use, and of samples that extremes use.
_MOST_VALUES: Final = 1 << 20
_MOST_FOR_EXTREMES: Final = 1024
Array = npt.NDArray[Any]
# Samples of inputs with fewer elements (a time step, a flag) may be equal by chance.
_ELEMENTS: Final = 32
_REPEATED: Final = 0.1
# Factors between spreads and between widths: 4 costs two bits, or clips most values.
_FACTOR, _MILD = 4.0, 2.0
# Share of the energy of the evaluation values that lies outside the range of the calibration data.
_CLIPPED: Final = 0.1
_SIGMAS: Final = 5.0
_SAME_SPREAD: Final = 1.25
_PIXELS: Final = 255.0


_ONE_SAMPLE: Final = Cause("one-sample-repeated", "the same sample was fed repeatedly")
_NEVER_FILLED: Final = Cause("data-never-filled", "the arrays were never filled, or reading the data failed silently")


def judge_samples(
    calibration: Dataset, evaluation: Dataset | None, floats: Sequence[str]
) -> tuple[list[Finding], dict[str, InputMetrics]]:
    """Findings on the calibration data, and statistics of the inputs that take floats (`floats`)."""
    findings, inputs = _degenerate(calibration, evaluation, floats), {}
    for name in floats:
        array = calibration.inputs[name]
        values = _values(array)
        inputs[name] = InputMetrics(_statistics(array, values))
        if evaluation is not None:
            other = evaluation.inputs[name]
            others = _values(other)
            inputs[name] = InputMetrics(_statistics(array, values), _statistics(other, others))
            if not findings:
                findings += _range(name, inputs[name], values, others) or _channels(name, array, other)
    return findings, inputs


def _thinned(array: Array, most: int = MOST_SAMPLES) -> Array:
    return array if len(array) <= most else array[spread_evenly(len(array), most)]


def _values(array: Array) -> npt.NDArray[np.float64]:
    """Values of some samples, always the same ones, shape [values]."""
    values = _thinned(array).reshape(-1)
    if values.size > _MOST_VALUES:  # Not at equal distances, which could be those of a channel.
        values = values[np.random.default_rng(0).integers(values.size, size=_MOST_VALUES)]
    return values.astype(np.float64)


def _statistics(array: Array, values: npt.NDArray[np.float64]) -> InputStatistics:
    """Minimum and maximum of most samples; mean and standard deviation of some values."""
    low, high = bounds_of(_thinned(array, _MOST_FOR_EXTREMES))
    release(array)
    return InputStatistics(float(values.mean()), float(values.std()), low, high)


# Repeated and blank samples ------------------------------------------------------------------------------------------


def _degenerate(calibration: Dataset, evaluation: Dataset | None, floats: Sequence[str]) -> list[Finding]:
    rich = [name for name in floats if _is_rich(calibration.inputs[name])]
    if calibration.samples < 2:
        return []
    if not rich:
        # Samples of few numbers or tokens may be equal by chance, but not all of many.
        large = sum(array[0].size for array in calibration.inputs.values()) > 1 and calibration.samples >= _ELEMENTS
        others = evaluation is None or evaluation.samples < 2 or _different(evaluation) > 1
        if large and others and _different(calibration) == 1:
            return [_degenerate_finding(f"all {calibration.samples} samples are identical", _ONE_SAMPLE)]
        return []
    shares = {name: _blank_share(calibration.inputs[name]) for name in rich}
    blank = {name: share for name, share in shares.items() if share > _REPEATED}
    usual_blank = {name: _blank_share(evaluation.inputs[name]) if evaluation else 0.0 for name in blank}
    for name in blank:
        # An input that is blank in both sets (a mask, for example) is intended.
        if blank[name] == 1 and (usual_blank[name] < 1 if evaluation else len(rich) == 1):
            message = f"input {name!r}: all {calibration.samples} samples are blank (all elements are equal)"
            return [_degenerate_finding(message, _NEVER_FILLED)]
    different = _different(calibration)
    if different == 1 and (evaluation is None or evaluation.samples < 2 or _different(evaluation) > 1):
        message = f"all {calibration.samples} samples are identical"
        return [_degenerate_finding(message, _ONE_SAMPLE)]
    findings = []
    repeated = 1 - different / calibration.samples
    if repeated > max(_REPEATED, 2 * _repeated(evaluation)):
        message = (
            f"{repeated:.0%} of the {calibration.samples} samples are copies: {different} different samples remain"
        )
        findings.append(Finding("MNQ521", message, fix="replace the copies by other samples (--mnn-calibration)"))
    for name in blank:
        if blank[name] > max(_REPEATED, 2 * usual_blank[name]):
            message = f"input {name!r}: {blank[name]:.0%} of the samples are blank (all elements are equal)"
            findings.append(Finding("MNQ521", message, fix="remove the blank samples (--mnn-calibration)"))
    return findings


def _degenerate_finding(message: str, cause: Cause) -> Finding:
    fix = "calibrate on 100 to 1,000 different, representative samples (--mnn-calibration)"
    return Finding("MNQ520", message, cause=cause, fix=fix)


def _is_rich(array: Array) -> bool:
    """Whether equal samples can't be chance: many elements, and not one-hot vectors or masks of 0 and 1."""
    if array[0].size < _ELEMENTS:
        return False
    low, high = bounds_of(array)
    return low == high or not is_true_of_all(lambda block: (block == 0) | (block == 1), array)


def _blank_share(array: Array) -> float:
    flat = array.reshape(len(array), -1)
    return float((flat.min(1) == flat.max(1)).mean())


def _different(data: Dataset) -> int:
    hashes = (
        zip(*([hash(row.tobytes()) for row in block] for block in parts), strict=True)
        for _, parts in sample_blocks(*data.inputs.values())
    )
    return len({row for rows in hashes for row in rows})


def _repeated(data: Dataset | None) -> float:
    return 1 - _different(data) / data.samples if data else 0.0


# Differences from the evaluation data --------------------------------------------------------------------------------


def _range(
    name: str, statistics: InputMetrics, calibration: npt.NDArray[np.float64], evaluation: npt.NDArray[np.float64]
) -> list[Finding]:
    """A finding if some values of both sets have other ranges."""
    calibrated, evaluated = statistics.calibration, statistics.evaluation
    assert evaluated is not None
    if not evaluated.std or not calibrated.std:
        return []
    spread = calibrated.std / evaluated.std
    width = _width(calibration) / _width(evaluation)
    lost = evaluation - np.clip(evaluation, min(calibrated.low, 0.0), max(calibrated.high, 0.0))
    clipped = float(np.square(lost).sum() / np.square(evaluation).sum())
    outside = float((lost != 0).mean())
    shift = abs(calibrated.mean - evaluated.mean) / max(calibrated.std, evaluated.std)
    is_wide, is_narrow = min(spread, width) > _FACTOR, max(spread, width) < 1 / _FACTOR
    is_error = is_wide or is_narrow or clipped >= _CLIPPED
    if not is_error and shift <= 1 and not min(spread, width) > _MILD and not max(spread, width) < 1 / _MILD:
        return []
    message = f"input {name!r}: calibration data span {_described(calibrated)}, evaluation data {_described(evaluated)}"
    if clipped >= _CLIPPED:
        message += f"; {outside:.0%} of the evaluation values lie outside the calibration range"
    elif is_wide:
        message += f"; the evaluation values fill 1/{width:.3g} of the calibration range"
    fix = "use the deployed application's preprocessing (mean, normalization, division by 255) for both sets"
    cause = _preprocessing_cause(calibrated, evaluated)
    return [Finding("MNQ530", message, cause=cause, fix=fix, as_warning=not is_error)]


def _width(values: npt.NDArray[np.float64]) -> float:
    low, high = np.quantile(values, (0.001, 0.999))
    return float(max(max(high, 0) - min(low, 0), 1e-30))


def _described(of: InputStatistics) -> str:
    return f"{of.low:.4g} to {of.high:.4g} (mean {of.mean:.3g}, std {of.std:.3g})"


def _preprocessing_cause(calibrated: InputStatistics, evaluated: InputStatistics) -> Cause:
    """The preprocessing that only one set had, as mean and standard deviation suggest."""
    factor = calibrated.std / evaluated.std
    offset = calibrated.mean - factor * evaluated.mean
    sets = ("calibration data", calibrated), ("evaluation data", evaluated)
    for (name, pixels), (other_name, other) in (sets, sets[::-1]):
        if pixels.low >= 0 and 128 < pixels.high <= _PIXELS and other.high <= 0.1 * pixels.high:
            form = "in 0..1" if other.low >= 0 else "normalized"
            text = f"the {name} are pixels in 0..255, the {other_name} are {form}: one set was not normalized"
            return Cause("pixels-not-normalized", text)
    if 1 / _SAME_SPREAD < factor < _SAME_SPREAD:
        text = f"the spread is equal, the mean differs by {offset:+.3g}: a mean was subtracted from one set only"
        return Cause("mean-subtracted-once", text)
    if abs(offset) < 0.1 * calibrated.std:
        text = f"the calibration data look like {factor:.3g} * evaluation data: only one set was scaled"
        return Cause("scaled-once", text)
    text = f"the calibration data look like {factor:.3g} * evaluation data {offset:+.3g}: their mean and normalization "
    return Cause("normalized-differently", text + "differ, or the data themselves")


def _channels(name: str, calibration: Array, evaluation: Array) -> list[Finding]:
    """A finding if the means of the three colors match far better in reverse order."""
    shapes = calibration.shape, evaluation.shape
    axis = next((axis for axis in (1, -1) if calibration.ndim == 4 and {shape[axis] for shape in shapes} == {3}), None)
    if axis is None:
        return []
    calibrated, evaluated = (_by_channel(_thinned(array), axis) for array in (calibration, evaluation))  # [samples, 3]
    if min(_tilt(calibrated), _tilt(evaluated)) < _SIGMAS:
        return []
    first, second = calibrated.mean(0), evaluated.mean(0)
    straight, reverse = float(np.square(first - second).sum()), float(np.square(first[::-1] - second).sum())
    if reverse >= straight / 4:
        return []
    means = [", ".join(f"{mean:.3g}" for mean in array) for array in (first, second)]
    return [
        Finding(
            "MNQ531",
            f"input {name!r}: the channel means match in reverse order: calibration {means[0]}; evaluation {means[1]}",
            cause=Cause(
                "channels-reversed",
                "one set is RGB, the other BGR (OpenCV reads BGR, and so does MNN's tool without a valid `format`)",
            ),
            fix="read both sets in the channel order that the model was trained with",
        )
    ]


def _by_channel(array: Array, axis: int) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = np.moveaxis(array, axis, 1).reshape(len(array), 3, -1).mean(2, dtype=np.float64)
    return means


def _tilt(means: npt.NDArray[np.float64]) -> float:
    """By how many standard errors the first channel differs from the last."""
    difference = means[:, 0] - means[:, 2]
    return float(abs(difference.mean()) / max(difference.std() / len(difference) ** 0.5, 1e-12))
