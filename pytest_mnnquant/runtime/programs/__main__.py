"""Starts the runner of this folder: `python FOLDER JOB.json`, or `python FOLDER --serve` for the jobs that stdin names.

The folder is loaded as a package, so that its modules shadow no others.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

PACKAGE = "mnnquant_programs"

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path.pop(0)  # Python puts the executed folder first.
    package = sys.modules[PACKAGE] = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    importlib.import_module(PACKAGE + ".paths").add_inherited_paths()
    importlib.import_module(PACKAGE + ".runner").main()
