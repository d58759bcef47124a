"""Weights of the other graphs of an export (vision, audio): what is stored, decoded, is what the source has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.llm.bound import BoundMatrix
from pytest_mnnquant.llm.comparison import MatrixError, compare_matrix, compare_vector
from pytest_mnnquant.llm.graph import Graph
from pytest_mnnquant.llm.matrix import read_bias
from pytest_mnnquant.llm.part_binding import PartBinding, bind_part, find_norm
from pytest_mnnquant.llm.threads import in_threads

#: Times the power of rounding (6 dB). MNN's converter cuts floats to 16 bits, which has 4 times that power.
_NOISE: Final = 4.0
_CUT_NOISE: Final = 16.0
#: The share of rows that are others in a matrix of other weights; fewer are changed bytes.
_FEW: Final = 0.25
_HALF_STEP: Final = 0.5
_HQQ_STEP: Final = 1.5
_VECTOR_TOLERANCE: Final = 1e-3
#: The share of a part's matrices or norms that must be the source's before the others are called changed.
_MOST: Final = 0.5
_AGAIN: Final = "export this source again"


def judge_part_weights(evidence: ExportEvidence) -> Iterator[Finding]:
    """Parts whose matrices, biases or norms are not the source's. Graphs for LoRA are not parts."""
    names = _free_names(evidence)
    for part in evidence.folder.parts:
        if not part.file.startswith("lora") and part.matrices:
            yield from _judge(evidence, part, names)


def _free_names(evidence: ExportEvidence) -> tuple[str, ...]:
    """The tensors of the source that the language model does not use."""
    binding = evidence.binding
    used = {bound.source.stem for bound in binding.matrices} | {
        vector.source.removesuffix(".weight") for vector in binding.vectors
    }
    return tuple(name for name in evidence.source.tensors if name.rpartition(".")[0] not in used)


def _judge(evidence: ExportEvidence, part: Graph, names: tuple[str, ...]) -> Iterator[Finding]:
    yield from _faults(evidence, part)
    binding = bind_part(evidence.folder, part, evidence.source, names)
    has_tensors = any(len(evidence.source.tensors[name].shape) > 1 for name in names)
    if len(binding.strange) > _MOST * len(part.matrices) or (has_tensors and binding.is_empty):
        lacking = len(part.matrices) - len(binding.matrices)
        message = f"{lacking} of {len(part.matrices)} matrices of {part.file} are like none of the source"
        cause = Cause("part-of-other-model", "the file was exported from another checkpoint, or its weights are lost")
        yield Finding("MNQ410", message, part.file, cause, _AGAIN)
        return
    for matrix in binding.strange:
        message = "its weights are like those of no tensor of the source, although one of its shape is left"
        yield Finding("MNQ410", message, f"{part.file}:{matrix.name}", fix=_AGAIN)
    yield from _misplaced(part, binding)
    for bound, error in in_threads(partial(_compared, evidence), binding.matrices):
        yield from _changed(part, bound, error)
        yield from _bias(evidence, part, bound)
    yield from _norms(evidence, part, names)


def _faults(evidence: ExportEvidence, part: Graph) -> Iterator[Finding]:
    """Matrices whose facts contradict each other, although their bytes are there."""
    for matrix in part.matrices:
        if matrix.fault and matrix.codes.end <= evidence.folder.sizes.get(matrix.file, 0):
            yield Finding("MNQ403", matrix.fault, f"{part.file}:{matrix.name}", fix=_AGAIN)


def _misplaced(part: Graph, binding: PartBinding) -> Iterator[Finding]:
    for bound in binding.misplaced:
        cause = Cause("weights-of-other-layer", f"it holds the weights of {bound.source.weight}, which run before")
        yield Finding("MNQ410", "its weights are those of another layer", f"{part.file}:{bound.stored.name}", cause)


def _compared(evidence: ExportEvidence, bound: BoundMatrix) -> tuple[BoundMatrix, MatrixError]:
    options = evidence.folder.options
    step = _HQQ_STEP if options is not None and options.hqq else _HALF_STEP
    return bound, compare_matrix(evidence.folder, evidence.source, bound, step)


def _changed(part: Graph, bound: BoundMatrix, error: MatrixError) -> Iterator[Finding]:
    layer, is_quantized = f"{part.file}:{bound.stored.name}", bound.stored.is_quantized
    limit = _NOISE if is_quantized else _CUT_NOISE
    if error.noise > limit and error.lost_rows > _FEW * error.rows:
        size = f"{error.noise:.3g}" if math.isfinite(error.noise) else "infinitely many"
        message = f"its weights are not those of {bound.source.weight}: error {size} times that of rounding"
        yield Finding("MNQ410", f"{message}, {limit:g} allowed", layer, fix=_AGAIN)
    elif (error.beyond and is_quantized) or error.noise > limit:
        message = f"{error.beyond:,} weights are further from {bound.source.weight} than half a step of their scales"
        cause = Cause("file-changed", "the other weights are the source's: bytes of the file were changed")
        yield Finding("MNQ412", f"{message} (first row: {error.first_beyond})", layer, cause, _AGAIN)


def _bias(evidence: ExportEvidence, part: Graph, bound: BoundMatrix) -> Iterator[Finding]:
    values, source = read_bias(bound.stored, evidence.folder.data(bound.stored.file)), evidence.source
    if not values.size:
        return
    expected = np.zeros_like(values)
    if bound.source.bias in source.tensors:
        expected = source.rows(bound.source.bias, bound.source.start, bound.source.stop)
    relative = compare_vector("", "", values, expected, may_be_less_one=False).relative
    if not relative <= _VECTOR_TOLERANCE:
        message = f"its bias is off from {bound.source.bias} by {relative:.2g} of the largest value"
        yield Finding("MNQ411", message, f"{part.file}:{bound.stored.name}", fix=_AGAIN)


def _norms(evidence: ExportEvidence, part: Graph, names: tuple[str, ...]) -> Iterator[Finding]:
    norms = [vector for vector in part.vectors if vector.kind == "LayerNorm" and vector.values.size]
    stems = {vector.name: find_norm(vector, evidence.source, names) for vector in norms}
    strange = [vector for vector in norms if not stems[vector.name]]
    if len(strange) > _MOST * len(norms):
        return  # The converter folds norms of this family into something else.
    for vector in strange:
        message = f"the {vector.values.size} values of this norm are those of no tensor of the source"
        yield Finding("MNQ411", message, f"{part.file}:{vector.name}", fix=_AGAIN)
    for vector in norms:
        bias = f"{stems[vector.name]}.bias"
        if bias in evidence.source.tensors and vector.shift.size:
            error = compare_vector("", "", vector.shift, evidence.source.rows(bias), may_be_less_one=False)
            if not error.relative <= _VECTOR_TOLERANCE:
                message = f"{bias} is off by {error.relative:.2g} of its largest value, {_VECTOR_TOLERANCE:g} allowed"
                yield Finding("MNQ411", message, f"{part.file}:{vector.name}", fix=_AGAIN)
