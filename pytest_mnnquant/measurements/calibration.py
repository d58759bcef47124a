"""What was recorded while a model was calibrated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Observations:
    """What a pipeline was seen to do with the model while it ran.

    `handed_out` batches were taken from the calibration data; `forwards` is how often the busiest layer ran before
    the pipeline went on to export. `gradients` and `training` tell whether any of these passes recorded gradients
    or ran in train mode.`drift` is the largest change of a BatchNorm in units of its standard deviation, and
    `weight_change` the largest change of a weight tensor relative to its norm, of the model it was given. `moved` maps
    an observer to its scale when the calibration data were used up and when the pipeline ended, where these differ.
    `observers` is how many fake quantizers and observers ran in PyTorch.
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

    `observer` says how ranges were taken (`minmax`, `average0.99`, ...); `samples` and `batch` count samples in all and
    per batch. `batches` gives, by the name of a tensor in the float model, its smallest and largest value in each
    batch, in order: shape [batches, 2]. It is empty where another tool calibrated and kept none.
    """

    observer: str
    samples: int
    batch: int
    batches: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    observations: Observations | None = None
