"""Params: the file exists, can be parsed, names the model's tensors, and the model holds its scales."""

from __future__ import annotations

from pathlib import Path

from pytest_mnnquant.checks.convert_again import calibrate_again, convert_again
from pytest_mnnquant.checks.params.applied import not_applied
from pytest_mnnquant.checks.params.evidence import Misnamed, ParamsEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ParamsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.fix_command import ConvertCommand, skip_option, working_path
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Recipe


def check_params(
    params_file: ParamsEvidence,
    model: Model,
    wanted_layers: tuple[Op, ...],
    recipe: Recipe | None = None,
    convert_command: ConvertCommand | None = None,
) -> Result:
    """Judge the params file of a variant whose activations are quantized; it should list the `wanted_layers`.

    `convert_command` names the files in the commands of fixes.
    """
    path, params = params_file.path, params_file.params
    if params_file.missing:
        return Result.from_findings("params", [_missing(params_file, calibrate_again(convert_command, recipe))])
    if params is None:
        return Result.from_findings("params", [_unreadable(params_file, calibrate_again(convert_command, recipe))])
    metrics = ParamsMetrics(len(params.layers), len(params_file.bound), len(params_file.misnamed))
    if params.is_blank or not params.layers:
        return Result.from_findings("params", [_guide(path, params, recipe, convert_command)], metrics)
    heaviest = sorted(params_file.misnamed, key=lambda item: -(item.layer.weight_count if item.layer else 0))
    if params.is_guide:
        return Result.from_findings("params", [_weights_only(path)], metrics)
    findings = [_misname(item, params_file, convert_command, recipe) for item in heaviest]
    unlisted = sorted(params_file.unlisted, key=_by_weights)
    # The half of an LSTM that is in a loop is reported with the other half.
    if any(op in wanted_layers and can_compute(op) for op in unlisted):
        findings += [_unlisted(op, path) for op in unlisted if op in wanted_layers and (can_compute(op) or op.subgraph)]
    fix = convert_again(convert_command, recipe, "convert again with this params file")
    bound = sorted(params_file.bound, key=lambda pair: _by_weights(pair[1]))
    findings += [problem for entry, op in bound if (problem := not_applied(entry, op, model, params, fix)) is not None]
    if not params_file.bound and not findings:
        findings.append(Finding("MNQ001", f"no entry of {_shown(path)} could be compared with the model"))
    return Result.from_findings("params", findings, metrics)


def _shown(path: Path | None) -> str:
    return working_path(path) if path is not None else "the params file"


def _by_weights(op: Op) -> int:
    """The key that sorts the largest layers first."""
    return -op.weight_count


def _missing(evidence: ParamsEvidence, calibrate: str) -> Finding:
    return Finding(
        "MNQ301",
        f"{evidence.missing}: no such file",
        cause=Cause(
            "params-missing",
            "the path given as --mnn-params does not exist; MNN's converter does not report such a path as an error: "
            "it creates the file and quantizes nothing",
        ),
        fix=f"correct the path in --mnn-params and in --compressionParamsFile; if the file is gone, {calibrate}",
    )


def _unreadable(evidence: ParamsEvidence, calibrate: str) -> Finding:
    if evidence.doubled:
        return Finding(
            "MNQ302",
            evidence.unreadable,
            cause=Cause(
                "two-calibrations",
                "two calibrations were written into one file (append=True of mnncompress appends to an existing file)",
            ),
            fix="calibrate again into a new file (append=False), and convert again with that file",
        )
    return Finding(
        "MNQ302",
        evidence.unreadable,
        cause=Cause(
            "params-ignored", "MNN's converter ignores a params file that it can't parse, and converts to float"
        ),
        fix=calibrate,
    )


def _guide(path: Path | None, params: Params, recipe: Recipe | None, command: ConvertCommand | None) -> Finding:
    if not params.layers:
        return Finding(
            "MNQ303",
            f"{_shown(path)} lists no layer",
            cause=Cause(
                "calibration-quantized-nothing",
                "the calibration that wrote it quantized nothing: the WeightQuantizer of mnncompress records no layer, "
                "and neither does a model without supported layers",
            ),
            fix="calibrate with LSQQuantizer(mode='offline'), or judge 8-bit weights: --mnn-recipe=w8",
        )
    return Finding(
        "MNQ303",
        f"{_shown(path)} was written by MNN's converter, not by a calibration: {len(params.layers)} layers, all with "
        "0 bits",
        cause=Cause(
            "params-path-wrong",
            "when the model was converted, the path given as --compressionParamsFile did not exist: MNN's converter "
            "writes a placeholder there, in which all layers have 0 bits, and quantizes nothing, not even with "
            "--weightQuantBits",
        ),
        fix=_instead_of_guide(recipe, command),
    )


def _instead_of_guide(recipe: Recipe | None, command: ConvertCommand | None) -> str:
    if recipe is not None and not recipe.activations:
        return convert_again(command, recipe, "delete this file, and convert again without --compressionParamsFile")
    calibrate = calibrate_again(command, recipe)
    return (
        "delete this file, and give --compressionParamsFile the path of the file that the calibration wrote; if there "
        f"is none, {calibrate}"
    )


def _weights_only(path: Path | None) -> Finding:
    return Finding(
        "MNQ303",
        f"{_shown(path)} has bits of weights only, no scales of activations",
        cause=Cause(
            "guide-filled-in",
            "it is the guide that MNN's converter writes, filled in by hand: it makes a weight-only model",
        ),
        fix="judge the model as weight-only (--mnn-recipe=w8), or calibrate and convert with that params file",
    )


def _misname(
    item: Misnamed, evidence: ParamsEvidence, command: ConvertCommand | None, recipe: Recipe | None
) -> Finding:
    entry, layer = item.entry, item.layer
    if layer is None:
        return Finding(
            "MNQ304",
            f"output tensor {entry.name!r} is not in the model, and no layer has the weights of this entry",
            entry.weight.name,
            cause=Cause(
                "params-of-other-model",
                "the params file was made for another model, or for another training of this one",
            ),
            fix=calibrate_again(command, recipe),
        )
    cause = Cause(
        "name-mismatch",
        f"the names differ: the entry carries this layer's weights, but MNN names its tensor {layer.output_names[0]!r}",
    )
    if item.groups:
        cause = Cause(
            "grouped-convolution-split",
            f"MNN splits this grouped convolution into {len(item.groups)} layers, and each needs its own entry",
        )
    message = f"output tensor {entry.name!r} is not in the model, so MNN ignores this entry of {_shown(evidence.path)}"
    return Finding("MNQ304", message, layer.name, cause=cause, fix=evidence.fix_for(entry.name, command, recipe))


def _unlisted(op: Op, path: Path | None) -> Finding:
    return Finding(
        "MNQ306",
        f"{_shown(path)} has no entry for output tensor {op.output_names[0]!r}",
        op.name,
        cause=Cause(
            "layer-unknown-to-calibration",
            "the calibration did not cover this layer (mnncompress quantizes only Conv2d and Linear modules that are "
            "called once)",
        ),
        fix=f"calibrate again with this layer; to keep it float on purpose, add {skip_option(op.name)}",
    )
