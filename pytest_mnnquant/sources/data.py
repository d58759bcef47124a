"""Calibration and evaluation data as named arrays, from all forms that users have."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.findings.defaults import TIMEOUT
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.sources.array_files import UnreadableArrays, load_arrays
from pytest_mnnquant.sources.batches import batches_of, join_batches
from pytest_mnnquant.sources.data_checks import LABELS, dataset_of, general_form, ordered
from pytest_mnnquant.sources.folders import Preparation, load_folder
from pytest_mnnquant.sources.other_files import fix_for
from pytest_mnnquant.sources.sample_forms import samples_first
from pytest_mnnquant.sources.sequence_data import SequenceForm, from_batches
from pytest_mnnquant.sources.spec import DataError, SourceError, by_itself, call, describe, seeded_generators
from pytest_mnnquant.sources.user_code import UserCodeExit, contained
from pytest_mnnquant.sources.user_modules import import_file

_PATHS: Final = "correct --mnn-calibration or --mnn-evaluation; relative paths start at {root}"


def load_data(
    text: str,
    root: Path,
    input_names: tuple[str, ...],
    preprocess: Preparation | None = None,
    timeout: float = TIMEOUT,
    states: Collection[str] = (),
) -> Dataset:
    """Read what `--mnn-calibration` or `--mnn-evaluation` names. Raises `DataError`.

    `preprocess` says how the images or sounds of a folder become input values. `states` are the inputs that are fed
    back: with them, samples are sequences.
    """
    target, colon, attribute = text.rpartition(":")
    if colon and target.endswith(".py"):
        return as_dataset(_called(text, root, target, attribute), input_names, text, states)
    path = root / text
    if path.is_dir():
        return load_folder(path, input_names, preprocess, text, timeout, states)
    if not path.exists():
        raise DataError(f"{text}: no such file", _PATHS.format(root=root))
    try:
        arrays = load_arrays(path)
    except UnreadableArrays as error:
        fix = fix_for(path, input_names)
        raise DataError(f"{text}: not a .npz or .npy file of arrays: {error}", error.fix or fix) from None
    return as_dataset(arrays, input_names, text, states)


def _called(text: str, root: Path, target: str, attribute: str) -> Any:
    """What the callable of a Python file returns. Raises `DataError`."""
    if not (root / target).is_file():
        raise DataError(f"{target}: no such file", _PATHS.format(root=root))
    try:
        module = import_file(root / target)
    except SourceError as error:
        raise DataError(str(error), error.fix) from None
    except Exception as error:
        raise DataError(f"{text}: importing it raised {describe(error)}", by_itself(str(root / target))) from error
    with seeded_generators(text):
        return call(text, module, attribute)


def as_dataset(value: Any, input_names: tuple[str, ...], origin: str, states: Collection[str] = ()) -> Dataset:
    """Turn arrays, dictionaries, (inputs, labels) pairs, or an iterable of such batches into a `Dataset`.

    `input_names` are the model's inputs in order. Tensors are taken by their `detach().cpu().numpy()`. The items of a
    data set of torch or Hugging Face are samples. With `states`, the inputs that are fed back, samples are sequences.
    Raises `DataError` naming what does not fit.
    """
    if isinstance(value, Dataset):
        return value
    try:
        with contained():
            return _as_dataset(value, input_names, origin, states)
    except (DataError, UserCodeExit):
        raise
    except Exception as error:  # Of the user's objects, which may do anything when they are looked at.
        raise DataError(f"{origin}: reading it raised {describe(error)}", general_form(input_names)) from error


def _as_dataset(value: Any, input_names: tuple[str, ...], origin: str, states: Collection[str]) -> Dataset:
    batches = batches_of(value, tuple(name for name in input_names if name not in states), origin)
    if states:
        return ordered(from_batches(batches, SequenceForm(states, LABELS, origin)), input_names)
    forms, axes = samples_first(batches, LABELS)
    data = dataset_of(join_batches(forms, origin), axes, input_names, origin)
    is_even = len({len(array) for form in forms for array in form.values()}) == 1
    return dataclasses.replace(data, items=len(forms)) if is_even and len(forms) > 1 else data
