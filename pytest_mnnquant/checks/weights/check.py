"""Weights: the stored weights, decoded, are the source's, and their scales have the requested format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pytest_mnnquant.checks.convert_again import calibrate_again, convert_again
from pytest_mnnquant.checks.weights.errors import WeightError, weight_errors, weights_of
from pytest_mnnquant.checks.weights.scale_order import scale_order
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.file_metrics import WeightsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.fix_command import ConvertCommand, skip_option
from pytest_mnnquant.mnnfile.consistency import contradictions, impossible_scales
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.mnnfile.structure import Difference
from pytest_mnnquant.recipes.mnn_support import can_block
from pytest_mnnquant.recipes.recipe import Recipe

# Of the largest value. Only mnnquant's EMA changes vectors: it trains them a little. A pipeline may store them as
# 16-bit floats for a while, which rounds by 2^-11.
_VECTOR_TOLERANCE = 1e-3
_TRAINED = 0.05
# In steps: how near the lowest code is to the minimum of its weights if scales span from min to max.
_SPANS = 1e-3
# Steps that are this much coarser than the weights need lose two bits. One scale for a whole layer stays below.
_COARSE = 4.0


def check_weights(
    base: Model,
    model: Model,
    match: Match,
    days_older: float | None,
    recipe: Recipe | None = None,
    convert_command: ConvertCommand | None = None,
) -> Result:
    """Fail for each layer whose weights are not the source's, or whose scales are not as the `recipe` requests.

    `days_older`: by how many days the file is older than the source; None: unknown. `convert_command` names the files
    in the commands of fixes.
    """
    fixes = Fixes.of(convert_command, recipe)
    errors, findings = weight_errors(base, model, match, fixes.convert)
    vectors = _vector_errors(base, model, match)
    counts = {layer.name: layer.weight_count for layer, _ in match.pairs}
    others = sorted((error for error in errors if error.is_other), key=lambda error: -counts[error.layer])
    usual = _cause(len(others), len(errors), days_older, fixes)
    findings += [
        Finding(
            "MNQ410",
            f"its weights differ from the source's: SQNR {error.measured:.1f} dB, expected {error.expected:.1f} dB "
            "from rounding alone",
            error.layer,
            why.cause,
            why.fix,
        )
        for error in others
        for why in [_own_cause(error, base, model, match, fixes) or usual]
    ]
    findings += [finding for error in errors if not error.is_other for finding in _channels(error, fixes)]
    findings += [_contradiction(fault, fixes) for fault in contradictions(model)]
    findings += [_impossible(fault) for fault in impossible_scales(model)]
    findings += scale_order(model)
    findings += _dropped_blocks(match, recipe.block, fixes) if recipe and recipe.block else []
    findings += _other_forms(base, model, match, recipe, fixes) if recipe and not others else []
    if errors and not others:  # If the weights differ, the vectors do too, for the same reason.
        findings += _other_vectors(vectors, recipe, fixes)
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


@dataclass(frozen=True, slots=True)
class Fixes:
    """The fixes of a variant: convert again, and calibrate again first."""

    convert: str
    calibrate: str

    @classmethod
    def of(cls, command: ConvertCommand | None, recipe: Recipe | None) -> Fixes:
        """Complete commands if the files are known."""
        return cls(convert_again(command, recipe), calibrate_again(command, recipe))


_RANGE_TOO_SMALL = Cause(
    "range-below-smallest-scale",
    "the range of these channels is too small for the converter's scale, so all their weights became one code",
)
_CHANGED = Cause(
    "file-changed",
    "all other channels are the source's: the file was changed after it was made, or a faulty tool made it",
)


def _channels(error: WeightError, fixes: Fixes) -> list[Finding]:
    """The findings on single channels of a layer whose weights as a whole are the source's."""
    findings = []
    if error.lost:
        where = f"{error.lost} of its {error.channels} scale groups (first: {error.first_lost})"
        message = f"the weights of {where} differ from the source's"
        cause, fix = _CHANGED, fixes.convert
        if error.flattened:
            keep = f"to keep it float, add {skip_option(error.layer)}"
            cause, fix = _RANGE_TOO_SMALL, f"quantize it symmetrically (--weightQuantAsymmetric=0); {keep}"
        findings.append(Finding("MNQ412", message, error.layer, cause, fix))
    if error.coarseness > _COARSE:
        findings.append(
            Finding(
                "MNQ413",
                f"its quantization steps are {error.coarseness:.1f} times as coarse as its weights need, allowed "
                f"{_COARSE:g}",
                error.layer,
                cause=Cause("scales-of-larger-weights", "the scales were made for larger weights than these"),
                fix=fixes.calibrate,
            )
        )
    return findings


def _own_cause(error: WeightError, base: Model, model: Model, match: Match, fixes: Fixes) -> Explanation | None:
    """Why this layer holds other weights; None if they do not show it."""
    if error.clipped:
        return _clipping(error, fixes)
    again = fixes.convert
    if error.is_truncated:
        text = f"the mean error is {error.drift:+.2f} steps: the weights were truncated to codes, not rounded"
        return Explanation(Cause("weights-truncated", text), again)
    if other := weights_of(base, model, match, error.layer):
        return Explanation(Cause("weights-of-other-layer", f"it holds the weights of {other!r}"), again)
    stored = next(stored for layer, stored in match.pairs if layer.name == error.layer)
    if stored.weights[0].external and model.external_path is not None:
        name = model.external_path.name
        text = f"its weights are in {name}, and that file, or a part of it, is from another conversion"
        return Explanation(Cause("external-weights-of-other-conversion", text), again)
    return None


