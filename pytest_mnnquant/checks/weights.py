"""Weights: what is stored, decoded, is what the source has."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.mnnfile.consistency import contradictions, impossible_scales
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model, Op
from pytest_mnnquant.mnnfile.storage import Affine, Storage
from pytest_mnnquant.mnnfile.structure import Difference
from pytest_mnnquant.quantize.recipes import Recipe, can_block

# No rounding errs by more than half a step, which is 4.8 dB above its mean power of step^2 / 12. Of MNN's own ways to
# quantize only mnnquant's ADMM weights come near that (3.9 dB). An error beyond it is no rounding.
_MARGIN_DB = 6.0
# Steps finer than this are judged as if they were this fine; float16 keeps about 67 dB.
_FINEST_DB = 50.0


# A channel of which more than this share of the power is error is lost.
_LOST = 0.1
# Steps this much coarser than the weights need throw two bits away. One scale for a whole layer stays below.
_COARSE = 4.0
# MNN's converter gives channels of smaller steps no scale.
_NO_SCALE = 1e-6
# Other weights in this share of the channels are not those of another layer or training.
_FEW = 0.25
# Weights of one block: four bytes each, in a cache of 256 kB or more.
_CACHED = 1 << 15
# In steps: how near floats lie to the codes that they stand for.
_ON_GRID = 1e-2
# In steps: how near a minimum the lowest code is where scales span from min to max.
_SPANS = 1e-3
# Vectors stay float; float16 keeps 3 digits, and mnnquant's EMA trains them a little.
_VECTOR_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class WeightError:
    """SQNR in dB of a layer's decoded weights, measured and as rounding to its steps would give.

    Of its `channels` (scale groups), `clipped` can't hold the source's largest weights, where that is all that is
    wrong, and `lost` have errors that are no rounding while the layer as a whole looks right (`first_lost` is one).
    `coarseness`: root mean square of its steps over that of the steps that its weights need. `calibrated` tells that
    the scales came from a params file or tool, not from the converter; `changed` that but for the lost channels all is
    well, so that `measured` leaves them out.
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

    @property
    def is_other(self) -> bool:
        """Whether rounding can't explain the difference."""
        return self.measured < self.expected - _MARGIN_DB


def weight_errors(base: Model, model: Model, match: Match) -> tuple[list[WeightError], list[Finding]]:
    """Compare each pair of layers; returns the figures, and findings where weights can't be decoded."""
    errors, findings = [], []
    for layer, stored in sorted(match.pairs, key=lambda pair: -pair[0].weight_count):
        if layer.is_convolution and not stored.is_convolution:
            continue  # Told by their weights, in another order.
        if len(layer.weights) != 1 or len(stored.weights) != 1:
            continue  # MNN's own RNN operators hold several tensors, always float: the coverage check tells of them.
        try:
            ours = base.decoded(layer).reshape(-1)
            found = _compared(ours, model, layer, stored)
        except BadModel as error:
            findings.append(Finding("MNQ403", f"its weights can't be decoded: {error}", layer.name))
            continue
        if found is None:
            message = f"it does not hold the {ours.size} finite weights of the source"
            findings.append(Finding("MNQ403", message, layer.name))
        else:
            errors.append(found)
    return errors, findings


