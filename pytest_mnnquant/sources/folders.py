"""Folders as data: one file per sample, arrays (.npz, .npy), images or sounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.sources.class_folders import files_below, named_classes
from pytest_mnnquant.sources.data_checks import LABELS, dataset_of, ordered
from pytest_mnnquant.sources.images import Preprocess, load_images, parse_preprocess, undeclared
from pytest_mnnquant.sources.sample_files import load_file, load_sample_files, sample_files
from pytest_mnnquant.sources.sequence_data import SequenceForm, from_sequences
from pytest_mnnquant.sources.sounds import SOUND_EXAMPLE, SOUND_SUFFIXES, SoundPreprocess, load_sounds, parse_sound
from pytest_mnnquant.sources.spec import DataError

#: How the files of a folder become input values.
Preparation: TypeAlias = Preprocess | SoundPreprocess
_ARRAYS: Final = (".npz", ".npy")


def parse_preparation(table: Any, where: str) -> Preparation:
    """The `preprocess` key of a configuration: of sounds if it declares a rate. Raises `ValueError`."""
    return (
        parse_sound(table, where) if isinstance(table, Mapping) and "rate" in table else parse_preprocess(table, where)
    )


def undeclared_form(folder: Path, preparation: Preparation | None, text: str) -> str:
    """Why a folder needs another declaration than it has; empty if it needs none, or can't be read."""
    if sample_files(folder):
        return ""
    try:
        suffixes = {path.suffix.lower() for path in files_below(folder, text).values()}
    except DataError:
        suffixes = set()
    if suffixes & {*SOUND_SUFFIXES} and not isinstance(preparation, SoundPreprocess):
        return f"{text}: the sampling rate of a folder of sounds must be declared: {SOUND_EXAMPLE}"
    if preparation is None:
        return undeclared(text)
    if isinstance(preparation, SoundPreprocess) and not suffixes & {*SOUND_SUFFIXES}:
        return f"{text}: preprocess declares sounds, the folder holds {', '.join(sorted(suffixes)) or 'nothing'}"
    return ""


def load_folder(
    folder: Path,
    input_names: tuple[str, ...],
    preparation: Preparation | None,
    text: str,
    timeout: float,
    states: Collection[str],
) -> Dataset:
    """The samples of a folder, one per file; with `states`, one sequence per .npz file. Raises `DataError`."""
    if files := sample_files(folder):
        return _from_arrays(files, input_names, text, states)
    _refuse_mixed(folder, text)
    if problem := undeclared_form(folder, preparation, text):
        raise DataError(problem)
    if len(input_names) > 1:
        raise DataError(
            f"{text}: a folder of images or sounds feeds one input, the model has {len(input_names)}: "
            f"{', '.join(input_names)}; save the arrays with numpy.savez, one per input"
        )
    if isinstance(preparation, SoundPreprocess):
        values, labels = load_sounds(folder, preparation, text)
    else:
        assert preparation is not None
        values, labels = load_images(folder, preparation, text, timeout)
    count = 0 if labels is None else named_classes(folder, preparation.classes)
    return Dataset({input_names[0]: values}, labels, f"{text} ({preparation})", classes=count)


def _refuse_mixed(folder: Path, text: str) -> None:
    """Raise `DataError` for a folder with arrays and other files, and for arrays in sub-folders."""
    paths = files_below(folder, text)
    arrays = [name for name in paths if name.lower().endswith(_ARRAYS)]
    if not arrays:
        return
    other = next((name for name in paths if name not in arrays), None)
    if other is not None:
        raise DataError(f"{text}: {other}: not a .npz file, as {arrays[0]} is", f"remove {other} from the folder")
    raise DataError(
        f"{text}: {arrays[0]}: .npz and .npy files must lie in the folder itself, all of one kind",
        f"write one .npz file per sample to {text}, with the array {LABELS!r} for its class",
    )


def _from_arrays(files: list[Path], input_names: tuple[str, ...], origin: str, states: Collection[str]) -> Dataset:
    if not states:
        arrays, axes = load_sample_files(files, origin, LABELS, input_names)
        return dataset_of(arrays, axes, input_names, origin)
    sequences = [load_file(file, input_names) for file in files]
    return ordered(from_sequences(sequences, SequenceForm(states, LABELS, origin)), input_names)
