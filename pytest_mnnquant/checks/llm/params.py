"""Params of an export: the files hold what was requested of the exporter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ParamsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.gptq_comparison import GptqComparison, GptqState, compare_gptq
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import StoredMatrix, read_groups
from pytest_mnnquant.llm.options import ExportOptions, LayerRequest
from pytest_mnnquant.llm.requests import Requests, stored_block

_NAMES: Final = "layers are named like /layers.0/mlp/down_proj/Linear"
_GPTQ_CAUSES: Final = {
    GptqState.OTHER_FORM: "gptq-other-form",
    GptqState.OTHER_ORDER: "gptq-order-ignored",
    GptqState.OTHER_ZEROS: "gptq-zeros-ignored",
    GptqState.OTHER_SCALES: "gptq-scales-broken",
    GptqState.NOT_APPLIED: "gptq-not-applied",
}
_GPTQ_FIXES: Final = {
    GptqState.OTHER_FORM: "export with the bits and the group size of the checkpoint: --quant_bit, --quant_block",
    GptqState.OTHER_ORDER: "quantize again with desc_act=False",
    GptqState.OTHER_ZEROS: "quantize again with sym=True",
    GptqState.OTHER_SCALES: "--scale_bit 32",
    GptqState.NOT_APPLIED: "give --gptq_path the folder of the GPTQ checkpoint of this model",
}


def check_params(evidence: ExportEvidence) -> Result:
    """Hold the exporter's options, and the requested form, against the files."""
    options, requests = evidence.folder.options, evidence.requests
    if requests is None:
        message = "export_args.json is missing, so the requested form is unknown"
        fix = "give the form: --mnn-recipe=w4b64"
        return Result.from_findings("params", [Finding("MNQ314", message, fix=fix)])
    findings = _forms(evidence, requests)
    wrong = {finding.layer for finding in findings}
    unknown = list(_unknown_layers(evidence))
    findings += [*unknown, *_halved_blocks(evidence, requests)]
    if options is not None:
        findings += _ignored(options)
        findings += _harmful(options)
        findings += _gptq(evidence, options)
    if evidence.by_layer_problem:
        findings.append(_unread("--quant_config", evidence.by_layer_problem))
    metrics = ParamsMetrics(len(requests.layers), len(requests.layers.keys() - wrong), len(unknown))
    return Result.from_findings("params", findings, metrics)


def _unread(option: str, problem: str) -> Finding:
    message = f"what {option} names can't be read, so it is not known whether it was applied: {problem}"
    return Finding("MNQ314", message, fix="run the check where the export was made, or keep that file with the export")


def _forms(evidence: ExportEvidence, requests: Requests) -> list[Finding]:
    """Block, symmetry and scale width of each layer, largest first. Bits are judged by coverage."""
    findings = []
    for matrix in sorted(evidence.folder.graph.matrices, key=lambda matrix: -matrix.count):
        request = requests.layers[matrix.name]
        if matrix.is_quantized and request.bits < 16:
            wrong = _form(evidence, matrix, request)
            if wrong is not None:
                findings.append(wrong)
            elif requests.scale_bits not in (None, matrix.scale_bits):
                message = f"its scales have {matrix.scale_bits} bits, {requests.scale_bits} were requested"
                findings.append(Finding("MNQ310", message, matrix.name, fix=f"--scale_bit {requests.scale_bits}"))
    return findings


def _form(evidence: ExportEvidence, matrix: StoredMatrix, request: LayerRequest) -> Finding | None:
    """What of block and symmetry is not as requested; scales of another symmetry seem to have another block."""
    expected = stored_block(request.block, matrix.columns)
    if request.block > matrix.columns and not request.symmetric:
        text = "exporters then write a group count of 0, which the runtime takes for symmetric scales"
        return Finding(
            "MNQ312",
            f"a block of {request.block} was requested for {matrix.columns} inputs: minima are read as scales",
            matrix.name,
            Cause("block-larger-than-layer", text),
            f"--quant_block {stored_block(64, matrix.columns)} (or 0: one scale per channel)",
        )
    if matrix.symmetric != request.symmetric:
        return _symmetry(evidence, matrix, request)
    if matrix.block != expected:
        message = f"its scales are for {matrix.block} weights each, {expected} were requested"
        return Finding("MNQ310", message, matrix.name, fix=f"export again with --quant_block {expected}")
    return None


def _halved_blocks(evidence: ExportEvidence, requests: Requests) -> Iterator[Finding]:
    """One warning for all layers whose block was halved until it divides the inputs."""
    halved = [
        (matrix, requests.layers[matrix.name].block)
        for matrix in evidence.folder.graph.matrices
        if matrix.is_quantized and 0 < matrix.block < requests.layers[matrix.name].block <= matrix.columns
    ]
    halved = [(matrix, block) for matrix, block in halved if matrix.block == stored_block(block, matrix.columns)]
    if halved:
        matrix, block = max(halved, key=lambda pair: pair[0].count)
        more = f"; {len(halved) - 1} other layers are affected too" if len(halved) > 1 else ""
        message = f"a block of {block} does not divide {matrix.columns} inputs; {matrix.block} was stored{more}"
        cause = Cause("block-halved", "exporters halve a block until it divides the inputs, without a message")
        fix = f"--quant_block {matrix.block}"
        yield Finding("MNQ312", message, matrix.name, cause, fix, as_warning=True)


