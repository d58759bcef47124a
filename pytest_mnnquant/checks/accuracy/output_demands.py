"""What is required of one output that no task metric judges: by the kind of its values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.identifier_limits import identifier_demands
from pytest_mnnquant.checks.accuracy.limits import CONFIDENCE, FEW_ELEMENTS, Criteria, Demand, limit_for, verdict
from pytest_mnnquant.checks.accuracy.output_measures import OutputMeasures
from pytest_mnnquant.checks.accuracy.variation_estimate import estimate_variation
from pytest_mnnquant.findings.defaults import COARSE_COSINE
from pytest_mnnquant.metrics.agreement import cosines, same_maximum, sqnr_db
from pytest_mnnquant.metrics.blocks import energies, mean_sample
from pytest_mnnquant.metrics.decisions import Decision, are_shares
from pytest_mnnquant.metrics.identifiers import IdentifierAgreement
from pytest_mnnquant.metrics.peaks import PeakAgreement
from pytest_mnnquant.metrics.probability_channels import ProbabilityChannel
from pytest_mnnquant.metrics.ranks import rank_correlation
from pytest_mnnquant.metrics.texts import TextAgreement
from pytest_mnnquant.metrics.variation import Variation
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

Array = npt.NDArray[Any]
Energies = npt.NDArray[np.float64]
_TINY: Final = 1e-300
# Of an output of one kind only the order of its numbers may count, as of scores, so this many dB less are required.
_ORDER: Final = 3.0
_LARGE: Final = 0.05
# All vectors of a model that normalizes them have this length, up to int8's error in each number.
_UNIT, _LEAST_OF_VECTOR = 0.02, 8
# The share of samples that keep their class, if scores of classes need to be less exact; from this number of samples
# on, only as exact as maps: top-1 then can't lose more than 0.01.
_SAME_CLASS, _MANY = 0.99, 100
_WHAT: Final = {Decision.CLASS: "best classes", Decision.THRESHOLD: "answers above and below 0.5"}


@dataclass(frozen=True)
class Pair:
    """One output of the float model and of the variant."""

    name: str
    reference: Array
    output: Array
    measures: OutputMeasures

    @property
    def flat(self) -> tuple[Array, Array]:
        """Both, with shape [samples, elements]."""
        return self.reference.reshape(len(self.reference), -1), self.output.reshape(len(self.output), -1)

    @property
    def is_still(self) -> bool:
        """Whether it is one number per sample that does not vary by more than rounding noise."""
        return len(self.reference) > 1 and self.reference[0].size == 1 and self.measures.variation is None

    @property
    def is_unit(self) -> bool:
        """Whether it holds vectors of length 1, such as embeddings."""
        is_vector = self.reference.ndim == 2 and self.reference.shape[1] >= _LEAST_OF_VECTOR
        if not is_vector or self.measures.decisions is not None or are_shares(self.reference):
            return False
        return bool((np.abs(np.linalg.norm(self.reference.astype(np.float64), axis=1) - 1) <= _UNIT).all())

    @property
    def has_many_decisions(self) -> bool:
        """Whether it decides at several places of a sample."""
        return self.measures.decisions is not None and self.measures.decisions.reference.ndim > 1

    @property
    def keeps_classes(self) -> bool:
        """Whether it is one class per sample, which nearly all of many samples keep."""
        decisions = self.measures.decisions
        if decisions is None or self.has_many_decisions or len(self.reference) < _MANY:
            return False
        return bool((decisions.reference == decisions.output).mean() >= _SAME_CLASS)


def output_demands(pair: Pair, is_decided: bool, criteria: Criteria) -> Iterator[Demand]:
    """What is required of one output; `is_decided`: a task metric judges it."""
    item = pair.measures.agreement
    if not is_decided:
        yield from _by_kind(pair, criteria)
    if (limit := limit_for(criteria.min_agreement, pair.name)) is not None and item.top1 is not None:
        hits = intervals.share(int(same_maximum(*pair.flat).sum()), len(pair.reference), CONFIDENCE)
        text = f"{item.top1:.2%} of samples keep the float model's class, required {limit:.2%}"
        yield Demand(text, verdict(hits, limit, at_least=True, strict=criteria.strict))
    if (limit := limit_for(criteria.min_sqnr, pair.name)) is not None and item.equal is None:
        text = f"SQNR {item.sqnr_db:.1f} dB, required {limit:g} dB"
        yield Demand(text, verdict(_noise(*pair.flat), limit, at_least=True, strict=criteria.strict))


def _by_kind(pair: Pair, criteria: Criteria) -> Iterator[Demand]:
    """What is usual for values of this kind."""
    measures, least = pair.measures, limit_for(criteria.min_cosine, pair.name)
    if measures.identifiers is not None and measures.decisions is None:
        yield from _identifiers(pair, measures.identifiers, criteria)
    elif pair.reference[0].size == 1:
        yield _one_element(pair, criteria)
        yield from _decisions(pair, criteria)
    elif measures.peaks is not None and least is None:
        yield _peaks(measures.peaks, criteria)
    else:
        yield from _likeness(pair, criteria)
        yield from _quantities(pair, math.inf if least is None else as_sqnr_db(least), criteria)
        if pair.has_many_decisions:
            yield from _decisions(pair, criteria)
        if measures.channel is not None and least is None and not _has_lost_probabilities(measures, criteria):
            yield _channel(measures.channel, criteria)


def _identifiers(pair: Pair, compared: IdentifierAgreement, criteria: Criteria) -> Iterator[Demand]:
    """What is required of integers."""
    if (texts := pair.measures.texts) is not None:
        yield _characters(texts, criteria)
    else:
        yield from identifier_demands(pair.reference, pair.output, compared, criteria)


def _characters(texts: TextAgreement, criteria: Criteria) -> Demand:
    """What is required of the texts that CTC gives."""
    estimate = intervals.resampled(texts.share, len(texts.edits), confidence=CONFIDENCE)
    text = f"{estimate.value:.1%} of the characters of its texts equal the float model's, "
    text += f"required {criteria.usual.characters:.1%}"
    return Demand(text, verdict(estimate, criteria.usual.characters, at_least=True, strict=criteria.strict))


def _decisions(pair: Pair, criteria: Criteria) -> Iterator[Demand]:
    """What is required of the decisions by an output; nothing of other outputs."""
    decisions, identifiers = pair.measures.decisions, pair.measures.identifiers
    if decisions is not None and (texts := pair.measures.texts) is not None:
        yield _characters(texts, criteria)
    elif decisions is not None and identifiers is not None:
        what = _WHAT[decisions.kind]
        yield from identifier_demands(decisions.reference, decisions.output, identifiers, criteria, what)


def _one_element(pair: Pair, criteria: Criteria) -> Demand:
    """What is required of an output of one number per sample: the number, or the order of the samples."""
    least, (reference, output) = limit_for(criteria.min_cosine, pair.name), pair.flat
    limit = criteria.usual.few_numbers if least is None else as_sqnr_db(least)
    text = f"SQNR {pair.measures.agreement.centred_sqnr_db:.1f} dB about its mean, required {limit:.1f} dB"
    if least is not None:
        text += f" (cosine {least:g}, converted: the output has one element)"
    estimate = _energy_db(*energies(reference, output, mean_sample(reference)))
    demand = Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))
    if not demand.fails or least is not None:
        return demand
    ranks = rank_correlation(reference[:, 0], output[:, 0])
    if ranks is None or ranks < criteria.usual.ranks:
        return demand
    text = f"rank correlation {ranks:.4f}, required {criteria.usual.ranks:g}"
    return Demand(
        text,
        verdict(
            Estimate(ranks, ranks, ranks, len(reference), 0.0),
            criteria.usual.ranks,
            at_least=True,
            strict=criteria.strict,
        ),
    )


def _peaks(peaks: PeakAgreement, criteria: Criteria) -> Demand:
    """What is required of heat maps."""
    kept = intervals.share(int(peaks.kept.sum()), int(peaks.expected.sum()), CONFIDENCE)
    maps = "its maps" if peaks.map is None else f"its map {peaks.map} (counted from 0)"
    text = f"{kept.value:.1%} of the peaks of {maps} keep their place, and their height within a factor of 2, "
    text += f"required {criteria.usual.peaks:.0%}"
    return Demand(text, verdict(kept, criteria.usual.peaks, at_least=True, strict=criteria.strict))


def _has_lost_probabilities(measures: OutputMeasures, criteria: Criteria) -> bool:
    """Whether a whole part of probabilities is lost, which is a finding of its own."""
    limit = criteria.usual.variation
    return any(part.part.is_probability and part.variation.sqnr_db < limit for part in measures.parts)


def _channel(channel: ProbabilityChannel, criteria: Criteria) -> Demand:
    """What is required of each channel of probabilities."""
    text = f"its probabilities at index {channel.index} of axis {channel.axis} have an SQNR of "
    text += f"{channel.variation.sqnr_db:.1f} dB about their mean, required {criteria.usual.channel:g} dB"
    estimate = estimate_variation(channel.variation)
    decision = verdict(estimate, criteria.usual.channel, at_least=True, strict=criteria.strict)
    return Demand(text, decision, varies=True)


def _likeness(pair: Pair, criteria: Criteria) -> Iterator[Demand]:
    """What is required of an output of several numbers: of the whole, and of what is not common to all samples."""
    least = limit_for(criteria.min_cosine, pair.name)
    usual, (reference, output) = _usual_cosine(pair, criteria) if least is None else least, pair.flat
    estimate = intervals.mean(cosines(reference, output), CONFIDENCE)
    text = f"mean cosine {estimate.value:.4f} to the float model's, required {usual:g} "
    text += f"(SQNR {sqnr_db(reference, output):.1f} dB)"
    yield Demand(text, verdict(estimate, usual, at_least=True, strict=criteria.strict))
    # A cosine that the user allows is allowed for what varies, too.
    allowed = math.inf if least is None else as_sqnr_db(least)
    if (measured := pair.measures.variation) is not None:
        limit = min(_usual_db(pair, measured, criteria), allowed)
        text = f"the differences between samples have an SQNR of {measured.sqnr_db:.1f} dB, required {limit:.1f} dB "
        text += f"(the whole output has cosine {estimate.value:.4f})"
        decision = verdict(estimate_variation(measured), limit, at_least=True, strict=criteria.strict)
        yield Demand(text, decision, varies=True)


def _usual_cosine(pair: Pair, criteria: Criteria) -> float:
    """The usual limit of the cosine: lower if decisions are compared one by one, or are kept, or angles."""
    if pair.has_many_decisions or pair.keeps_classes:
        return COARSE_COSINE
    return criteria.usual.unit_cosine if pair.is_unit else criteria.usual.cosine


def _usual_db(pair: Pair, measured: Variation, criteria: Criteria) -> float:
    """The usual limit of what varies: if an output has few numbers and no parts, a little below that of its cosine.

    Int8 can't keep that of numbers that vary little, compared with their range.
    """
    is_few = pair.reference[0].size <= FEW_ELEMENTS and not pair.measures.parts
    if not is_few or measured.rms < _LARGE * measured.range:
        return criteria.usual.variation
    if pair.keeps_classes:
        return criteria.usual.variation
    usual = as_sqnr_db(_usual_cosine(pair, criteria)) - (0 if pair.is_unit else _ORDER)
    return max(usual, criteria.usual.variation)


def _quantities(pair: Pair, allowed: float, criteria: Criteria) -> Iterator[Demand]:
    """What is required of values that are more than an input, a picture or a last value; at most `allowed` dB."""
    usual = criteria.usual
    if (detail := pair.measures.detail) is not None:
        estimate, limit = intervals.mean(detail.sqnr_db, CONFIDENCE), min(usual.detail, allowed)
        text = f"what the network adds to input {detail.input!r} has a mean SQNR of {estimate.value:.1f} dB, "
        text += f"required {limit:.1f} dB"
        yield Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))
    if (maps := pair.measures.maps) is not None and math.isfinite(maps.psnr_db()):
        estimate = intervals.resampled(maps.psnr_db, len(maps.errors), confidence=CONFIDENCE)
        limit = min(usual.maps, allowed)
        text = f"PSNR {estimate.value:.1f} dB to the float model's maps, required {limit:.1f} dB "
        text += f"(range of values {maps.span:.3g})"
        yield Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))
    if (beyond := pair.measures.beyond) is not None:
        limit = min(usual.beyond, allowed)
        estimate = _energy_db(beyond.signal, beyond.noise)
        text = f"what it forecasts beyond the last value of input {beyond.input!r} has an SQNR of "
        text += f"{estimate.value:.1f} dB, required {limit:.1f} dB"
        yield Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict), varies=True)


def _noise(reference: Array, output: Array) -> Estimate:
    """SQNR in dB, with its bounds."""
    return _energy_db(*energies(reference, output))


def _energy_db(signal: Energies, noise: Energies) -> Estimate:
    """The ratio of two energies of each sample in dB, with its bounds; infinite without noise."""
    total, lost = float(signal.sum()), float(noise.sum())
    if lost == 0 or total == 0 or not math.isfinite(lost):
        value = math.inf if lost == 0 else -math.inf
        return Estimate(value, value, value, len(signal), 0.0)

    def decibels(chosen: npt.NDArray[np.int64]) -> float:
        return 10 * math.log10(max(signal[chosen].sum(), _TINY) / max(noise[chosen].sum(), _TINY))

    return intervals.resampled(decibels, len(signal), confidence=CONFIDENCE)


def as_sqnr_db(cosine: float) -> float:
    """The SQNR that independent noise leaves at this cosine: signal / noise = c^2 / (1 - c^2)."""
    cosine = min(max(cosine, 1e-6), 1 - 1e-9)
    return 10 * math.log10(cosine**2 / (1 - cosine**2))
