"""What the operators of a model make of the same values, on this machine and elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.runtime.child import run_job
from pytest_mnnquant.runtime.execute import Arrays, Job, Send

Values = Mapping[int, npt.NDArray[np.float32]]
_HOLD_NOTHING: Final = frozenset({"Input", "Const"})


@dataclass(frozen=True)
class Operators:
    """`made` is what operators make by themselves of the values that were given, `own` what flows through the network.

    Those `faithful` make by themselves what they make in the network: MNN may run one otherwise where it stands alone.
    """

    made: Mapping[str, npt.NDArray[np.float32]]
    faithful: frozenset[str]
    own: Values


def tensor_samples(model: Model, inputs: Arrays, *, timeout: float, held: float, batched: bool) -> Values:
    """The values of a model's float tensors on a few samples, by the tensor's number; `held` limits their bytes.

    The first samples are one batch; without `batched` there is one. Raises `NativeFailure`.
    """
    size = len(next(iter(inputs.values()))) if batched else 1
    with Job(model, {name: array[:size] for name, array in inputs.items()}) as job:
        what = f"tracing {model.path.name}"
        job.run("tensors", what=what, timeout=timeout, held=held, **_network(model, size))
        return _own(model, job.folder / "own.npz")


def lone_operators(model: Model, values: Values) -> list[Op]:
    """The operators that can run by themselves on these values: all that they take is constant or among them."""
    constants = {tensor for op in model.ops if op.kind == "Const" for tensor in op.outputs}
    return [
        op
        for op in model.ops
        if not op.subgraph
        and op.kind not in _HOLD_NOTHING
        and len(op.outputs) == 1
        and (taken := set(op.inputs) - constants)
        and taken <= values.keys()
        and op.outputs[0] in values
    ]


def run_operators(
    model: Model, ops: Sequence[Op], given: Values, inputs: Arrays, *, timeout: float, send: Send = run_job
) -> Operators:
    """Run each of these operators by itself on the given values, and the network on its inputs, all in one batch.

    Raises `NativeFailure`.
    """
    tensors = _tensors(model)
    places = {tensor: place for place, tensor in enumerate(tensors)}
    fed = [[places[tensor] for tensor in dict.fromkeys(op.inputs) if tensor in given] for op in ops]
    with Job(model, inputs, send) as job:
        path = job.folder / "given.npz"
        arrays: dict[str, Any] = {str(places[tensor]): array for tensor, array in given.items()}
        np.savez(path, **arrays)
        result = job.run(
            "operators",
            what=f"running operators of {model.path.name} one by one",
            timeout=timeout,
            given=str(path),
            ops=[[taken, places[op.outputs[0]]] for taken, op in zip(fed, ops, strict=True)],
            **_network(model, len(next(iter(inputs.values())))),
        )
        with np.load(job.folder / "made.npz") as file:
            made = {ops[int(place)].name: array for place, array in file.items()}
        faithful = frozenset(ops[place].name for place in result["faithful"])
        return Operators(made, faithful, _own(model, job.folder / "own.npz"))


def _network(model: Model, samples: int) -> dict[str, Any]:
    names = [model.tensor_names[tensor] for tensor in _tensors(model)]
    return {"model": str(model.path.resolve()), "names": names, "batch": samples}


def _tensors(model: Model) -> list[int]:
    """What the operators of the main graph give; constants are known."""
    return sorted({tensor for op in model.ops if not op.subgraph and op.kind != "Const" for tensor in op.outputs})


def _own(model: Model, path: Path) -> Values:
    tensors = _tensors(model)
    with np.load(path) as values:
        return {tensors[int(place)]: array for place, array in values.items()}
