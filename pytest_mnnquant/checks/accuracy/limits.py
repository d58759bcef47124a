"""The limits that outputs must meet, and whether the samples are enough to decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.defaults import (
    BEYOND,
    CHANNEL,
    CHARACTERS,
    COARSE_COSINE,
    COARSE_FEW_NUMBERS,
    COSINE,
    DETAIL,
    FEW_NUMBERS,
    IOU,
    MAPS,
    PART_NUMBERS,
    PEAKS,
    RANKS,
    UNIT_COSINE,
    VARIATION,
)
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.task import TaskMetric
from pytest_mnnquant.statistics.intervals import Estimate, samples_to_decide

#: A limit for every output, or for some by name ("*" for the others); None: not judged.
Named = float | Mapping[str, float] | None
#: Two-sided, so that each bound of an estimate holds with 95 % confidence by itself.
CONFIDENCE: Final = 0.90
#: More numbers per sample than this are a map, or rows of many candidates of which only the best count.
FEW_ELEMENTS: Final = 64
# One-sided 95 % of the normal distribution, squared: Wilson's bound for an event that no sample shows.
_UNSEEN: Final = 1.645**2
# From this number of samples on, differences between samples decide.
_ENOUGH: Final = 8
# For the rounding of subtractions: a value exactly at its limit is allowed.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class UsualLimits:
    """What is required of an output that no task metric judges, if no limit is given.

    `variation` is in dB, see `metrics.variation`; for single numbers `few_numbers` holds, for parts of few
    `part_numbers`, for a channel of probabilities `channel`. `detail`, `maps` and `beyond` are in dB, see
    `metrics.details`, `metrics.map_error` and `metrics.persistence`. `iou` is that of `metrics.identifiers`, `peaks`
    and `characters` are the shares of `metrics.peaks` and `metrics.texts`, `ranks` the correlation of `metrics.ranks`.
    `unit_cosine` applies to vectors of length 1.
    """

    cosine: float = COSINE
    variation: float = VARIATION
    few_numbers: float = FEW_NUMBERS
    part_numbers: float = PART_NUMBERS
    channel: float = CHANNEL
    detail: float = DETAIL
    iou: float = IOU
    characters: float = CHARACTERS
    unit_cosine: float = UNIT_COSINE
    peaks: float = PEAKS
    maps: float = MAPS
    beyond: float = BEYOND
    ranks: float = RANKS


#: The limits for 4 bits and fewer.
COARSE_LIMITS: Final = UsualLimits(cosine=COARSE_COSINE, unit_cosine=COARSE_COSINE, few_numbers=COARSE_FEW_NUMBERS)


@dataclass(frozen=True)
class Criteria:
    """The limits of a variant's outputs; each limit means the same as the option of its name.

    `metric` is None if no metric was requested: top-1 if labels match an output. `usual` applies to outputs that no
    task metric judges. `strict`: the confidence bound decides instead of the value itself.
    """

    metric: TaskMetric | None = None
    max_drop: float | None = None
    min_ratio: float | None = None
    min_float: float | None = None
    min_cosine: Named = None
    min_sqnr: Named = None
    min_agreement: Named = None
    usual: UsualLimits = UsualLimits()
    strict: bool = False


def limit_for(limit: Named, output: str) -> float | None:
    """The limit of one output."""
    return limit.get(output, limit.get("*")) if isinstance(limit, Mapping) else limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a value breaks its limit, and whether the samples are too few to decide; `needed` of them would be."""

    estimate: Estimate
    limit: float
    fails: bool
    is_unsure: bool
    needed: int | None

    @property
    def doubt(self) -> str:
        """Why the samples are too few to decide; empty if they are enough."""
        if not self.is_unsure:
            is_lacking = self.fails and self.estimate.samples < _ENOUGH
            return (
                f"{self.estimate.samples} samples may be alike by chance; at least {_ENOUGH} decide"
                if is_lacking
                else ""
            )
        if not (math.isfinite(self.estimate.low) and math.isfinite(self.estimate.high)):
            return f"{self.estimate.samples:,} samples do not show how much the value varies"
        more = f"about {self.needed:,} samples are needed" if self.needed else "the value lies at the limit"
        bounds = f"95 % bounds {self.estimate.low:.4g} and {self.estimate.high:.4g}"
        return f"{self.estimate.samples:,} samples are too few to decide: {bounds}; {more}"


@dataclass(frozen=True, slots=True)
class Demand:
    """One requirement, as text with the measured value, and the verdict on it.

    `varies`: it is about the differences between samples, which few samples may lack by chance.
    """

    text: str
    verdict: Verdict
    varies: bool = False

    @property
    def fails(self) -> bool:
        """Whether it fails the variant."""
        return self.verdict.fails and (not self.varies or is_certain(self.verdict))

    def is_doubtful(self, strict: bool) -> bool:
        """Whether too few samples are worth a finding, if it does not fail."""
        missed = self.verdict.fails and not self.fails
        return missed or (self.verdict.is_unsure and (strict or not self.varies))


def unbounded(value: float, samples: int) -> Estimate:
    """An estimate whose variation is unknown."""
    return Estimate(value, -math.inf, math.inf, samples, math.inf)


def verdict(estimate: Estimate, limit: float, *, at_least: bool, strict: bool) -> Verdict:
    """Compare a value with its limit: the value itself decides, or with `strict` its bound."""
    if estimate.samples < 2:
        estimate = unbounded(estimate.value, estimate.samples)
    if math.isnan(estimate.value):
        return Verdict(estimate, limit, True, False, None)
    sign = -1 if at_least else 1
    value, bound = sign * estimate.value, sign * limit + _ROUNDING
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    surely_fails, surely_holds = low > bound, high <= bound
    unsure = not (surely_fails if value > bound else surely_holds)
    if strict:
        return Verdict(estimate, limit, surely_fails, not surely_fails and not surely_holds, _needed(estimate, limit))
    return Verdict(estimate, limit, value > bound, unsure, _needed(estimate, limit) if unsure else None)


def is_certain(decision: Verdict) -> bool:
    """Whether a verdict about what varies between samples may fail a variant: few samples may happen to be alike."""
    return decision.estimate.samples >= _ENOUGH


def _needed(estimate: Estimate, limit: float) -> int | None:
    margin = abs(limit - estimate.value)
    if not math.isfinite(margin) or margin <= _ROUNDING or not math.isfinite(estimate.spread):
        return None
    if estimate.spread == 0:
        return math.ceil(_UNSEEN * max(0.0, 1 / margin - 1)) if margin < 1 else None
    needed = samples_to_decide(estimate.spread, margin)
    if needed > estimate.samples:
        return needed
    # These bounds are wider than the normal distribution's; they narrow with the root of the number of samples.
    bound = estimate.high if limit > estimate.value else estimate.low
    return max(round(estimate.samples * ((bound - estimate.value) / margin) ** 2), estimate.samples + 1)


def doubt_finding(measured: str, decision: Verdict, strict: bool) -> Finding:
    """The samples are too few to decide whether a limit is met: inconclusive if bounds decide, else a warning."""
    return Finding(
        "MNQ730",
        f"{measured}: {decision.doubt}",
        fix="evaluate on more samples (--mnn-evaluation)",
        as_warning=not strict,
    )
