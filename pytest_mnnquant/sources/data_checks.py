"""Refuses arrays that are not samples of the model's inputs: one line names the array and its shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.metrics.blocks import is_true_of_all, largest_of, sample_blocks
from pytest_mnnquant.sources.pixel_statistics import normalized_pixels
from pytest_mnnquant.sources.spec import DataError

Array = npt.NDArray[Any]
#: The name of the array with the labels.
LABELS: Final = "labels"
_LARGEST: Final = float(np.finfo(np.float32).max)


def dataset_of(
    arrays: dict[str, Array], axes: Mapping[str, Axis], input_names: tuple[str, ...], origin: str
) -> Dataset:
    """A data set of arrays that count samples on their first axis. Raises `DataError`."""
    labels = arrays.pop(LABELS, None)
    require_samples(arrays, labels, input_names, origin)
    # In the order of the model's inputs, which are passed by position.
    return Dataset({name: arrays[name] for name in input_names}, labels, origin, axes=axes)


def ordered(data: Dataset, input_names: tuple[str, ...]) -> Dataset:
    """Steps of sequences, in the order of the model's inputs. States may be missing. Raises `DataError`."""
    present = tuple(name for name in input_names if name in data.inputs)
    require_samples(data.inputs, data.labels, present, data.origin)
    return dataclasses.replace(data, inputs={name: data.inputs[name] for name in present})


def require_samples(inputs: dict[str, Array], labels: Array | None, input_names: tuple[str, ...], origin: str) -> None:
    """Raise `DataError` for arrays that are not numbers, one row per sample, for each input of the model."""
    _require_names(inputs, input_names, origin)
    for name in input_names:
        _require_numbers(inputs[name], name, input_names, origin)
    if labels is not None:
        _require_labels(labels, origin)
    arrays = {**inputs, **({} if labels is None else {LABELS: labels})}
    if len({len(array) if array.ndim else 0 for array in arrays.values()}) != 1:
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(
            f"{origin}: the arrays hold different numbers of samples: {shapes}",
            "make the first axis of all arrays equally long, labels included: it counts samples",
        )


def _require_names(inputs: dict[str, Array], input_names: tuple[str, ...], origin: str) -> None:
    missing = [name for name in input_names if name not in inputs]
    if missing:
        raise DataError(
            f"{origin}: no array for the model's input {missing[0]!r}; it has: {', '.join(inputs) or 'none'}",
            f"name the array {missing[0]!r}, or give other data (--mnn-calibration, --mnn-evaluation)",
        )
    unknown = [name for name in inputs if name not in input_names]
    if unknown:
        known = ", ".join([*input_names, LABELS])
        raise DataError(
            f"{origin}: array {unknown[0]!r} is neither an input of the model nor its labels; known: {known}",
            "remove this array, or give it the name of the input that it is for",
        )


def _require_numbers(array: Array, name: str, input_names: tuple[str, ...], origin: str) -> None:
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        fix = general_form(input_names)
        if array.dtype.kind in "US":
            fix = f"give the ids of a tokenizer, padded to one length: {{{name!r}: tokenizer(texts)}}"
        what = f"{array.dtype}, shape {list(array.shape)}"
        raise DataError(f"{origin}: array {name!r} does not hold numeric samples ({what})", fix)
    if array.size == 0:
        raise DataError(f"{origin}: array {name!r} is empty: shape {array.shape}", general_form(input_names))
    if array.dtype.kind in "iu":
        _require_int32(array, name, origin)
    if array.dtype.kind == "f":
        _require_float32(array, name, origin)
        if problem := normalized_pixels(array):
            raise DataError(
                f"{origin}: array {name!r}: {problem}", "divide the pixels by 255 before they are normalized"
            )


def _require_labels(labels: Array, origin: str) -> None:
    if labels.dtype.kind == "O":
        raise DataError(
            f"{origin}: array {LABELS!r} holds objects ({type(labels.flat[0]).__name__}) instead of numbers",
            "give one class number per sample, or an array of the shape of an output",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(
            f"{origin}: array {LABELS!r} holds NaN or infinity, shape {labels.shape}",
            "remove these samples, or correct their labels",
        )


def _require_int32(array: Array, name: str, origin: str) -> None:
    """Raise `DataError` for integers that MNN, which computes in int32, would change."""
    ends = [(int(block.min()), int(block.max())) for _, (block,) in sample_blocks(array)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    limits = np.iinfo(np.int32)
    if low < limits.min or high > limits.max:
        worst = high if high > limits.max else low
        raise DataError(
            f"{origin}: array {name!r} holds {worst:,}, shape {list(array.shape)}; MNN computes in int32",
            "give smaller integers, or floats if the input takes them",
        )


def _require_float32(array: Array, name: str, origin: str) -> None:
    """Raise `DataError` for values that are not finite numbers of float32."""
    if not is_true_of_all(np.isfinite, array):
        fix = "remove these samples, or fix their preprocessing (most often a division by 0)"
        if _is_mask(array):
            fix = f"write the mask with a finite number, which has a scale: np.where(arrays[{name!r}] < 0, -1e4, 0)"
        broken = len(array) - int(np.isfinite(array).reshape(len(array), -1).all(1).sum())
        where = f"in {broken:,} of {len(array):,} samples, shape {list(array.shape)}"
        raise DataError(f"{origin}: array {name!r} holds NaN or infinity {where}", fix)
    if (largest := largest_of(array)) > _LARGEST:
        raise DataError(
            f"{origin}: array {name!r} holds {largest:.3g}, more than float32 can hold",
            "scale the samples as the model takes them",
        )


def _is_mask(array: Array) -> bool:
    """Whether an array is a mask that is added to the scores of an attention: 0, and -inf for what it hides."""
    return bool((np.isneginf(array) | (array == 0)).all() and (array == 0).any())


def general_form(input_names: tuple[str, ...]) -> str:
    """The fix that shows the general form of data."""
    arrays = ", ".join(f"{name!r}: ARRAY" for name in input_names)
    return f"give numeric arrays whose first axis counts samples: {{{arrays}}}"
