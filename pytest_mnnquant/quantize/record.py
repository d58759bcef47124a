"""The stored record of a calibration: the ranges of each batch, and the observations of a pipeline."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.calibration import Observations, Record

_FACTS: Final = "record.json"
_RANGES: Final = "record.npz"


def save_record(record: Record, folder: Path) -> None:
    """Write a record into a variant's folder."""
    facts: dict[str, Any] = {"observer": record.observer, "samples": record.samples, "batch": record.batch}
    facts["watched"] = dataclasses.asdict(record.observations) if record.observations else None
    facts["tensors"] = list(record.batches)
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    np.savez(folder / _RANGES, *record.batches.values())


def load_record(folder: Path) -> Record | None:
    """The record in a variant's folder; None if the variant was not calibrated."""
    if not (folder / _FACTS).is_file():
        return None
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    with np.load(folder / _RANGES, allow_pickle=False) as arrays:
        batches = {name: arrays[f"arr_{number}"] for number, name in enumerate(facts["tensors"])}
    observations = facts["watched"]
    if observations is not None:
        observations = Observations(
            **{**observations, "moved": {name: tuple(pair) for name, pair in observations["moved"].items()}}
        )
    return Record(facts["observer"], facts["samples"], facts["batch"], batches, observations)
