"""Calibration and evaluation data as named arrays, from all forms that users have."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.defaults import TIMEOUT
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.sources.array_files import UnreadableArrays, load_arrays
from pytest_mnnquant.sources.images import MEMORY_LIMIT, Preprocess, load_images, undeclared
from pytest_mnnquant.sources.sample_files import load_file, load_sample_files, sample_files
from pytest_mnnquant.sources.sample_forms import samples_first
from pytest_mnnquant.sources.sequence_data import SequenceForm, from_batches, from_sequences
from pytest_mnnquant.sources.spec import DataError, by_itself, call, describe, import_file
from pytest_mnnquant.sources.user_code import UserCodeExit, contained

LABELS: Final = "labels"
_LARGEST: Final = float(np.finfo(np.float32).max)
_PATHS: Final = "correct --mnn-calibration or --mnn-evaluation; relative paths start at {root}"
_EQUAL_SHAPES: Final = "give the same arrays in each batch, with equal shapes except for the first axis"
# The least size that each array counts with, so that endless batches of tiny arrays reach the limit too.
_LEAST_BYTES: Final = 4096


def load_data(
    text: str,
    root: Path,
    input_names: tuple[str, ...],
    preprocess: Preprocess | None = None,
    timeout: float = TIMEOUT,
    states: Collection[str] = (),
) -> Dataset:
    """Read what `--mnn-calibration` or `--mnn-evaluation` names. Raises `DataError`.

    `preprocess` says how the images of a folder become input values. `states` are the inputs that are fed back: with
    them, samples are sequences.
    """
    target, colon, attribute = text.rpartition(":")
    if colon and target.endswith(".py"):
        if not (root / target).is_file():
            raise DataError(f"{target}: no such file", _PATHS.format(root=root))
        try:
            module = import_file(root / target)
        except Exception as error:
            raise DataError(f"{text}: importing it raised {describe(error)}", by_itself(str(root / target))) from error
        return as_dataset(call(text, module, attribute), input_names, text, states)
    path = root / text
    if path.is_dir():
        if files := sample_files(path):
            return _from_files(files, input_names, text, states)
        if preprocess is None:
            raise DataError(undeclared(text))
        if len(input_names) > 1:
            raise DataError(
                f"{text}: a folder of images feeds one input, the model has {len(input_names)}: "
                f"{', '.join(input_names)}; save the arrays with numpy.savez, one per input"
            )
        images, labels = load_images(path, preprocess, text, timeout)
        return Dataset({input_names[0]: images}, labels, f"{text} ({preprocess})")
    if not path.exists():
        raise DataError(f"{text}: no such file", _PATHS.format(root=root))
    try:
        arrays = load_arrays(path)
    except UnreadableArrays as error:
        named = ", ".join(f"{name}=ARRAY" for name in input_names)
        raise DataError(
            f"{text}: not a .npz or .npy file of arrays: {error}",
            error.fix or f"write it again: numpy.savez({f'{path.stem}.npz'!r}, {named})",
        ) from None
    return as_dataset(arrays, input_names, text, states)


def _from_files(files: list[Path], input_names: tuple[str, ...], origin: str, states: Collection[str]) -> Dataset:
    """One sample per .npz file; with `states`, one sequence. Raises `DataError`."""
    if not states:
        return _dataset(*load_sample_files(files, origin, LABELS), input_names, origin)
    sequences = [load_file(file) for file in files]
    return _checked(from_sequences(sequences, SequenceForm(states, LABELS, origin)), input_names)


def as_dataset(value: Any, input_names: tuple[str, ...], origin: str, states: Collection[str] = ()) -> Dataset:
    """Turn arrays, dictionaries, (inputs, labels) pairs, or an iterable of such batches into a `Dataset`.

    `input_names` are the model's inputs in order. Tensors are taken by their `detach().cpu().numpy()`. With `states`,
    the inputs that are fed back, samples are sequences. Raises `DataError` naming what does not fit.
    """
    if isinstance(value, Dataset):
        return value
    try:
        with contained():
            return _as_dataset(value, input_names, origin, states)
    except (DataError, UserCodeExit):
        raise
    except Exception as error:  # Of the user's objects, which may do anything when they are looked at.
        raise DataError(f"{origin}: reading it raised {describe(error)}", _return(input_names)) from error


def _as_dataset(value: Any, input_names: tuple[str, ...], origin: str, states: Collection[str]) -> Dataset:
    batches = _batches(value, tuple(name for name in input_names if name not in states), origin)
    if states:
        return _checked(from_batches(batches, SequenceForm(states, LABELS, origin)), input_names)
    first = samples_first(batches[0], LABELS)
    forms = [first, *(samples_first(batch, LABELS, first[1]) for batch in batches[1:])]
    try:
        joined = {name: np.concatenate([batch[name] for batch, _ in forms]) for name in batches[0]}
    except KeyError as error:
        raise DataError(f"{origin}: its batches do not match: one has no array {error}", _EQUAL_SHAPES) from None
    except ValueError as error:
        raise DataError(f"{origin}: its batches do not match: {error}", _EQUAL_SHAPES) from None
    return _dataset(joined, forms[0][1], input_names, origin)


def _checked(data: Dataset, input_names: tuple[str, ...]) -> Dataset:
    """Steps of sequences, in the order of the model's inputs. States may be missing. Raises `DataError`."""
    present = tuple(name for name in input_names if name in data.inputs)
    _validate(data.inputs, data.labels, present, data.origin)
    return dataclasses.replace(data, inputs={name: data.inputs[name] for name in present})


