"""What the operators of a network make of the same values, on this machine and elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.operators import Operators, Ran, Values, Which
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.inference import Arrays, Job
from pytest_mnnquant.runtime.options import RunOptions

#: Why operators can't be looked at in some models.
LOOPS: Final = "MNN's op trace does not reach into models with loops"


Outputs = Mapping[str, npt.NDArray[Any]]
_NONE: Final = Which("", "", -1)


def operators_here(
    model: Model, inputs: Arrays, order: Sequence[int], options: RunOptions, *, held: float
) -> tuple[Operators, list[int]]:
    """What the operators of a model make here, run on all inputs as one batch, and the samples that this is.

    Those are the first in `order` whose values take no more than `held` bytes. Raises `NativeFailure`.
    """
    with Job(model, inputs, options) as job:
        how = {"order": [int(sample) for sample in order], "held": held}
        result = job.run("operators", **_job(model, inputs, options), **how)
        return _ran(job, result), result["samples"]


def operators_elsewhere(model: Model, inputs: Arrays, here: Operators, options: RunOptions) -> Operators:
    """What the operators make elsewhere of what reached them here. Raises `NativeFailure`."""
    with Job(model, inputs, options) as job:
        given = _saved(job, [ran.reached for ran in here.values()])
        result = job.run("operators", **_job(model, inputs, options), given=given, operators=list(here))
        return _ran(job, result)


def carried_on(
    model: Model, inputs: Arrays, made: Mapping[Which, Values], options: RunOptions
) -> tuple[Outputs, dict[Which, Outputs]]:
    """A network's outputs here: as they are, and when one operator alone makes what it made elsewhere, for each given.

    Raises `NativeFailure`.
    """
    with Job(model, inputs, options) as job:
        given = _saved(job, [(), *made.values()])
        result = job.run("carry", **_job(model, inputs, options), given=given, operators=[_NONE, *made])
        with np.load(job.folder / "outputs.npz") as file:
            plain, *others = (
                {name: file[f"{place}.{number}"] for number, name in enumerate(result["outputs"])}
                for place in range(len(made) + 1)
            )
        return plain, dict(zip(made, others, strict=True))


def _job(model: Model, inputs: Arrays, options: RunOptions) -> dict[str, Any]:
    what, samples = f"looking at the operators of {model.path.name}", len(next(iter(inputs.values())))
    how = {"what": what, "memory": options.memory_mode}
    return {"model": str(model.path.resolve()), "batch": samples, **how}


def _saved(job: Job, values: Sequence[Values]) -> str:
    path = job.folder / "given.npz"
    arrays: dict[str, Any] = {
        f"{place}.{number}": array for place, arrays in enumerate(values) for number, array in enumerate(arrays)
    }
    np.savez(path, **arrays)
    return str(path)


def _ran(job: Job, result: Mapping[str, Any]) -> Operators:
    with np.load(job.folder / "reached.npz") as reached, np.load(job.folder / "made.npz") as made:
        return {
            Which(name, kind, number): Ran(_of(reached, place), _of(made, place), int8, unset=place in result["unset"])
            for place, (name, kind, number, int8) in enumerate(result["operators"])
        }


def _of(file: Any, place: int) -> Values:
    found, number = [], 0
    while (name := f"{place}.{number}") in file:
        found.append(file[name])
        number += 1
    return tuple(found)