def _compared(ours: Floats, model: Model, layer: Op, stored: Op) -> WeightError | None:
    """The error of one layer; None where the stored weights are not as many as the source's, or not finite.

    Expected noise power of rounding is step^2 / 12 (uniform error of half a step either way).
    """
    weights = stored.weights[0]
    if weights.storage in (Storage.INTEGER, Storage.SPARSE_INTEGER):
        quantized = model.affine(stored)
        steps = np.abs(quantized.scales).astype(np.float64)
        size = quantized.codes.size
    else:
        quantized, steps = None, np.empty(0)
        theirs = model.decoded(stored).reshape(-1)
        size = theirs.size
    if size != ours.size:
        return None
    groups = len(steps) or max(1, layer.shape[0] if layer.shape and size % layer.shape[0] == 0 else 1)
    rows = ours.reshape(groups, -1)
    sums = _sums(rows, quantized if quantized is not None else theirs.reshape(groups, -1))
    if not np.isfinite(sums.noise).all():
        return None
    signal, noise = float(sums.signal.sum()), float(sums.noise.sum())
    rounding = np.square(steps) / 12 * rows.shape[1]
    expected = 10 * math.log10(signal / rounding.sum()) if signal > 0 and rounding.sum() > 0 else math.inf
    measured = (10 * math.log10(signal / noise) if signal > 0 else -math.inf) if noise > 0 else math.inf
    finest, calibrated = min(expected, _FINEST_DB), weights.full_int8
    found = WeightError(layer.name, measured, finest, channels=len(steps), calibrated=calibrated)
    if not len(steps):
        is_grid = found.is_other and weights.storage is Storage.FLOAT32 and _is_rounded(theirs.reshape(groups, -1))
        return dataclasses.replace(found, measured=found.expected) if is_grid else found
    if found.is_other:
        decoded = model.decoded(stored).reshape(groups, -1)
        clipped = _clipped(rows, decoded, steps)
        bad = sums.noise > 10 ** (_MARGIN_DB / 10) * rounding
        if not (clipped and (calibrated or (steps <= _NO_SCALE).any())) and 0 < bad.sum() <= _FEW * groups:
            return dataclasses.replace(
                found, measured=found.expected, lost=int(bad.sum()), first_lost=int(bad.argmax()), changed=True
            )
        return dataclasses.replace(found, clipped=clipped)
    # A channel of next to nothing (BatchNorm folds such) may become anything of that size: it drowns in the rounding of
    # the others.
    audible = sums.noise > rounding.mean()
    lost = (sums.noise > 10 ** (_MARGIN_DB / 10) * rounding) & (sums.noise > _LOST * sums.signal) & audible
    needed = 2 * sums.peak / ((1 << weights.bits) - 2 or 1)
    ratio = math.sqrt(np.square(steps).sum() / np.square(needed).sum()) if needed.any() else 1.0
    return dataclasses.replace(
        found, lost=int(lost.sum()), first_lost=int(lost.argmax()) if lost.any() else -1, coarseness=ratio
    )


def _is_rounded(rows: Floats) -> bool:
    """Whether floats are codes of 8 bits times a step a channel: mnnquant leaves such where it quantized nothing."""
    step = np.abs(rows).max(1, keepdims=True) / np.float32(127)
    codes = rows / np.where(step > 0, step, 1)
    return bool((np.abs(codes - np.rint(codes)) < _ON_GRID).all())


@dataclass(frozen=True, slots=True)
class _Sums:
    """For each group of weights: sums of squares of source and of error, and the source's largest magnitude."""

    signal: npt.NDArray[np.float64]
    noise: npt.NDArray[np.float64]
    peak: npt.NDArray[np.float64]


