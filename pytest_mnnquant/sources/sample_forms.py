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


def samples_first(
    arrays: Arrays, labels: str, known: Mapping[str, Axis] | None = None
) -> tuple[dict[str, Array], dict[str, Axis]]:
    """The arrays of one batch with samples on their first axis, and the axes that counted samples if not the first.

    An array without axes holds for all samples. If first axes differ in length, samples are on the only axis that is as
    long as the labels, or as an axis of all arrays. Arrays for which none is found are unchanged. `known` are the axes
    of another batch of the same data.
    """
    if known and all(axis is not None and arrays[name].ndim > axis for name, axis in known.items() if name in arrays):
        moved = {name: np.moveaxis(array, known.get(name) or 0, 0) for name, array in arrays.items()}
        return moved, dict(known)
    if labels in arrays and arrays[labels].ndim == 0:  # One sample, without an axis that counts it.
        single = {name: array[None] for name, array in arrays.items()}
        return single, {name: None for name, array in arrays.items() if array.ndim == 0 and name != labels}
    count = _count({name: array for name, array in arrays.items() if array.ndim}, labels)
    if count is None:
        return dict(arrays), {}
    moved = {}
    axes: dict[str, Axis] = {}
    for name, array in arrays.items():
        axis = _axis(array, count, name != labels)
        moved[name] = array
        if axis is None and array.ndim == 0:
            moved[name], axes[name] = np.repeat(array[None], count), None
        elif axis:
            moved[name], axes[name] = np.moveaxis(array, axis, 0), axis
    return moved, axes


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


def _axis(array: Array, count: int, is_input: bool) -> Axis:
    """The axis that counts samples; 0 if it is not found, None without axes."""
    if array.ndim == 0:
        return None
    places = [axis for axis, size in enumerate(array.shape) if size == count]
    if len(array) == count or array.ndim < _DEEP or len(places) != 1 or not is_input:
        return 0
    return places[0]


def fit_to_model(data: Dataset, inputs: Sequence[ModelInput]) -> Dataset | None:
    """The data as the model's declared inputs take them; None if they do not fit.

    A sample may lack the axis that counts samples, on any place (`fits_axis`), or be the whole input.
    """
    for candidate in _readings(data):
        axes = {spec.name: _fitting_axis(spec, candidate) for spec in inputs}
        if all(found for found in axes.values()):
            return with_axes(candidate, {name: found[0] for name, found in axes.items()})
    return None


def _readings(data: Dataset) -> Iterator[Dataset]:
    """What the arrays may be: samples; a list of samples that were joined; a single sample."""
    yield data
    if has_items(data):
        yield as_items(data)
    if not data.lengths and (data.labels is None or len(data.labels) == data.samples == 1):
        yield as_one_sample(data)


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
