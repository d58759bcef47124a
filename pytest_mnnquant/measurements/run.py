"""The results of a run of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.host import TargetMachine


@dataclass(frozen=True, slots=True)
class TracedOp:
    """An operator as the runtime ran it: `kind` is MNN's type string, for example `Convolution`.

    `widths` are those of the first input and of the output of a resize.
    """

    name: str
    kind: str
    int8: bool
    widths: tuple[int, int] | None = None

    @property
    def operator(self) -> str:
        """The name in the file: MNN numbers what it makes of an operator of one or three dimensions."""
        return re.sub(r"_raster_\d+$", "", self.name)


@dataclass(frozen=True)
class Run:
    """Outputs by name, samples on the first axis; `trace` is None if the runtime can't give one.

    `machine` is the target that ran the model; None: this host.
    """

    outputs: dict[str, npt.NDArray[np.float32]]
    trace: tuple[TracedOp, ...] | None
    memory_mb: float | None
    batched: bool
    machine: TargetMachine | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """What a grid of codes loses of `count` values between `low` and `high`, whose mean square is `energy`.

    `outside` is the share of values that it clips by more than half a step; `clipped` and `rounded` are the shares of
    the energy that clipping and rounding remove.
    """

    count: int
    low: float
    high: float
    energy: float
    outside: float
    clipped: float
    rounded: float
