"""Similarity of the variant's outputs to the float model's, for outputs that labels do not judge."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.identifier_limits import identifier_demands
from pytest_mnnquant.checks.accuracy.limits import (
    CONFIDENCE,
    FEW_ELEMENTS,
    Criteria,
    Demand,
    doubt_finding,
    limit_for,
    verdict,
)
from pytest_mnnquant.checks.accuracy.output_measures import OutputMeasures
from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.accuracy.variation_estimate import estimate_variation
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.agreement import SILENT, Agreement, agreement, cosines, same_maximum, sqnr_db
from pytest_mnnquant.metrics.variation import Variation
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

Array = npt.NDArray[Any]
# From this cosine on, an output holds the values of another output.
_SWAPPED: Final = 0.95
_TINY: Final = 1e-300
# Of an output of one kind only the order of its numbers may count, as of scores, so this many dB less are required.
_ORDER: Final = 2.0
_LARGE: Final = 0.05
# The relative error that int8 may have on a constant output.
_COARSE: Final = 0.05


def unlike(
    reference: Outputs,
    outputs: Outputs,
    measured: Mapping[str, OutputMeasures],
    decided: Collection[str],
    criteria: Criteria,
) -> list[Finding]:
    """Findings on outputs that differ from the float model's; `decided` names those that a task metric judges."""
    findings = _idle_limits({name: item.agreement for name, item in measured.items()}, criteria)
    for name, measures in measured.items():
        item = measures.agreement
        pair = _Pair(name, reference[name], outputs[name], measures)
        if item.equal is None and (item.range <= SILENT or (pair.is_still and name not in decided)):
            findings.append(_silent(name, item, reference[name]))
            continue
        demands = list(_demands(pair, name in decided, criteria))
        if broken := [demand for demand in demands if demand.fails]:
            texts = "; ".join(demand.text for demand in broken)
            doubts = next((f"; {demand.verdict.doubt}" for demand in broken if demand.verdict.is_unsure), "")
            cause = swapped(name, reference, outputs)
            message = f"output {name!r}: {texts} ({item.samples} samples{doubts})"
            findings.append(Finding("MNQ702", message, cause=cause))
        else:
            findings += [
                doubt_finding(f"output {name!r}: {demand.text}", demand.verdict, criteria.strict)
                for demand in demands
                if demand.is_doubtful(criteria.strict)
            ]
    return findings


@dataclass(frozen=True)
class _Pair:
    """One output of the float model and of the variant."""

    name: str
    reference: Array
    output: Array
    measures: OutputMeasures

    @property
    def flat(self) -> tuple[Array, Array]:
        """Both, with shape [samples, elements]."""
        return _flat(self.reference), _flat(self.output)

    @property
    def is_still(self) -> bool:
        """Whether it is one number per sample that does not vary by more than rounding noise."""
        return len(self.reference) > 1 and self.reference[0].size == 1 and self.measures.variation is None


def _demands(pair: _Pair, is_decided: bool, criteria: Criteria) -> Iterator[Demand]:
    """What is required of one output."""
    item = pair.measures.agreement
    if is_decided:
        pass
    elif pair.measures.identifiers is not None:
        yield from identifier_demands(pair.reference, pair.output, pair.measures.identifiers, criteria)
    elif pair.reference[0].size == 1:
        yield _one_element(pair, criteria)
    else:
        yield from _likeness(pair, criteria)
    if (limit := limit_for(criteria.min_agreement, pair.name)) is not None and item.top1 is not None:
        hits = intervals.share(int(same_maximum(*pair.flat).sum()), len(pair.reference), CONFIDENCE)
        text = f"{item.top1:.2%} of samples keep the float model's class, required {limit:.2%}"
        yield Demand(text, verdict(hits, limit, at_least=True, strict=criteria.strict))
    if (limit := limit_for(criteria.min_sqnr, pair.name)) is not None and item.equal is None:
        text = f"SQNR {item.sqnr_db:.1f} dB, required {limit:g} dB"
        yield Demand(text, verdict(_noise(*pair.flat), limit, at_least=True, strict=criteria.strict))


def _one_element(pair: _Pair, criteria: Criteria) -> Demand:
    """What is required of an output of one number per sample."""
    least = limit_for(criteria.min_cosine, pair.name)
    usual, (reference, output) = criteria.usual.cosine if least is None else least, pair.flat
    decibels = _as_sqnr_db(usual)
    text = f"SQNR {pair.measures.agreement.centred_sqnr_db:.1f} dB about its mean, required {decibels:.1f} dB "
    text += f"(cosine {usual:g}, converted: the output has one element)"
    estimate = _noise(reference - reference.mean(0), output - reference.mean(0))
    return Demand(text, verdict(estimate, decibels, at_least=True, strict=criteria.strict))


