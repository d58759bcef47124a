"""Calibration samples on their own and beside the evaluation's: repeated, blank, in another range or channel order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.run_metrics import InputMetrics, InputStatistics
from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly

MOST_SAMPLES: Final = 128
Array = npt.NDArray[Any]
# Inputs of fewer elements (a time step, a flag) may repeat honestly.
_ELEMENTS: Final = 32
_REPEATED: Final = 0.1
# Of spread and of width: 4 costs two bits, or clips most values.
_FACTOR, _MILD = 4.0, 2.0
# Share of the energy of evaluation values that lies outside of the calibration's range.
_CLIPPED: Final = 0.1
_SIGMAS: Final = 5.0
_SAME_SPREAD: Final = 1.25
_PIXELS: Final = 255.0


_ONE_SAMPLE: Final = Cause("one-sample-repeated", "one sample was fed again and again")
_NEVER_FILLED: Final = Cause(
    "data-never-filled", "the data were never filled in, or reading them failed without a word"
)


def judge_samples(
    calibration: Dataset, evaluation: Dataset | None, floats: Sequence[str]
) -> tuple[list[Finding], dict[str, InputMetrics]]:
    """Findings on the calibration data, and statistics of the inputs that take floats (`floats`)."""
    findings, inputs = _degenerate(calibration, evaluation, floats), {}
    for name in floats:
        array = calibration.inputs[name]
        inputs[name] = InputMetrics(_statistics(array))
        if evaluation is not None:
            other = evaluation.inputs[name]
            inputs[name] = InputMetrics(_statistics(array), _statistics(other))
            if not findings:
                findings += _range(name, array, other) or _channels(name, array, other)
    return findings, inputs


def _thinned(array: Array) -> Array:
    return array if len(array) <= MOST_SAMPLES else array[spread_evenly(len(array), MOST_SAMPLES)]


def _statistics(array: Array) -> InputStatistics:
    """The extremes of all samples; mean and deviation of some, which is enough for them."""
    sample = _thinned(array).astype(np.float64)
    return InputStatistics(float(sample.mean()), float(sample.std()), float(array.min()), float(array.max()))


# Repeated and blank samples ------------------------------------------------------------------------------------------


def _degenerate(calibration: Dataset, evaluation: Dataset | None, floats: Sequence[str]) -> list[Finding]:
    rich = [name for name in floats if _is_rich(calibration.inputs[name])]
    if calibration.samples < 2:
        return []
    if not rich:
        # Of a few numbers or tokens some may repeat honestly, but not all of many.
        large = sum(array[0].size for array in calibration.inputs.values()) > 1 and calibration.samples >= _ELEMENTS
        others = evaluation is None or evaluation.samples < 2 or _different(evaluation) > 1
        if large and others and _different(calibration) == 1:
            return [_alike(f"all {calibration.samples} samples are the same", _ONE_SAMPLE)]
        return []
    blank = {name: _blank_share(calibration.inputs[name]) for name in rich}
    honest = {name: _blank_share(evaluation.inputs[name]) if evaluation else 0.0 for name in rich}
    for name in rich:
        # An input that is blank in both sets (a mask, say) is meant to be.
        if blank[name] == 1 and (honest[name] < 1 if evaluation else len(rich) == 1):
            message = f"input {name!r}: each of the {calibration.samples} samples holds a single value"
            return [_alike(message, _NEVER_FILLED)]
    different = _different(calibration)
    if different == 1 and (evaluation is None or evaluation.samples < 2 or _different(evaluation) > 1):
        message = f"all {calibration.samples} samples are the same"
        return [_alike(message, _ONE_SAMPLE)]
    findings = []
    repeated = 1 - different / calibration.samples
    usual = 1 - _different(evaluation) / evaluation.samples if evaluation else 0.0
    if repeated > max(_REPEATED, 2 * usual):
        message = f"{repeated:.0%} of the {calibration.samples} samples repeat others: {different} are different"
        findings.append(Finding("MNQ521", message, fix="give samples that differ (--mnn-calibration)"))
    for name in rich:
        if blank[name] > max(_REPEATED, 2 * honest[name]):
            message = f"input {name!r}: {blank[name]:.0%} of the samples hold a single value"
            findings.append(Finding("MNQ521", message, fix="leave out blank samples (--mnn-calibration)"))
    return findings


def _alike(message: str, cause: Cause) -> Finding:
    fix = "give 100 to 1,000 different samples like those that the model will meet (--mnn-calibration)"
    return Finding("MNQ520", message, cause=cause, fix=fix)


def _is_rich(array: Array) -> bool:
    """Whether repetitions can't be honest: not a few elements, and not one-hot vectors or masks of 0 and 1."""
    if array[0].size < _ELEMENTS:
        return False
    return not np.isin(array, (0, 1)).all() or bool((array == array.reshape(-1)[0]).all())


def _blank_share(array: Array) -> float:
    flat = array.reshape(len(array), -1)
    return float((flat.min(1) == flat.max(1)).mean())


