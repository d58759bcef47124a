"""Whether a layer of an export holds what a GPTQ checkpoint holds: its codes, its scales, its zero points."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.checkpoint import Checkpoint, GptqLayer, read_gptq_layer
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows, read_codes

#: In steps: 16-bit scales move a weight of 8 bits by less.
_SAME: Final = 0.15


class GptqState(enum.Enum):
    """What became of a layer of the checkpoint."""

    APPLIED = "applied"
    OTHER_FORM = "other bits or another group size"
    OTHER_ORDER = "inputs in another order, which exporters ignore"
    OTHER_ZEROS = "zero points, which exporters ignore"
    OTHER_SCALES = "codes without their scales"
    NOT_APPLIED = "other codes"


@dataclass(frozen=True, slots=True)
class GptqComparison:
    """One layer: its state, the share of equal codes, and the largest error in steps of the checkpoint."""

    name: str
    state: GptqState
    equal_codes: float
    error: float


def compare_gptq(folder: ExportFolder, gptq: Checkpoint, stored: StoredMatrix, stem: str) -> GptqComparison:
    """Compare a matrix with the layer `stem`. Raises `BadExport` if either can't be read."""
    layer = read_gptq_layer(gptq, stem)
    group = layer.codes.shape[1] // layer.scales.shape[1]
    same_form = (stored.rows, stored.columns, stored.bits, stored.block) == (*layer.codes.shape, layer.bits, group)
    if not same_form or not stored.is_quantized:
        return GptqComparison(stored.name, GptqState.OTHER_FORM, 0.0, float("inf"))
    data = folder.data(stored.file)
    weights = decode_rows(stored, data, 0, stored.rows)
    equal = float((read_codes(stored, data, 0, stored.rows) == layer.codes).mean())
    with np.errstate(all="ignore"):
        errors = np.abs(weights - layer.decoded()) / np.maximum(np.abs(layer.scales[:, layer.groups]), 1e-12)
    error = float(np.nan_to_num(errors, nan=np.inf).max())
    return GptqComparison(stored.name, _state(layer, equal, error), equal, error)


def _state(layer: GptqLayer, equal: float, error: float) -> GptqState:
    if error <= _SAME:
        return GptqState.APPLIED
    if equal < 1.0:
        return GptqState.NOT_APPLIED
    if not layer.is_ordered:
        return GptqState.OTHER_ORDER
    is_symmetric = bool((layer.zeros == 1 << layer.bits - 1).all())
    return GptqState.OTHER_SCALES if is_symmetric else GptqState.OTHER_ZEROS
