"""Lost parts of outputs: a part no longer shows anything about its input, although the whole output looks alike."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from pytest_mnnquant.checks.accuracy.identifier_limits import overlap_of
from pytest_mnnquant.checks.accuracy.limits import (
    FEW_ELEMENTS,
    Criteria,
    UsualLimits,
    Verdict,
    doubt_finding,
    is_certain,
    verdict,
)
from pytest_mnnquant.checks.accuracy.output_measures import OutputMeasures
from pytest_mnnquant.checks.accuracy.part_variation import PartVariation
from pytest_mnnquant.checks.accuracy.variation_estimate import estimate_variation
from pytest_mnnquant.findings.cause import AND, Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.metrics.variation import Variation
from pytest_mnnquant.mnnfile.model import TensorQuant

# A scale is the cause if rounding to its steps alone leaves at most this many dB more than required.
_MARGIN: Final = 3.0
# The largest absolute value / one step of a symmetric 8-bit scale.
_STEPS: Final = 127
_LISTED: Final = 3
_SHARED: Final = "parts-share-scale"


def lost_parts(
    outputs: Mapping[str, OutputMeasures],
    scales: Mapping[str, TensorQuant],
    decided: Collection[str],
    criteria: Criteria,
) -> list[Finding]:
    """A finding for each output with lost parts; `decided` names the outputs that a task metric judges."""
    findings: list[Finding] = []
    for name, measures in outputs.items():
        lost = [] if name in decided else list(_lost(measures.parts, criteria))
        # Channels of one layer are separate parts only if a common scale is what removes them.
        lost = [item for item in lost if item[0].part.joined_by or _shared_scale(item[0], scales, criteria)]
        certain = [part for part, decision in lost if is_certain(decision) or _is_surely_frozen(part.variation)]
        if certain:
            findings.append(_finding(name, certain, measures.agreement.cosine, scales, criteria))
        elif lost:
            part, decision = lost[0]
            findings.append(doubt_finding(f"output {name!r}, {part.text}", decision, criteria.strict))
    return findings


def _is_surely_frozen(measured: Variation) -> bool:
    """Whether a part is the same for all samples although its own 8-bit scale could show what varies."""
    return measured.is_frozen and measured.rms > measured.peak / _STEPS


def has_lost_parts(result: Result) -> bool:
    """Whether an int8 scale that several parts share is at fault."""
    return any(finding.cause_id.split(AND)[0] == _SHARED for finding in result.findings if finding.code == "MNQ712")


def _lost(parts: Iterable[PartVariation], criteria: Criteria) -> Iterator[tuple[PartVariation, Verdict]]:
    """The parts that miss the limit; parts of a joined tensor only if that does not miss it as a whole."""
    seen: set[str] = set()
    for measured in parts:
        if measured.part.joined in seen:
            continue
        estimate, limit = estimate_variation(measured.variation), required_db(measured, criteria.usual)
        decision = verdict(estimate, limit, at_least=True, strict=criteria.strict)
        if not decision.fails and measured.answers is not None:
            overlap = overlap_of(measured.answers.intersections, measured.answers.unions)
            decision = verdict(overlap, criteria.usual.iou, at_least=True, strict=criteria.strict)
        if decision.fails:
            if measured.is_joined:
                seen.add(measured.part.joined)
            yield measured, decision


def required_db(measured: PartVariation, usual: UsualLimits) -> float:
    """The required SQNR of a part, in dB: probabilities are compared with a threshold, few other numbers are used."""
    is_few = measured.output_size <= FEW_ELEMENTS and not measured.part.is_probability
    return usual.part_numbers if is_few else usual.variation


def _finding(
    name: str,
    lost: list[PartVariation],
    cosine: float | None,
    scales: Mapping[str, TensorQuant],
    criteria: Criteria,
) -> Finding:
    lost = sorted(lost, key=lambda item: item.variation.sqnr_db - required_db(item, criteria.usual))
    first = lost[0]
    more = f"; {len(lost) - _LISTED} other parts too" if len(lost) > _LISTED else ""
    whole = "" if cosine is None else f"; the whole output has cosine {cosine:.4f}"
    message = f"output {name!r}: {'; '.join(item.text for item in lost[:_LISTED])}{more}; "
    message += f"required {required_db(first, criteria.usual):g} dB about the mean of the samples "
    if first.answers is not None:
        message += f"and an intersection over union of {criteria.usual.iou:g} "
    message += f"({first.variation.samples} samples{whole})"
    scale = _shared_scale(first, scales, criteria)
    if scale is None:
        return Finding("MNQ712", message)
    where, steps = first.part.joined_by, (first.high - first.low) / scale.scale
    if not where:
        text = "its channels differ in size"
        fix = "compute the channels of different size in layers of their own, and return them as separate outputs"
    else:
        text = f"operator {where} joins tensors of different size"
        fix = f"return {first.part.joined} as an output of its own, or keep the layers before {where} float"
    text += f" with one int8 scale of {scale.scale:.3g}: this part spans {steps:.2g} steps"
    cause = Cause(_SHARED, text)
    return Finding("MNQ712", message, where, cause, f"{fix}; --mnn-suggest searches for a fix and verifies it")


def _shared_scale(part: PartVariation, scales: Mapping[str, TensorQuant], criteria: Criteria) -> TensorQuant | None:
    """The int8 scale between the output and a part, if it is what loses the part."""
    scale = next((scales[name] for name in part.part.behind if name in scales), None)
    return scale if scale is not None and _explains(scale, part, required_db(part, criteria.usual)) else None


def _explains(scale: TensorQuant, measured: PartVariation, required: float) -> bool:
    """Whether rounding to the steps of this scale is enough to lose the part."""
    if not (math.isfinite(scale.scale) and scale.scale > 0):
        return False
    rounding = scale.scale / math.sqrt(12)
    return 20 * math.log10(max(measured.variation.rms, 1e-300) / rounding) < required + _MARGIN
