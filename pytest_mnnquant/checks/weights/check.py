"""Weights: what is stored, decoded, is what the source has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_mnnquant.checks.weights.errors import WeightError, weight_errors, weights_of
from pytest_mnnquant.checks.weights.scale_order import scale_order
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.file_metrics import WeightsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.consistency import contradictions, impossible_scales
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.mnnfile.structure import Difference
from pytest_mnnquant.recipes.mnn_support import can_block
from pytest_mnnquant.recipes.recipe import Recipe

# Of the largest value. Vectors stay as they are in all tools but mnnquant's EMA, which trains them a little; a pipeline
# may have passed through 16-bit floats, which rounds by 2^-11.
_VECTOR_TOLERANCE = 1e-3
_TRAINED = 0.05
# In steps: how near a minimum the lowest code is where scales span from min to max.
_SPANS = 1e-3
# Steps this much coarser than the weights need throw two bits away. One scale for a whole layer stays below.
_COARSE = 4.0


def check_weights(
    base: Model, model: Model, match: Match, days_older: float | None, recipe: Recipe | None = None
) -> Result:
    """Fail for each layer whose weights are not the source's, or whose scales are not as the `recipe` asks.

    `days_older`: how much older the file is than the source.
    """
    errors, findings = weight_errors(base, model, match)
    vectors = _vector_errors(base, model, match)
    counts = {layer.name: layer.weight_count for layer, _ in match.pairs}
    others = sorted((error for error in errors if error.is_other), key=lambda error: -counts[error.layer])
    usual = _cause(len(others), len(errors), days_older)
    findings += [
        Finding(
            "MNQ410",
            f"its weights are not the source's: SQNR {error.measured:.1f} dB, rounding gives {error.expected:.1f} dB",
            error.layer,
            why.cause,
            why.fix,
        )
        for error in others
        for why in [_own_cause(error, base, model, match) or usual]
    ]
    findings += [finding for error in errors if not error.is_other for finding in _channels(error)]
    findings += [_contradiction(fault) for fault in contradictions(model)]
    findings += [_impossible(fault) for fault in impossible_scales(model)]
    findings += scale_order(model)
    findings += _dropped_blocks(match, recipe.block) if recipe and recipe.block else []
    findings += _other_forms(base, model, match, recipe) if recipe and not others else []
    if errors and not others:  # Where weights are others, vectors are too: that needs no further word.
        findings += _other_vectors(vectors, recipe)
    if not errors and not findings:
        findings.append(Finding("MNQ001", "no layer of the quantized model could be compared with the source"))
    worst = min((error.measured for error in errors), default=None)
    metrics = WeightsMetrics(
        layers_compared=len(errors),
        worst_sqnr_db=worst,
        worst_drift=max((abs(error.drift) for error in errors), default=None),
        worst_vector_error=max(vectors.values(), default=None),
    )
    return Result.from_findings("weights", findings, metrics)


_FLATTENED = Explanation(
    Cause(
        "range-below-smallest-scale",
        "their range is too small for the converter's scale, so all their weights became one code",
    ),
    "quantize this layer symmetrically (--weightQuantAsymmetric=0), or leave it float",
)
_CHANGED = Explanation(
    Cause(
        "file-changed",
        "all other channels are the source's: the file was changed after it was made, or made by a faulty tool",
    ),
    "convert and quantize this source again",
)


def _channels(error: WeightError) -> list[Finding]:
    """What is wrong with a layer whose weights as a whole are the source's."""
    findings = []
    if error.lost:
        where = f"of {error.lost} of its {error.channels} scales (first: {error.first_lost})"
        message = f"the weights {where} are other values than the source's"
        why = _FLATTENED if error.flattened else _CHANGED
        findings.append(Finding("MNQ412", message, error.layer, why.cause, why.fix))
    if error.coarseness > _COARSE:
        findings.append(
            Finding(
                "MNQ413",
                f"its steps are {error.coarseness:.1f} times as coarse as its weights need, {_COARSE:g} allowed",
                error.layer,
                cause=Cause("scales-of-larger-weights", "the scales were made for larger weights than these"),
                fix="calibrate this source again, and convert with the params file that this writes",
            )
        )
    return findings


def _own_cause(error: WeightError, base: Model, model: Model, match: Match) -> Explanation | None:
    """Why this layer holds other weights, where they show it."""
    if error.clipped:
        return _clipping(error)
    again = "convert and quantize this source again"
    if error.is_truncated:
        text = f"on average they are {error.drift:+.2f} steps off: they were cut off to codes, not rounded"
        return Explanation(Cause("weights-truncated", text), again)
    if other := weights_of(base, model, match, error.layer):
        return Explanation(Cause("weights-of-other-layer", f"it holds the weights of {other!r}"), again)
    stored = next(stored for layer, stored in match.pairs if layer.name == error.layer)
    if stored.weights[0].external and model.external_path is not None:
        name = model.external_path.name
        text = f"its weights lie in {name}: that file, or a part of it, is of another conversion"
        return Explanation(Cause("external-weights-of-other-conversion", text), again)
    return None


def _clipping(error: WeightError) -> Explanation:
    if not error.calibrated:
        return Explanation(
            Cause(
                "channels-below-smallest-scale",
                f"{error.clipped} of its {error.channels} channels became one code each: MNN's converter gives "
                "channels whose step is 1e-6 or less no scale",
            ),
            "leave this layer float (--mnn-skip-layer), or scale its weights up and what follows down",
        )
    return Explanation(
        Cause(
            "weights-clipped",
            f"{error.clipped} of its {error.channels} scales are too small for the weights, which are clipped: the "
            "params were made for other weights, such as those before a retraining",
        ),
        "calibrate this source again, and convert with the params file that this writes",
    )


