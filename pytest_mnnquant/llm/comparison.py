"""How far stored weights are from the source's: in steps of their own quantization, row by row, some rows at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.llm.bound import BoundMatrix, SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.embedding import NAME
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import Form, StoredMatrix, decode_rows, read_groups, row_chunks
from pytest_mnnquant.mnnfile.storage import Floats

#: Relative rounding of a 16-bit float, and of a brain float.
_HALF: Final = 2.0**-11
_BRAIN: Final = 2.0**-8
#: The same for float32, with what adds up in a scale, a product and a sum.
_FLOAT: Final = 2.0**-21
#: A row whose error has this many times the power of rounding (6 dB) was not rounded. Half a step at most is 4.8 dB.
_LOST: Final = 4.0
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MatrixError:
    """The error of one matrix.

    `noise`: power of the error over that of rounding to the nearest code (step^2 / 12), 1 for healthy rounding; for
    floats over that of the format. `correlation` of stored and source weights, in [-1, 1]. `beyond`: weights further
    from the source's than half a step and the rounding of scales explain; `first_beyond` is the row of the first.
    `lost_rows`: rows whose noise is 4 or more. `minimum_shift`: the largest distance, in steps, between the smallest
    weight of a group and the value of its lowest code: 0 if scales span the weights. `zero_minima`: all minima are 0.
    """

    name: str
    count: int
    rows: int
    noise: float
    correlation: float
    relative: float
    beyond: int
    first_beyond: int
    lost_rows: int
    minimum_shift: float
    zero_minima: bool


@dataclass
class _Sums:
    """What adds up over the chunks of a matrix."""

    half_step: float
    source_error: float
    error: float = 0.0
    expected: float = 0.0
    stored: float = 0.0
    source: float = 0.0
    product: float = 0.0
    beyond: int = 0
    first_beyond: int = -1
    lost: int = 0
    shift: float = 0.0
    zero_minima: bool = True


def compare_matrix(folder: ExportFolder, source: Checkpoint, bound: BoundMatrix, half_step: float = 0.5) -> MatrixError:
    """Decode a matrix and compare it with its source. Raises `BadExport` if either can't be read or shapes differ.

    `half_step` is the largest error, in steps, that the quantization gives: 0.5 for rounding to the nearest code.
    """
    stored, rows = bound.stored, bound.source
    check_shape(stored, source, rows)
    data = folder.data(stored.file)
    # Exporters compute scales and codes in the type of the source.
    computing = {"BF16": _BRAIN, "F16": _HALF}.get(source.tensors[rows.weight].dtype, 0.0)
    if stored.name == NAME and not folder.is_tied:  # Only a separate embedding is widened to float32 before.
        computing = 0.0
    sums = _Sums(half_step=half_step, source_error=4 * computing)
    for start, stop in row_chunks(stored.rows, stored.columns):
        weights = source.rows(rows.weight, rows.start + start, rows.start + stop).reshape(stop - start, -1)
        with np.errstate(all="ignore"):
            _add(sums, stored, data, start, weights)
    with np.errstate(all="ignore"):
        correlation = sums.product / math.sqrt(sums.stored * sums.source) if sums.stored * sums.source > 0 else 0.0
    return MatrixError(
        name=stored.name,
        count=stored.count,
        rows=stored.rows,
        noise=_noise(sums),
        correlation=correlation if math.isfinite(correlation) else 0.0,
        relative=math.sqrt(sums.error / sums.source) if sums.source > 0 else math.inf,
        beyond=sums.beyond,
        first_beyond=sums.first_beyond,
        lost_rows=sums.lost,
        minimum_shift=sums.shift,
        zero_minima=sums.zero_minima and stored.is_quantized and not stored.symmetric,
    )


def _noise(sums: _Sums) -> float:
    """The power of the error over that of rounding; infinite if it is not finite."""
    ratio = sums.error / sums.expected if sums.expected > 0 else (0.0 if sums.error == 0 else math.inf)
    return ratio if math.isfinite(ratio) else math.inf


def check_shape(stored: StoredMatrix, source: Checkpoint, rows: SourceRows) -> None:
    """Raises `BadExport` if the source's rows do not have the shape of the stored matrix."""
    entry = source.tensors.get(rows.weight)
    if entry is None:
        raise BadExport(str(source.path), rows.weight, "the checkpoint has no such tensor")
    columns = math.prod(entry.shape[1:])
    if (rows.stop - rows.start, columns) != (stored.rows, stored.columns) or rows.stop > entry.shape[0]:
        shape = [rows.stop - rows.start, columns]
        raise BadExport(
            stored.file, stored.name, f"it has the shape {[stored.rows, stored.columns]}, the source {shape}"
        )


