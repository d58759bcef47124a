"""What is kept of a calibration: the ranges that each batch gave, and what a pipeline was seen to do."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_FACTS: Final = "record.json"
_RANGES: Final = "record.npz"


@dataclass(frozen=True)
class Watched:
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
    watched: Watched | None = None


def save_record(record: Record, folder: Path) -> None:
    """Write a record into a variant's folder."""
    facts: dict[str, Any] = {"observer": record.observer, "samples": record.samples, "batch": record.batch}
    facts["watched"] = dataclasses.asdict(record.watched) if record.watched else None
    facts["tensors"] = list(record.batches)
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    np.savez(folder / _RANGES, *record.batches.values())


def load_record(folder: Path) -> Record | None:
    """The record in a variant's folder; None where it was not calibrated."""
    if not (folder / _FACTS).is_file():
        return None
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    with np.load(folder / _RANGES, allow_pickle=False) as arrays:
        batches = {name: arrays[f"arr_{number}"] for number, name in enumerate(facts["tensors"])}
    watched = facts["watched"]
    if watched is not None:
        watched = Watched(**{**watched, "moved": {name: tuple(pair) for name, pair in watched["moved"].items()}})
    return Record(facts["observer"], facts["samples"], facts["batch"], batches, watched)
