"""What went into and came out of each operator that MNN ran, on this machine or on an emulated one.

As a program it is the child process, which needs nothing but MNN, numpy and the folder of the package's programs:

    PYTHON trace_int8.py JOB.json PROGRAMS
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT = 900


def seen_of(
    path: Path, names: Sequence[str], inputs: Mapping[str, Any], python: str = sys.executable
) -> dict[str, tuple[list[Any], Any]]:
    """{operator: (its inputs, its first output)} as floats in NCHW order, all samples in one batch.

    `names` are those of an op trace. Raises `RuntimeError` where the model does not run.
    """
    import subprocess
    import tempfile

    import numpy as np

    from pytest_mnnquant.runtime.command import PROGRAMS

    with tempfile.TemporaryDirectory(prefix="mnnquant-") as name:
        folder = Path(name)
        files = {}
        for number, (key, array) in enumerate(inputs.items()):
            files[key] = str(folder / f"input{number}.npy")
            np.save(files[key], array)
        job = {"model": str(path.resolve()), "ops": list(names), "values": str(folder / "values.npz"), "inputs": files}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        program = [python, __file__, str(folder / "job.json"), str(PROGRAMS)]
        done = subprocess.run(program, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
        if not (folder / "values.npz").exists():
            raise RuntimeError(f"{path.name} does not run: {done.stderr[-300:].decode('utf-8', 'replace')}")
        with np.load(folder / "values.npz") as values:
            arrays = dict(values)
    found = {}
    for number, op in enumerate(names):
        if f"{number}o" in arrays:
            given = [arrays[f"{number}i{side}"] for side in range(len(names)) if f"{number}i{side}" in arrays]
            found[op] = (given, arrays[f"{number}o"])
    return found


def main() -> None:
    """Write `values.npz`: arrays named by the operator's number and `i0`, `i1`, ... (inputs) or `o` (first output)."""
    import numpy as np

    programs = sys.modules["programs"] = types.ModuleType("programs")
    programs.__path__ = [sys.argv[2]]
    session_module = importlib.import_module("programs.session")
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    session = session_module.Session(job, job["model"])
    session.feed({name: np.load(file) for name, file in job["inputs"].items()})
    wanted = {name: number for number, name in enumerate(job["ops"])}
    found: dict[str, Any] = {}

    def before(tensors: Any, info: Any) -> bool:
        number = wanted.get(info.getName())
        if number is not None:
            found.update({f"{number}i{side}": session.read(tensor) for side, tensor in enumerate(tensors)})
        return True

    def after(tensors: Any, info: Any) -> bool:
        number = wanted.get(info.getName())
        if number is not None and tensors:
            found[f"{number}o"] = session.read(tensors[0])
        return True

    session.run_with_callbacks(before, after)
    np.savez(job["values"], **found)
    sys.stdout.flush()
    os._exit(0)  # MNN's destructors may crash after the work is done.


if __name__ == "__main__":
    main()
