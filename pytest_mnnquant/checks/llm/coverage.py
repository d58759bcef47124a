"""Coverage of an export: each matrix, the embedding among them, has the requested number of bits."""

from __future__ import annotations

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.parts import judge_parts
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import CoverageMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.embedding import NAME
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.options import LayerRequest


def check_coverage(evidence: ExportEvidence) -> Result:
    """Judge the number of bits of each matrix by the options of the exporter, or the requested form."""
    folder, requests = evidence.folder, evidence.requests
    if requests is None:
        message = "export_args.json is missing, so the requested bits are unknown"
        return Result.from_findings("coverage", [Finding("MNQ314", message, fix="give the form: --mnn-recipe=w4b64")])
    pairs = [(matrix, requests.layers[matrix.name]) for matrix in folder.graph.matrices]
    if folder.embedding is not None and requests.embedding is not None:
        pairs.append((folder.embedding, requests.embedding))
    if not pairs:
        return Result.from_findings("coverage", [Finding("MNQ001", "the export has no matrices")])
    wrong = [(matrix, request) for matrix, request in pairs if matrix.bits != request.bits]
    wrong.sort(key=lambda pair: -pair[0].count)
    total = sum(matrix.bytes for matrix, _ in pairs)
    metrics = CoverageMetrics(
        coverage=1 - sum(matrix.bytes for matrix, _ in wrong) / total if total else 0.0,
        layers=len(pairs),
        quantized_layers=sum(matrix.is_quantized for matrix, _ in pairs),
        skipped_layers=sum(request.bits == 16 for _, request in pairs),
    )
    findings = [*(_finding(evidence, matrix, request, total) for matrix, request in wrong), *judge_parts(evidence)]
    if evidence.by_layer_problem and evidence.form is None:
        message = f"the bits of each layer are unknown: {evidence.by_layer_problem}"
        findings.append(Finding("MNQ314", message, fix="keep the file of --quant_config with the export"))
    return Result.from_findings("coverage", findings, metrics)


def _finding(evidence: ExportEvidence, matrix: StoredMatrix, request: LayerRequest, total: int) -> Finding:
    share = f"{matrix.bytes / total:.0%} of all weight bytes"
    expected = "float16" if request.bits == 16 else f"w{request.bits}"
    message = f"stored as {matrix.label}, {expected} was requested ({share})"
    code = "MNQ402" if matrix.is_quantized else "MNQ401"
    return Finding(code, message, matrix.name, _cause(evidence, matrix), _fix(matrix, request))


def _cause(evidence: ExportEvidence, matrix: StoredMatrix) -> Cause | None:
    options = evidence.folder.options
    if options is not None and matrix.name == NAME and options.tied:
        return Cause("embedding-is-tied", "the embedding is tied to the head, so exporters ignore --embed_bit")
    if options is not None and "lm_head" in matrix.name and options.lm_quant_bit == matrix.bits:
        return Cause("head-has-its-own-option", f"the head was exported with --lm_quant_bit {matrix.bits}")
    return None


def _fix(matrix: StoredMatrix, request: LayerRequest) -> str:
    if matrix.name == NAME:
        return f"--seperate_embed --embed_bit {request.bits}"
    option = "--lm_quant_bit" if "lm_head" in matrix.name else "--quant_bit"
    return f"export again with {option} {request.bits}"
