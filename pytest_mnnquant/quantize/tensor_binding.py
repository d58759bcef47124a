"""Binds tensors of a float `.mnn` to the values of the PyTorch model that they come from.

Names depend on exporter and converter; values do not. A small batch runs through both, and a tensor is bound to the
first PyTorch value that holds the same numbers in any order (layouts differ, and a range does not depend on order).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.torch_ranges import Exits, module_exits
from pytest_mnnquant.quantize.torch_watch import Value
from pytest_mnnquant.runtime.inference import tensor_values
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output

_PROBE_SAMPLES: Final = 4
# ATen operators of layers with weights.
_WEIGHTED: Final = ("convolution", "addmm", "mm", "bmm", "baddbmm")
_TOLERANCE: Final = 2e-3


@dataclass(frozen=True, slots=True)
class Moments:
    """The identity of a set of numbers in any order: count, extremes and moments."""

    count: int
    low: float
    high: float
    mean: float
    rms: float
    cubic: float

    def matches(self, other: Moments) -> bool:
        """Whether both are the same numbers up to float rounding, relative to their size."""
        if self.count != other.count:
            return False
        unit = _TOLERANCE * max(self.rms, other.rms, 1e-12)
        pairs = ((self.low, other.low), (self.high, other.high), (self.mean, other.mean), (self.rms, other.rms))
        return all(abs(a - b) <= unit for a, b in pairs) and abs(self.cubic - other.cubic) <= 10 * unit


def moments_of(values: npt.NDArray[np.float32] | torch.Tensor) -> Moments | None:
    """The moments of a tensor; None for an empty one or one with NaN or infinity."""
    flat = (
        values.detach().to(torch.float64).reshape(-1)
        if isinstance(values, torch.Tensor)
        else torch.from_numpy(values.reshape(-1).astype(np.float64))
    )
    if flat.numel() == 0:
        return None
    cube = float((flat**3).mean())
    identity = Moments(
        count=flat.numel(),
        low=float(flat.min()),
        high=float(flat.max()),
        mean=float(flat.mean()),
        rms=float((flat * flat).mean()) ** 0.5,
        cubic=math.copysign(abs(cube) ** (1 / 3), cube),
    )
    return identity if math.isfinite(identity.rms) and math.isfinite(identity.cubic) else None


@dataclass(frozen=True)
class Binding:
    """The PyTorch values that the tensors of a float `.mnn` hold.

    `values` gives the value of each tensor index of the operators `ops`, or None if none matches. `modules` gives the
    PyTorch module of each operator, `exits` the places where values leave modules in eval mode.
    """

    network: torch.nn.Module
    model: Model
    ops: tuple[Op, ...]
    values: dict[int, Value | None]
    modules: dict[str, str]
    exits: Exits | None = None


def bind_tensors(
    network: torch.nn.Module, model: Model, ops: tuple[Op, ...], data: Dataset, options: RunOptions
) -> Binding:
    """Find the PyTorch value of each operator's first input and output. `network` must be in eval mode."""
    count = _PROBE_SAMPLES if options.batched else 1
    computed: list[tuple[Value, Moments]] = []
    copies = 1 if options.batched or data.is_single else 2

    def remember(value: Value, tensor: torch.Tensor) -> None:
        if (identity := moments_of(tensor)) is not None:
            computed.append((value, dataclasses.replace(identity, count=identity.count // copies)))

    with suppress_output():
        exits = module_exits(network, as_tensors(_repeated(data, count, copies), network), remember)
    traced = tensor_values(model, ops, data.head(count), options)
    values: dict[int, Value | None] = {}
    modules: dict[str, str] = {}
    for op in ops:
        for tensor, array in zip((op.inputs[0], op.outputs[0]), traced[op.name], strict=True):
            position = _first_match(computed, array)
            if values.get(tensor) is None:
                values[tensor] = None if position is None else computed[position][0]
        modules[op.name] = "" if position is None else _module_of(computed[: position + 1])
    return Binding(network, model, ops, values, modules, exits)


def _repeated(data: Dataset, count: int, copies: int) -> dict[str, npt.NDArray[np.generic]]:
    """The first samples, `copies` times each: of a single one, PyTorch computes a product by another operator."""
    batch = data.batch(count)
    if copies == 1:
        return batch
    return {name: np.concatenate([array] * copies, data.axes.get(name, 0) or 0) for name, array in batch.items()}


def _first_match(computed: list[tuple[Value, Moments]], array: npt.NDArray[np.float32] | None) -> int | None:
    """The position of the first value with the same numbers."""
    identity = moments_of(array) if array is not None else None
    if identity is None:
        return None
    return next((position for position, (_, known) in enumerate(computed) if known.matches(identity)), None)


def _module_of(computed: list[tuple[Value, Moments]]) -> str:
    """The module of the last layer with weights: following operators (BatchNorm, ReLU) are fused into it."""
    last = computed[-1][0]
    return next((value.module for value, _ in reversed(computed) if value.operator in _WEIGHTED), last.module)