def _sums(rows: Floats, stored: Affine | Floats) -> _Sums:
    """Walk both in blocks that stay in the processor's cache: what is compared is touched once."""
    groups, width = rows.shape
    sums = _Sums(np.empty(groups), np.empty(groups), np.empty(groups))
    high = max(1, _CACHED // max(1, width))
    buffer = np.empty((min(high, groups), width), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, groups, high):
            ours = rows[start : start + high]
            part = slice(start, start + len(ours))
            error = buffer[: len(ours)]
            if isinstance(stored, Affine):
                np.multiply(stored.codes[part], stored.scales[part, np.newaxis], out=error, casting="unsafe")
                error += stored.offsets[part, np.newaxis]
                error -= ours
            else:
                np.subtract(stored[part], ours, out=error)
            sums.noise[part] = np.einsum("ij,ij->i", error, error)
            sums.signal[part] = np.einsum("ij,ij->i", ours, ours)
            sums.peak[part] = np.maximum(ours.max(1), -ours.min(1))
    return sums


def _clipped(ours: Floats, theirs: Floats, steps: npt.NDArray[np.float64]) -> int:
    """How many groups can't hold the source's largest values, if nothing else is wrong; both are [groups, n]."""
    step = steps[:, np.newaxis]
    beyond = (ours > theirs.max(1, keepdims=True) + step) | (ours < theirs.min(1, keepdims=True) - step)
    wrong = np.abs(ours - theirs) > step
    return 0 if (wrong & ~beyond).any() else int(beyond.any(1).sum())


def check_weights(
    base: Model, model: Model, match: Match, older_by_days: float | None, recipe: Recipe | None = None
) -> Result:
    """Fail for each layer whose weights are not the source's, or whose scales are not as the `recipe` asks.

    `older_by_days`: how much older the file is than the source.
    """
    errors, findings = weight_errors(base, model, match)
    counts = {layer.name: layer.weight_count for layer, _ in match.pairs}
    others = sorted((error for error in errors if error.is_other), key=lambda error: -counts[error.layer])
    cause, remedy = _cause(len(others), len(errors), older_by_days)
    findings += [
        Finding(
            "MNQ410",
            f"its weights are not the source's: SQNR {error.measured:.1f} dB, rounding gives {error.expected:.1f} dB",
            error.layer,
            *(_clipping(error) if error.clipped else (cause, remedy)),
        )
        for error in others
    ]
    findings += [finding for error in errors if not error.is_other for finding in _channels(error)]
    findings += [_contradiction(one) for one in contradictions(model)]
    findings += [_impossible(one) for one in impossible_scales(model)]
    findings += _dropped_blocks(match, recipe.block) if recipe and recipe.block else []
    findings += _other_forms(base, model, match, recipe) if recipe and not others else []
    if errors and not others:  # Where weights are others, vectors are too: that needs no further word.
        findings += _other_vectors(base, model, match)
    if not errors and not findings:
        findings.append(Finding("MNQ001", "no layer of the quantized model could be compared with the source"))
    worst = min((error.measured for error in errors), default=None)
    metrics = {"layers_compared": len(errors), "worst_sqnr_db": worst}
    return judge("weights", findings, metrics)


_FLATTENED = (
    "their range is too small for the converter's scale, so all their weights became one code",
    "quantize this layer symmetrically (--weightQuantAsymmetric=0), or leave it float",
)
_CHANGED = (
    "all other channels are the source's: the file was changed after it was made, or made by a faulty tool",
    "convert and quantize this source again",
)


def _channels(error: WeightError) -> list[Finding]:
    """What is wrong with a layer whose weights as a whole are the source's."""
    found = []
    if error.lost:
        where = f"{error.lost} of its {error.channels} channels (first: {error.first_lost})"
        message = f"{where} hold other values than the source's"
        found.append(
            Finding(
                "MNQ412",
                message,
                error.layer,
                *(_CHANGED if error.changed else _FLATTENED),
            )
        )
    if error.coarseness > _COARSE:
        found.append(
            Finding(
                "MNQ413",
                f"its steps are {error.coarseness:.1f} times as coarse as its weights need, {_COARSE:g} allowed",
                error.layer,
                cause="the scales were made for larger weights than these",
                remedy="calibrate this source again, and convert with the params file that this writes",
            )
        )
    return found


def _clipping(error: WeightError) -> tuple[str, str]:
    if not error.calibrated:
        return (
            f"{error.clipped} of its {error.channels} channels became one code each: MNN's converter gives channels "
            "whose step is 1e-6 or less no scale",
            "leave this layer float (--mnn-skip-layer), or scale its weights up and what follows down",
        )
    return (
        f"{error.clipped} of its {error.channels} scales are too small for the weights, which are clipped: the params "
        "were made for other weights, such as those before a retraining",
        "calibrate this source again, and convert with the params file that this writes",
    )


def _cause(others: int, compared: int, older_by_days: float | None) -> tuple[str, str]:
    remedy = (
        "convert and quantize this source again; delete the old output first, since MNN's converter leaves it there "
        "when it fails"
    )
    if others == compared and older_by_days is not None and older_by_days > 0:
        age = f"{older_by_days:.1f} days" if older_by_days >= 1 else f"{older_by_days * 24 * 60:.0f} minutes"
        return (
            f"every layer has other weights and the file is {age} older than the source: it is a stale output",
            remedy,
        )
    if others == compared:
        return "every layer has other weights: the file was made from another training of this network", remedy
    return "", "convert and quantize this source again"


def _dropped_blocks(match: Match, block: int) -> list[Finding]:
    """Layers without the block that was asked: an error where MNN could have given it, else one word for all.

    That is an error too where no layer has such blocks: what was asked is nowhere in the file.
    """
    layers = [(layer, stored.weights[0]) for layer, stored in match.pairs]
    layers = [(layer, weights) for layer, weights in layers if weights.storage is Storage.INTEGER]
    dropped = [
        (layer, weights)
        for layer, weights in sorted(layers, key=lambda pair: -pair[0].weight_count)
        if weights.block != block
        and not (layer.shape[1:] == (block, 1, 1) and weights.block is None)  # A channel of one block.
    ]
    could = [pair for pair in dropped if can_block(pair[0].shape, pair[0].group, block)]
    findings = []
    for layer, weights in could:
        has = "one a channel" if weights.block is None else f"one for {weights.block} weights"
        message = f"its scales are {has}, one for {block} weights was asked"
        remedy = f"convert again with --weightQuantBlock {block}"
        findings.append(Finding("MNQ414", message, layer.name, remedy=remedy))
    impossible = [layer for layer, weights in dropped if (layer, weights) not in could]
    if impossible:
        findings.append(_unblocked(impossible, block, is_nowhere=len(dropped) == len(layers) and not could))
    return findings


def _unblocked(layers: list[Op], block: int, is_nowhere: bool) -> Finding:
    who = "1 layer keeps" if len(layers) == 1 else f"{len(layers)} layers keep"
    return Finding(
        "MNQ414",
        f"{who} one scale a channel, where one for {block} weights was asked",
        layers[0].name,
        cause=f"MNN blocks 1x1 kernels and Linear layers whose input channels {block} divides, in multiples of 16, and "
        "no others",
        remedy="ask for a block that divides the input channels, or for none" if is_nowhere else "",
        softened=not is_nowhere,
    )


def _contradiction(difference: Difference) -> Finding:
    return Finding(
        "MNQ416",
        difference.text,
        difference.operator,
        cause="MNN's tools write both from one number: the file was changed after it was made",
        remedy="convert and quantize this source again",
    )


def _impossible(difference: Difference) -> Finding:
    return Finding(
        "MNQ417",
        difference.text,
        difference.operator,
        cause="no data give such a range: feature_clamp_value below 1 in mnnquant's configuration, or calibration on "
        "memory that was never filled (samples that are missing or can't be read)",
        remedy="calibrate again with feature_clamp_value 127, and look at the values that are fed",
    )


def _other_forms(base: Model, model: Model, match: Match, recipe: Recipe) -> list[Finding]:
    """Layers whose scales are wider than asked, or not optimized though HQQ was asked."""
    found = []
    for layer, stored in sorted(match.pairs, key=lambda pair: -pair[0].weight_count):
        weights = stored.weights[0]
        if weights.storage is not Storage.INTEGER or not weights.intact:
            continue
        remedy = f"convert again with exactly: {' '.join(recipe.flags)} (MNN ignores flags it does not know)"
        if recipe.half_scales and not weights.half_scales:
            found.append(Finding("MNQ415", "its scales are 32-bit floats, 16 bits were asked", layer.name, "", remedy))
        elif recipe.hqq and (why := _not_hqq(base, layer, model, stored)):
            cause = "MNN's converter drops --hqq where weights are symmetric, and ignores other spellings of it"
            found.append(Finding("MNQ415", f"its scales {why}, HQQ was asked", layer.name, cause, remedy))
    return found


def _not_hqq(base: Model, layer: Op, model: Model, stored: Op) -> str:
    """How scales are seen not to be optimized: symmetric, or the lowest code of each group stands for its minimum.

    MNN's HQQ moves that by 0.2 to 0.4 of a step in the worst group of a layer, and leaves the steps as they are.
    """
    if not stored.weights[0].asymmetric:
        return "are symmetric"
    steps = model.steps(stored)
    if not len(steps) or layer.weight_count % len(steps):
        return ""
    ours, theirs = (of.decoded(op).reshape(len(steps), -1) for of, op in ((base, layer), (model, stored)))
    return "span the weights from min to max" if (np.abs(ours.min(1) - theirs.min(1)) <= _SPANS * steps).all() else ""


def _other_vectors(base: Model, model: Model, match: Match) -> list[Finding]:
    """Biases and normalizations that are not the source's; of layers by their match, of others by their name."""
    ours, theirs = base.vectors(), model.vectors()
    names = {layer.name: stored.name for layer, stored in match.pairs}
    findings = []
    for name, vector in ours.items():
        other = theirs.get(names.get(name, name))
        if other is None or other.shape != vector.shape or not vector.size:
            continue
        size = float(np.abs(vector).max())
        worst = float(np.abs(vector - other).max())
        if not worst <= _VECTOR_TOLERANCE * size:
            message = f"its bias or normalization is off by {worst:.4g} where its largest value is {size:.4g}"
            findings.append(Finding("MNQ411", message, name, remedy="convert and quantize this source again"))
    return findings
