"""The estimate of a variation's SQNR, with bounds that are honest for few samples."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import CONFIDENCE
from pytest_mnnquant.metrics.variation import Variation, chance_db
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

_TINY: Final = 1e-300


def estimate_variation(measured: Variation) -> Estimate:
    """The SQNR of a variation in dB. The upper bound allows for samples that are more alike than usual."""
    value = measured.sqnr_db
    if not math.isfinite(value):
        return Estimate(value, value, value, measured.samples, 0.0)

    def decibels(chosen: npt.NDArray[np.int64]) -> float:
        signal, noise = float(measured.signal[chosen].sum()), float(measured.noise[chosen].sum())
        return 10 * math.log10(max(signal, _TINY) / max(noise, _TINY))

    drawn = intervals.resampled(decibels, measured.samples, confidence=CONFIDENCE)
    return dataclasses.replace(drawn, value=value, high=max(drawn.high, value + chance_db(measured.samples)))
