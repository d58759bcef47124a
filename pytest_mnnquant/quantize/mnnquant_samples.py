"""Calibration data in the form that MNN's offline tool `mnnquant` reads.

The tool reads data as text, one folder per forward pass (its `sequence` form, tools/quantization/calibration.cpp).
The number of samples per folder matters: KL needs folders of one size; EMA keeps 99 % of its average at each folder,
so with one sample per folder the first sample decides; ADMM uses the last folder only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset, spread_evenly
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.mnnfile.model import Model, ModelInput
from pytest_mnnquant.runtime.inference import fixed_batch
from pytest_mnnquant.runtime.programs.sample_axes import as_batch
from pytest_mnnquant.sources.spec import DataError

#: The inputs of one forward pass.
Feed: TypeAlias = dict[str, npt.NDArray[Any]]
# The most input values and samples for the tool. It parses text slowly, and KL reads all of it twice; ADMM reads the
# values of every tensor 300 times.
_MOST_VALUES: Final = {"KL": 30_000_000, "EMA": 30_000_000, "ADMM": 1_000_000}
_MOST_SAMPLES: Final = {"KL": 2000, "EMA": 2000, "ADMM": 64}
_EMA_BATCH: Final = 32
_EXACTINTEGERS: Final = 2**24  # the tool reads integers as 32-bit floats
INTEGERS: Final = ("int32", "int64", "uint8", "int8")


def feeds_of(model: Model, data: Dataset, feature: str, batched: bool) -> list[Feed]:
    """The inputs of each forward pass of the tool, as arrays by name: samples spread evenly over the data."""
    arrays = {spec.name: _as_fed(spec, data, feature) for spec in model.inputs}
    values = sum(array[0].size for array in arrays.values())
    count = max(1, min(data.samples, _MOST_SAMPLES[feature], _MOST_VALUES[feature] // values))
    if feature == "ADMM" and (data.is_single or not batched):
        count = 1
    chosen = spread_evenly(data.samples, count, ends=False)
    size = {"KL": 1, "EMA": _EMA_BATCH, "ADMM": count}[feature] if batched and not data.is_single else 1
    if declared := fixed_batch(model, SampleAxes(data.axes)):
        size = declared
        chosen = np.resize(chosen, -(-len(chosen) // size) * size)
    places = [chosen[at : at + size] for at in range(0, len(chosen), size)]
    return [
        {name: as_batch(array[place], data.axes.get(name, 0)) for name, array in arrays.items()} for place in places
    ]


def _as_fed(spec: ModelInput, data: Dataset, feature: str) -> npt.NDArray[Any]:
    array = data.inputs[spec.name]
    if feature == "EMA" and spec.layout == "NHWC" and array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)  # EMA treats every input as NCHW, and converts it to the input's layout
    if spec.data_type not in INTEGERS:
        return array.astype(np.float32, copy=False)
    if np.abs(array).max() > _EXACTINTEGERS:
        raise DataError(
            f"{data.origin}: array {spec.name!r} holds integers above {_EXACTINTEGERS}, which mnnquant rounds; "
            "use --mnn-recipe=int8"
        )
    return array


def write_feed(folder: Path, feed: Feed) -> None:
    """One forward pass in mnnquant's `sequence` form: the shapes, and a text file of values for each input."""
    folder.mkdir()
    shapes = [{"name": name, "shape": list(array.shape)} for name, array in feed.items()]
    (folder / "input.json").write_text(json.dumps({"inputs": shapes}), encoding="utf-8")
    for name, array in feed.items():
        file = folder / f"{name.lstrip('/')}.txt"  # the tool opens a name with slashes as a file in folders
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(as_text(array))


def as_text(values: npt.NDArray[Any]) -> bytes:
    """Numbers as decimal text, one per line, nine digits each: parsed, they are bitwise the same 32-bit floats."""
    numbers = values.reshape(-1).astype(np.float64)
    sizes = np.abs(numbers)
    powers = np.floor(np.log10(sizes, where=sizes > 0, out=np.zeros_like(sizes))).astype(np.int64) - 8
    digits = np.rint(sizes * 10.0 ** -powers.astype(np.float64)).astype(np.int64)
    lines = np.empty((len(numbers), 16), np.uint8)
    lines[:, 0] = np.where(np.signbit(numbers), ord("-"), ord("+"))
    for column in range(10, 0, -1):
        digits, last = np.divmod(digits, 10)
        lines[:, column] = last + ord("0")
    lines[:, 11] = ord("e")
    lines[:, 12] = np.where(powers < 0, ord("-"), ord("+"))
    lines[:, 13], lines[:, 14] = np.abs(powers) // 10 + ord("0"), np.abs(powers) % 10 + ord("0")
    lines[:, 15] = ord("\n")
    return lines.tobytes()
