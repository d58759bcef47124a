"""An entry of the baseline: the accepted metrics of a variant, and how much worse later ones may be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_mnnquant.findings.figures import Figures

COSINE: Final = "cosine"
#: The KL divergence of a language model's predictions.
KL: Final = "kl"
#: Built-in task metrics with their own units; all other built-in ones are shares of samples.
_WITH_UNITS: Final = ("mae", "rmse", "psnr")


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How much worse than accepted a metric may be. None: the metric is stored, but not compared.

    `size`, `memory`, `ratio` and `ratio_paired` are shares of the accepted value (0.01: 1 % more). `ratio` is for
    ratios of two runs, which differ by 15 % and more on shared machines. `ratio_paired` applies if the accepted model
    is kept: then both models are timed in turn. `coverage` and `accuracy` are absolute, `accuracy_relative` is a share
    of the accepted value; if both are given, both apply.
    """

    size: float | None = 0.01
    coverage: float | None = 0.0
    accuracy: float | None = None
    accuracy_relative: float | None = None
    ratio: float | None = 0.25
    ratio_paired: float | None = 0.1
    memory: float | None = 0.05

    @property
    def judges_accuracy(self) -> bool:
        """Whether the accuracy is compared."""
        return self.accuracy is not None or self.accuracy_relative is not None


def usual_tolerances(figures: Figures) -> Tolerances:
    """The default tolerances, by the task metric."""
    if figures.metric == COSINE:
        return Tolerances(accuracy=0.002)
    if figures.metric == KL:  # Its memory is that of a process, which varies between runs.
        return Tolerances(accuracy_relative=0.1, memory=0.25)
    has_units = figures.lower_is_better or figures.metric.partition("@")[0] in _WITH_UNITS
    if has_units or abs(figures.accuracy or 0.0) > 1:
        return Tolerances(accuracy_relative=0.01)
    return Tolerances(accuracy=0.005)


@dataclass(frozen=True)
class Entry:
    """The accepted metrics of a variant, with the `versions` of the tools and the `host` (for latency)."""

    figures: Figures
    tolerances: Tolerances = field(default_factory=Tolerances)
    versions: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=dict)


def value_text(value: float | None) -> str:
    """A number of the baseline as text for messages."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def rounded(figures: Figures) -> Figures:
    """The metrics for the file: rounded to their significant digits, so that differences are readable."""
    return dataclasses.replace(
        figures,
        coverage=_digits(figures.coverage),
        accuracy=_digits(figures.accuracy),
        ratio=_digits(figures.ratio, 4),
        ratio_low=_digits(figures.ratio_low, 4),
        ratio_high=_digits(figures.ratio_high, 4),
        failed=(),
        path="",
    )


def _digits(value: float | None, count: int = 6) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{count}g}")
