"""A folder of .npz or .npy files as samples: one file per sample, each array exactly as the model takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.sample_axes import Axis
from pytest_mnnquant.sources.array_files import UnreadableArrays, load_arrays
from pytest_mnnquant.sources.batches import with_labels
from pytest_mnnquant.sources.spec import DataError

Array = npt.NDArray[Any]


def sample_files(folder: Path) -> list[Path]:
    """The .npz or .npy files of a folder, in the order of their names; empty if it holds none, or other files too."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    is_one_kind = len({path.suffix for path in files}) == 1 and files[0].suffix in (".npz", ".npy")
    return files if is_one_kind and all(path.is_file() for path in files) else []


def load_sample_files(
    files: list[Path], origin: str, labels: str, input_names: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Axis]]:
    """The samples of these files, stacked, and the inputs whose samples are whole inputs (None).

    An input that begins with an axis of 1 in each file counts samples there. Raises `DataError`.
    """
    samples = [load_file(path, input_names) for path in files]
    first = samples[0]
    for path, sample in zip(files, samples, strict=True):
        if sample.keys() != first.keys():
            held, expected = (", ".join(sorted(names)) for names in (sample, first))
            fix = f"give each file the same arrays as {files[0].name}"
            raise DataError(
                f"{origin}: {path.name} holds other arrays than {files[0].name}: {held}, not {expected}", fix
            )
    arrays: dict[str, Array] = {}
    axes: dict[str, Axis] = {}
    for name in first:
        parts = [sample[name] for sample in samples]
        if len({part.shape for part in parts}) > 1:
            shapes = sorted({str(list(part.shape)) for part in parts})
            raise DataError(
                f"{origin}: array {name!r} has different shapes: {shapes[0]} and {shapes[-1]}",
                "give samples of equal shapes; for sequences of different lengths, name the states (--mnn-state)",
            )
        if parts[0].shape[:1] == (1,):
            arrays[name] = np.concatenate(parts)
            continue
        arrays[name] = np.stack(parts)
        if name != labels:
            axes[name] = None
    return arrays, axes


def load_file(path: Path, input_names: tuple[str, ...]) -> dict[str, Array]:
    """The arrays of a .npz file, or that of a .npy file for the only input. Raises `DataError`."""
    try:
        arrays = load_arrays(path)
    except UnreadableArrays as error:
        fix = error.fix or "write it again with numpy.savez"
        raise DataError(f"{path}: not a {path.suffix} file of arrays: {error}", fix) from None
    if isinstance(arrays, dict):
        return with_labels(arrays, input_names)
    if path.suffix == ".npz" or len(input_names) > 1:
        reason = f"it holds a single array, the model has {len(input_names)} inputs"
        raise DataError(
            f"{path}: not a .npz file of arrays: {reason}", "write it with numpy.savez, one array per input"
        )
    return {input_names[0]: arrays}
