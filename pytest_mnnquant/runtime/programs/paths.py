"""The folders that a process imports from, for its child processes."""

from __future__ import annotations

import os
import sys

#: The environment variable with the folders.
PATHS = "MNNQUANT_PATHS"


def add_inherited_paths() -> None:
    """Append the folders that the parent process imports from, so that its packages are found wherever they are.

    They come last: a project may have a module with the name of one of Python's.
    """
    inherited = os.environ.get(PATHS, "").split(os.pathsep)
    sys.path += [path for path in dict.fromkeys(inherited) if path and path not in sys.path]
