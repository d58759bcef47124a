"""Params: the file is there, parses, names the model's tensors, and its scales are the ones in the model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.check_metrics import ParamsMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.consistency import clamps, zero_points
from pytest_mnnquant.mnnfile.entries import bind_by_name, bind_by_weights
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import BadModel, Model, Op
from pytest_mnnquant.mnnfile.params import LayerParams, Params
from pytest_mnnquant.recipes.mnn_support import can_compute

_SCALE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Misnamed:
    """An entry of the params file that names no tensor, and the layer whose weights it carries, if one was found.

    `groups` are the layers that MNN made of a grouped convolution, `layer` the first of them.
    """

    entry: LayerParams
    layer: Op | None
    groups: tuple[Op, ...] = ()


@dataclass(frozen=True)
class ParamsEvidence:
    """The params file against the models: which entry is which layer. Everything is empty when it can't be read.

    `unreadable` and `missing` say why, `doubled` that it holds two calibrations. `bound` pairs entries with the
    quantized model's layers by name, as MNN does. `repaired` is the same params file with the names that MNN looks for,
    where that could be written.
    """

    path: Path | None
    params: Params | None = None
    missing: str = ""
    unreadable: str = ""
    doubled: bool = False
    bound: tuple[tuple[LayerParams, Op], ...] = ()
    misnamed: tuple[Misnamed, ...] = ()
    unlisted: tuple[Op, ...] = ()
    repaired: Path | None = None

    def misnamed_of(self, layer: Op) -> Misnamed | None:
        """The misnamed entry that belongs to a layer of the float model."""
        return next((item for item in self.misnamed if any(op is layer for op in (item.layer, *item.groups))), None)

    @property
    def can_be_repaired(self) -> bool:
        """Whether the layer of an entry that names no tensor was found by its weights."""
        return any(item.layer is not None for item in self.misnamed)

    def fix_for(self, name: str) -> str:
        """What to do about an entry that names no tensor."""
        if self.repaired is None:
            layers = {item.entry.name: item.layer for item in self.misnamed if item.layer is not None}
            return f"rename {name!r} to {layers[name].output_names[0]!r} in the params file and convert again"
        return (
            "convert again with the params file that has MNN's own names, made on this machine (the same run at home "
            "makes it there too):\npytest-mnnquant convert -f MNN --modelFile FLOAT.mnn --MNNModel OUT.mnn "
            f"--compressionParamsFile {shlex.quote(str(self.repaired))}"
        )


def relate(path: Path, params: Params, base: Model, model: Model, match: Match) -> ParamsEvidence:
    """Find which entry belongs to which layer: by tensor name, and for names that match nothing by the weights."""
    bound, lost = bind_by_name(params, model)
    taken = {id(op) for _, op in bound}
    free = [layer for layer, stored in match.pairs if layer.is_convolution and id(stored) not in taken]
    misnamed = tuple(
        Misnamed(entry, ops[0] if ops else None, ops if len(ops) > 1 else ())
        for entry, ops in bind_by_weights(lost, base, free)
    )
    known = {id(op) for item in misnamed for op in (item.layer, *item.groups)}
    unlisted = tuple(op for op in free if id(op) not in known)
    return ParamsEvidence(path, params, bound=tuple(bound), misnamed=misnamed, unlisted=unlisted)


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
    if any(
        op in wanted_layers and can_compute(op) for op in unlisted
    ):  # The half of an LSTM that is in a loop goes with it.
        findings += [_unlisted(op, path) for op in unlisted if op in wanted_layers and (can_compute(op) or op.subgraph)]
    bound = sorted(params_file.bound, key=lambda pair: _by_weights(pair[1]))
    findings += [problem for entry, op in bound if (problem := _applied(entry, op, model, params)) is not None]
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


def _applied(entry: LayerParams, op: Op, model: Model, params: Params) -> Finding | None:
    weights = op.weights[0]
    if not weights.full_int8 or entry.output is None or entry.input is None:
        cause = _never_read(model, params)
        return Finding(
            "MNQ305",
            f"the params file has scales for it, the model stores it as {weights.label}",
            op.name,
            cause,
            "convert again with exactly: --compressionParamsFile PARAMS",
        )
    pairs = (
        ("input scale", entry.input.scale, weights.scale_in),
        ("output scale", entry.output.scale, weights.scale_out),
    )
    for what, asked, stored in pairs:
        if not abs(asked - stored) <= _SCALE_TOLERANCE * abs(asked):  # NaN is another scale too.
            return _other_scale(op, what, asked, stored)
    if (zeros := zero_points(op)) is not None:
        for what, tensor, stored_zero in zip(("input", "output"), (entry.input, entry.output), zeros, strict=True):
            if tensor.zero_point != stored_zero:
                return _other_scale(op, f"{what} zero point", tensor.zero_point, stored_zero)
    asked_codes = (entry.output.clamp_min, entry.output.clamp_max)
    if (codes := clamps(op)) is not None:
        for end, one, other in zip(("lowest", "highest"), asked_codes, codes, strict=True):
            if abs(one - other) > 1:  # -128 is -127 to some of MNN's tools.
                return _other_scale(op, f"{end} code of the output", one, other)
    if not weights.intact:
        return _unread(op, "its weight buffer is broken", "see the coverage check")
    try:
        asked_scales, stored_scales = np.array(entry.weight.scales), model.steps(op)
    except BadModel as error:
        return _unread(op, str(error), "see the bundle check")
    if len(asked_scales) == len(stored_scales) and not np.allclose(asked_scales, stored_scales, rtol=_SCALE_TOLERANCE):
        worst = int(np.abs(stored_scales / asked_scales - 1).argmax())
        return _other_scale(op, f"weight scale of channel {worst}", asked_scales[worst], stored_scales[worst])
    return None


def _never_read(model: Model, params: Params) -> Cause | None:
    if model.uuid != params.uuid:
        sign = "the model does not carry its uuid"
    elif not any(op.weights[0].full_int8 for op in model.convolutions):
        sign = "no layer of the model is int8"
    else:
        return None
    return Cause(
        "params-never-read",
        f"the converter never read this file: {sign} (was --compressionParamsFile mistyped or left out? MNN ignores "
        "flags it does not know)",
    )


def _unread(op: Op, why: str, fix: str) -> Finding:
    return Finding("MNQ305", f"its weight scales can't be compared with the params file's: {why}", op.name, fix=fix)


def _other_scale(op: Op, what: str, asked: float, stored: float) -> Finding:
    return Finding(
        "MNQ305",
        f"{what} is {stored:.6g} in the model, {asked:.6g} in the params file",
        op.name,
        Cause("other-params-file", "the model was made with another params file"),
        "convert again with this params file, or give the one the model was made with",
    )
