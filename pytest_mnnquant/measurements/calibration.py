"""The records of a calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Observations:
    """How a pipeline used the given model and calibration data.

    `handed_out`: batches that it took from the calibration data. `forwards`: runs of the most used layer before the
    export. `gradients`, `training`: whether any of these passes recorded gradients, or ran in train mode. `drift`: the
    largest change of a BatchNorm of the given model, in units of its standard deviation; `weight_change`: the largest
    change of a weight tensor relative to its norm. `moved`: by observer, its scale after the last batch of calibration
    data and at the end of the pipeline, if they differ. `observers`: the fake quantizers and observers that ran in
    PyTorch.
    """

    handed_out: int = 0
    forwards: int = 0
    gradients: bool = False
    training: bool = False
    drift: float = 0.0
    weight_change: float = 0.0
    moved: dict[str, tuple[float, float]] = field(default_factory=dict)
    observers: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Record:
    """How a variant was calibrated.

    `observer` names how ranges were taken (`minmax`, `average0.99`, ...); `samples` and `batch` count samples in total
    and per batch. `batches` gives, by the name of a tensor in the float model, its smallest and largest value in each
    batch, in order: shape [batches, 2]. It is empty if another tool calibrated and recorded none.
    """

    observer: str
    samples: int
    batch: int
    batches: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    observations: Observations | None = None
