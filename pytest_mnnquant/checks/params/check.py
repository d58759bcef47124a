"""Params: the file is there, parses, names the model's tensors, and its scales are the ones in the model."""

from __future__ import annotations

from pathlib import Path

from pytest_mnnquant.checks.params.applied import not_applied
from pytest_mnnquant.checks.params.evidence import Misnamed, ParamsEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ParamsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.recipes.mnn_support import can_compute


def check_params(params_file: ParamsEvidence, model: Model, wanted_layers: tuple[Op, ...]) -> Result:
    """Judge the params file of a variant whose activations are quantized; it should list the `wanted_layers`."""
    path, params = params_file.path, params_file.params
    if params_file.missing:
        return Result.from_findings("params", [_missing(params_file)])
    if params is None:
        return Result.from_findings("params", [_unreadable(params_file)])
    metrics = ParamsMetrics(len(params.layers), len(params_file.bound), len(params_file.misnamed))
    if params.is_blank or not params.layers:
        return Result.from_findings("params", [_guide(path, params)], metrics)
    heaviest = sorted(params_file.misnamed, key=lambda item: -(item.layer.weight_count if item.layer else 0))
    if params.is_guide:
        return Result.from_findings("params", [_weights_only(path)], metrics)
    findings = [_misname(item, params_file) for item in heaviest]
    unlisted = sorted(params_file.unlisted, key=_by_weights)
    # The half of an LSTM that is in a loop goes with it.
    if any(op in wanted_layers and can_compute(op) for op in unlisted):
        findings += [_unlisted(op, path) for op in unlisted if op in wanted_layers and (can_compute(op) or op.subgraph)]
    bound = sorted(params_file.bound, key=lambda pair: _by_weights(pair[1]))
    findings += [problem for entry, op in bound if (problem := not_applied(entry, op, model, params)) is not None]
    if not params_file.bound and not findings:
        findings.append(Finding("MNQ001", f"no entry of {path} could be compared with the model"))
    return Result.from_findings("params", findings, metrics)


def _by_weights(op: Op) -> int:
    """Layers that matter most come first."""
    return -op.weight_count


def _missing(evidence: ParamsEvidence) -> Finding:
    return Finding(
        "MNQ301",
        f"{evidence.missing}: no such file",
        fix="calibrate again and keep the file it writes; give its path as --mnn-params and to the converter as "
        "--compressionParamsFile (the converter does not complain about a path that is not there: it creates a file)",
    )


def _unreadable(evidence: ParamsEvidence) -> Finding:
    if evidence.doubled:
        return Finding(
            "MNQ302",
            evidence.unreadable,
            cause=Cause(
                "two-calibrations",
                "two calibrations were written into one file (append=True of mnncompress adds to what is there)",
            ),
            fix="calibrate again into a new file (append=False), and convert with that",
        )
    return Finding(
        "MNQ302",
        evidence.unreadable,
        cause=Cause(
            "params-ignored", "MNN's converter ignores a params file that it can't parse, and converts to float"
        ),
        fix="calibrate again to write the file anew, then convert again",
    )


def _guide(path: Path | None, params: Params) -> Finding:
    if not params.layers:
        return Finding(
            "MNQ303",
            f"{path} lists no layer",
            cause=Cause(
                "calibration-quantized-nothing",
                "the calibration that wrote it quantized nothing (WeightQuantizer records no layers; so does a model "
                "without a supported one)",
            ),
            fix="calibrate with LSQQuantizer(mode='offline'), or convert with --weightQuantBits 8",
        )
    return Finding(
        "MNQ303",
        f"{path} was written by MNN's converter, not by a calibration: {len(params.layers)} layers, all with 0 bits",
        cause=Cause(
            "params-path-wrong",
            "the path given as --compressionParamsFile did not exist: the converter created it and quantized nothing",
        ),
        fix="delete this file, give the path of the calibrated params file to --compressionParamsFile",
    )


def _weights_only(path: Path | None) -> Finding:
    return Finding(
        "MNQ303",
        f"{path} gives the bits of weights only, no scales of activations",
        cause=Cause(
            "guide-filled-in",
            "it is the guide that MNN's converter writes, filled in by hand: what it makes is weight-only",
        ),
        fix="judge the model as that (--mnn-recipe=w8), or calibrate and convert with the params file of that",
    )


def _misname(item: Misnamed, evidence: ParamsEvidence) -> Finding:
    entry, layer = item.entry, item.layer
    if layer is None:
        return Finding(
            "MNQ304",
            f"output tensor {entry.name!r} is not in the model, and no layer has the weights it was made for",
            entry.weight.name,
            cause=Cause("params-of-other-model", "the params were made for another model or another training of it"),
            fix="calibrate this model again",
        )
    cause = Cause(
        "name-mismatch",
        "name does not match: the entry carries this layer's weights, but its tensor in MNN is "
        f"{layer.output_names[0]!r}",
    )
    if item.groups:
        cause = Cause(
            "grouped-convolution-split",
            f"MNN splits this grouped convolution into {len(item.groups)} layers; each needs an entry of its own",
        )
    message = f"output tensor {entry.name!r} is not in the model, so MNN leaves this layer float"
    return Finding("MNQ304", message, layer.name, cause=cause, fix=evidence.fix_for(entry.name))


def _unlisted(op: Op, path: Path | None) -> Finding:
    return Finding(
        "MNQ306",
        f"{path} has no entry for output tensor {op.output_names[0]!r}",
        op.name,
        cause=Cause(
            "layer-unknown-to-calibration",
            "the calibration did not know this layer (mnncompress quantizes Conv2d and Linear modules, "
            "and of these not the ones that are called more than once)",
        ),
        fix="add --weightQuantBits 8, which stores in 8 bits what the params file leaves out "
        "(--mnn-recipe=int8+w8), or keep it float: --mnn-skip-layer",
    )
