"""Runs a `.mnn` sample by sample through MNN's Module API in a child process, without the gate; feeds states back."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_TIMEOUT: Final = 300.0


def outputs_of(
    model: Path,
    outputs: Sequence[str],
    inputs: Mapping[str, Array],
    states: Mapping[str, int],
    sizes: Mapping[str, int | tuple[int, ...]],
) -> list[Array]:
    """The named outputs [samples, ...], each sample as the model returns it for a batch of one.

    With `states`, inputs are [samples, steps, ...] and outputs too; states start at zero, with the `sizes` of `Task`.
    Raises `RuntimeError` if MNN ends abnormally.
    """
    with tempfile.TemporaryDirectory(prefix="task-") as folder:
        np.savez(Path(folder) / "inputs.npz", allow_pickle=False, **inputs)
        job = {"model": str(model), "outputs": list(outputs), "states": dict(states), "sizes": dict(sizes)}
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([sys.executable, __file__, folder], capture_output=True, timeout=_TIMEOUT, check=False)
        path = Path(folder) / "outputs.npz"
        if done.returncode or not path.is_file():
            raise RuntimeError(f"{model}: {done.stderr.decode(errors='replace')[-400:]}")
        with np.load(path) as arrays:
            return [arrays[str(number)] for number in range(len(outputs))]


def main(folder: Path) -> None:
    """Run the job of a folder."""
    import MNN

    from pytest_mnnquant.runtime.programs.module_api import as_input, values_of

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "inputs.npz") as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    names, states = [*inputs, *job["states"]], job["states"]
    net = MNN.nn.load_module_from_file(job["model"], names, job["outputs"])

    def forward(fed: Mapping[str, Array]) -> list[Array]:
        variables = [as_input(np.ascontiguousarray(_as_mnn(fed[name]))) for name in names]
        return [values_of(variable) for variable in net.forward(variables)]

    made: list[list[Array]] = []
    for sample in range(len(next(iter(inputs.values())))):
        if not states:
            made.append(forward({name: array[sample : sample + 1] for name, array in inputs.items()}))
            continue
        current = {name: _first_state(size) for name, size in job["sizes"].items()}
        steps = []
        for step in range(next(iter(inputs.values())).shape[1]):
            outputs = forward({**{name: array[sample : sample + 1, step] for name, array in inputs.items()}, **current})
            current = {name: outputs[number] for name, number in states.items()}
            steps.append(outputs)
        made.append([np.stack(arrays) for arrays in zip(*steps, strict=True)])
    stacked = [np.stack(arrays) for arrays in zip(*made, strict=True)]
    np.savez(folder / "outputs.npz", allow_pickle=False, **{str(number): array for number, array in enumerate(stacked)})


def _first_state(size: int | list[int]) -> Array:
    """Zeros for one sample; a size of 0 stands where the model counts samples."""
    return np.zeros((1, size) if isinstance(size, int) else [length or 1 for length in size], np.float32)


def _as_mnn(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
