"""The SQNR of the failing cells of the matrix of architectures, measured without the package.

    python benchmarks/architecture_matrix.py --keep FOLDER
    python benchmarks/independent_sqnr.py FOLDER [NET ...]

The network runs in PyTorch, and the quantized file that the matrix kept runs in MNN: through the Session API and the
Module API on this host, and through the Session API on the emulator (models with loops: the Module API). This script
imports nothing of the package but the command line of the emulator. It writes `independent.json` to FOLDER, which
`architecture_matrix.py` adds to the page.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict  # noqa: UP035  Python 3.8.

import numpy as np

Arrays = Dict[str, Any]  # noqa: UP006

CPU = "cortex-a76"
SAMPLES = 8
WAYS = ("session", "module", "arm")


def run_model(model: str, data: str, way: str, has_loops: bool) -> Arrays:
    """The outputs by name, sample by sample. Runs in a process of its own, on Python 3.8 too."""
    import MNN

    inputs = dict(np.load(data))
    parts: dict[str, list[Any]] = {}
    for number in range(len(next(iter(inputs.values())))):
        sample = {name: np.ascontiguousarray(array[number : number + 1]) for name, array in inputs.items()}
        run = _run_module if way == "module" or has_loops else _run_session
        for name, array in run(MNN, model, sample).items():
            parts.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _run_session(MNN: Any, model: str, sample: Arrays) -> Arrays:
    net = MNN.Interpreter(model)
    session = net.createSession({"numThread": 1})
    caffe = MNN.Tensor_DimensionType_Caffe
    for name, tensor in net.getSessionInputAll(session).items():
        net.resizeTensor(tensor, sample[name].shape)
    net.resizeSession(session)
    for name, tensor in net.getSessionInputAll(session).items():
        tensor.copyFrom(MNN.Tensor(sample[name].shape, MNN.Halide_Type_Float, sample[name], caffe))
    net.runSession(session)
    outputs = {}
    for name, tensor in net.getSessionOutputAll(session).items():
        shape = tensor.getShape()
        copy = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), caffe)
        tensor.copyToHostTensor(copy)
        outputs[name] = np.array(copy.getNumpyData()).reshape(shape).copy()
    return outputs


def _run_module(MNN: Any, model: str, sample: Arrays) -> Arrays:
    net = MNN.Interpreter(model)
    session = net.createSession({"numThread": 1})
    inputs, outputs = list(net.getSessionInputAll(session)), list(net.getSessionOutputAll(session))
    module = MNN.nn.load_module_from_file(model, inputs, outputs)
    given = [MNN.expr.const(sample[name], list(sample[name].shape), MNN.expr.NCHW) for name in inputs]
    made = {}
    for name, variable in zip(outputs, module.forward(given)):  # noqa: B905  Python 3.8.
        packed = variable.data_format == MNN.expr.NC4HW4
        made[name] = np.array((MNN.expr.convert(variable, MNN.expr.NCHW) if packed else variable).read()).copy()
    return made


def decibels(exact: list[Any], made: Arrays) -> float | None:
    """The SQNR of the worst output; None if MNN's outputs have other shapes or are not finite."""
    worst = 200.0
    if len(exact) != len(made):
        return None
    for first, name in zip(exact, sorted(made)):  # noqa: B905
        second = made[name].astype(np.float64)
        if first.shape != second.shape or not np.isfinite(second).all():
            return None
        noise = ((first - second) ** 2).sum()
        worst = min(worst, 10 * np.log10((first.astype(np.float64) ** 2).sum() / noise))
    return round(float(worst), 2)


def measured(folder: Path, net: str, recipe: str, has_loops: bool) -> dict[str, float | None]:
    """The SQNR of a cell, by way."""
    import torch
    from matrix_nets import NETS

    from pytest_mnnquant.targets.emulator import NAME, Emulator, cache_folder

    data = {name: array[:SAMPLES] for name, array in NETS[net].data(32, 77).items()}
    with torch.no_grad():
        results = NETS[net].network()(*(torch.from_numpy(array) for array in data.values()))
    exact = [result.numpy() for result in (results if isinstance(results, (tuple, list)) else (results,))]
    emulated = Emulator(folder=cache_folder() / NAME).python_command(CPU)
    numbers = {}
    with tempfile.TemporaryDirectory(prefix="independent-") as name:
        scratch = Path(name)
        arrays: Arrays = dict(data)
        np.savez(scratch / "data.npz", **arrays)
        for way in WAYS:
            words = [*(emulated if way == "arm" else [sys.executable]), __file__, "--run"]
            words += [str(folder / "models" / f"{net}, {recipe}.mnn"), str(scratch), way, str(int(has_loops))]
            done = subprocess.run(words, capture_output=True, check=False)
            made = scratch / "outputs.npz"
            numbers[way] = decibels(exact, dict(np.load(made))) if done.returncode == 0 else None
            made.unlink(missing_ok=True)
    return numbers


def main() -> None:
    """Measure the failing cells that have a file."""
    if sys.argv[1] == "--run":
        model, scratch, way, has_loops = sys.argv[2:]
        outputs = run_model(model, str(Path(scratch) / "data.npz"), way, has_loops == "1")
        np.savez(str(Path(scratch) / "outputs.npz"), **outputs)
        return
    folder, chosen = Path(sys.argv[1]), sys.argv[2:]
    kept = folder / "independent.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if chosen and kept.exists() else {}
    for path in sorted(folder.glob("*.json")):
        if path == kept or (chosen and path.stem not in chosen):
            continue
        for recipe, cell in json.loads(path.read_text(encoding="utf-8")).items():
            if cell["errors"] and cell["session"] is not None:
                results[f"{path.stem}, {recipe}"] = measured(folder, path.stem, recipe, cell["loops"])
                print(path.stem, recipe, results[f"{path.stem}, {recipe}"], flush=True)
    kept.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
