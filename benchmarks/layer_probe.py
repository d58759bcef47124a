"""Child process: runs a model and writes what went into and came out of named operators.

python layer_probe.py JOB.json RUNNER.py

Runs under any MNN wheel: needs nothing but MNN, numpy and the package's runner, which is given by its path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Write `values.npz`: arrays named by the operator's number and `i` (first input) or `o` (first output)."""
    import numpy as np

    spec = importlib.util.spec_from_file_location("runner", sys.argv[2])
    assert spec is not None
    assert spec.loader is not None
    runner: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    session = runner.Session(job, job["model"])
    session.feed({name: np.load(file) for name, file in job["inputs"].items()})
    wanted = {name: number for number, name in enumerate(job["ops"])}
    found: dict[str, Any] = {}

    def see(tensors: Any, info: Any, side: str) -> bool:
        number = wanted.get(info.getName())
        if number is not None and tensors:
            found[f"{number}{side}"] = session.host(tensors[0])
        return True

    session.net.runSessionWithCallBackInfo(
        session.session, lambda tensors, info: see(tensors, info, "i"), lambda tensors, info: see(tensors, info, "o")
    )
    np.savez(job["values"], **found)
    sys.stdout.flush()
    os._exit(0)  # MNN's destructors may crash after the work is done.


if __name__ == "__main__":
    main()
