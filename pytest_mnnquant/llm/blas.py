"""The threads of numpy's matrix products.

OpenBLAS lets its threads wait for each other in loops: on processors that others use too, small products of two threads
take ten times as long as those of a single one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

_PREFIXES: Final = ("scipy_openblas", "openblas")
_SUFFIXES: Final = ("64_", "")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute products inside with one thread, if numpy has its own OpenBLAS, as numpy's wheels do."""
    functions = _functions()
    if functions is None:
        yield
        return
    get, put = functions
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


@functools.cache
def _functions() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """The functions that get and set the number of threads; None if there are none."""
    folder = Path(np.__file__).parent
    for file in (*folder.with_name("numpy.libs").glob("*openblas*"), *folder.glob(".dylibs/*openblas*")):
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        for prefix in _PREFIXES:
            for suffix in _SUFFIXES:
                names = [f"{prefix}_{verb}_num_threads{suffix}" for verb in ("get", "set")]
                if all(hasattr(library, name) for name in names):
                    return getattr(library, names[0]), getattr(library, names[1])
    return None
