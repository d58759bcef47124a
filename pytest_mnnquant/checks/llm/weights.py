"""Weights of an export: what is stored, decoded, is what the source has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.norm_offsets import judge_offsets
from pytest_mnnquant.checks.llm.part_weights import judge_part_weights
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import WeightsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.bound import BoundMatrix
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.comparison import MatrixError, compare_matrix, compare_vector, find_source
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import read_bias
from pytest_mnnquant.llm.threads import in_threads
from pytest_mnnquant.mnnfile.storage import Floats

#: Times the power of rounding (6 dB). GPTQ trades errors of single weights for the error of the output.
_NOISE: Final = 4.0
_GPTQ_NOISE: Final = 16.0
#: Warned about: exporters that compute 8-bit codes in the 16-bit floats of the source reach 2.
_COARSE: Final = 1.5
#: In steps: the largest error of rounding to the nearest code; of HQQ, which moves the codes' zero.
_HALF_STEP: Final = 0.5
_HQQ_STEP: Final = 1.5
#: In steps: HQQ moves the lowest code of the worst group by 0.2 or more, rounding to 16-bit scales by 0.1 at most.
_MOVED: Final = 0.1
_FEW: Final = 0.25
_VECTOR_TOLERANCE: Final = 1e-3
_AGAIN: Final = "export this source again"


@dataclass
class _Judged:
    errors: list[MatrixError] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    vectors: list[float] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def check_weights(evidence: ExportEvidence) -> Result:
    """Compare every matrix, bias and norm with the source's. Faults of whole files are judged by bundle."""
    options = evidence.folder.options
    if options is not None and (options.scales_weights or options.merges_lora):
        why = "--lora_path merged an adapter into" if options.merges_lora else "--awq, --smooth or --omni rescaled"
        message = f"{why} the weights, so they can't be compared with the source's"
        return Result.from_findings("weights", [Finding("MNQ314", message)])
    judged = _Judged()
    matrices = sorted(evidence.binding.matrices, key=lambda bound: -bound.stored.count)
    _ = evidence.requests, evidence.gptq_stems  # Computed once, before threads share the evidence.
    for part in in_threads(partial(_judge_matrix, evidence), matrices):
        judged.errors += part.errors
        judged.findings += part.findings
        judged.unread += part.unread
    if _is_other_training(judged):
        judged.findings = [_of_other_training(finding) for finding in judged.findings]
    else:  # Where the weights are others, vectors are too.
        _judge_vectors(evidence, judged)
    judged.findings += [*_coarse(evidence, judged.errors), *_unbound(evidence, judged), *judge_part_weights(evidence)]
    if not judged.errors and not judged.findings:
        judged.findings.append(Finding("MNQ001", "no matrix of the export could be compared with the source"))
    worst = max((error.relative for error in judged.errors), default=None)
    metrics = WeightsMetrics(
        layers_compared=len(judged.errors),
        worst_sqnr_db=None if worst is None or not math.isfinite(worst) or not worst else -20 * math.log10(worst),
        worst_drift=None,
        worst_vector_error=max((error for error in judged.vectors if math.isfinite(error)), default=None),
    )
    return Result.from_findings("weights", judged.findings, metrics)


def _is_other_training(judged: _Judged) -> bool:
    """Whether nearly all matrices hold other weights, and none those of another layer."""
    others = [finding for finding in judged.findings if finding.code == "MNQ410" and finding.cause is None]
    return len(judged.errors) > 1 and len(others) > 0.9 * len(judged.errors)


def _of_other_training(finding: Finding) -> Finding:
    if finding.code != "MNQ410":
        return finding
    text = (
        "all layers have other weights: the export was made from another training or checkpoint of this network, or "
        "the file of weights is that of another export"
    )
    return dataclasses.replace(finding, cause=Cause("other-training", text))


def _judge_matrix(evidence: ExportEvidence, bound: BoundMatrix) -> _Judged:
    judged = _Judged()
    _compare_matrix(evidence, bound, judged)
    return judged


def _compare_matrix(evidence: ExportEvidence, bound: BoundMatrix, judged: _Judged) -> None:
    stored, folder = bound.stored, evidence.folder
    if stored.fault:
        if stored in folder.graph.matrices:  # Bundle judges the place of the embedding.
            judged.findings.append(Finding("MNQ403", stored.fault, stored.name, fix=_AGAIN))
        return
    mapped = folder.map_of(stored.file)
    if stored.file not in folder.sizes or (mapped is not None and stored.codes.end > mapped.size):
        return  # Bundle reports missing bytes.
    entry = evidence.source.tensors.get(bound.source.weight)
    if entry is None and evidence.source.is_gptq:
        return  # The source itself holds codes, which params compares.
    if entry is not None and not entry.is_float:
        judged.unread.append(stored.name)
        return
    is_gptq = evidence.holds_gptq(stored.name)
    requests = evidence.requests
    step = _HQQ_STEP if requests is not None and requests.hqq else _HALF_STEP
    try:
        error = compare_matrix(folder, evidence.source, bound, math.inf if is_gptq else step)
    except BadExport as problem:
        judged.findings.append(Finding("MNQ410", str(problem.problem), stored.name, fix=_AGAIN))
        return
    judged.errors.append(error)
    judged.findings += _matrix_findings(evidence, bound, error, is_gptq)
    judged.findings += _not_hqq(evidence, error) if requests is not None and requests.hqq else []


