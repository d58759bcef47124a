"""Size of an export: its files are as long as its matrices and the requested form make them."""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.file_metrics import SizeMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.options import LayerRequest
from pytest_mnnquant.llm.requests import Requests, stored_block

TOLERANCE: Final = 0.03


def expected_matrix_bytes(matrix: StoredMatrix, request: LayerRequest, scale_bits: int) -> int:
    """Bytes of codes and scales of a matrix in the requested form, with the header that its codes have."""
    if request.bits >= 16:
        return matrix.count * request.bits // 8
    groups = matrix.count // stored_block(request.block, matrix.columns)
    values = groups if request.symmetric else 2 * groups
    header = 6 + (1 << request.bits) if matrix.header else 0
    return header + (matrix.count * request.bits + 7) // 8 + values * scale_bits // 8


def expected_bytes(folder: ExportFolder, requests: Requests) -> int:
    """The length of all files that the runtime reads, if each matrix had the requested form."""
    scale_bits = requests.scale_bits or 32
    total = folder.shipped_size
    for matrix in folder.graph.matrices:
        total += expected_matrix_bytes(matrix, requests.layers[matrix.name], scale_bits) - matrix.bytes
    if folder.embedding is not None and requests.embedding is not None and not folder.is_tied:
        total += expected_matrix_bytes(folder.embedding, requests.embedding, 32) - folder.embedding.bytes
    return total


def check_size(evidence: ExportEvidence, min_size_ratio: float | None = None) -> Result:
    """Fail if the files are not of the expected length within 3 %, or did not shrink as much as required."""
    folder, requests = evidence.folder, evidence.requests
    source = sum(entry.length for entry in evidence.source.tensors.values())
    shipped = folder.shipped_size
    ratio = source / shipped if shipped else 0.0
    expected = expected_bytes(folder, requests) if requests is not None else shipped
    metrics = SizeMetrics(source, shipped, ratio, expected)
    findings = []
    if min_size_ratio is not None and ratio < min_size_ratio:
        message = f"{size_text(ratio)} ({source:,} to {shipped:,} bytes), {min_size_ratio:g}x required"
        findings.append(Finding("MNQ802", message, cause=_embedding(folder), fix=_fix(folder)))
    if abs(shipped - expected) > TOLERANCE * expected:
        message = f"{shipped:,} bytes, {expected:,} expected from the matrices and the options (3 % allowed)"
        findings.append(Finding("MNQ801", message))
    return Result.from_findings("size", findings, metrics)


def _embedding(folder: ExportFolder) -> Cause | None:
    embedding = folder.embedding
    if embedding is None or folder.is_tied or embedding.bytes < folder.shipped_size / 4:
        return None
    share = embedding.bytes / folder.shipped_size
    return Cause("large-embedding", f"the embedding, stored as {embedding.label}, takes {share:.0%} of all bytes")


def _fix(folder: ExportFolder) -> str:
    return "--embed_bit 8" if _embedding(folder) else "use fewer bits, or lower the limit (--mnn-min-size-ratio)"
