"""Forecasts: the last known value explains most of them, so only what a network says beyond it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.map_error import is_map_of

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The last value explains at least this share of the output's variance; of few samples, more, since it may by chance.
_MOSTLY, _FEW, _BY_CHANCE = 0.8, 4, 100
#: Fewer steps than this are not a series; and fewer samples fit anything.
_FEWEST_STEPS, _FEWEST_SAMPLES = 8, 8
#: More series than this, or more outputs, do not follow a single series.
_MOST_SERIES, _MOST_OUTPUTS = 64, 1024
_MOST_VALUES: Final = 10_000_000
#: Neighbouring steps of a series have at least this correlation. Columns of a table have less.
_LEAST_CORRELATION: Final = 0.5
#: What a forecast adds counts at least this much more, in dB, than the rounding noise of its output to 255 steps.
_STEPS, _ROUNDED_DB = 255, 30.0
#: And this much more than an error of this share of what can't be known of the next value: no forecast is better than
#: that, so such an error raises that of a forecast by at most 5 %.
_OF_UNKNOWN, _UNKNOWN_DB = 0.3, 27.0
#: The next value is estimated from at most 24 earlier ones, if there are 20 times as many places.
_MEMORY, _LEAST_PLACES = 24, 20
_MOST_PLACES: Final = 20_000


@dataclass(frozen=True)
class Beyond:
    """What a forecast says beyond the last value of an input, against its error: energies of shape [samples].

    The signal is at least 30 dB above the rounding noise of 255 steps over the range of the output, and 27 dB above an
    error of 0.3 times the noise of the series.
    """

    input: str
    signal: Floats
    noise: Floats


@dataclass(frozen=True)
class _Fit:
    """How far last values explain an output; `series` [samples, series, steps] are those that do."""

    input: str
    series: Array
    explained: float
    rest: Floats


def compare_beyond_last(reference: Array, output: Array, inputs: Mapping[str, Array]) -> Beyond | None:
    """Compare forecasts of equal shape [samples, ...]; None if no last value of an input explains the reference.

    Of data with more values than `_MOST_VALUES`, evenly spread samples are compared.
    """
    step = 1 + max((array.size for array in inputs.values()), default=0) // _MOST_VALUES
    reference, output = reference[::step], output[::step]
    inputs = {name: array[::step] for name, array in inputs.items()}
    samples, size = len(reference), reference[0].size
    if reference.dtype.kind != "f" or size < 2 or samples < _FEWEST_SAMPLES or reference.size > _MOST_VALUES:
        return None
    fits = (
        _Fit(name, form[:, chosen], *_fit(last, targets))
        for name, array in inputs.items()
        if not is_map_of(reference, array)
        for form in _forms(array, samples)
        for chosen, last, targets in _pairs(_last_values(form), reference)
    )
    best = max(fits, key=lambda fit: fit.explained, default=None)
    if best is None or best.explained < max(_MOSTLY, 1 - (samples - _FEW) / _BY_CHANCE):
        return None
    noise = np.square(reference.reshape(samples, -1).astype(np.float64) - output.reshape(samples, -1)).sum(1)
    span, signal = float(reference.max()) - float(reference.min()), np.square(best.rest).sum(1)
    rounding = (span / _STEPS) ** 2 / 12 * 10 ** (_ROUNDED_DB / 10)
    least = size * max(rounding, _OF_UNKNOWN**2 * _unknown(best.series) * 10 ** (_UNKNOWN_DB / 10))
    return Beyond(best.input, signal if signal.mean() > least else np.full(samples, least), noise)


def _unknown(series: Array) -> float:
    """The mean square of what earlier values do not say of the next one, in series [samples, series, steps].

    The next value is estimated by linear regression, for each series by itself. 0 if the places are too few for that.
    """
    memory = min(_MEMORY, series.shape[2] // 2)
    windows = np.lib.stride_tricks.sliding_window_view(series, memory + 1, axis=2)
    if windows.shape[0] * windows.shape[2] < _LEAST_PLACES * memory:
        return 0.0
    squares = []
    for number in range(0, windows.shape[1], 1 + windows.shape[1] // _MOST_SERIES):
        rows = windows[:, number].reshape(-1, memory + 1)
        rows = rows[:: 1 + len(rows) // _MOST_PLACES].astype(np.float64)
        rows = rows - rows[:, -2:-1]  # Levels differ between samples.
        matrix = np.concatenate([rows[:, :-2], np.ones((len(rows), 1))], 1)
        rest = rows[:, -1] - matrix @ np.linalg.lstsq(matrix, rows[:, -1], rcond=None)[0]
        squares.append(float(np.square(rest).sum()) / (len(rows) - matrix.shape[1]))
    return float(np.mean(squares))


def _forms(array: Array, samples: int) -> Iterator[Array]:
    """The series in an input as [samples, series, steps].

    It has [samples, steps], or steps on any of two or three axes, of which a short one may hold other features.
    """
    if array.dtype.kind != "f" or len(array) != samples or not 2 <= array.ndim <= 4:
        return
    for axis in range(1, array.ndim):
        form = np.moveaxis(array, axis, -1)
        if form.shape[-1] < _FEWEST_STEPS:
            continue
        yield form.reshape(samples, -1, form.shape[-1])
        if array.ndim == 4:
            yield form[:, :, 0]
            yield form[:, 0]


def _last_values(form: Array) -> Floats:
    """The last value [samples, series] of series [samples, series, steps]; 0 of what is not a series."""
    return np.where(_are_series(form), form[:, :, -1].astype(np.float64), 0)


def _are_series(form: Array) -> npt.NDArray[np.bool_]:
    """Whether neighbouring steps of each series in [samples, series, steps] are correlated; shape [series]."""
    centred = form.astype(np.float64) - form.mean(0, dtype=np.float64)
    earlier, later = centred[:, :, :-1], centred[:, :, 1:]
    energies = np.sqrt(np.square(earlier).sum((0, 2)) * np.square(later).sum((0, 2)))
    return np.asarray((energies > 0) & ((earlier * later).sum((0, 2)) > _LEAST_CORRELATION * energies))


def _pairs(last: Floats, reference: Array) -> Iterator[tuple[slice, Floats, Floats]]:
    """Which series, their last values [samples, groups] and targets [samples, groups, outputs] that they may explain.

    One series explains all outputs, or each series those at its place of an output's axis, or of two axes.
    """
    targets = reference.astype(np.float64)
    if last.shape[1] <= _MOST_SERIES and reference[0].size <= _MOST_OUTPUTS:
        for number, values in enumerate(last.T):
            yield slice(number, number + 1), values[:, None], targets.reshape(len(targets), 1, -1)
    for axis in range(1, reference.ndim) if last.shape[1] > 1 else ():
        if reference.shape[axis] == last.shape[1]:
            yield slice(None), last, np.moveaxis(targets, axis, 1).reshape(*last.shape, -1)
        steps = reference.shape[axis]
        if reference.ndim == 4 and reference[0].size == steps * last.shape[1]:
            yield slice(None), last, np.moveaxis(targets, axis, -1).reshape(*last.shape, steps)


def _fit(last: Floats, targets: Floats) -> tuple[float, Floats]:
    """The share of the variance of all targets that a linear function of each last value explains, and the rest."""
    centred, about = last - last.mean(0), targets - targets.mean(0)
    energy, whole = np.square(centred).sum(0), float(np.square(about).sum())
    products = (centred[..., None] * about).sum((0, 2)) / targets.shape[2]
    slope = np.divide(products, energy, out=np.zeros_like(energy), where=energy > 0)
    rest = about - (slope * centred)[..., None]
    return 1 - float(np.square(rest).sum()) / whole if whole else 0.0, rest.reshape(len(rest), -1)
