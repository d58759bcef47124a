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


@dataclass(frozen=True)
class Beyond:
    """What a forecast says beyond the last value of an input, against its error: energies of shape [samples]."""

    input: str
    signal: Floats
    noise: Floats


def compare_beyond_last(reference: Array, output: Array, inputs: Mapping[str, Array]) -> Beyond | None:
    """Compare forecasts of equal shape [samples, ...]; None if no last value of an input explains the reference."""
    if reference.dtype.kind != "f" or not 2 <= reference[0].size <= _MOST_OUTPUTS or len(reference) < _FEWEST_SAMPLES:
        return None
    targets = reference.reshape(len(reference), -1).astype(np.float64)
    noise = np.square(targets - output.reshape(targets.shape)).sum(1)
    fits = (
        (name, *_fit(last, targets)) for name, array in inputs.items() for last in _last_values(array, len(targets))
    )
    name, explained, rest = max(fits, key=lambda fit: fit[1], default=("", 0.0, targets))
    return Beyond(name, np.square(rest).sum(1), noise) if explained >= _MOSTLY else None


def _last_values(array: Array, samples: int) -> Iterator[Floats]:
    """The last value [samples] of each series in an input: [samples, steps] with an axis of series on any side."""
    if array.dtype.kind != "f" or len(array) != samples or not 2 <= array.ndim <= 3:
        return
    for form in (array[:, None],) if array.ndim == 2 else (array, np.moveaxis(array, 1, 2)):
        if form.shape[2] >= _FEWEST_STEPS and form.shape[1] <= _MOST_SERIES:
            yield from form[:, :, -1].astype(np.float64).T


def _fit(last: Floats, targets: Floats) -> tuple[float, Floats]:
    """The share of the variance of all targets that one linear function of the last value explains, and the rest."""
    centred, about = last - last.mean(), targets - targets.mean(0)
    energy, whole = float(np.square(centred).sum()), float(np.square(about).sum())
    if not energy or not whole:
        return 0.0, about
    slope = float((centred[:, None] * about).sum()) / energy / targets.shape[1]
    rest = about - slope * centred[:, None]
    return 1 - float(np.square(rest).sum()) / whole, rest