def _matrix_findings(
    evidence: ExportEvidence, bound: BoundMatrix, error: MatrixError, is_gptq: bool
) -> Iterator[Finding]:
    limit = _GPTQ_NOISE if is_gptq else _NOISE
    if error.noise > limit and (is_gptq or error.lost_rows > _FEW * error.rows):
        message = _too_far(error, limit)
        other = find_source(evidence.folder, evidence.source, bound)
        cause = Cause("weights-of-other-layer", f"it holds the weights of {other}") if other else None
        yield Finding("MNQ410", message, error.name, cause, _AGAIN)
    elif error.beyond and not is_gptq:
        message = (
            f"{error.beyond:,} weights are further from the source's than half a step of their scales, "
            f"in {max(error.lost_rows, 1)} or more of {error.rows:,} rows (first: {error.first_beyond})"
        )
        text = "the other weights are the source's: bytes of the file were changed after the export"
        yield Finding("MNQ412", message, error.name, Cause("file-changed", text), _AGAIN)


def _too_far(error: MatrixError, limit: float) -> str:
    if not math.isfinite(error.noise):
        return f"its weights are not the source's: {error.lost_rows:,} of {error.rows:,} rows are not, some not finite"
    return (
        f"its weights are not the source's: error {error.noise:.3g} times that of rounding, {limit:g} allowed; "
        f"correlation {error.correlation:.3f}"
    )


def _coarse(evidence: ExportEvidence, errors: list[MatrixError]) -> Iterator[Finding]:
    """One warning for all matrices whose codes were computed with too few digits."""
    quantized = {matrix.name for matrix in evidence.folder.graph.matrices if matrix.is_quantized}
    coarse = [
        error
        for error in errors
        if error.name in quantized and _COARSE < error.noise <= _NOISE and not error.beyond
        if not evidence.holds_gptq(error.name)
    ]
    if coarse:
        worst = max(coarse, key=lambda error: error.noise)
        more = f"; {len(coarse) - 1} other layers are affected too" if len(coarse) > 1 else ""
        message = f"the error of rounding is {worst.noise:.3g} times what its bits need{more}"
        text = "exporters compute codes in the type of the source, and 16-bit floats have too few digits for 8 bits"
        fix = "save the source in float32 and export it again"
        yield Finding("MNQ413", message, worst.name, Cause("computed-in-half-floats", text), fix, as_warning=True)


def _not_hqq(evidence: ExportEvidence, error: MatrixError) -> Iterator[Finding]:
    stored = evidence.folder.graph.matrix(error.name)
    if stored is None or not stored.is_quantized or stored.symmetric or error.noise > _NOISE:
        return
    if error.minimum_shift < _MOVED:
        message = "its scales span the weights from min to max, HQQ was requested"
        yield Finding("MNQ415", message, error.name, fix="export again with --hqq")


def _judge_vectors(evidence: ExportEvidence, judged: _Judged) -> None:
    folder, source = evidence.folder, evidence.source
    for item in evidence.binding.vectors:
        if not item.stored.values.size:
            continue  # Bundle reports missing bytes.
        error = compare_vector(item.stored.name, item.source, item.stored.values, source.rows(item.source))
        _judge_vector(judged, item.stored.name, item.source, error.relative)
        bias = f"{item.source.removesuffix('.weight')}.bias"
        _judge_bias(judged, item.stored.name, bias, item.stored.shift, _rows(source, bias, 0, None))
    judged.findings += judge_offsets(evidence.binding.vectors, source)
    for bound in evidence.binding.matrices:
        file = bound.stored.file
        if file not in folder.sizes or bound.stored.bias.end > folder.sizes[file]:
            continue  # Bundle reports missing bytes.
        values = read_bias(bound.stored, folder.data(file))
        expected = _rows(source, bound.source.bias, bound.source.start, bound.source.stop)
        if values.size or bound.stored in folder.graph.matrices:
            _judge_bias(judged, bound.stored.name, bound.source.bias, values, expected)


def _rows(source: Checkpoint, name: str, start: int, stop: int | None) -> Floats:
    """Rows of a vector of the source; empty if the source does not have it."""
    return source.rows(name, start, stop) if name in source.tensors else np.empty(0, np.float32)


def _judge_bias(judged: _Judged, name: str, tensor: str, values: Floats, expected: Floats) -> None:
    """A bias that the source does not have is stored as zeros, or not at all."""
    if expected.size or (values != 0).any():
        same_size = np.zeros_like(values) if not expected.size else expected
        _judge_vector(judged, name, tensor, compare_vector("", "", values, same_size, may_be_less_one=False).relative)


def _judge_vector(judged: _Judged, name: str, tensor: str, relative: float) -> None:
    judged.vectors.append(relative)
    if not relative <= _VECTOR_TOLERANCE:
        size = f"off by {relative:.2g} of its largest value" if math.isfinite(relative) else "of another length"
        message = f"{tensor} is {size}, {_VECTOR_TOLERANCE:g} allowed"
        judged.findings.append(Finding("MNQ411", message, name, fix=_AGAIN))


def _unbound(evidence: ExportEvidence, judged: _Judged) -> Iterator[Finding]:
    """One gap for all matrices that have nothing to be compared with."""
    names = [matrix.name for matrix in evidence.binding.unbound]
    if names:
        message = f"{len(names)} matrices have no tensor in the source by their names, so they were not compared"
        yield Finding("MNQ314", message, names[0])
    if judged.unread:
        message = f"the source has no floats of 16 or 32 bits for {len(judged.unread)} matrices; they were not compared"
        yield Finding("MNQ314", message, judged.unread[0], fix="save the source in bfloat16 or float32")
