"""The files of this package for other processes and other machines, also if the package is imported from an archive."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix

_PACKAGE: Final = Path(__file__).parents[1]


@cache
def package_folder() -> Path:
    """The folder of this package; of one in a zip file (or a wheel) a copy, which is removed with this process.

    Raises `OSError` if the package is neither in a folder nor in a zip file, or can't be copied.
    """
    if _PACKAGE.is_dir():
        return _PACKAGE
    archive = next((path for path in _PACKAGE.parents if path.is_file()), _PACKAGE)
    inside = _PACKAGE.relative_to(archive).as_posix()
    copy = Path(tempfile.mkdtemp(prefix=temporary_prefix()))
    atexit.register(_remove, copy, os.getpid())
    with zipfile.ZipFile(archive) as file:
        file.extractall(copy, [name for name in file.namelist() if name.startswith(f"{inside}/")])
    return copy / inside


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # Not at the end of a process that was forked from it.
        shutil.rmtree(folder, ignore_errors=True)
