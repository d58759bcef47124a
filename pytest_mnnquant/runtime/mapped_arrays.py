"""Arrays that travel to and from child processes in files: large ones are not held in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import sample_blocks

#: Files from this size on are mapped, in bytes.
SMALLEST: Final = 1 << 24


def load_array(path: Path) -> npt.NDArray[Any]:
    """The array of a `.npy` file, read-only if it is large. It stays readable when the file is deleted."""
    if path.stat().st_size < SMALLEST:
        return np.load(path)  # type: ignore[no-any-return]
    return np.asarray(np.load(path, mmap_mode="r"))


def write_array(path: Path, array: npt.NDArray[Any], kind: type[np.generic]) -> None:
    """Write samples as a `.npy` file of another type, block by block."""
    form = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": array.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, form)
        for _, (block,) in sample_blocks(array) if array.size else ():
            file.write(np.ascontiguousarray(block, kind).data)
