"""Coverage: which layers of the float model are stored at the requested precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.cause import Explanation
from pytest_mnnquant.findings.file_metrics import CoverageMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Recipe

# Constants that are not weights are reported from this share of the float bytes on.
_LARGE: Final = 0.1


@dataclass(frozen=True)
class LayerRow:
    """One layer of the float model and what became of it. `stored` is None if it has no counterpart.

    It counts in the coverage (`wanted`) if it is neither skipped nor an operand, which is a constant that no matrix
    product, convolution, look-up or recurrent operator reads. `quantized`: it is stored as requested. MNN computes a
    layer that `is_known_ahead` before a run, since it reads constants only: its weights count, and it needs no scales.
    """

    layer: Op
    stored: Op | None
    wanted: bool
    quantized: bool
    is_operand: bool = False
    is_known_ahead: bool = False


def layer_rows(
    match: Match,
    recipe: Recipe,
    is_skipped: Callable[[Op], bool],
    operands: Collection[tuple[str, str]] = (),
    known_ahead: Collection[str] = (),
) -> tuple[LayerRow, ...]:
    """What became of each layer, largest first.

    `operands` are the constants of `operand_constants`, `known_ahead` the layers of `layers_known_ahead`.
    """
    rows = []
    for layer, stored in [*match.pairs, *((op, None) for op in match.missing)]:
        is_ahead = not layer.subgraph and layer.name in known_ahead
        needed, computes = (recipe.without_scales if is_ahead else recipe), can_compute(layer) and not is_ahead
        quantized = stored is not None and all(needed.stores(weights, computes) for weights in stored.weights)
        is_operand = (layer.subgraph, layer.name) in operands
        rows.append(LayerRow(layer, stored, not is_operand and not is_skipped(layer), quantized, is_operand, is_ahead))
    return tuple(sorted(rows, key=lambda row: -row.layer.weight_bytes))


def coverage(rows: tuple[LayerRow, ...]) -> float:
    """Share of float weight bytes that are stored as requested, in [0, 1], of layers that count; 0 if none does."""
    total = sum(row.layer.weight_bytes for row in rows if row.wanted)
    return sum(row.layer.weight_bytes for row in rows if row.wanted and row.quantized) / total if total else 0.0


def check_coverage(
    rows: tuple[LayerRow, ...],
    recipe: Recipe,
    min_coverage: float,
    explain: Callable[[LayerRow], Explanation],
    idle_patterns: tuple[str, ...] = (),
) -> Result:
    """Fail if less than `min_coverage` of the weight bytes are stored as requested, and name each layer that is not.

    `explain` gives the cause and the fix of such a layer; `idle_patterns` match no layer.
    """
    wanted = [row for row in rows if row.wanted]
    skipped = [row for row in rows if not row.wanted and not row.is_operand]
    share = coverage(rows)
    metrics = CoverageMetrics(
        coverage=share,
        layers=len(wanted),
        quantized_layers=sum(row.quantized for row in wanted),
        skipped_layers=len(skipped),
    )
    if not wanted:
        return Result.from_findings(
            "coverage", [Finding("MNQ001", "the float model has no layer to quantize")], metrics
        )
    others = [_not_kept(row) for row in skipped if row.stored and not _is_float(row.stored)]
    others += _large_constants(rows)
    others += [Finding("MNQ404", f"--mnn-skip-layer={pattern} matches no layer") for pattern in idle_patterns]
    corrupt = [_corrupt(row, explain(row)) for row in wanted if row.stored and _is_corrupt(row.stored)]
    if share >= min_coverage and not corrupt:
        return Result.from_findings("coverage", others, metrics)
    total = sum(row.layer.weight_bytes for row in wanted)
    missed = [row for row in wanted if not row.quantized and not (row.stored and _is_corrupt(row.stored))]
    findings = [_missed(row, recipe, total, explain(row)) for row in missed] if share < min_coverage else []
    head = f"Coverage {share:.1%}, required {min_coverage:.1%}"
    findings = [*corrupt, *findings, *others]
    return Result.from_findings("coverage", _with_head(findings, head), metrics)


def _large_constants(rows: tuple[LayerRow, ...]) -> list[Finding]:
    """A warning if constants that are not weights stay float32 and hold a large share of the model."""
    constants = [row.layer for row in rows if row.is_operand and row.stored and _is_float(row.stored)]
    size, total = sum(op.weight_bytes for op in constants), sum(row.layer.weight_bytes for row in rows)
    if not constants or size < _LARGE * total:
        return []
    others = f" or {len(constants) - 1} other constants" if len(constants) > 1 else ""
    share = f"{size:,} bytes stay float, {size / total:.0%} of the float model"
    message = f"{share}: no operator reads this constant{others} as weights"
    fix = "compute the table in the app, make it smaller, or give it to the model as an input"
    return [Finding("MNQ406", message, constants[0].name, fix=fix)]


def _is_float(op: Op) -> bool:
    return all(weights.storage is Storage.FLOAT32 for weights in op.weights)


def _not_kept(row: LayerRow) -> Finding:
    assert row.stored is not None
    label = row.stored.weights[0].label
    message = f"is stored as {label}; --mnn-skip-layer requires float"
    fix = "take its entry out of the params file (or leave it out of the calibration), then convert again"
    return Finding("MNQ405", message, row.layer.name, fix=fix)


def _is_corrupt(op: Op) -> bool:
    return not all(weights.intact for weights in op.weights)


def _corrupt(row: LayerRow, why: Explanation) -> Finding:
    assert row.stored is not None
    weights = row.stored.weights[0]
    each = weights.size / max(1, weights.count)
    return Finding(
        "MNQ403",
        f"its header says {weights.label}, but its buffer holds {each:.1f} bytes per weight: MNN can't load it",
        row.layer.name,
        why.cause,
        why.fix,
    )


def _missed(row: LayerRow, recipe: Recipe, total: int, why: Explanation) -> Finding:
    share = row.layer.weight_bytes / total
    if row.stored is None:
        code, what = "MNQ401", "has no counterpart in the quantized model"
    elif row.stored.weights[0].storage in (Storage.FLOAT32, Storage.SPARSE_FLOAT):
        code, what = "MNQ401", f"is stored as {row.stored.weights[0].label}"
    else:
        code, what = "MNQ402", f"is stored as {row.stored.weights[0].label}"
    message = f"{what}; expected {recipe.weight_kind}; it holds {share:.0%} of all weights"
    return Finding(code, message, row.layer.name, why.cause, why.fix)


def _with_head(findings: list[Finding], head: str) -> list[Finding]:
    first, *rest = findings
    return [dataclasses.replace(first, message=f"{first.message}. {head}"), *rest]