def _add(sums: _Sums, stored: StoredMatrix, data: memoryview, start: int, weights: Floats) -> None:
    stop = start + len(weights)
    values = decode_rows(stored, data, start, stop).astype(np.float64)
    source = weights.astype(np.float64)
    error = values - source
    error[np.isnan(error)] = np.inf
    expected, allowed = _rounding(sums, stored, data, start, source)
    row_error, row_expected = np.einsum("ij,ij->i", error, error), expected
    sums.error += float(row_error.sum())
    sums.expected += float(row_expected.sum())
    sums.stored += _product(values, values)
    sums.source += _product(source, source)
    sums.product += _product(values, source)
    # Where scales are not finite, neither limits nor errors are: such weights are beyond every limit.
    sums.lost += int((~(row_error <= _LOST * row_expected) | ~np.isfinite(row_error)).sum())
    beyond = ~(np.abs(error) <= allowed) | ~np.isfinite(error)
    sums.beyond += int(beyond.sum())
    if sums.first_beyond < 0 and beyond.any():
        sums.first_beyond = start + int(np.argmax(beyond.any(1)))


def _product(first: _Array, second: _Array) -> float:
    return float(np.einsum("ij,ij->", first, second))  # Without threads of its own.


def _rounding(sums: _Sums, stored: StoredMatrix, data: memoryview, start: int, source: _Array) -> tuple[_Array, _Array]:
    """Expected power of the error of each row, shape [rows], and its largest allowed error, [rows, columns]."""
    if not stored.is_quantized:
        relative = {Form.FLOAT16: _HALF, Form.BFLOAT16: _BRAIN, Form.FLOAT32: _FLOAT}[stored.form]
        # Below 6e-5 float16 keeps fewer digits.
        allowed = 1.01 * relative * np.abs(source) + (6e-8 if stored.form is Form.FLOAT16 else 1e-30)
        return np.maximum(allowed**2 / 3, 1e-30).sum(1), allowed
    groups = read_groups(stored, data, start, start + len(source))
    steps = np.abs(groups.scales.astype(np.float64))
    blocks = source.reshape(len(source), stored.blocks, stored.block)
    half_codes = 1 << stored.bits - 1
    scale_error = _HALF if stored.scale_bits == 16 else _FLOAT
    computing = sums.source_error * (np.abs(groups.minima) + half_codes * steps)
    rounding = scale_error * (np.abs(groups.minima) + half_codes * steps)
    allowed = (sums.half_step + 1e-3) * steps + 1.01 * rounding + computing + _FLOAT * np.abs(blocks).max(-1) + 1e-7
    expected = steps**2 / 12 + rounding**2 / 3 + 1e-20
    if not stored.symmetric:
        lowest = groups.minima.astype(np.float64) - (half_codes + stored.lowest) * groups.scales
        shift = np.abs(lowest - blocks.min(-1)) / np.maximum(steps, 1e-12)
        sums.shift = max(sums.shift, float(np.where(steps > 1e-9, shift, 0.0).max(initial=0.0)))
        sums.zero_minima = sums.zero_minima and bool((groups.minima == 0).all())
    return expected.sum(1) * stored.block, np.repeat(allowed, stored.block, axis=1)


@dataclass(frozen=True)
class VectorError:
    """The largest error of a vector, as a share of its largest value; infinite for another length."""

    name: str
    source: str
    relative: float


def compare_vector(name: str, tensor: str, stored: Floats, source: Floats, may_be_less_one: bool = True) -> VectorError:
    """Compare a norm or a bias with the source's. Some models store the weight of a norm minus 1."""
    stored, source = stored.ravel(), source.ravel()
    if stored.shape != source.shape:
        return VectorError(name, tensor, math.inf)
    size = float(np.abs(source).max(initial=0.0)) or 1.0
    candidates = (source, source + 1) if may_be_less_one else (source,)
    with np.errstate(all="ignore"):
        errors = [float(np.abs(stored - candidate).max(initial=0.0)) / size for candidate in candidates]
    relative = min((error for error in errors if math.isfinite(error)), default=math.inf)
    return VectorError(name, tensor, relative)


def find_source(folder: ExportFolder, source: Checkpoint, bound: BoundMatrix) -> str:
    """The name of the tensor whose first rows a matrix holds instead of its source's; empty if there is none."""
    stored = bound.stored
    count = min(stored.rows, 16)
    try:
        values = decode_rows(stored, folder.data(stored.file), 0, count)
    except BadExport:
        return ""
    for name, entry in source.tensors.items():
        if len(entry.shape) != 2 or not entry.is_float or name == bound.source.weight:
            continue
        if entry.shape == (stored.rows, stored.columns) and _correlation(values, source.rows(name, 0, count)) > 0.9:
            return name
    entry = source.tensors[bound.source.weight]
    if entry.shape == (stored.columns, stored.rows):
        whole = source.rows(bound.source.weight)
        if _correlation(values, whole.T[:count]) > 0.9:
            return f"{bound.source.weight} (transposed)"
    return ""


def _correlation(first: Floats, second: Floats) -> float:
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
        return float((first.astype(np.float64) * second).sum()) / norm if norm > 0 and math.isfinite(norm) else 0.0