def _symmetry(evidence: ExportEvidence, matrix: StoredMatrix, request: LayerRequest) -> Finding:
    forms = ("asymmetric", "symmetric")
    message = f"its scales are marked as {forms[matrix.symmetric]}, {forms[request.symmetric]} was requested"
    options, by_layer = evidence.folder.options, evidence.by_layer or {}
    if options is not None and matrix.name in by_layer and request.symmetric != options.symmetric:
        text = "exporters up to 3.6.1 mark every layer by --sym, whatever quant_config says of it: it is read wrongly"
        cause = Cause("symmetry-of-layer-ignored", text)
        fix = 'leave "symmetric" out of quant_config, or give --sym for all layers'
        return Finding("MNQ310", message, matrix.name, cause, fix)
    return Finding("MNQ310", message, matrix.name, fix="--sym" if request.symmetric else "leave out --sym")


def _unknown_layers(evidence: ExportEvidence) -> Iterator[Finding]:
    names = {matrix.name for matrix in evidence.folder.graph.matrices}
    for name in evidence.by_layer or {}:
        if name not in names:
            message = f"quant_config sets {name!r}, and no layer has this name"
            cause = Cause("name-of-no-layer", f"exporters ignore other names; {_NAMES}")
            yield Finding("MNQ313", message, name, cause, "pytest-mnnquant inspect lists the names of the layers")


def _ignored(options: ExportOptions) -> Iterator[Finding]:
    """Options that the exporter does not read, alone or at all."""
    unread = {
        "--act_bit": options.act_bit != 16 and not (options.smooth or options.omni),
        "--act_sym": options.act_symmetric and not (options.smooth or options.omni),
        "--calib_data": bool(options.calibration_data) and not options.scales_weights,
        "--type": bool(options.model_type),
        "--ppl": options.perplexity,
    }
    for option, is_ignored in unread.items():
        if is_ignored:
            needs = " without --smooth or --omni" if option.startswith(("--act", "--calib")) else ""
            message = f"{option} has no effect{needs}: exporters do not read it"
            yield Finding("MNQ311", message, option, fix=f"leave out {option}")
    if options.tied and options.embedding_bits < 16:
        message = f"--embed_bit {options.embedding_bits} has no effect: the embedding is tied to the head"
        cause = Cause("embedding-is-tied", "exporters then write no embedding file")
        yield Finding("MNQ311", message, "--embed_bit", cause, "--seperate_embed, or leave out --embed_bit")


def _harmful(options: ExportOptions) -> Iterator[Finding]:
    if options.skip_weight:
        message = "--skip_weight was given: the exporter wrote no weights, only room for them"
        yield Finding(
            "MNQ312",
            message,
            cause=Cause("weights-skipped", "it is for tests of exporters"),
            fix="export again without --skip_weight",
        )


def _gptq(evidence: ExportEvidence, options: ExportOptions) -> Iterator[Finding]:
    if not options.gptq_path:
        return
    if evidence.gptq is None or not evidence.gptq_stems:
        problem = evidence.gptq_problem or "it has no layer with codes that the export has"
        if _looks_applied(evidence):
            yield _unread("--gptq_path", problem)
            return
        text = "its scales are those of plain rounding: exporters ignore a path without .safetensors files"
        message = f"--gptq_path {options.gptq_path} was not applied: {problem}"
        fix = _GPTQ_FIXES[GptqState.NOT_APPLIED]
        yield Finding("MNQ315", message, cause=Cause("gptq-path-empty", text), fix=fix)
        return
    for name, stem in evidence.gptq_stems.items():
        stored = evidence.folder.graph.matrix(name)
        if stored is not None:
            yield from _gptq_layer(evidence, stored, stem, options)


def _gptq_layer(evidence: ExportEvidence, stored: StoredMatrix, stem: str, options: ExportOptions) -> Iterator[Finding]:
    if evidence.gptq is None:
        return
    try:
        compared = compare_gptq(evidence.folder, evidence.gptq, stored, stem)
    except BadExport as error:
        yield Finding("MNQ315", f"its GPTQ codes can't be compared: {error}", stored.name)
        return
    if compared.state is not GptqState.APPLIED:
        yield _not_applied(compared, stored, options)


def _not_applied(compared: GptqComparison, stored: StoredMatrix, options: ExportOptions) -> Finding:
    text = f"the checkpoint has {compared.state.value}"
    if compared.state is GptqState.OTHER_SCALES:
        text = "exporters write the checkpoint's scales as 32-bit floats"
        text += f" over room for {stored.scale_bits}-bit ones" if options.scale_bits == 16 else ""
    share = f"{compared.equal_codes:.0%} of its codes are the checkpoint's, and its weights are off by "
    message = share + f"{compared.error:.3g} steps"
    if compared.state is GptqState.OTHER_FORM:
        message = f"it is stored as {stored.label}, and the GPTQ checkpoint has other bits or another group size"
    cause = Cause(_GPTQ_CAUSES[compared.state], text)
    return Finding("MNQ315", message, stored.name, cause, _GPTQ_FIXES[compared.state])


def _looks_applied(evidence: ExportEvidence) -> bool:
    """Whether scales were written over by GPTQ's: all minima of an asymmetric layer are then 0."""
    matrices = [matrix for matrix in evidence.folder.graph.matrices if matrix.is_quantized and not matrix.fault]
    first = next((matrix for matrix in matrices if "lm_head" not in matrix.name), None)
    if first is None:
        return False
    groups = read_groups(first, evidence.folder.data(first.file), 0, min(8, first.rows))
    return first.symmetric or bool((groups.minima == 0).all())
