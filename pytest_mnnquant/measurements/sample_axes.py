"""Where a model's inputs and outputs count samples, and the sequences that a model with states runs through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: The axis of an input that counts samples; None: a sample is the whole input, as the model takes it.
Axis = int | None


@dataclass(frozen=True)
class SampleAxes:
    """The axes that count samples, by the names of a model's inputs and outputs. Unlisted inputs count on axis 0.

    An unlisted output counts on axis 0 if a single sample gives it a first axis of 1; if not, each sample is a whole
    output. Data and results always have samples on their first axis: this is how a batch of the model looks.
    """

    inputs: Mapping[str, Axis] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether an input takes a single sample at a time."""
        return None in self.inputs.values()

    @property
    def as_job(self) -> dict[str, Any]:
        """The form in which they travel to child processes."""
        return {"inputs": dict(self.inputs), "outputs": dict(self.outputs)}


def fits_axis(model: Sequence[int], sample: Sequence[int], axis: Axis) -> bool:
    """Whether samples of this shape, counted on `axis`, are an input of the shape `model`; -1 or 0 there: any size."""
    whole = tuple(sample) if axis is None else (*sample[:axis], -1, *sample[axis:])
    if len(whole) != len(model):
        return False
    return all(known <= 0 or size in (-1, known) for known, size in zip(model, whole, strict=True))
