"""Arrays that a child process wrote: large ones are read from their files where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: Files from this size on are mapped, in bytes.
SMALLEST: Final = 1 << 24


def load_array(path: Path) -> npt.NDArray[Any]:
    """The array of a `.npy` file, read-only if it is large. It stays readable when the file is deleted."""
    if path.stat().st_size < SMALLEST:
        return np.load(path)  # type: ignore[no-any-return]
    return np.asarray(np.load(path, mmap_mode="r"))
