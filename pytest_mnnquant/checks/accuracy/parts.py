"""Lost parts of outputs: a part no longer shows anything about its input, although the whole output looks alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import Criteria, Verdict, doubt_finding, is_certain, verdict
from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.accuracy.variation_estimate import estimate_variation
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.agreement import cosines
from pytest_mnnquant.metrics.variation import Variation, variation
from pytest_mnnquant.mnnfile.model import TensorQuant
from pytest_mnnquant.mnnfile.output_parts import OutputParts, Part

Array = npt.NDArray[Any]
# Probabilities that stay below this say nothing: no sample has what they are probabilities of.
_LEAST_PROBABILITY: Final = 0.05
# A scale is the cause if rounding to its steps alone leaves at most this many dB more than required.
_MARGIN: Final = 3.0
_LISTED: Final = 3


@dataclass(frozen=True)
class PartEvidence:
    """The parts of the outputs, by output; and the int8 scales of tensors in the variant's file, by name."""

    parts: Mapping[str, OutputParts] = field(default_factory=dict)
    scales: Mapping[str, TensorQuant] = field(default_factory=dict)


@dataclass(frozen=True)
class _Judged:
    """One part of one output. `place` says where it is; `low` and `high` are its range in the float model."""

    part: Part
    place: str
    low: float
    high: float
    measured: Variation
    verdict: Verdict

    @property
    def text(self) -> str:
        """The part and its measurement."""
        span = f"tensor {self.part.tensor}, {self.low:.3g} to {self.high:.3g}"
        if self.measured.is_frozen:
            return f"{self.place} ({span}): the same for all samples"
        return f"{self.place} ({span}): SQNR {self.measured.sqnr_db:.1f} dB"


def lost_parts(
    reference: Outputs, outputs: Outputs, evidence: PartEvidence, decided: Collection[str], criteria: Criteria
) -> list[Finding]:
    """A finding for each output with lost parts; `decided` names the outputs that a task metric judges."""
    findings: list[Finding] = []
    for name, known in evidence.parts.items():
        if name in decided or name not in reference or reference[name].dtype.kind != "f" or len(reference[name]) < 2:
            continue
        judged = list(_judged(reference[name], outputs[name], known, criteria))
        lost = [item for item in judged if item.verdict.fails]
        certain = [item for item in lost if item.measured.is_frozen or is_certain(item.verdict)]
        if certain:
            findings.append(_finding(name, certain, reference[name], outputs[name], evidence, criteria))
        elif lost:
            text = f"output {name!r}, {lost[0].text}"
            findings.append(doubt_finding(text, lost[0].verdict, criteria.strict))
    return findings


def _judged(reference: Array, output: Array, known: OutputParts, criteria: Criteria) -> Iterator[_Judged]:
    """The tensors that the last operator joins; of a tensor that is not lost as a whole, its parts."""
    if known.places.size != reference[0].size:
        return
    places = known.places.reshape(reference.shape[1:])
    for joined in dict.fromkeys(part.joined for part in known.parts):
        numbers = [number for number, part in enumerate(known.parts) if part.joined == joined]
        parts = [known.parts[number] for number in numbers]
        is_probability = all(part.is_probability for part in parts)
        whole = dataclasses.replace(parts[0], tensor=joined, is_probability=is_probability)
        judged = _judge(whole, np.isin(places, numbers), reference, output, criteria)
        if judged is not None and (judged.verdict.fails or len(numbers) == 1):
            yield judged
            continue
        for number, part in zip(numbers, parts, strict=True):
            if (judged := _judge(part, places == number, reference, output, criteria)) is not None:
                yield judged


def _judge(
    part: Part, mask: npt.NDArray[np.bool_], reference: Array, output: Array, criteria: Criteria
) -> _Judged | None:
    """One part; None if it is empty, constant or below the size that means something."""
    if not mask.any():
        return None
    values = reference[:, mask]
    measured = variation(values, output[:, mask])
    if measured.is_constant or (part.is_probability and measured.peak < _LEAST_PROBABILITY):
        return None
    estimate = estimate_variation(measured)
    decision = verdict(estimate, criteria.usual.variation, at_least=True, strict=criteria.strict)
    return _Judged(part, _place(mask), float(values.min()), float(values.max()), measured, decision)


def _place(mask: npt.NDArray[np.bool_]) -> str:
    """Where the elements of a mask are, along the axes of the output; axis 0 counts samples."""
    texts = []
    for axis in range(mask.ndim):
        others = tuple(item for item in range(mask.ndim) if item != axis)
        indices = np.flatnonzero(mask.any(others))
        if len(indices) < mask.shape[axis]:
            texts.append(f"{_indices(indices)} of axis {axis + 1}")
    return ", ".join(texts) or "all elements"


def _indices(indices: npt.NDArray[np.int64]) -> str:
    first, last = int(indices[0]), int(indices[-1])
    if first == last:
        return f"index {first}"
    if last - first + 1 == len(indices):
        return f"indices {first} to {last}"
    return f"indices {first}, {int(indices[1])}, ... {last}"


def _finding(
    name: str, lost: list[_Judged], reference: Array, output: Array, evidence: PartEvidence, criteria: Criteria
) -> Finding:
    lost = sorted(lost, key=lambda item: item.measured.sqnr_db)
    first = lost[0]
    more = f"; {len(lost) - _LISTED} other parts too" if len(lost) > _LISTED else ""
    flat = (array.reshape(len(array), -1).astype(np.float64) for array in (reference, output))
    whole = float(cosines(*flat).mean())
    message = (
        f"output {name!r}: {'; '.join(item.text for item in lost[:_LISTED])}{more}; required "
        f"{criteria.usual.variation:g} dB about the mean of the samples ({first.measured.samples} samples; the whole "
        f"output has cosine {whole:.4f})"
    )
    scale = next((evidence.scales[name] for name in first.part.behind if name in evidence.scales), None)
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


def _explains(scale: TensorQuant, judged: _Judged, required: float) -> bool:
    """Whether rounding to the steps of this scale is enough to lose the part."""
    if not (math.isfinite(scale.scale) and scale.scale > 0):
        return False
    rounding = scale.scale / math.sqrt(12)
    return 20 * math.log10(max(judged.measured.rms, 1e-300) / rounding) < required + _MARGIN
