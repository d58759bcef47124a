"""How a PyTorch model takes batches: which axes count samples, and whether samples are independent."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis, SampleAxes
from pytest_mnnquant.sources.pytorch import as_tensors, output_names, suppress_output
from pytest_mnnquant.sources.sample_forms import as_items, as_one_sample, as_samples, has_batches, has_items, with_axes
from pytest_mnnquant.sources.torch_call import flat_outputs

if TYPE_CHECKING:
    import torch

# Inputs of fewer dimensions have no axis before the samples': (time, samples, features).
_DEEP: Final = 3
# How many inputs of a model may count samples on another axis than its other inputs (states).
_STATES: Final = 3


@dataclass(frozen=True)
class BatchForm:
    """How a model takes samples: the axes of its inputs and outputs; `tried` are those that the data are read with.

    `alone`: it takes one sample at a time, since it mixes or refuses several. `is_one`: the data are a single sample,
    without an axis that counts it. `is_items`: they were joined of such samples; `is_batches`: of batches.
    `is_second`: the second axis of all arrays counts samples.
    """

    axes: SampleAxes
    tried: Mapping[str, Axis]
    alone: bool = False
    is_one: bool = False
    is_second: bool = False
    is_items: bool = False
    is_batches: bool = False

    def apply(self, data: Dataset) -> Dataset:
        """The data in this form."""
        data = as_one_sample(data) if self.is_one else data
        data = as_samples(data) if self.is_batches and has_batches(data) else data
        data = as_items(data) if self.is_items and has_items(data) else data
        data = _second_first(data) if self.is_second else data
        return dataclasses.replace(with_axes(data, self.tried), alone=self.alone)

    def apply_like(self, data: Dataset, known: Dataset, model: torch.nn.Module) -> Dataset:
        """Other data than the `known` ones, whose form this is; they may have been joined of other items.

        The first reading whose samples have the dimensions of the known ones and run is taken; else that of this form.
        """
        known = self.apply(known)
        for made in (reading.apply(data) for reading in self._readings(data)):
            alike = all(array.ndim == known.inputs[name].ndim for name, array in made.inputs.items())
            if alike and _runs(model, made):
                return made
        return self.apply(data)

    def _readings(self, data: Dataset) -> Iterator[BatchForm]:
        yield self
        plain = dataclasses.replace(self, is_one=False, is_items=False, is_batches=False)
        yield plain
        yield dataclasses.replace(plain, is_batches=True)
        yield dataclasses.replace(plain, is_items=True)
        if data.labels is None and not data.lengths:
            yield dataclasses.replace(plain, is_one=True)


def batch_form(model: torch.nn.Module, data: Dataset, outputs: Sequence[str] = ()) -> BatchForm:
    """The first form of the data that the model accepts; the given one if it accepts none (`outputs` reports why).

    `outputs` are the names of the model's outputs; without them `output`, `output1`, ...
    """
    form = next((form for form in batch_forms(data) if _runs(model, form.apply(data))), _form(data.axes))
    whole = form.apply(data)
    form = dataclasses.replace(form, axes=SampleAxes(whole.axes))
    if (axes := _output_axes(model, whole, outputs)) is not None:
        return dataclasses.replace(form, axes=SampleAxes(whole.axes, axes))
    if _may_count_second(whole):
        second_axes = dict.fromkeys(whole.inputs, 1)
        second = dataclasses.replace(form, axes=SampleAxes(second_axes), tried=second_axes, is_second=True)
        moved = second.apply(data)
        if moved.samples > 1 and _runs(model, moved) and (axes := _output_axes(model, moved, outputs)) is not None:
            return dataclasses.replace(second, axes=SampleAxes(second.axes.inputs, axes))
    return dataclasses.replace(form, alone=True)


def _may_count_second(data: Dataset) -> bool:
    """Whether the second axis of all arrays may count samples: (time, samples, features) and (time, samples)."""
    arrays = data.inputs.values()
    if data.axes or data.lengths or min(array.ndim for array in arrays) < 2:
        return False
    counts = {array.shape[1] for array in arrays}
    labels = None if data.labels is None else len(data.labels)
    return (
        max(array.ndim for array in arrays) >= _DEEP
        and len(counts) == 1
        and labels in (None, (data.items or 1) * max(counts))
    )


def _second_first(data: Dataset) -> Dataset:
    """The samples that the second axis of each item counts, joined on the first axis."""
    moved = {}
    for name, array in data.inputs.items():
        items = np.moveaxis(array.reshape(data.items or 1, -1, *array.shape[1:]), 2, 1)
        moved[name] = items.reshape(-1, *items.shape[2:])
    return dataclasses.replace(data, inputs=moved, items=0)


def _form(axes: Mapping[str, Axis], is_one: bool = False) -> BatchForm:
    return BatchForm(SampleAxes(axes), axes, is_one=is_one)


def batch_forms(data: Dataset) -> Iterator[BatchForm]:
    """The forms that data may have, the most likely first."""
    yield _form(data.axes)
    if has_batches(data):
        yield dataclasses.replace(_form({}), is_batches=True)
    if has_items(data):
        yield dataclasses.replace(_form({}), is_items=True)
    if not data.lengths and (data.labels is None or len(data.labels) == data.samples == 1):
        yield _form({}, is_one=True)
    if all(array.shape[1:2] == (1,) for array in data.inputs.values()):
        yield _form(dict.fromkeys(data.inputs))
    others: tuple[Axis, ...] = (None, 1)
    for axis in others if len(data.inputs) > 1 else ():
        for count in range(1, min(_STATES, len(data.inputs) - 1) + 1):
            for names in itertools.combinations(data.inputs, count):
                if axis and min(data.inputs[name].ndim for name in names) < _DEEP:
                    continue
                yield _form({**data.axes, **dict.fromkeys(names, axis)})


def _output_axes(model: torch.nn.Module, data: Dataset, outputs: Sequence[str]) -> dict[str, int] | None:
    """The axis of each output that counts samples, where two samples give the same together as alone.

    Empty if all are the first; None if the model mixes samples or refuses two: `view(1, -1)` in a model does.
    """
    import torch

    if data.samples < 2:
        return {}
    if data.is_single:
        return None
    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            alone = [flat_outputs(model(*as_tensors(sample, model))) for sample in data.first(2).batches(1)]
            together = flat_outputs(model(*as_tensors(data.batch(2), model)))
        except Exception:
            # `outputs` reports a failure on a single sample.
            return None if _runs(model, data) else {}
    if any(len(sample) != len(together) for sample in alone):
        return None
    axes = [_axis(both, singles) for both, *singles in zip(together, *alone, strict=True)]
    if None in axes:
        return None
    names = outputs or output_names(len(axes))
    named = {name: axis for name, axis in zip(names, axes, strict=True) if axis is not None}
    return named if any(named.values()) else {}


def _axis(both: torch.Tensor, alone: Sequence[torch.Tensor]) -> int | None:
    """The axis on which a batch of two holds the outputs of its samples; None if it holds others."""
    import torch

    if not both.dim():
        return 0
    places = (axis for axis, size in enumerate(both.shape) if size == 2 * alone[0].shape[axis : axis + 1].numel())
    return next((axis for axis in places if _is_both(both, torch.cat(list(alone), axis))), None)


def _is_both(both: torch.Tensor, joined: torch.Tensor) -> bool:
    """Whether a batch of two holds the outputs of its samples, up to rounding that depends on the batch size."""
    if both.shape != joined.shape:
        return False
    span = float(joined.double().abs().max()) if joined.numel() else 0.0
    return bool(((both.double() - joined.double()).abs() <= 1e-2 * span + 1e-6).all())


def _runs(model: torch.nn.Module, data: Dataset) -> bool:
    import torch

    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            model(*as_tensors(data.batch(1), model))
        except Exception:
            return False
    return True
