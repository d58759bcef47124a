"""The inputs and outputs of layers on some of the calibration data, for methods that change weights and biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.runtime.inference import BATCH, batch_size, fixed_batch, tensor_values
from pytest_mnnquant.runtime.options import RunOptions

Sides = tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]
#: Samples that are read if the model takes one at a time; else `BATCH`, or as many as it takes.
_SINGLE_SAMPLES: Final = 8


def layer_tensors(
    model: Model, layers: Sequence[Op], data: Dataset, options: RunOptions
) -> Iterator[Mapping[str, Sides]]:
    """The first input and the output of each layer by name, shape [samples, n] in NCHW order, batch by batch.

    None for a tensor that did not appear. The samples are spread over the calibration data.
    """
    fixed = fixed_batch(model, options.axes)
    size = fixed or batch_size(options, data.inputs)
    count = fixed or (_SINGLE_SAMPLES if batch_size(options, {}) == 1 else BATCH)
    chosen = data.spread(count)
    for start in range(0, max(1, chosen.samples - size + 1), size):
        batch = {name: array[start : start + size] for name, array in chosen.inputs.items()}
        rows = len(next(iter(batch.values())))
        seen = tensor_values(model, layers, batch, options)
        yield {name: (_by_sample(sides[0], rows), _by_sample(sides[1], rows)) for name, sides in seen.items()}


def _by_sample(values: npt.NDArray[np.float32] | None, rows: int) -> npt.NDArray[np.float32] | None:
    return None if values is None or values.size % rows else values.reshape(rows, -1)
