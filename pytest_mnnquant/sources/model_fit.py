"""Data as the inputs of a model take them, or one line that names the array, its shape and the expected shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import fits_axis
from pytest_mnnquant.mnnfile.model import ModelInput
from pytest_mnnquant.sources.sample_forms import fit_to_model
from pytest_mnnquant.sources.spec import DataError

Array = npt.NDArray[Any]
# The axes of pictures, and the numbers of channels that they have.
_PICTURES: Final = 4
_CHANNELS: Final = (1, 3, 4)
_FORWARD: Final = (0, 3, 1, 2)
_BACK: Final = (0, 2, 3, 1)


def require_fit(data: Dataset, inputs: Sequence[ModelInput]) -> Dataset:
    """The data as the model takes them. Raises `DataError` before MNN computes nonsense from others."""
    for spec in inputs:
        _require_whole_numbers(spec, data)
    if (fitting := fit_to_model(data, inputs)) is not None:
        return fitting
    for spec in inputs:
        array = data.inputs[spec.name]
        if fits_axis(spec.shape, array.shape[1:], 0):
            continue
        expected = ", ".join(["samples", *(str(size) if size > 0 else "any" for size in spec.shape[1:])])
        raise DataError(
            f"{data.origin}: array {spec.name!r} has shape {list(array.shape)}, the model takes [{expected}]",
            _transposition(spec, array) or "give samples of this shape, counted on the first axis",
        )
    return data


def _require_whole_numbers(spec: ModelInput, data: Dataset) -> None:
    """Raise `DataError` for fractions that an input of integers would cut off."""
    array = data.inputs[spec.name]
    if "int" not in spec.data_type or array.dtype.kind != "f" or (array == np.rint(array)).all():
        return
    first = array[array != np.rint(array)].flat[0]
    raise DataError(
        f"{data.origin}: array {spec.name!r} holds {array.dtype} such as {first:.4g}, shape {list(array.shape)}; the "
        f"model takes {spec.data_type}",
        "give the integers that the model takes, such as the ids of a tokenizer",
    )


def _transposition(spec: ModelInput, array: Array) -> str:
    """The code that moves the channels of pictures to where the model takes them; empty if that does not help."""
    if array.ndim != _PICTURES:
        return ""
    for order in (_FORWARD, _BACK):
        if fits_axis(spec.shape, tuple(array.shape[axis] for axis in order[1:]), 0):
            return f"move the channels: {spec.name} = {spec.name}.transpose{order}"
    return ""


def fix_for_failure(inputs: Mapping[str, Array]) -> str:
    """What to try with arrays on which a PyTorch model fails: the most likely fault of their layout or type."""
    for name, array in inputs.items():
        if array.ndim == _PICTURES and array.shape[3] in _CHANNELS and array.shape[1] not in _CHANNELS:
            return f"the channels of {name} are last; PyTorch takes them first: {name} = {name}.transpose{_FORWARD}"
        if array.dtype.kind in "iu" and array.dtype.itemsize == 1:
            return f"{name} holds {array.dtype}; if forward() takes floats: {name} = {name}.astype(numpy.float32) / 255"
        if array.dtype.kind == "f" and array.ndim > 1 and (array == np.rint(array)).all() and array.max() > 1:
            return f"{name} holds whole numbers as {array.dtype}; ids must be: {name} = {name}.astype(numpy.int64)"
    return "give samples that forward() accepts, counted on the first axis; try the model on one sample"