def _different(data: Dataset) -> int:
    arrays = list(data.inputs.values())
    return len({tuple(hash(array[place].tobytes()) for array in arrays) for place in range(data.samples)})


# Beside the evaluation's ---------------------------------------------------------------------------------------------


def _range(name: str, own: Array, other: Array) -> list[Finding]:
    mine, theirs = _statistics(own), _statistics(other)
    if theirs.low == theirs.high or mine.low == mine.high:
        return []
    spread = mine.std / theirs.std
    width = _width(own) / _width(other)
    values = _thinned(other).astype(np.float64)
    lost = values - np.clip(values, min(mine.low, 0.0), max(mine.high, 0.0))
    clipped = float(np.square(lost).sum() / np.square(values).sum())
    outside = float((lost != 0).mean())
    shift = abs(mine.mean - theirs.mean) / max(mine.std, theirs.std)
    is_wide, is_narrow = min(spread, width) > _FACTOR, max(spread, width) < 1 / _FACTOR
    is_error = is_wide or is_narrow or clipped >= _CLIPPED
    if not is_error and shift <= 1 and not min(spread, width) > _MILD and not max(spread, width) < 1 / _MILD:
        return []
    message = f"input {name!r}: calibration {_described(mine)}, evaluation {_described(theirs)}"
    if clipped >= _CLIPPED:
        message += f"; {outside:.0%} of the evaluation's values lie outside of the calibration's range"
    elif is_wide:
        message += f"; the evaluation's values fill 1/{width:.3g} of the calibration's range"
    fix = "preprocess both alike (mean, normalise, division by 255), as the deployed application does"
    return [Finding("MNQ530", message, cause=_looks_like(mine, theirs), fix=fix, as_warning=not is_error)]


def _width(array: Array) -> float:
    low, high = np.quantile(_thinned(array), (0.001, 0.999))
    return float(max(max(high, 0) - min(low, 0), 1e-30))


def _described(of: InputStatistics) -> str:
    return f"{of.low:.4g} to {of.high:.4g} (mean {of.mean:.3g}, deviation {of.std:.3g})"


def _looks_like(mine: InputStatistics, theirs: InputStatistics) -> Cause:
    """What was done to one set only, as far as mean and deviation tell."""
    factor = mine.std / theirs.std
    offset = mine.mean - factor * theirs.mean
    pixels = ("the calibration data", mine), ("the evaluation data", theirs)
    for (name, one), (_, another) in (pixels, pixels[::-1]):
        if one.low >= 0 and 128 < one.high <= _PIXELS and another.high <= 0.1 * one.high:
            form = "0..1" if another.low >= 0 else "normalised values"
            text = f"{name} are pixels of 0..255, the other set {form}: a division or normalise was forgotten"
            return Cause("pixels-not-normalized", text)
    if 1 / _SAME_SPREAD < factor < _SAME_SPREAD:
        text = f"the spread is the same, shifted by {offset:+.3g}: a mean was subtracted from one set only"
        return Cause("mean-subtracted-once", text)
    if abs(offset) < 0.1 * mine.std:
        text = f"as if calibration = {factor:.3g} * evaluation: one set was scaled, the other not"
        return Cause("scaled-once", text)
    text = f"as if calibration = {factor:.3g} * evaluation {offset:+.3g}: mean and normalise differ, or the data do"
    return Cause("normalized-differently", text)


def _channels(name: str, own: Array, other: Array) -> list[Finding]:
    """Colours in reverse order, only where that is clear: their means match far better the other way round."""
    axis = next((axis for axis in (1, -1) if own.ndim == 4 and own.shape[axis] == 3 and other.shape[axis] == 3), None)
    if axis is None:
        return []
    mine, theirs = (_by_channel(_thinned(array), axis) for array in (own, other))  # [samples, 3]
    if min(_tilt(mine), _tilt(theirs)) < _SIGMAS:
        return []
    a, b = mine.mean(0), theirs.mean(0)
    straight, reverse = float(np.square(a - b).sum()), float(np.square(a[::-1] - b).sum())
    if reverse >= straight / 4:
        return []
    figures = "; ".join(f"{who} {', '.join(f'{mean:.3g}' for mean in means)}" for who, means in
                        (("calibration", a), ("evaluation", b)))  # fmt: skip
    return [
        Finding(
            "MNQ531",
            f"input {name!r}: the means of the channels match in reverse order: {figures}",
            cause=Cause(
                "channels-reversed",
                "one set is RGB, the other BGR (OpenCV reads BGR, and so does MNN's tool without a valid `format`)",
            ),
            fix="read both sets in the order that the model was trained with",
        )
    ]


def _by_channel(array: Array, axis: int) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = np.moveaxis(array, axis, 1).reshape(len(array), 3, -1).mean(2, dtype=np.float64)
    return means


def _tilt(means: npt.NDArray[np.float64]) -> float:
    """By how many standard errors the first channel differs from the last."""
    difference = means[:, 0] - means[:, 2]
    return float(abs(difference.mean()) / max(difference.std() / len(difference) ** 0.5, 1e-12))
