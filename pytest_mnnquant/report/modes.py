"""Train against eval: the effect of the calibration mode, as numbers and as a sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.file_metrics import SizeMetrics
from pytest_mnnquant.findings.finding import FAILED
from pytest_mnnquant.findings.metric import ACCURACY, COVERAGE, SIZE
from pytest_mnnquant.report.variant_report import VariantReport
from pytest_mnnquant.report.width import pad, width, wrapped

# Scales that differ by less than this are equal.
_SAME_SCALE: Final = 0.01
# Cosines are compared by how far they are from 1; a factor below this is not a difference.
_CLEARLY: Final = 1.5
_NOISE: Final = 1e-5
# Scales further apart than this factor belong to different values; the exact factor has no meaning.
_FAR: Final = 10


@dataclass(frozen=True, slots=True)
class ModeMetrics:
    """The metrics of the variant of one mode; None if not measured.

    `coverage`, `top1` and `float_top1` are shares in [0, 1], `size_ratio` is float bytes / quantized bytes, `cosine` is
    the lowest of an output, `drift` that of BatchNorm statistics in standard deviations. `scales` are by tensor,
    `failed` are the names of the failed checks.
    """

    mode: str
    coverage: float | None
    size_ratio: float | None
    float_top1: float | None
    top1: float | None
    cosine: float | None
    samples: int
    drift: float
    scales: Mapping[str, float]
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModeComparison:
    """Both modes of one recipe. `changes` is the relative change of each tensor's scale from eval to train."""

    recipe: str
    train: ModeMetrics
    eval: ModeMetrics
    changes: Mapping[str, float]

    @property
    def verdict(self) -> str:
        """The mode to ship, and the reason, in a sentence."""
        failed = {mode.mode: ", ".join(mode.failed) for mode in (self.train, self.eval) if mode.failed}
        better, why = self._better()
        if len(failed) == 2:
            same = failed["train"] == failed["eval"]
            each = "; ".join(f"{mode} failed {checks}" for mode, checks in failed.items())
            return f"ship neither: {'both failed ' + failed['eval'] if same else each}"
        if failed:
            ((mode, checks),) = failed.items()
            other = "eval" if mode == "train" else "train"
            return f"ship {other}: {mode} failed {checks}" + (f"; {why}" if better == other else "")
        return f"ship {better}: {why}" if better else why

    def _better(self) -> tuple[str | None, str]:
        """The better mode (None if they do not differ), and the reason."""
        train, other = self.train, self.eval
        assert train.coverage is not None
        assert other.coverage is not None
        if abs(train.coverage - other.coverage) > 1e-6:
            better = train if train.coverage > other.coverage else other
            return better.mode, f"train quantizes {train.coverage:.1%} of the weights, eval {other.coverage:.1%}"
        same = f"both quantize the same share of the weights ({other.coverage:.1%})"
        if train.drift == 0 and max(self.changes.values(), default=0.0) < _SAME_SCALE:
            return None, f"train and eval do not differ: {same}, with the same scales; eval is the usual mode"
        better_mode, why = self._more_accurate()
        far = f"by up to {train.drift:.2g} standard deviations"
        moved = f"; train mode moved BatchNorm statistics {far}" if train.drift else ""
        return better_mode or "eval", f"{same}, {'but' if better_mode else 'and'} {why}{moved}"

    def _more_accurate(self) -> tuple[str | None, str]:
        train, other = self.train, self.eval
        if train.top1 is not None and other.top1 is not None:
            # Twice the standard error of a difference of this number of samples; the data can't decide below it.
            share = (train.top1 + other.top1) / 2
            noise = 2 * math.sqrt(max(share * (1 - share), 1e-4) / max(train.samples, 1))
            if train.top1 == other.top1:
                return None, f"top-1 is {train.top1:.4f} in both"
            numbers = f"top-1 is {train.top1:.4f} in train and {other.top1:.4f} in eval"
            if abs(train.top1 - other.top1) <= noise:
                return None, f"{numbers}: not distinguishable with {train.samples} samples"
            return ("train" if train.top1 > other.top1 else "eval"), numbers
        if train.cosine is not None and other.cosine is not None:
            numbers = f"cosine to float is {train.cosine:.4f} in train and {other.cosine:.4f} in eval"
            lost = [max(1 - mode.cosine, _NOISE) for mode in (train, other) if mode.cosine is not None]
            if max(lost) / min(lost) < _CLEARLY:
                return None, f"{numbers}: no measurable difference"
            return ("train" if lost[0] < lost[1] else "eval"), numbers
        return None, "accuracy was not measured"


