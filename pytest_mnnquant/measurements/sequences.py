"""Sequences of steps that a model with states runs through: outputs of a step are inputs of the next step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Sequences:
    """The steps of all sequences, one after the other.

    `states` gives, by the name of an input, the output that is fed back to it. `lengths` counts the steps of each
    sequence. `outputs` are the outputs of the model that these names are from, in order.
    """

    states: Mapping[str, str]
    lengths: tuple[int, ...]
    outputs: tuple[str, ...] = ()

    def renamed(self, inputs: Mapping[str, str], outputs: Sequence[str]) -> Sequences:
        """The same for a model whose inputs, by the names here, and `outputs`, in the same order, have other names."""
        is_same = set(self.states.values()) <= set(outputs) or len(outputs) != len(self.outputs)
        known = {name: name for name in outputs} if is_same else dict(zip(self.outputs, outputs, strict=True))
        states = {inputs.get(name, name): known.get(output, output) for name, output in self.states.items()}
        return dataclasses.replace(self, states=states)

    @property
    def as_job(self) -> dict[str, Any]:
        """The form in which they travel to child processes."""
        return {"states": dict(self.states), "lengths": list(self.lengths)}


def starts_of(lengths: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The number of the first step of each sequence."""
    return np.cumsum([0, *lengths[:-1]]).astype(np.int64)


def ends_of(lengths: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The number of the last step of each sequence."""
    return np.cumsum(lengths).astype(np.int64) - 1


def fed_back(outputs: npt.NDArray[Any], first: npt.NDArray[Any], lengths: tuple[int, ...]) -> npt.NDArray[Any]:
    """A state at the beginning of each step: the output of the step before, in the shape of `first`.

    `outputs` counts steps on its first axis. `first` has shape [steps, ...]; its rows at the starts are the initial
    states. Raises `ValueError` if a step's output has another number of elements.
    """
    states = np.array(first)
    if outputs[0].size != first[0].size:
        raise ValueError(f"shapes differ: {list(outputs.shape[1:])} and {list(first.shape[1:])}")
    states[1:] = outputs[:-1].reshape(first[1:].shape)
    starts = starts_of(lengths)
    states[starts] = first[starts]
    return states
