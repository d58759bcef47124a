"""Weights: what is stored, decoded, is what the source has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model

# No rounding errs by more than half a step, which is 4.8 dB above its mean power of step^2 / 12. Of MNN's own ways to
# quantize only mnnquant's ADMM weights come near that (3.9 dB). An error beyond it is no rounding.
_MARGIN_DB = 6.0
# Steps finer than this are judged as if they were this fine; float16 keeps about 67 dB.
_FINEST_DB = 50.0


# Vectors stay float; float16 keeps 3 digits, and mnnquant's EMA trains them a little.
_VECTOR_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class WeightError:
    """SQNR in dB of a layer's decoded weights, measured and as rounding to its steps would give.

    `clipped` of `channels` can't hold the source's largest weights, where that is all that is wrong.
    """

    layer: str
    measured: float
    expected: float
    clipped: int = 0
    channels: int = 0

    @property
    def is_other(self) -> bool:
        """Whether rounding can't explain the difference."""
        return self.measured < self.expected - _MARGIN_DB


def weight_errors(base: Model, model: Model, match: Match) -> tuple[list[WeightError], list[Finding]]:
    """Compare each pair of layers; returns the figures, and findings where weights can't be decoded.

    Expected noise power of rounding is step^2 / 12 (uniform error of half a step either way).
    """
    errors, findings = [], []
    for layer, stored in match.pairs:
        try:
            ours, theirs = base.decoded(layer).reshape(-1), model.decoded(stored).reshape(-1)
            steps = model.steps(stored).astype(np.float64)
        except BadModel as error:
            findings.append(Finding("MNQ403", f"its weights can't be decoded: {error}", layer.name))
            continue
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            findings.append(
                Finding("MNQ403", f"{theirs.size} finite weights wanted, {ours.size} in the source", layer.name)
            )
            continue
        signal = float(np.square(ours.astype(np.float64)).mean())
        noise = float(np.square(steps).mean()) / 12 if steps.size else 0.0
        expected = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf
        clipped = _clipped(ours.reshape(len(steps), -1), theirs.reshape(len(steps), -1), steps) if len(steps) else 0
        measured = sqnr_db(ours, theirs)
        errors.append(WeightError(layer.name, measured, min(expected, _FINEST_DB), clipped, len(steps)))
    return errors, findings


def _clipped(ours: Floats, theirs: Floats, steps: npt.NDArray[np.float64]) -> int:
    """How many groups can't hold the source's largest values, if nothing else is wrong; both are [groups, n]."""
    step = steps[:, np.newaxis]
    beyond = (ours > theirs.max(1, keepdims=True) + step) | (ours < theirs.min(1, keepdims=True) - step)
    wrong = np.abs(ours - theirs) > step
    return 0 if (wrong & ~beyond).any() else int(beyond.any(1).sum())


def check_weights(base: Model, model: Model, match: Match, older_by_days: float | None) -> Result:
    """Fail for each layer whose weights are not the source's. `older_by_days`: how much older the file is than it."""
    errors, findings = weight_errors(base, model, match)
    others = sorted((error for error in errors if error.is_other), key=lambda error: error.measured)
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
    if errors and not others:  # Where weights are others, vectors are too: that needs no further word.
        findings += _other_vectors(base, model, match)
    if not errors and not findings:
        findings.append(Finding("MNQ001", "no layer of the quantized model could be compared with the source"))
    worst = min((error.measured for error in errors), default=None)
    metrics = {"layers_compared": len(errors), "worst_sqnr_db": worst}
    return judge("weights", findings, metrics)


def _clipping(error: WeightError) -> tuple[str, str]:
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
