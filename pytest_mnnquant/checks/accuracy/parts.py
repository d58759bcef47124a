"""Lost parts of outputs: a part no longer shows anything about its input, although the whole output looks alike."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_mnnquant.checks.accuracy.limits import Criteria, Verdict, doubt_finding, is_certain, verdict
from pytest_mnnquant.checks.accuracy.output_measures import OutputMeasures
from pytest_mnnquant.checks.accuracy.part_variation import PartVariation
from pytest_mnnquant.checks.accuracy.variation_estimate import estimate_variation
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.model import TensorQuant
from pytest_mnnquant.mnnfile.output_parts import OutputParts

# A scale is the cause if rounding to its steps alone leaves at most this many dB more than required.
_MARGIN: Final = 3.0
_LISTED: Final = 3


@dataclass(frozen=True)
class PartEvidence:
    """The parts of the outputs, by output; and the int8 scales of tensors in the variant's file, by name."""

    parts: Mapping[str, OutputParts] = field(default_factory=dict)
    scales: Mapping[str, TensorQuant] = field(default_factory=dict)


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
        certain = [part for part, decision in lost if part.variation.is_frozen or is_certain(decision)]
        if certain:
            findings.append(_finding(name, certain, measures.agreement.cosine, scales, criteria))
        elif lost:
            part, decision = lost[0]
            findings.append(doubt_finding(f"output {name!r}, {part.text}", decision, criteria.strict))
    return findings


def _lost(parts: Iterable[PartVariation], criteria: Criteria) -> Iterator[tuple[PartVariation, Verdict]]:
    """The parts that miss the limit; parts of a joined tensor only if that does not miss it as a whole."""
    seen: set[str] = set()
    for measured in parts:
        if measured.part.joined in seen:
            continue
        estimate = estimate_variation(measured.variation)
        decision = verdict(estimate, criteria.usual.variation, at_least=True, strict=criteria.strict)
        if decision.fails:
            if measured.is_joined:
                seen.add(measured.part.joined)
            yield measured, decision


def _finding(
    name: str,
    lost: list[PartVariation],
    cosine: float | None,
    scales: Mapping[str, TensorQuant],
    criteria: Criteria,
) -> Finding:
    lost = sorted(lost, key=lambda item: item.variation.sqnr_db)
    first = lost[0]
    more = f"; {len(lost) - _LISTED} other parts too" if len(lost) > _LISTED else ""
    whole = "" if cosine is None else f"; the whole output has cosine {cosine:.4f}"
    message = (
        f"output {name!r}: {'; '.join(item.text for item in lost[:_LISTED])}{more}; required "
        f"{criteria.usual.variation:g} dB about the mean of the samples ({first.variation.samples} samples{whole})"
    )
    scale = next((scales[name] for name in first.part.behind if name in scales), None)
    if scale is None or not _explains(scale, first, criteria.usual.variation):
        return Finding("MNQ712", message)
    text = (
        f"operator {first.part.joined_by} joins tensors of different size with one int8 scale of {scale.scale:.3g}, so "
        f"this part has {max(1, round((first.high - first.low) / scale.scale) + 1)} different values"
    )
    fix = (
        f"return {first.part.joined} as an output of its own, or keep the layers before {first.part.joined_by} float; "
        "--mnn-suggest searches for a fix and verifies it"
    )
    return Finding("MNQ712", message, first.part.joined_by, Cause("parts-share-scale", text), fix)


def _explains(scale: TensorQuant, measured: PartVariation, required: float) -> bool:
    """Whether rounding to the steps of this scale is enough to lose the part."""
    if not (math.isfinite(scale.scale) and scale.scale > 0):
        return False
    rounding = scale.scale / math.sqrt(12)
    return 20 * math.log10(max(measured.variation.rms, 1e-300) / rounding) < required + _MARGIN