def compare_modes(variants: Sequence[VariantReport]) -> tuple[ModeComparison, ...]:
    """One comparison per recipe of a model for which both modes were built and checked on the host."""
    by_recipe: dict[str, dict[str, VariantReport]] = {}
    for variant in variants:
        if variant.mode in ("train", "eval") and not variant.target:
            by_recipe.setdefault(variant.recipe, {})[variant.mode] = variant
    return tuple(
        _compared(recipe, _metrics_of("train", modes["train"]), _metrics_of("eval", modes["eval"]))
        for recipe, modes in by_recipe.items()
        if len(modes) == 2 and all(variant.coverage is not None for variant in modes.values())
    )


def _compared(recipe: str, train: ModeMetrics, other: ModeMetrics) -> ModeComparison:
    changes = {
        tensor: abs(scale / other.scales[tensor] - 1)
        for tensor, scale in train.scales.items()
        if other.scales.get(tensor)
    }
    return ModeComparison(recipe, train, other, changes)


def _metrics_of(mode: str, variant: VariantReport) -> ModeMetrics:
    size, accuracy = variant.metrics(SizeMetrics), variant.metrics(AccuracyMetrics) or AccuracyMetrics()
    return ModeMetrics(
        mode,
        variant.coverage,
        size.size_ratio if size else None,
        accuracy.float_top1,
        accuracy.top1,
        accuracy.cosine,
        accuracy.samples or 0,
        variant.drift,
        _scales(variant),
        tuple(sorted(check.check for check in variant.checks if check.outcome == FAILED)),
    )


def _scales(variant: VariantReport) -> dict[str, float]:
    """The scales of the variant's activations, by layer and side."""
    sides = [
        (f"{layer.name} {side}", scale)
        for layer in variant.layers
        for side, scale in (("in", layer.scale_in), ("out", layer.scale_out))
    ]
    return {tensor: scale for tensor, scale in sides if scale}


def comparison_lines(comparison: ModeComparison, columns: int = 80) -> list[str]:
    """The comparison as lines for a terminal. BN is BatchNorm, whose statistics drift in train mode."""
    header = ("", COVERAGE.title, SIZE.title, ACCURACY.title, "BN drift")
    rows = [header, *(_row(mode) for mode in (comparison.train, comparison.eval))]
    widths = [max(width(row[column]) for row in rows) for column in range(len(header))]
    lines = [f"  {comparison.recipe}, train against eval:"]
    lines += [
        "    " + "  ".join(pad(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if comparison.changes:
        worst = max(comparison.changes, key=lambda tensor: comparison.changes[tensor])
        middle, most = statistics.median(comparison.changes.values()), comparison.changes[worst]
        where = f"at most ({worst})" if most <= _FAR - 1 else f"in {worst}"
        lines += wrapped("    ", f"scales differ by {_change(middle)} (median), by {_change(most)} {where}", columns)
    return [*lines, *wrapped("    ", comparison.verdict, columns, indent=4)]


def _change(change: float) -> str:
    return f"{change:.1%}" if change <= _FAR - 1 else f"more than {_FAR}x"


def _row(mode: ModeMetrics) -> tuple[str, ...]:
    accuracy = "-" if mode.cosine is None else f"cosine {mode.cosine:.4f}"
    if mode.top1 is not None and mode.float_top1 is not None:
        accuracy = f"top-1 {mode.top1:.4f} (float {mode.float_top1:.4f})"
    return (
        mode.mode,
        "-" if mode.coverage is None else f"{mode.coverage:.1%}",
        size_text(mode.size_ratio),
        accuracy,
        f"{mode.drift:.2g} sd" if mode.drift else "0",
    )
