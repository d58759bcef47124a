"""Coverage: which layers of the float model are stored in the precision that was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.file_metrics import CoverageMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Recipe


@dataclass(frozen=True)
class LayerRow:
    """One layer of the float model and what became of it. `stored` is None where it has no counterpart."""

    layer: Op
    stored: Op | None
    wanted: bool
    quantized: bool


def layer_rows(match: Match, recipe: Recipe, is_skipped: Callable[[Op], bool]) -> tuple[LayerRow, ...]:
    """What became of each layer, largest first."""
    rows = []
    for layer, stored in [*match.pairs, *((op, None) for op in match.missing)]:
        quantized = stored is not None and all(recipe.stores(weights, can_compute(layer)) for weights in stored.weights)
        rows.append(LayerRow(layer, stored, not is_skipped(layer), quantized))
    return tuple(sorted(rows, key=lambda row: -row.layer.weight_bytes))


def coverage(rows: tuple[LayerRow, ...]) -> float:
    """Share of the wanted layers' float bytes that are stored as asked, in [0, 1]; 0 where there are none."""
    total = sum(row.layer.weight_bytes for row in rows if row.wanted)
    return sum(row.layer.weight_bytes for row in rows if row.wanted and row.quantized) / total if total else 0.0


def check_coverage(
    rows: tuple[LayerRow, ...],
    recipe: Recipe,
    min_coverage: float,
    explain: Callable[[LayerRow], Explanation],
    idle_patterns: tuple[str, ...] = (),
) -> Result:
    """Fail when less than `min_coverage` of the weight bytes are stored as asked, naming each layer that is not.

    `explain` says of a layer why it is not; `idle_patterns` are those of --mnn-skip-layer that match none.
    """
    wanted = [row for row in rows if row.wanted]
    share = coverage(rows)
    metrics = CoverageMetrics(
        coverage=share,
        layers=len(wanted),
        quantized_layers=sum(row.quantized for row in wanted),
        skipped_layers=len(rows) - len(wanted),
    )
    if not wanted:
        return Result.from_findings(
            "coverage", [Finding("MNQ001", "the float model has no layer to quantize")], metrics
        )
    kept = [_not_kept(row) for row in rows if not row.wanted and row.stored and not _is_float(row.stored)]
    kept += [Finding("MNQ404", f"--mnn-skip-layer={pattern} matches no layer") for pattern in idle_patterns]
    corrupt = [_corrupt(row) for row in wanted if row.stored and not all(w.intact for w in row.stored.weights)]
    if share >= min_coverage and not corrupt:
        return Result.from_findings("coverage", kept, metrics)
    total = sum(row.layer.weight_bytes for row in wanted)
    missed = [row for row in wanted if not row.quantized and not (row.stored and _is_corrupt(row.stored))]
    findings = [_missed(row, recipe, total, explain(row)) for row in missed] if share < min_coverage else []
    head = f"coverage {share:.1%}, at least {min_coverage:.1%} wanted"
    findings = [*corrupt, *findings, *kept]
    return Result.from_findings("coverage", _with_head(findings, head), metrics)


def _is_float(op: Op) -> bool:
    return all(weights.storage is Storage.FLOAT32 for weights in op.weights)


def _not_kept(row: LayerRow) -> Finding:
    assert row.stored is not None
    label = row.stored.weights[0].label
    message = f"is stored as {label}, but was meant to stay float (--mnn-skip-layer)"
    return Finding("MNQ405", message, row.layer.name, fix="leave it out when calibrating, and convert again")


def _is_corrupt(op: Op) -> bool:
    return not all(weights.intact for weights in op.weights)


def _corrupt(row: LayerRow) -> Finding:
    assert row.stored is not None
    weights = row.stored.weights[0]
    each = weights.size / max(1, weights.count)
    return Finding(
        "MNQ403",
        f"marked {weights.label}, but its buffer holds {each:.1f} bytes a weight: the runtime can't load it",
        row.layer.name,
        cause=Cause(
            "float-weights-under-int-header",
            "MNN's converter writes float weights under an int8 header for Linear layers of 65,536 weights or more "
            "when --compressionParamsFile is used while converting from ONNX",
        ),
        fix="convert to a float .mnn first, then quantize that:\n"
        "pytest-mnnquant convert -f MNN --modelFile float.mnn --compressionParamsFile PARAMS --MNNModel OUT.mnn",
    )


def _missed(row: LayerRow, recipe: Recipe, total: int, why: Explanation) -> Finding:
    share = row.layer.weight_bytes / total
    if row.stored is None:
        code, what = "MNQ401", "has no counterpart in the quantized model"
    elif row.stored.weights[0].storage in (Storage.FLOAT32, Storage.SPARSE_FLOAT):
        code, what = "MNQ401", f"is stored as {row.stored.weights[0].label}"
    else:
        code, what = "MNQ402", f"is stored as {row.stored.weights[0].label}"
    message = f"{what}, {recipe.weight_kind} asked ({share:.0%} of all weights)"
    return Finding(code, message, row.layer.name, why.cause, why.fix)


def _with_head(findings: list[Finding], head: str) -> list[Finding]:
    first, *rest = findings
    return [dataclasses.replace(first, message=f"{first.message}; {head}"), *rest]