def _cause(others: int, compared: int, days_older: float | None) -> Explanation:
    fix = (
        "convert and quantize this source again; delete the old output first, since MNN's converter leaves it there "
        "when it fails"
    )
    if others == compared and days_older is not None and days_older > 0:
        age = f"{days_older:.1f} days" if days_older >= 1 else f"{days_older * 24 * 60:.0f} minutes"
        text = f"every layer has other weights and the file is {age} older than the source: it is a stale output"
        return Explanation(Cause("stale-output", text), fix)
    if others == compared:
        text = "every layer has other weights: the file was made from another training of this network"
        return Explanation(Cause("other-training", text), fix)
    return Explanation(fix="convert and quantize this source again")


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
        fix = f"convert again with --weightQuantBlock {block}"
        findings.append(Finding("MNQ414", message, layer.name, fix=fix))
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
        cause=Cause(
            "layer-can-not-be-blocked",
            f"MNN blocks 1x1 kernels and Linear layers whose input channels {block} divides, in multiples of 16, and "
            "no others",
        ),
        fix="ask for a block that divides the input channels, or for none" if is_nowhere else "",
        as_warning=not is_nowhere,
    )


def _contradiction(difference: Difference) -> Finding:
    return Finding(
        "MNQ416",
        difference.text,
        difference.operator,
        cause=Cause("file-changed", "MNN's tools write both from one number: the file was changed after it was made"),
        fix="convert and quantize this source again",
    )


def _impossible(difference: Difference) -> Finding:
    return Finding(
        "MNQ417",
        difference.text,
        difference.operator,
        cause=Cause(
            "range-of-no-data",
            "no data give such a range: feature_clamp_value below 1 in mnnquant's configuration, or calibration on "
            "memory that was never filled (samples that are missing or can't be read)",
        ),
        fix="calibrate again with feature_clamp_value 127, and look at the values that are fed",
    )


def _other_forms(base: Model, model: Model, match: Match, recipe: Recipe) -> list[Finding]:
    """Layers whose scales are wider than asked, or not optimized though HQQ was asked."""
    findings = []
    for layer, stored in sorted(match.pairs, key=lambda pair: -pair[0].weight_count):
        weights = stored.weights[0]
        if weights.storage is not Storage.INTEGER or not weights.intact:
            continue
        fix = f"convert again with exactly: {' '.join(recipe.flags)} (MNN ignores flags it does not know)"
        if recipe.half_scales and not weights.half_scales:
            findings.append(Finding("MNQ415", "its scales are 32-bit floats, 16 bits were asked", layer.name, fix=fix))
        elif recipe.hqq and (why := _not_hqq(base, layer, model, stored)):
            text = "MNN's converter drops --hqq where weights are symmetric, and ignores other spellings of it"
            cause = Cause("option-dropped", text)
            findings.append(Finding("MNQ415", f"its scales {why}, HQQ was asked", layer.name, cause, fix))
    return findings


def _not_hqq(base: Model, layer: Op, model: Model, stored: Op) -> str:
    """How scales are seen not to be optimized: symmetric, or the lowest code of each group stands for its minimum.

    MNN's HQQ moves that by 0.2 to 0.4 of a step in the worst group of a layer, and leaves the steps as they are.
    """
    if not stored.weights[0].asymmetric:
        return "are symmetric"
    steps = model.steps(stored)
    if not len(steps) or layer.weight_count % len(steps):
        return ""
    source, decoded = (of.decoded(op).reshape(len(steps), -1) for of, op in ((base, layer), (model, stored)))
    return (
        "span the weights from min to max" if (np.abs(source.min(1) - decoded.min(1)) <= _SPANS * steps).all() else ""
    )


def _vector_errors(base: Model, model: Model, match: Match) -> dict[str, float]:
    """How far biases and normalizations are off, as shares of the largest value; layers by match, others by name."""
    base_vectors, vectors = base.vectors(), model.vectors()
    names = {layer.name: stored.name for layer, stored in match.pairs}
    errors = {}
    for name, vector in base_vectors.items():
        other = vectors.get(names.get(name, name))
        if other is None or other.shape != vector.shape or not vector.size:
            continue
        size = float(np.abs(vector).max()) or 1.0
        errors[name] = float(np.abs(vector - other).max()) / size
    return errors


def _other_vectors(errors: Mapping[str, float], recipe: Recipe | None) -> list[Finding]:
    """Biases and normalizations that are not the source's, by how far they are off."""
    allowed = _TRAINED if recipe is not None and recipe.trains_vectors else _VECTOR_TOLERANCE
    wrong = {name: share for name, share in errors.items() if not share <= allowed}
    cause = None
    if 1 < len(errors) <= 2 * len(wrong):
        text = f"so are {len(wrong)} of {len(errors)}: the file is of another training, or another checkpoint, of it"
        cause = Cause("other-training", text)
    return [
        Finding(
            "MNQ411",
            f"its bias or normalization is off by {share:.2g} of its largest value, {allowed:g} allowed",
            name,
            cause,
            "convert and quantize this source again",
        )
        for name, share in wrong.items()
    ]
