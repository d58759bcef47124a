"""The outputs of a network's operators for the same inputs, on this host and on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.operators import OperatorKey, OperatorRun, Operators, Values
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.inference import Arrays, InputFolder
from pytest_mnnquant.runtime.options import RunOptions

#: Why the operators of some models can't be compared.
LOOPS: Final = "MNN gives no op trace for models with loops"
Outputs = Mapping[str, npt.NDArray[Any]]
_NONE: Final = OperatorKey("", "", -1)


def operators_on_host(
    model: Model, inputs: Arrays, order: Sequence[int], options: RunOptions, *, held: float
) -> tuple[Operators, list[int]]:
    """The operators' outputs on this host for all inputs as one batch, and the samples in that batch.

    The samples are the first in `order` whose values take at most `held` bytes. Raises `NativeFailure`.
    """
    chosen = {"order": [int(sample) for sample in order], "held": held}
    with InputFolder(model, inputs, options) as folder:
        values = _run(folder, "operators", model, inputs, options, chosen)
        return _ran(folder, values), values["samples"]


def operators_on_target(model: Model, inputs: Arrays, on_host: Operators, options: RunOptions) -> Operators:
    """The operators' outputs on a target for the inputs that they got on this host. Raises `NativeFailure`."""
    with InputFolder(model, inputs, options) as folder:
        given = {"given": _saved(folder, [ran.inputs for ran in on_host.values()]), "operators": list(on_host)}
        return _ran(folder, _run(folder, "operators", model, inputs, options, given))


def spliced_outputs(
    model: Model, inputs: Arrays, made: Mapping[OperatorKey, Values], options: RunOptions
) -> tuple[Outputs, dict[OperatorKey, Outputs]]:
    """A network's outputs on this host: unmodified, and with the output of one operator at a time replaced from `made`.

    Raises `NativeFailure`.
    """
    with InputFolder(model, inputs, options) as folder:
        given = {"given": _saved(folder, [(), *made.values()]), "operators": [_NONE, *made]}
        names = _run(folder, "splice_outputs", model, inputs, options, given)["outputs"]
        with np.load(folder.path / "outputs.npz") as file:
            plain, *spliced = (
                {name: file[f"{place}.{number}"] for number, name in enumerate(names)} for place in range(len(made) + 1)
            )
        return plain, dict(zip(made, spliced, strict=True))


def _run(
    folder: InputFolder, task: str, model: Model, inputs: Arrays, options: RunOptions, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a task for all inputs as one batch."""
    samples = len(next(iter(inputs.values())))
    shared = {"model": str(model.path.resolve()), "batch": samples, "memory": options.memory_mode}
    return folder.run(task, f"reading the operators of {model.path.name}", {**shared, **arguments}).values


def _saved(folder: InputFolder, values: Sequence[Values]) -> str:
    path = folder.path / "given.npz"
    arrays: dict[str, Any] = {
        f"{place}.{number}": array for place, arrays in enumerate(values) for number, array in enumerate(arrays)
    }
    np.savez(path, **arrays)
    return str(path)


def _ran(folder: InputFolder, values: Mapping[str, Any]) -> Operators:
    with np.load(folder.path / "reached.npz") as reached, np.load(folder.path / "made.npz") as made:
        return {
            OperatorKey(name, kind, number): OperatorRun(
                _of(reached, place), _of(made, place), int8, ignored_inputs=place in values["unset"]
            )
            for place, (name, kind, number, int8) in enumerate(values["operators"])
        }


def _of(file: Any, place: int) -> Values:
    arrays, number = [], 0
    while (name := f"{place}.{number}") in file:
        arrays.append(file[name])
        number += 1
    return tuple(arrays)