def _likeness(pair: _Pair, criteria: Criteria) -> Iterator[Demand]:
    """What is required of an output of several numbers: of the whole, and of what is not common to all samples."""
    least = limit_for(criteria.min_cosine, pair.name)
    usual, (reference, output) = criteria.usual.cosine if least is None else least, pair.flat
    estimate = intervals.mean(cosines(reference, output), CONFIDENCE)
    text = f"mean cosine {estimate.value:.4f} to the float model's, required {usual:g} "
    text += f"(SQNR {sqnr_db(reference, output):.1f} dB)"
    yield Demand(text, verdict(estimate, usual, at_least=True, strict=criteria.strict))
    # A cosine that the user allows is allowed for what varies, too.
    allowed = math.inf if least is None else _as_sqnr_db(least)
    if (measured := pair.measures.variation) is not None:
        limit = min(_usual_db(pair, measured, criteria), allowed)
        text = f"the differences between samples have an SQNR of {measured.sqnr_db:.1f} dB, required {limit:.1f} dB "
        text += f"(the whole output has cosine {estimate.value:.4f})"
        decision = verdict(estimate_variation(measured), limit, at_least=True, strict=criteria.strict)
        yield Demand(text, decision, varies=True)
    if (detail := pair.measures.detail) is not None:
        estimate, limit = intervals.mean(detail.sqnr_db, CONFIDENCE), min(criteria.usual.detail, allowed)
        text = f"what the network adds to input {detail.input!r} has a mean SQNR of {estimate.value:.1f} dB, "
        text += f"required {limit:.1f} dB"
        yield Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))


def _usual_db(pair: _Pair, measured: Variation, criteria: Criteria) -> float:
    """The usual limit of what varies: if an output has few numbers and no parts, a little below that of its cosine.

    Int8 can't keep that of numbers that vary little, compared with their range.
    """
    is_few = pair.reference[0].size <= FEW_ELEMENTS and not pair.measures.parts
    is_large = measured.rms >= _LARGE * measured.range
    return _as_sqnr_db(criteria.usual.cosine) - _ORDER if is_few and is_large else criteria.usual.variation


def _noise(reference: Array, output: Array) -> Estimate:
    """SQNR in dB, with its bounds."""
    signal, noise = np.square(reference).sum(1), np.square(reference - output).sum(1)
    whole = sqnr_db(reference, output)
    if not math.isfinite(whole):
        return Estimate(whole, whole, whole, len(reference), 0.0)

    def decibels(chosen: npt.NDArray[np.int64]) -> float:
        return 10 * math.log10(max(signal[chosen].sum(), _TINY) / max(noise[chosen].sum(), _TINY))

    return intervals.resampled(decibels, len(reference), confidence=CONFIDENCE)


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _as_sqnr_db(cosine: float) -> float:
    """The SQNR that independent noise leaves at this cosine: signal / noise = c^2 / (1 - c^2)."""
    cosine = min(max(cosine, 1e-6), 1 - 1e-9)
    return 10 * math.log10(cosine**2 / (1 - cosine**2))


def _silent(name: str, item: Agreement, reference: Array) -> Finding:
    """A constant output can't be judged, unless the variant's output is far from it."""
    constant = float(np.abs(reference).max())
    if item.max_error > max(_COARSE * constant, SILENT):
        message = (
            f"output {name!r} is always {constant:.4g} in the float model; the variant is off by {item.max_error:.4g}"
        )
        return Finding("MNQ702", message)
    message = f"output {name!r} spans {item.range:.2g} on these {item.samples} samples, which is rounding noise"
    return Finding("MNQ003", message, fix="evaluate on representative data (--mnn-evaluation)")


def _idle_limits(compared: dict[str, Agreement], criteria: Criteria) -> list[Finding]:
    """Limits that can't be applied: no output has the name, or the output does not have the metric."""
    findings = []
    classes = {name for name, item in compared.items() if item.top1 is not None}
    floats = {name for name, item in compared.items() if item.equal is None}
    for flag, limit, able in (
        ("--mnn-min-cosine", criteria.min_cosine, set(compared)),
        ("--mnn-min-agreement", criteria.min_agreement, classes),
        ("--mnn-min-sqnr", criteria.min_sqnr, floats),
    ):
        named = [name for name in limit if name != "*"] if isinstance(limit, Mapping) else []
        for name in named:
            if name not in compared:
                message = f"{flag}={name}=...: unknown output {name!r}; known: {', '.join(compared)}"
                findings.append(Finding("MNQ722", message, fix="name one of these outputs"))
        limited = [name for name in compared if limit_for(limit, name) is not None]
        for name in limited if not able & set(limited) else [name for name in named if name in set(compared) - able]:
            message = f"{flag} can't judge output {name!r}: its classes do not differ, or it holds integers"
            findings.append(Finding("MNQ723", message, fix=f"remove {flag} for this output"))
    return findings


def swapped(name: str, reference: Outputs, outputs: Outputs) -> Cause | None:
    """The other output of the float model that this one equals, if any: exporters may change their order."""
    output = outputs[name]
    for other, exact in reference.items():
        if other != name and exact.shape == output.shape and exact.dtype.kind == "f":
            similarity = agreement(exact, output)
            if similarity.range > SILENT and similarity.centred_sqnr_db > _as_sqnr_db(_SWAPPED):
                text = (
                    f"it holds the values of output {other!r}: the order of the outputs differs from the float model's"
                )
                return Cause("outputs-reordered", text)
    return None
