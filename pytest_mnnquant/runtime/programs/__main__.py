"""Starts the runner of this folder: `python FOLDER JOB.json`, or `python FOLDER --serve` for the jobs that stdin names.

The folder becomes a package of its own name, so that none of its modules shadows another one.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

PACKAGE = "mnnquant_programs"

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path.pop(0)  # Python puts the folder first, since it runs it.
    package = sys.modules[PACKAGE] = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    importlib.import_module(PACKAGE + ".runner").main()
