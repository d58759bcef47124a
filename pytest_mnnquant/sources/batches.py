"""What the objects of users give as batches of named arrays: arrays, dictionaries, tuples, loaders and data sets."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.sources.data_checks import LABELS, general_form
from pytest_mnnquant.sources.images import MEMORY_LIMIT
from pytest_mnnquant.sources.spec import DataError, describe, seeded_generators
from pytest_mnnquant.sources.user_code import contained

Array = npt.NDArray[Any]
Batch = dict[str, Array]
# The least size that each array counts with, so that endless batches of tiny arrays reach the limit too.
_LEAST_BYTES: Final = 4096
# Data sets of these packages give batches, others give samples.
_OF_BATCHES: Final = ("keras", "tensorflow", "tf_keras")


def batches_of(value: Any, input_names: tuple[str, ...], origin: str) -> list[Batch]:
    """The batches that a value gives, at least one. Samples of a data set are batches of one. Raises `DataError`.

    Loaders that shuffle, and transforms that use random numbers, give the same batches each time.
    """
    _refuse_tables(value, input_names, origin)
    if _is_array(value) or isinstance(value, Mapping | tuple):
        batches = [_batch(value, input_names, origin)]
    elif isinstance(value, str | bytes) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        raise DataError(
            f"{origin}: {type(value).__name__} is neither arrays nor batches of arrays", general_form(input_names)
        )
    else:
        try:
            with contained(), seeded_generators(origin):
                batches = list(_limited(value, input_names, origin))
        except DataError:
            raise
        except Exception as error:
            fix = "loop over it in a separate script for the whole traceback: the model is not involved yet"
            raise DataError(f"{origin}: iterating over its batches raised {describe(error)}", fix) from error
    if not batches:
        raise DataError(f"{origin}: no batches", general_form(input_names))
    return batches


def _refuse_tables(value: Any, input_names: tuple[str, ...], origin: str) -> None:
    """Raise `DataError` for data frames, whose columns are not batches."""
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        name = input_names[0]
        raise DataError(
            f"{origin}: a {type(value).__name__} of shape {tuple(value.shape)} is not an array",
            f"give its columns as an array: {{{name!r}: frame[COLUMNS].to_numpy()}}",
        )


def _limited(value: Any, input_names: tuple[str, ...], origin: str) -> Iterator[Batch]:
    """The batches of an iterable, up to the memory limit: a generator may never end."""
    total, is_sampled = 0, _gives_samples(value)
    for number, item in enumerate(_items(value), 1):
        # Copies: a generator may fill the same array again for its next batch.
        batch = {name: array.copy() for name, array in _batch(item, input_names, origin).items()}
        if is_sampled:
            batch = {name: array[None] for name, array in batch.items()}
        size = sum(max(_LEAST_BYTES, array.nbytes) for array in batch.values())
        if number == 1 and _is_map(value):
            _require_room(len(value), size, origin)
        total += size
        if total > MEMORY_LIMIT:
            raise DataError(
                f"{origin}: more than {MEMORY_LIMIT / 1e9:.1f} GB after {number} batches, without end; yield fewer "
                "samples, for example with itertools.islice (100 to 1,000 are enough to calibrate)"
            )
        yield batch


def _require_room(count: int, size: int, origin: str) -> None:
    """Raise `DataError` before a data set is read that takes too much memory; `size` is that of its first item."""
    if count * size <= MEMORY_LIMIT:
        return
    step = max(2, count // 500)
    raise DataError(
        f"{origin}: {count} samples take {count * size / 1e9:.1f} GB, allowed are {MEMORY_LIMIT / 1e9:.1f} GB",
        f"take fewer, spread over the set: torch.utils.data.Subset(data, range(0, {count}, {step}))",
    )


def _items(value: Any) -> Iterable[Any]:
    """The items in order. A data set with a length ends there, even if its `__getitem__` takes any index."""
    return (value[number] for number in range(len(value))) if _is_map(value) else value


def _is_map(value: Any) -> bool:
    """Whether a value is a data set of items by number, as those of torch and of Hugging Face."""
    return not isinstance(value, list | deque) and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _gives_samples(value: Any) -> bool:
    """Whether the items of a data set are samples, without an axis that counts them."""
    packages = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if packages & {*_OF_BATCHES}:
        return False
    if _is_map(value):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.utils.data.DataLoader):
        return value.batch_size is None and value.batch_sampler is None and _gives_samples(value.dataset)
    is_dataset = torch is not None and isinstance(value, torch.utils.data.Dataset)
    return is_dataset or "datasets" in packages


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _array(value: Any, name: str, origin: str) -> Array:
    if hasattr(value, "getpixel"):
        raise DataError(
            f"{origin}: array {name!r} is a picture of PIL, size {value.size}",
            "give it as the model takes it, for example numpy.float32(picture).transpose(2, 0, 1) / 255",
        )
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise DataError(
            f"{origin}: array {name!r} is masked in {int(value.mask.sum()):,} of {value.size:,} values, shape "
            f"{list(value.shape)}",
            f"give numbers for all values, for example {name} = {name}.filled(0)",
        )
    array = _stacked(value, name, origin) if _holds_arrays(value) else np.asarray(value)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _holds_arrays(value: Any) -> bool:
    """Whether a value is a list or an array of arrays."""
    is_list = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind == "O")
    return (
        is_list and len(np.shape(value) if isinstance(value, np.ndarray) else (1,)) == 1 and all(map(_is_array, value))
    )


def _stacked(value: Any, name: str, origin: str) -> Array:
    """The arrays of a list as one. Raises `DataError` for arrays of several shapes."""
    arrays = [_array(item, name, origin) for item in value]
    shapes = list(dict.fromkeys(str(list(array.shape)) for array in arrays))
    if len(shapes) > 1 and name != LABELS:
        raise DataError(
            f"{origin}: array {name!r} holds arrays of the shapes {' and '.join(shapes[:2])}, expected equal shapes",
            "resize or pad all samples to one shape",
        )
    return np.stack(arrays) if len(shapes) == 1 else np.asarray(value)


def _batch(value: Any, input_names: tuple[str, ...], origin: str) -> Batch:
    if isinstance(value, Mapping):
        return with_labels({str(name): _array(array, str(name), origin) for name, array in value.items()}, input_names)
    if len(input_names) == 1 and _is_numbers(value):
        return {input_names[0]: np.asarray(value)}
    if isinstance(value, tuple | list):
        if len(value) == 2 and len(input_names) == 1 and _is_numbers(value[0]):
            return {input_names[0]: np.asarray(value[0]), LABELS: _array(value[1], LABELS, origin)}
        if len(value) == 2 and isinstance(value[0], Mapping | tuple | list) and not _are_inputs(value, input_names):
            return {**_batch(value[0], input_names, origin), LABELS: _array(value[1], LABELS, origin)}
        if len(value) not in (len(input_names), len(input_names) + 1):
            raise DataError(
                f"{origin}: a batch of {len(value)} arrays for {len(input_names)} model inputs",
                general_form(input_names),
            )
        names = [*input_names, LABELS]
        return {name: _array(item, name, origin) for name, item in zip(names, value, strict=False)}
    return {input_names[0]: _array(value, input_names[0], origin)}


def _is_numbers(value: Any) -> bool:
    """Whether a value is a list of numbers, or of such lists."""
    while isinstance(value, list) and value:
        value = value[0]
        if isinstance(value, int | float):
            return True
    return False


def _are_inputs(pair: Sequence[Any], input_names: tuple[str, ...]) -> bool:
    """Whether a pair holds the lists of numbers of two inputs, and not the lists of all inputs and the labels."""
    first, second = _depth(pair[0]), _depth(pair[1])
    is_labelled = first > max(1, second) and len(pair[0]) == len(input_names)
    return len(input_names) == 2 and min(first, second) > 0 and not is_labelled


def _depth(value: Any) -> int:
    """How deep lists of numbers are nested; 0 for a number, and for lists of anything else."""
    depth = 0
    while isinstance(value, list | tuple) and value:
        value, depth = value[0], depth + 1
    return depth if isinstance(value, Real) else 0


def with_labels(batch: Batch, input_names: tuple[str, ...]) -> Batch:
    """The arrays with labels that are called `label`, as many data sets call them.

    Arrays without names, which numpy.savez calls `arr_0`, `arr_1` and so on, are the inputs in order, and the labels.
    """
    unnamed = [f"arr_{number}" for number in range(len(batch))]
    if set(batch) == set(unnamed) and len(batch) in (len(input_names), len(input_names) + 1):
        names = dict(zip(unnamed, (*input_names, LABELS), strict=False))
        return batch if set(input_names) & set(unnamed) else {names[name]: array for name, array in batch.items()}
    if "label" in batch and "label" not in input_names and LABELS not in batch:
        return {LABELS if name == "label" else name: array for name, array in batch.items()}
    return batch


def join_batches(batches: list[Batch], origin: str) -> Batch:
    """The arrays of all batches, one after the other. Raises `DataError` that names the array that does not match."""
    fix = "give the same arrays in each batch, with equal shapes except for the first axis"
    first = batches[0]
    for batch in batches:
        if batch.keys() != first.keys():
            missing = ", ".join(sorted(first.keys() ^ batch.keys()))
            raise DataError(f"{origin}: its batches do not match: not all have the array {missing}", fix)
        for name, array in batch.items():
            if not array.ndim:
                raise DataError(f"{origin}: array {name!r} has shape [], expected [samples, ...]", fix)
            if array.shape[1:] != first[name].shape[1:] or array.ndim != first[name].ndim:
                if _are_uneven(batch[name], first[name]):
                    fix = "if the items are batches, give list(DATA); if they are samples, pad them to one length"
                shapes = f"{list(first[name].shape)} and {list(array.shape)}"
                raise DataError(f"{origin}: its batches do not match: array {name!r} has the shapes {shapes}", fix)
    if len(batches) == 1:  # Which may be as large as the memory.
        return dict(first)
    with contextlib.suppress(ValueError, TypeError):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in first}
    kinds = ", ".join(f"{name} {array.dtype}" for name, array in first.items())
    raise DataError(f"{origin}: its batches do not match: {kinds}", fix)


def _are_uneven(array: Array, first: Array) -> bool:
    """Whether two items of a data set may be batches of different sizes."""
    return len(array) == len(first) == 1 and array.ndim > 1 and array.shape[2:] == first.shape[2:]
