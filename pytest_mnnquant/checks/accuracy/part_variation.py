"""The variation of each part of an output over samples, and where the part is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import bounds_of, elements_of
from pytest_mnnquant.metrics.decisions import threshold_decisions
from pytest_mnnquant.metrics.identifiers import IdentifierAgreement, compare_identifiers
from pytest_mnnquant.metrics.variation import Variation, variation
from pytest_mnnquant.mnnfile.model import TensorQuant
from pytest_mnnquant.mnnfile.output_parts import OutputParts, Part

Array = npt.NDArray[Any]
# Probabilities that stay below this say nothing: no sample has what they are probabilities of.
_LEAST_PROBABILITY: Final = 0.05


@dataclass(frozen=True)
class PartEvidence:
    """The parts of the outputs, by output; and the int8 scales of tensors in the variant's file, by name.

    `moved`: by output, the tensors whose values it holds, if a single layer computes it. `probabilities` names the
    outputs that Sigmoid or Softmax make.
    """

    parts: Mapping[str, OutputParts] = field(default_factory=dict)
    scales: Mapping[str, TensorQuant] = field(default_factory=dict)
    moved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    probabilities: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PartVariation:
    """One part of one output. `place` says where it is; `low` and `high` are its range in the float model.

    `is_joined`: it is a whole input of the operator that joins the output; if not, a part of such an input.
    `output_size` is the number of elements of the whole output, per sample. `answers` compares probabilities above and
    below 0.5 if most of them are near 0 or 1.
    """

    part: Part
    place: str
    low: float
    high: float
    variation: Variation
    is_joined: bool
    output_size: int
    answers: IdentifierAgreement | None = None

    @property
    def text(self) -> str:
        """The part and its measurement."""
        span = f"{self.low:.3g} to {self.high:.3g}"
        if self.part.joined_by:
            span = f"tensor {self.part.tensor}, {span}"
        if self.variation.is_frozen:
            return f"{self.place} ({span}): the same for all samples"
        text = f"{self.place} ({span}): SQNR {self.variation.sqnr_db:.1f} dB"
        return text if self.answers is None else f"{text}, intersection over union above 0.5 {self.answers.iou:.2f}"


def measure_parts(reference: Array, output: Array, known: OutputParts) -> Iterator[PartVariation]:
    """The tensors that the last operator joins, each followed by its own parts; of outputs [samples, ...].

    Left out are parts that are constant or too small to mean something.
    """
    if known.places.size != reference[0].size:
        return
    places = known.places.reshape(reference.shape[1:])
    for joined in dict.fromkeys(part.joined for part in known.parts):
        numbers = [number for number, part in enumerate(known.parts) if part.joined == joined]
        parts = [known.parts[number] for number in numbers]
        is_probability = all(part.is_probability for part in parts)
        whole = dataclasses.replace(parts[0], tensor=joined, is_probability=is_probability)
        masks = [(whole, np.isin(places, numbers), True)]
        if len(numbers) > 1:
            masks += [(part, places == number, False) for number, part in zip(numbers, parts, strict=True)]
        for part, mask, is_joined in masks:
            if mask.any() and (measured := _measure(part, mask, reference, output, is_joined)) is not None:
                yield measured


def _measure(
    part: Part, mask: npt.NDArray[np.bool_], reference: Array, output: Array, is_joined: bool
) -> PartVariation | None:
    values, others = elements_of(reference, mask), elements_of(output, mask)
    measured = variation(values, others)
    if measured.is_constant or (part.is_probability and measured.peak < _LEAST_PROBABILITY):
        return None
    answers = threshold_decisions(values, others) if part.is_probability else None
    return PartVariation(
        *(part, _place(mask), *bounds_of(values), measured, is_joined, reference[0].size),
        None if answers is None else compare_identifiers(answers.reference, answers.output),
    )


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
