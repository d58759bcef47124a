"""Compares a layer's stored weights, decoded, with the source's: how large the errors are, and of which kind."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model, Op
from pytest_mnnquant.mnnfile.storage import Affine, Storage

# Rounding errors are at most half a step, which is 4.8 dB above their mean power of step^2 / 12. Of MNN's methods only
# mnnquant's ADMM weights come near that (3.9 dB). A larger error does not come from rounding.
_MARGIN_DB = 6.0
# The highest expected SQNR: finer steps are judged like these. float16 has about 67 dB.
_FINEST_DB = 50.0
# A channel is lost if its error has more than this share of its power.
_LOST = 0.1
# MNN's converter gives no scale to channels with smaller steps.
_NO_SCALE = 1e-6
# If at most this share of the channels differs, the weights are not those of another layer or training.
_FEW = 0.25
# Weights per block, of four bytes each: fits a cache of 256 kB.
_CACHED = 1 << 15
# Weights that are compared before all are.
_SAMPLED = 1 << 10
# In steps: the mean error of rounding is almost zero, that of truncation is half a step.
_DRIFT = 0.3
# A mean error of 0.3 steps alone is as much noise as rounding, 3.2 dB more in total.
_MORE_NOISE_DB = 2.5
# The largest 16-bit float.
_LARGEST_HALF = 65504.0
# In steps: how near floats are to the codes that they were decoded from.
_ON_GRID = 1e-2


@dataclass(frozen=True, slots=True)
class WeightError:
    """SQNR in dB of a layer's decoded weights: measured, and expected from rounding to its steps.

    Of its `channels` (scale groups), `clipped` can't hold the source's largest weights (0 if anything else is wrong),
    and `lost` have errors that do not come from rounding although the layer as a whole looks right (`first_lost` is the
    first). `coarseness`: root mean square of its steps over that of the steps that its weights need. `calibrated`: the
    scales came from a params file or tool, not from the converter. `changed`: only the lost channels are wrong, so
    `measured` leaves them out. `flattened`: the first lost channel holds a single code. `drift` is the mean error in
    steps, about 0 for rounding.
    """

    layer: str
    measured: float
    expected: float
    clipped: int = 0
    channels: int = 0
    lost: int = 0
    first_lost: int = -1
    coarseness: float = 1.0
    calibrated: bool = False
    changed: bool = False
    flattened: bool = False
    drift: float = 0.0

    @property
    def is_other(self) -> bool:
        """Whether rounding can't explain the difference."""
        return self.measured < self.expected - _MARGIN_DB or self.is_truncated

    @property
    def is_truncated(self) -> bool:
        """Whether weights were truncated instead of rounded: the noise is then 4 times (6 dB) that of rounding.

        In channels of a few weights, rounding errors of one sign can be the mean by chance, without more noise.
        """
        gain = self.measured - self.expected
        return abs(self.drift) > _DRIFT and -_MARGIN_DB - 2 < gain < -_MORE_NOISE_DB


def weight_errors(base: Model, model: Model, match: Match, fix: str = "") -> tuple[list[WeightError], list[Finding]]:
    """Compare each pair of layers: the errors, and findings on weights that can't be compared.

    `fix` says how to convert again. Weights that can't be decoded have no fix: another check reports the cause.
    """
    errors, findings = [], []
    for layer, stored in sorted(match.pairs, key=lambda pair: -pair[0].weight_count):
        if layer.is_convolution and not stored.is_convolution:
            continue  # Matched by their weights, in another order.
        if len(layer.weights) != 1 or len(stored.weights) != 1:
            continue  # MNN's own RNN operators hold several tensors, always float: the coverage check reports them.
        try:
            weights = base.decoded(layer).reshape(-1)
            error = _compared(weights, model, layer, stored)
        except BadModel as reason:
            findings.append(Finding("MNQ403", f"its weights can't be decoded: {reason}", layer.name))
            continue
        if error is None:
            findings.append(_not_held(model, layer, stored, weights.size, fix))
        else:
            errors.append(error)
    return errors, findings


