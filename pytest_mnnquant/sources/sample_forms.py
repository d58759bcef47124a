"""Which axis of each array counts samples: found by the arrays' sizes, and by what the model takes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis, fits_axis
from pytest_mnnquant.mnnfile.model import ModelInput

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
# Arrays of fewer dimensions have no axis before the samples': (time, samples, features), (layers, samples, features).
_DEEP: Final = 3


def samples_first(batches: Sequence[Arrays], labels: str) -> tuple[list[dict[str, Array]], dict[str, Axis]]:
    """All batches with samples on the first axis of each array, and the axes that counted samples if not the first.

    An array without axes holds for all samples. If first axes differ in length, samples are on the only axis that is as
    long as the labels, or as an axis of all arrays, in every batch. Arrays for which none is found are unchanged.
    """
    forms = [_with_sample_axis(batch, labels) for batch in batches]
    counts = [_count({name: array for name, array in form.items() if array.ndim}, labels) for form in forms]
    counted = [(form, count) for form, count in zip(forms, counts, strict=True) if count is not None]
    axes: dict[str, Axis] = {}
    for name, array in batches[0].items():
        if name == labels:
            continue
        if array.ndim == 0:
            axes[name] = None
        elif axis := _common_axis([(form[name], count) for form, count in counted if name in form]):
            axes[name] = axis
    return [_moved(form, count, axes) for form, count in zip(forms, counts, strict=True)], axes


def _with_sample_axis(batch: Arrays, labels: str) -> dict[str, Array]:
    """A batch; a single sample without an axis that counts it, which a label without axes shows, gets this axis."""
    is_single = labels in batch and batch[labels].ndim == 0
    return {name: array[None] if is_single else array for name, array in batch.items()}


def _moved(arrays: Arrays, count: int | None, axes: Mapping[str, Axis]) -> dict[str, Array]:
    """The arrays of a batch with samples first."""
    moved = {}
    for name, array in arrays.items():
        axis = axes.get(name)
        moved[name] = np.moveaxis(array, axis, 0) if axis and array.ndim > axis else array
        if array.ndim == 0 and count is not None:
            moved[name] = np.repeat(array[None], count)
    return moved


def _count(arrays: Arrays, labels: str) -> int | None:
    """The number of samples; None if it is unknown."""
    firsts = {len(array) for array in arrays.values()}
    if len(firsts) < 2:
        return next(iter(firsts), None)
    if labels in arrays:
        return len(arrays[labels])
    sizes = Counter(size for array in arrays.values() for size in set(array.shape))
    common = [size for size, count in sizes.items() if count == len(arrays)]
    return common[0] if len(common) == 1 else None


def _common_axis(parts: Sequence[tuple[Array, int]]) -> int:
    """The axis that is as long as the number of samples in all batches; the first if it is, or if several are."""
    if not parts or min(array.ndim for array, _ in parts) < _DEEP:
        return 0
    places = [{axis for axis, size in enumerate(array.shape) if size == count} for array, count in parts]
    common = set.intersection(*places)
    return 0 if len(common) != 1 else common.pop()


def fit_to_model(data: Dataset, inputs: Sequence[ModelInput]) -> Dataset | None:
    """The data as the model's declared inputs take them; None if they do not fit.

    A sample may lack the axis that counts samples, on any place (`fits_axis`), or be the whole input.
    """
    for candidate in _readings(data, inputs):
        axes = {spec.name: _fitting_axis(spec, candidate) for spec in inputs}
        if all(found for found in axes.values()):
            return with_axes(candidate, {name: found[0] for name, found in axes.items()})
    return None


def _readings(data: Dataset, inputs: Sequence[ModelInput]) -> Iterator[Dataset]:
    """What the arrays may be: batches; samples; a list of samples that were joined; a single sample."""
    if has_batches(data) and all(_is_batch(spec, data) for spec in inputs):
        yield as_samples(data)
    yield data
    if has_items(data):
        yield as_items(data)
    if not data.lengths and (data.labels is None or len(data.labels) == data.samples == 1):
        yield as_one_sample(data)


def _is_batch(spec: ModelInput, data: Dataset) -> bool:
    """Whether each item has all axes of the input, and the first may count samples."""
    sample = data.inputs[spec.name].shape[1:]
    return bool(spec.shape) and spec.shape[0] <= 1 and fits_axis((-1, *spec.shape[1:]), sample, None)


def has_batches(data: Dataset) -> bool:
    """Whether the arrays were joined of items, one per item of a data set, that may be batches."""
    if data.lengths or data.axes or data.samples != (data.items or 1):
        return False
    arrays = [*data.inputs.values(), *(() if data.labels is None else (data.labels,))]
    return len({array.shape[1:2] for array in arrays}) == 1 and all(array.ndim > 1 for array in arrays)


def as_samples(data: Dataset) -> Dataset:
    """The samples of arrays whose items are batches."""
    inputs = {name: array.reshape(-1, *array.shape[2:]) for name, array in data.inputs.items()}
    labels = None if data.labels is None else data.labels.reshape(-1, *data.labels.shape[2:])
    return dataclasses.replace(data, inputs=inputs, labels=labels, items=0)


def has_items(data: Dataset) -> bool:
    """Whether the arrays were joined of several that may be one sample each."""
    return data.items > 1 and not data.lengths and data.labels is None and not data.axes


def as_items(data: Dataset) -> Dataset:
    """The arrays as the samples that they were joined of."""
    parts = {name: array.reshape(data.items, -1, *array.shape[1:]) for name, array in data.inputs.items()}
    return dataclasses.replace(data, inputs=parts, items=0)


def as_one_sample(data: Dataset) -> Dataset:
    """The arrays as a single sample each."""
    return dataclasses.replace(data, inputs={name: array[None] for name, array in data.inputs.items()}, axes={})


def _fitting_axis(spec: ModelInput, data: Dataset) -> tuple[Axis, ...]:
    """The axis that fits, alone in a tuple; empty if none does."""
    sample = data.inputs[spec.name].shape[1:]
    declared = data.axes.get(spec.name, 0)
    found = [axis for axis in _axes(len(sample), declared) if fits_axis(spec.shape, sample, axis)]
    # An axis of a fixed size above 1 counts samples only if it is declared or the first, and if no other axis can.
    free = [axis for axis in found if axis is None or spec.shape[axis] <= 1]
    chosen = tuple((free or [axis for axis in found if axis in (declared, 0)])[:1])
    # MNN's files have 1 for a first axis of any size, and files with one sample each hold what the model takes.
    is_open = declared is None and spec.shape[:1] == (1,) and fits_axis((-1, *spec.shape[1:]), sample, None)
    return chosen or ((None,) if is_open else ())


def _axes(dimensions: int, first: Axis) -> Iterator[Axis]:
    """The axes to try, the declared one first."""
    yield first
    yield from (axis for axis in (0, None, *range(1, dimensions + 1)) if axis != first)


def with_axes(data: Dataset, axes: Mapping[str, Axis]) -> Dataset:
    """The data with these axes, which counted samples on others before.

    Whole inputs that begin with an axis of 1 are samples on that axis.
    """
    inputs, chosen = dict(data.inputs), dict(axes)
    for name, axis in axes.items():
        if axis is None and inputs[name].shape[1:2] == (1,):
            inputs[name], chosen[name] = inputs[name][:, 0], 0
    return dataclasses.replace(data, inputs=inputs, axes={name: axis for name, axis in chosen.items() if axis != 0})
