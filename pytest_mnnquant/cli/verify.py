"""Verifies that a converted model matches the request: the suite's checks, against a plain float conversion.

Decisions. A layer that is not stored as requested fails, as in the suite, unless --mnn-skip-layer names it. This
includes tables that MNN can't quantize, and layers that the params file does not list. For two kinds of layers, the
command line gives the expected storage: layers that the params file does not list, if --weightQuantBits or --fp16 is
given for the rest, and layers for which the file gives bits only. A sparse layer passes with --detectSparseSpeedUp,
unless nearly all of its weights are zero: such a layer is more often dead than pruned, and its compression says nothing
about bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_mnnquant.checks.conversion.check import ConversionEvidence, check_conversion
from pytest_mnnquant.checks.coverage.causes import LayerEvidence, explain_layer
from pytest_mnnquant.checks.coverage.check import LayerRow, check_coverage, coverage, layer_rows
from pytest_mnnquant.checks.params.check import check_params
from pytest_mnnquant.checks.params.evidence import ParamsEvidence, relate
from pytest_mnnquant.checks.size import check_size, graph_growth
from pytest_mnnquant.checks.weights.check import check_weights
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.defaults import COVERAGE
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.finding import FAILED, Finding, Result
from pytest_mnnquant.findings.fix_command import ConvertCommand
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.mnnfile.commands import layers_known_ahead
from pytest_mnnquant.mnnfile.constants import operand_constants
from pytest_mnnquant.mnnfile.entries import repaired
from pytest_mnnquant.mnnfile.matching import Match, match_layers
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import Params, write_params
from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.recipes.mnn_support import can_compute, is_skipped
from pytest_mnnquant.recipes.recipe import Recipe
from pytest_mnnquant.report.failure import failure_text

# Layers of pruned networks keep at least this share of their weights.
_LEFT = 0.05


@dataclass(frozen=True)
class Requested:
    """The requested storage of a model's layers; `skip` are globs of layers to keep float.

    `convert_command` is what the commands of fixes name: the user's source and output. `rest` are the bits (16: floats)
    of layers that the params file does not list. `bits` overrides the recipe's bits by operator. `params` is applied if
    activations are quantized; `repaired` is the path for a copy of it with the names that MNN expects, if its names
    differ.
    """

    recipe: Recipe
    convert_command: ConvertCommand
    skip: tuple[str, ...] = ()
    params: Params | None = None
    params_path: Path | None = None
    repaired: Path | None = None
    rest: int | None = None
    bits: dict[str, int] = dataclasses.field(default_factory=dict)
    sparse: bool = False


@dataclass(frozen=True)
class Verdict:
    """The results of the checks, and the state of each layer."""

    results: tuple[Result, ...]
    rows: tuple[LayerRow, ...]

    @property
    def failed(self) -> bool:
        """Whether the model does not match the request."""
        return any(result.outcome == FAILED for result in self.results)

    def line(self, base: Model, model: Model) -> str:
        """Layers, coverage and sizes in a few words."""
        to_quantize = [row for row in self.rows if row.wanted]
        stored = sum(row.quantized for row in to_quantize)
        return (
            f"{stored} of {len(to_quantize)} layers, coverage {coverage(self.rows):.1%}, "
            f"{size_text(base.size / model.size)} than float ({base.size:,} to {model.size:,} bytes)"
        )

    def failures(self, name: str, label: str) -> str:
        """The failed checks, in the words of the suite."""
        parts = []
        for result in self.results:
            errors = tuple(finding for finding in result.findings if finding.severity is Severity.ERROR)
            if errors:
                failed = dataclasses.replace(result, findings=errors)
                parts.append(failure_text(f"{name} {label}", failed, in_report=False))
        return "\n".join(parts)

    @property
    def warnings(self) -> list[str]:
        """The warnings about a model that passes."""
        return [
            f"{finding.rule.title}: " + (f"{finding.layer}: " if finding.layer else "") + finding.message
            for result in self.results
            for finding in result.findings
        ]


def verify(base: Model, model: Model, requested: Requested) -> Verdict:
    """Compare `model` with the same conversion without compression."""
    recipe, match = requested.recipe, match_layers(base, model)
    evidence = _evidence(base, model, match, requested)
    unlisted = evidence.unlisted if evidence is not None and requested.rest is not None else ()
    found = layer_rows(
        match, recipe, lambda op: _is_left_float(op, requested), operand_constants(base), layers_known_ahead(base)
    )
    rows = tuple(_row(row, base, requested, unlisted) for row in found)
    idle = tuple(glob for glob in requested.skip if not any(is_skipped(row.layer, (glob,)) for row in rows))

    command = requested.convert_command
    if evidence is not None:
        command = dataclasses.replace(command, params=evidence.applicable)

    def explain(row: LayerRow) -> Explanation:
        explanation = explain_layer(row, LayerEvidence(recipe, rows, evidence, model, command))
        # Without a cause, its command is the one that was just run.
        return explanation if explanation.cause else Explanation()

    results = [check_conversion(ConversionEvidence(base, proof={}), match, recipe, command)]
    if evidence is not None:
        listing = (row for row in rows if row.wanted and not row.is_known_ahead)
        layers = tuple(row.layer for row in listing if can_compute(row.layer))
        listed_bits = {op.name for op in unlisted} | set(requested.bits)
        listed = tuple(op for op in layers if op.name not in listed_bits)
        results.append(check_params(evidence, model, listed, recipe, command))
    results.append(Result.from_findings("params", _missing_operators(rows, requested)))
    coverage_result = check_coverage(rows, recipe, COVERAGE, explain, idle)
    results.append(coverage_result)
    results.append(check_weights(base, model, match, None, recipe, command))
    results.append(Result.from_findings("weights", _nearly_empty(base, rows)))
    if coverage_result and _has_known_size(requested, unlisted):
        results.append(check_size(base.size, model.size, rows, recipe, None, growth=graph_growth(base, model)))
    return Verdict(tuple(results), rows)


def _evidence(base: Model, model: Model, match: Match, requested: Requested) -> ParamsEvidence | None:
    if requested.params is None or requested.params_path is None or not requested.recipe.activations:
        return None
    evidence = relate(requested.params_path, requested.params, base, model, match)
    if requested.repaired is None or not evidence.can_be_repaired:
        return evidence
    write_params(repaired(requested.params, base), requested.repaired)
    return dataclasses.replace(evidence, repaired=requested.repaired)


def _is_left_float(op: Op, requested: Requested) -> bool:
    return is_skipped(op, requested.skip) or requested.bits.get(op.name) == 0


def _row(row: LayerRow, base: Model, requested: Requested, unlisted: Sequence[Op]) -> LayerRow:
    """The row with the storage that the command line requests, if it differs from the recipe."""
    if row.stored is None or row.quantized:
        stored = None if row.stored is None else row.stored.weights[0]
        bits = requested.bits.get(row.layer.name)
        return row if bits in (None, 0) or stored is None else _with_quantized(row, stored.bits == bits)
    weights = row.stored.weights[0]
    if any(op is row.layer for op in unlisted):
        return _with_quantized(row, _is_stored(weights, requested.rest))
    if row.layer.name in requested.bits:
        return _with_quantized(row, _is_stored(weights, requested.bits[row.layer.name]))
    if requested.sparse and weights.storage is Storage.SPARSE_INTEGER:
        return _with_quantized(row, weights.bits == requested.recipe.bits and weights.intact)
    return row


def _with_quantized(row: LayerRow, quantized: bool) -> LayerRow:
    return dataclasses.replace(row, quantized=quantized)


def _is_stored(weights: Weights, bits: int | None) -> bool:
    storage = Storage.FLOAT16 if bits == 16 else Storage.INTEGER
    return weights.storage is storage and weights.bits == bits and weights.intact


def _missing_operators(rows: tuple[LayerRow, ...], requested: Requested) -> list[Finding]:
    """Entries with bits for operators that are not in the model: MNN ignores them silently."""
    names = {row.layer.name for row in rows}
    return [
        Finding(
            "MNQ304",
            f"{requested.params_path}: gives bits for operator {name!r}, which is not in the model",
            fix="use the operator's name from pytest-mnnquant inspect, or create the params file again from this model",
        )
        for name in requested.bits
        if name not in names
    ]


def _nearly_empty(base: Model, rows: tuple[LayerRow, ...]) -> list[Finding]:
    findings = []
    for row in rows:
        if row.stored is None or row.stored.weights[0].storage is not Storage.SPARSE_INTEGER:
            continue
        weights = base.decoded(row.layer)
        share = np.count_nonzero(weights) / max(1, weights.size)
        if share < _LEFT:
            message = f"stored sparse with {share:.1%} of its weights; all others are zero in the source"
            text = "such a layer is more often dead or badly exported than pruned, and hides the compression of others"
            cause = Cause("layer-is-dead", text)
            fix = "check the source's weights; if the layer is pruned on purpose, convert without --detectSparseSpeedUp"
            findings.append(Finding("MNQ402", message, row.layer.name, cause, fix))
    return findings


def _has_known_size(requested: Requested, unlisted: Sequence[Op]) -> bool:
    """Whether the size of all layers' formats can be predicted."""
    return not (requested.sparse or requested.bits or unlisted)