def _clipping(error: WeightError, fixes: Fixes) -> Explanation:
    if not error.calibrated:
        return Explanation(
            Cause(
                "channels-below-smallest-scale",
                f"{error.clipped} of its {error.channels} channels became one code each: MNN's converter gives no "
                "scale to channels whose step is 1e-6 or less",
            ),
            f"to keep this layer float, add {skip_option(error.layer)}; or scale its weights up and the next layer's "
            "weights down",
        )
    return Explanation(
        Cause(
            "weights-clipped",
            f"{error.clipped} of its {error.channels} scales are too small, so the weights are clipped: the params "
            "file was made for other weights, such as those before a retraining",
        ),
        fixes.calibrate,
    )


def _cause(others: int, compared: int, days_older: float | None, fixes: Fixes) -> Explanation:
    fix = f"delete the old output; read the log of the converter when you convert; {fixes.convert}"
    if others == compared and days_older is not None and days_older > 0:
        age = f"{days_older:.0f} days" if days_older >= 2 else f"{days_older * 24 * 60:.0f} minutes"
        text = (
            f"every layer differs, and the file is {age} older than the source: probably the last conversion failed, "
            "since MNN's converter then keeps the old output and exits with status 0"
        )
        return Explanation(Cause("stale-output", text), fix)
    if others == compared:
        text = "every layer differs: the file was made from another training of this network"
        return Explanation(Cause("other-training", text), fix)
    return Explanation(fix=fixes.convert)


def _dropped_blocks(match: Match, block: int, fixes: Fixes) -> list[Finding]:
    """Layers without the requested block: an error if MNN could have applied it, else one warning for all of them.

    The latter is an error too if no layer has such blocks: then nothing in the file is as requested.
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
        stored = "one scale per channel" if weights.block is None else f"one scale per {weights.block} weights"
        message = f"has {stored}; requested one scale per {block} weights"
        findings.append(Finding("MNQ414", message, layer.name, fix=fixes.convert))
    impossible = [layer for layer, weights in dropped if (layer, weights) not in could]
    if impossible:
        findings.append(_unblocked(impossible, block, is_nowhere=len(dropped) == len(layers) and not could))
    return findings


def _unblocked(layers: list[Op], block: int, is_nowhere: bool) -> Finding:
    subject = "1 layer has" if len(layers) == 1 else f"{len(layers)} layers have"
    return Finding(
        "MNQ414",
        f"{subject} one scale per channel; requested one scale per {block} weights",
        layers[0].name,
        cause=Cause(
            "layer-can-not-be-blocked",
            "MNN applies blocks only to 1x1 kernels and Linear layers whose input channels are a multiple of "
            f"{block}; a block is a multiple of 16",
        ),
        fix="request a block that divides the input channels, or none (--mnn-recipe=w4, for example)"
        if is_nowhere
        else "",
        as_warning=not is_nowhere,
    )


def _contradiction(difference: Difference, fixes: Fixes) -> Finding:
    return Finding(
        "MNQ416",
        difference.text,
        difference.operator,
        cause=Cause(
            "file-changed", "MNN's tools write both from one number, so the file was changed after it was made"
        ),
        fix=fixes.convert,
    )


def _impossible(difference: Difference) -> Finding:
    return Finding(
        "MNQ417",
        difference.text,
        difference.operator,
        cause=Cause(
            "range-of-no-data",
            "no data have such a range: feature_clamp_value is below 1 in mnnquant's configuration, or the calibration "
            "read uninitialized memory (samples that are missing or can't be read)",
        ),
        fix="check the samples that the calibration reads, and calibrate again with feature_clamp_value 127",
    )


def _other_forms(base: Model, model: Model, match: Match, recipe: Recipe, fixes: Fixes) -> list[Finding]:
    """Layers whose scales have more bits than requested, or are not optimized though HQQ was requested."""
    findings = []
    for layer, stored in sorted(match.pairs, key=lambda pair: -pair[0].weight_count):
        weights = stored.weights[0]
        if weights.storage is not Storage.INTEGER or not weights.intact:
            continue
        if recipe.half_scales and not weights.half_scales:
            findings.append(
                Finding("MNQ415", "has 32-bit scales; requested 16-bit scales", layer.name, fix=fixes.convert)
            )
        elif recipe.hqq and (why := _not_hqq(base, layer, model, stored)):
            text = "MNN's converter ignores --hqq for symmetric weights, and ignores misspelled flags"
            cause = Cause("option-dropped", text)
            findings.append(Finding("MNQ415", f"its scales {why}; requested HQQ", layer.name, cause, fixes.convert))
    return findings


def _not_hqq(base: Model, layer: Op, model: Model, stored: Op) -> str:
    """What shows that scales are not optimized: they are symmetric, or each group's lowest code is its minimum.

    MNN's HQQ moves that by 0.2 to 0.4 of a step in the worst group of a layer, and does not change the steps.
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
    """Errors of biases and normalizations, as shares of the largest value; layers by match, others by name."""
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


def _other_vectors(errors: Mapping[str, float], recipe: Recipe | None, fixes: Fixes) -> list[Finding]:
    """Biases and normalizations that are not the source's, with their errors."""
    allowed = _TRAINED if recipe is not None and recipe.trains_vectors else _VECTOR_TOLERANCE
    wrong = {name: share for name, share in errors.items() if not share <= allowed}
    cause = None
    if 1 < len(errors) <= 2 * len(wrong):
        text = f"{len(wrong)} of {len(errors)} differ: the file is from another training or another checkpoint"
        cause = Cause("other-training", text)
    return [
        Finding(
            "MNQ411",
            f"its bias or normalization differs by {share:.2g} of its largest value, allowed {allowed:g}",
            name,
            cause,
            fixes.convert,
        )
        for name, share in wrong.items()
    ]
