"""Child process: runs a model and writes what went into and came out of named operators.

python layer_probe.py JOB.json PROGRAMS

Runs under any MNN wheel: needs nothing but MNN, numpy and the package's programs, a folder that is given by its path.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Write `values.npz`: arrays named by the operator's number and `i` (first input) or `o` (first output)."""
    import numpy as np

    programs = sys.modules["programs"] = types.ModuleType("programs")
    programs.__path__ = [sys.argv[2]]
    session_module = importlib.import_module("programs.session")
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    session = session_module.Session(job, job["model"])
    session.feed({name: np.load(file) for name, file in job["inputs"].items()})
    wanted = {name: number for number, name in enumerate(job["ops"])}
    found: dict[str, Any] = {}

    def see(tensors: Any, info: Any, side: str) -> bool:
        number = wanted.get(info.getName())
        if number is not None and tensors:
            found[f"{number}{side}"] = session.read(tensors[0])
        return True

    session.run_with_callbacks(
        lambda tensors, info: see(tensors, info, "i"), lambda tensors, info: see(tensors, info, "o")
    )
    np.savez(job["values"], **found)
    sys.stdout.flush()
    os._exit(0)  # MNN's destructors may crash after the work is done.


if __name__ == "__main__":
    main()