def _batches(value: Any, input_names: tuple[str, ...], origin: str) -> list[dict[str, npt.NDArray[Any]]]:
    """The batches that a value gives, at least one. Raises `DataError`."""
    if _is_array(value) or isinstance(value, Mapping | tuple):
        batches = [_batch(value, input_names, origin)]
    elif not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
        raise DataError(
            f"{origin}: {type(value).__name__} is neither arrays nor batches of arrays", _return(input_names)
        )
    else:
        try:
            with contained():
                batches = list(_limited(value, input_names, origin))
        except DataError:
            raise
        except Exception as error:
            fix = "loop over it in a separate script for the whole traceback: the model is not involved yet"
            raise DataError(f"{origin}: iterating over its batches raised {describe(error)}", fix) from error
    if not batches:
        raise DataError(f"{origin}: no batches", _return(input_names))
    return batches


def _dataset(
    arrays: dict[str, npt.NDArray[Any]], axes: Mapping[str, Axis], input_names: tuple[str, ...], origin: str
) -> Dataset:
    """A data set of arrays that count samples on their first axis. Raises `DataError`."""
    labels = arrays.pop(LABELS, None)
    _validate(arrays, labels, input_names, origin)
    # In the order of the model's inputs, which are passed by position.
    return Dataset({name: arrays[name] for name in input_names}, labels, origin, axes=axes)


def _limited(value: Any, input_names: tuple[str, ...], origin: str) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The batches of an iterable, up to the memory limit: a generator may never end."""
    total = 0
    for number, item in enumerate(value, 1):
        # Copies: a generator may fill the same array again for its next batch.
        batch = {name: array.copy() for name, array in _batch(item, input_names, origin).items()}
        total += sum(max(_LEAST_BYTES, array.nbytes) for array in batch.values())
        if total > MEMORY_LIMIT:
            raise DataError(
                f"{origin}: more than {MEMORY_LIMIT / 1e9:.1f} GB after {number} batches, without end; yield fewer "
                "samples, for example with itertools.islice (100 to 1,000 are enough to calibrate)"
            )
        yield batch


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _array(value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return np.asarray(value)


def _batch(value: Any, input_names: tuple[str, ...], origin: str) -> dict[str, npt.NDArray[Any]]:
    if isinstance(value, Mapping):
        return {str(name): _array(array) for name, array in value.items()}
    if isinstance(value, tuple | list):
        if len(value) == 2 and isinstance(value[0], Mapping | tuple | list):
            return {**_batch(value[0], input_names, origin), LABELS: _array(value[1])}
        if len(value) not in (len(input_names), len(input_names) + 1):
            raise DataError(
                f"{origin}: a batch of {len(value)} arrays for {len(input_names)} model inputs", _return(input_names)
            )
        return {name: _array(item) for name, item in zip([*input_names, LABELS], value, strict=False)}
    return {input_names[0]: _array(value)}


def _validate(
    inputs: dict[str, npt.NDArray[Any]], labels: npt.NDArray[Any] | None, input_names: tuple[str, ...], origin: str
) -> None:
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
    for name in input_names:
        if inputs[name].ndim == 0 or inputs[name].dtype.kind not in "fiub":
            raise DataError(
                f"{origin}: array {name!r} does not hold numeric samples ({inputs[name].dtype})", _return(input_names)
            )
        if inputs[name].size == 0:
            raise DataError(f"{origin}: array {name!r} is empty: shape {inputs[name].shape}", _return(input_names))
        if inputs[name].dtype.kind == "f":
            _require_float32(inputs[name], name, origin)
    counts = {name: len(array) for name, array in inputs.items() if name in input_names}
    if labels is not None:
        counts[LABELS] = len(labels)
    if len(set(counts.values())) != 1:
        raise DataError(
            f"{origin}: the arrays hold different numbers of samples: {counts}",
            "make the first axis of all arrays equally long, labels included: it counts samples",
        )


def _require_float32(array: npt.NDArray[Any], name: str, origin: str) -> None:
    """Raise `DataError` for values that are not finite numbers of float32."""
    if not np.isfinite(array).all():
        fix = "remove these samples, or fix their preprocessing (most often a division by 0)"
        if _is_mask(array):
            fix = f"write the mask with a finite number, which has a scale: np.where(arrays[{name!r}] < 0, -1e4, 0)"
        raise DataError(f"{origin}: array {name!r} holds NaN or infinity", fix)
    if np.abs(array).max() > _LARGEST:
        raise DataError(
            f"{origin}: array {name!r} holds {np.abs(array).max():.3g}, more than float32 can hold",
            "scale the samples as the model takes them",
        )


def _is_mask(array: npt.NDArray[Any]) -> bool:
    """Whether an array is a mask that is added to the scores of an attention: 0, and -inf for what it hides."""
    return bool((np.isneginf(array) | (array == 0)).all() and (array == 0).any())


def _return(input_names: tuple[str, ...]) -> str:
    """The fix that shows the general form of data."""
    arrays = ", ".join(f"{name!r}: ARRAY" for name in input_names)
    return f"give numeric arrays whose first axis counts samples: {{{arrays}}}"