def _not_held(model: Model, layer: Op, stored: Op, count: int, fix: str) -> Finding:
    weights = stored.weights[0]
    if weights.storage is Storage.INTEGER and not np.isfinite(_scales(model, stored)).all():
        is_half = weights.half_scales
        return Finding(
            "MNQ403",
            "its scales or minima are infinite or NaN",
            layer.name,
            cause=Cause("half-scales-overflow", "16-bit floats can't hold values above 65,504") if is_half else None,
            fix="use 32-bit scales: convert again without --weightQuantScaleBit 16" if is_half else fix,
        )
    message = f"does not hold the {count} finite weights of the source"
    return Finding("MNQ403", message, layer.name, fix=fix)


def _scales(model: Model, stored: Op) -> npt.NDArray[np.float32]:
    affine = model.affine(stored)
    return np.concatenate([affine.scales, affine.offsets])


def weights_of(base: Model, model: Model, match: Match, name: str) -> str:
    """The other layer of the source whose weights the layer of this name holds; empty if there is none."""
    pairs = {layer.name: (layer, stored) for layer, stored in match.pairs}
    _, stored = pairs[name]
    held = model.decoded(stored).reshape(-1)
    sample = slice(None, None, max(1, held.size // _SAMPLED))  # A few weights distinguish most layers.
    for other, _ in match.pairs:
        if other.name == name or other.weight_count != held.size or len(other.weights) != 1:
            continue
        try:
            weights = base.decoded(other).reshape(-1)
            if np.square(weights[sample] - held[sample]).sum() > np.square(weights[sample]).sum():
                continue
            error = _compared(weights, model, other, stored)
        except BadModel:
            continue
        if error is not None and not error.is_other and not error.changed:
            return other.name
    return ""


def _compared(source: Floats, model: Model, layer: Op, stored: Op) -> WeightError | None:
    """The error of one layer; None if the number of stored weights is not the source's, or they are not finite.

    Expected noise power of rounding is step^2 / 12 (uniform error of half a step either way).
    """
    weights = stored.weights[0]
    if weights.storage in (Storage.INTEGER, Storage.SPARSE_INTEGER):
        quantized = model.affine(stored)
        steps = np.abs(quantized.scales).astype(np.float64)
        size = quantized.codes.size
    else:
        quantized, steps = None, np.empty(0)
        floats = model.decoded(stored).reshape(-1)
        size = floats.size
        if size == source.size and layer.kind == "Const":
            source, floats = _without_masks(source, floats)
    if size != source.size:
        return None
    groups = len(steps) or max(1, layer.shape[0] if layer.shape and size % layer.shape[0] == 0 else 1)
    rows = source.reshape(groups, -1)
    sums = _sums(rows, quantized if quantized is not None else floats.reshape(groups, -1))
    if not np.isfinite(sums.noise).all():
        return None
    signal, noise = float(sums.signal.sum()), float(sums.noise.sum())
    rounding = np.square(steps) / 12 * rows.shape[1]
    expected = 10 * math.log10(signal / rounding.sum()) if signal > 0 and rounding.sum() > 0 else math.inf
    measured = (10 * math.log10(signal / noise) if signal > 0 else -math.inf) if noise > 0 else math.inf
    finest, calibrated = min(expected, _FINEST_DB), weights.full_int8
    error = WeightError(layer.name, measured, finest, channels=len(steps), calibrated=calibrated)
    if len(steps) and (steps > 0).all():
        error = dataclasses.replace(error, drift=float(np.median(sums.mean / steps)))
    if not len(steps):
        is_grid = error.is_other and weights.storage is Storage.FLOAT32 and _is_rounded(floats.reshape(groups, -1))
        return dataclasses.replace(error, measured=error.expected) if is_grid else error
    if error.is_truncated:
        return error
    if error.is_other:
        decoded = model.decoded(stored).reshape(groups, -1)
        clipped = _clipped(rows, decoded, steps)
        bad = sums.noise > 10 ** (_MARGIN_DB / 10) * rounding
        if not (clipped and (calibrated or (steps <= _NO_SCALE).any())) and 0 < bad.sum() <= _FEW * groups:
            return dataclasses.replace(
                error, measured=error.expected, lost=int(bad.sum()), first_lost=int(bad.argmax()), changed=True
            )
        return dataclasses.replace(error, clipped=clipped)
    # A channel of almost zero (a folded BatchNorm makes such) may change completely: the rounding errors of the other
    # channels are larger.
    audible = sums.noise > rounding.mean()
    lost = (sums.noise > 10 ** (_MARGIN_DB / 10) * rounding) & (sums.noise > _LOST * sums.signal) & audible
    first = int(lost.argmax()) if lost.any() else -1
    flattened = first >= 0 and quantized is not None and bool(np.ptp(quantized.codes[first]) == 0)
    needed = 2 * sums.peak / ((1 << weights.bits) - 2 or 1)
    ratio = math.sqrt(np.square(steps).sum() / np.square(needed).sum()) if needed.any() else 1.0
    return dataclasses.replace(error, lost=int(lost.sum()), first_lost=first, coarseness=ratio, flattened=flattened)


def _without_masks(source: Floats, stored: Floats) -> tuple[Floats, Floats]:
    """Both with 0 where both hide a place, as masks of an attention do: infinite, or too large for 16-bit floats."""
    hidden = (np.abs(source) > _LARGEST_HALF) & (np.abs(stored) >= _LARGEST_HALF) & (np.sign(source) == np.sign(stored))
    return np.where(hidden, 0, source), np.where(hidden, 0, stored)


def _is_rounded(rows: Floats) -> bool:
    """Whether floats are 8-bit codes times a step per channel: mnnquant writes such if it quantized nothing."""
    step = np.abs(rows).max(1, keepdims=True) / np.float32(127)
    codes = rows / np.where(step > 0, step, 1)
    return bool((np.abs(codes - np.rint(codes)) < _ON_GRID).all())


@dataclass(frozen=True, slots=True)
class _Sums:
    """For each group of weights: sum of squares of source and error, mean error, the source's largest magnitude."""

    signal: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    peak: npt.NDArray[np.float64]


def _sums(rows: Floats, stored: Affine | Floats) -> _Sums:
    """Compares both in blocks that fit the processor's cache, so that each weight is read once."""
    groups, width = rows.shape
    sums = _Sums(*(np.empty(groups) for _ in range(4)))
    high = max(1, _CACHED // max(1, width))
    buffer = np.empty((min(high, groups), width), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, groups, high):
            block = rows[start : start + high]
            part = slice(start, start + len(block))
            error = buffer[: len(block)]
            if isinstance(stored, Affine):
                np.multiply(stored.codes[part], stored.scales[part, np.newaxis], out=error, casting="unsafe")
                error += stored.offsets[part, np.newaxis]
                error -= block
            else:
                np.subtract(stored[part], block, out=error)
            sums.mean[part] = error.mean(1)
            sums.noise[part] = np.einsum("ij,ij->i", error, error)
            sums.signal[part] = np.einsum("ij,ij->i", block, block)
            sums.peak[part] = np.maximum(block.max(1), -block.min(1))
    return sums


def _clipped(source: Floats, floats: Floats, steps: npt.NDArray[np.float64]) -> int:
    """How many groups can't hold the source's largest values; 0 if anything else is wrong. Both are [groups, n]."""
    step = steps[:, np.newaxis]
    beyond = (source > floats.max(1, keepdims=True) + step) | (source < floats.min(1, keepdims=True) - step)
    wrong = np.abs(source - floats) > step
    return 0 if (wrong & ~beyond).any() else int(beyond.any(1).sum())
