"""Forecasts: the last known value explains most of them, so only what a network says beyond it counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: The last value explains at least this share of the output's variance.
_MOSTLY: Final = 0.8
#: Fewer steps than this are not a series; more outputs than this are not a forecast; and few samples fit anything.
_FEWEST_STEPS, _MOST_OUTPUTS, _FEWEST_SAMPLES = 8, 1024, 24
_MOST_SERIES: Final = 64
#: Neighbouring steps of a series have at least this correlation. Columns of a table have less.
_LEAST_CORRELATION: Final = 0.5
#: What a forecast adds counts at least this much more, in dB, than the rounding noise of its output to 255 steps.
_STEPS, _ROUNDED_DB = 255, 26.0


@dataclass(frozen=True)
class Beyond:
    """What a forecast says beyond the last value of an input, against its error: energies of shape [samples].

    The signal is raised by 26 dB above the rounding noise of 255 steps over the range of the output.
    """

    input: str
    signal: Floats
    noise: Floats


def compare_beyond_last(reference: Array, output: Array, inputs: Mapping[str, Array]) -> Beyond | None:
    """Compare forecasts of equal shape [samples, ...]; None if no last value of an input explains the reference."""
    if reference.dtype.kind != "f" or not 2 <= reference[0].size <= _MOST_OUTPUTS or len(reference) < _FEWEST_SAMPLES:
        return None
    samples = len(reference)
    noise = np.square(reference.reshape(samples, -1).astype(np.float64) - output.reshape(samples, -1)).sum(1)
    fits = (
        (name, *_fit(last, targets))
        for name, array in inputs.items()
        for series in _last_values(array, samples)
        for last, targets in _pairs(series, reference)
    )
    name, explained, rest = max(fits, key=lambda fit: fit[1], default=("", 0.0, np.zeros((samples, 1))))
    span = float(reference.max()) - float(reference.min())
    floor = reference[0].size * (span / _STEPS) ** 2 / 12 * 10 ** (_ROUNDED_DB / 10)
    return Beyond(name, np.square(rest).sum(1) + floor, noise) if explained >= _MOSTLY else None


def _last_values(array: Array, samples: int) -> Iterator[Floats]:
    """The last value [samples, series] of the series in an input: [samples, steps], an axis of series on any side."""
    if array.dtype.kind != "f" or len(array) != samples or not 2 <= array.ndim <= 3:
        return
    for form in (array[:, None],) if array.ndim == 2 else (array, np.moveaxis(array, 1, 2)):
        if form.shape[2] >= _FEWEST_STEPS and form.shape[1] <= _MOST_SERIES:
            yield np.where(_are_series(form), form[:, :, -1].astype(np.float64), 0)


def _are_series(form: Array) -> npt.NDArray[np.bool_]:
    """Whether neighbouring steps of each series in [samples, series, steps] are correlated; shape [series]."""
    centred = form.astype(np.float64) - form.mean(0, dtype=np.float64)
    earlier, later = centred[:, :, :-1], centred[:, :, 1:]
    energies = np.sqrt(np.square(earlier).sum((0, 2)) * np.square(later).sum((0, 2)))
    return np.asarray((energies > 0) & ((earlier * later).sum((0, 2)) > _LEAST_CORRELATION * energies))


def _pairs(series: Floats, reference: Array) -> Iterator[tuple[Floats, Floats]]:
    """Last values [samples, groups] and targets [samples, groups, outputs] that they may explain.

    One series explains all outputs, or each series those at its place of an output's axis.
    """
    targets = reference.astype(np.float64)
    for last in series.T:
        yield last[:, None], targets.reshape(len(targets), 1, -1)
    for axis in range(1, reference.ndim):
        if reference.shape[axis] == series.shape[1] > 1:
            yield series, np.moveaxis(targets, axis, 1).reshape(*series.shape, -1)


def _fit(last: Floats, targets: Floats) -> tuple[float, Floats]:
    """The share of the variance of all targets that a linear function of each last value explains, and the rest."""
    centred, about = last - last.mean(0), targets - targets.mean(0)
    energy, whole = np.square(centred).sum(0), float(np.square(about).sum())
    products = (centred[..., None] * about).sum((0, 2)) / targets.shape[2]
    slope = np.divide(products, energy, out=np.zeros_like(energy), where=energy > 0)
    rest = about - (slope * centred)[..., None]
    return 1 - float(np.square(rest).sum()) / whole if whole else 0.0, rest.reshape(len(rest), -1)
