"""Sequences for models with states: a sample is a sequence, and the first axis of each of its arrays counts steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.sources.spec import DataError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class SequenceForm:
    """What the arrays of a sequence are: the names of inputs that are states, and the name of the labels."""

    states: Collection[str]
    labels: str
    origin: str

    @property
    def fix(self) -> str:
        """The form that is expected."""
        names = " and ".join(self.states)
        return f"give [sequences, steps, ...] for each input but {names}, or a folder with one .npz file per sequence"

    def is_stepped(self, name: str) -> bool:
        """Whether an array counts steps."""
        return name not in self.states and name != self.labels


def from_batches(batches: Iterable[Arrays], form: SequenceForm) -> Dataset:
    """Batches of sequences of equal length: arrays of shape [sequences, steps, ...], and [sequences, ...] for states.

    A state's array of another length holds for all sequences. See `from_sequences`. Raises `DataError`.
    """
    sequences: list[dict[str, Array]] = []
    for batch in batches:
        counts = {name: len(array) for name, array in batch.items() if array.ndim and name not in form.states}
        if len(set(counts.values())) != 1:
            raise DataError(f"{form.origin}: the arrays hold different numbers of sequences: {counts}", form.fix)
        count = next(iter(counts.values()))
        sequences += [{name: _part(array, number, count) for name, array in batch.items()} for number in range(count)]
    return from_sequences(sequences, form)


def _part(array: Array, number: int, count: int) -> Array:
    return array[number] if array.ndim and len(array) == count else array


def from_sequences(sequences: Sequence[Arrays], form: SequenceForm) -> Dataset:
    """Sequences of any lengths: arrays of shape [steps, ...]; labels of each step, or of the sequence.

    A value without axes holds for all steps. The samples of the result are the steps of all sequences; each has the
    first state of its sequence, if the data have one. Raises `DataError`.
    """
    if not sequences:
        raise DataError(f"{form.origin}: no sequences", form.fix)
    lengths = tuple(_length(sequence, form) for sequence in sequences)
    names = sequences[0].keys()
    if any(sequence.keys() != names for sequence in sequences):
        raise DataError(f"{form.origin}: its sequences have different arrays", form.fix)
    pairs = list(zip(sequences, lengths, strict=True))
    try:
        inputs = {
            name: np.concatenate([_rows(sequence[name], length, form.is_stepped(name)) for sequence, length in pairs])
            for name in names
            if name != form.labels
        }
        labels, per_sequence = _labels(pairs, form.labels) if form.labels in names else (None, False)
    except ValueError as error:
        raise DataError(f"{form.origin}: its sequences do not match: {error}", form.fix) from None
    return Dataset(inputs, labels, form.origin, lengths=lengths, per_sequence=per_sequence)


def _length(sequence: Arrays, form: SequenceForm) -> int:
    """The number of steps. Raises `DataError`."""
    steps = {name: len(array) for name, array in sequence.items() if array.ndim and form.is_stepped(name)}
    if len(set(steps.values())) != 1 or 0 in steps.values():
        raise DataError(f"{form.origin}: the arrays of a sequence hold different numbers of steps: {steps}", form.fix)
    return next(iter(steps.values()))


def _rows(array: Array, length: int, is_stepped: bool) -> Array:
    """The array of each step; a state, or a value without axes, is the same in all steps."""
    return array if is_stepped and array.ndim else np.repeat(array[None], length, axis=0)


def _labels(pairs: Sequence[tuple[Arrays, int]], name: str) -> tuple[Array, bool]:
    """The label of each step, and whether the sequences have one label each. Raises `ValueError`."""
    if all(sequence[name].shape[:1] == (length,) for sequence, length in pairs):
        return np.concatenate([sequence[name] for sequence, _ in pairs]), False
    rows = [sequence[name] for sequence, _ in pairs]
    whole = np.stack([row[0] if row.shape == (1,) else row for row in rows])
    return np.repeat(whole, [length for _, length in pairs], axis=0), True
