"""`pytest-mnnquant calibrate`: MNN's `mnnquant` with its own configuration; accepts only a verified int8 model."""

from __future__ import annotations

import dataclasses
import glob
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.checks.accuracy.causes import KnownCauses
from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria, UsualLimits
from pytest_mnnquant.cli.calibration_config import read_config
from pytest_mnnquant.cli.calibration_samples import Samples, check_samples
from pytest_mnnquant.cli.convert_arguments import unwritable
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.cli.verify import Requested, verify
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.findings.fix_command import ConvertCommand, mnn_source, shell_command
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.mnnfile.int8_faults import int8_faults
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent
from pytest_mnnquant.runtime.convert import move_model
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions

# The largest scale of real networks; uninitialized memory gives far larger ones.
_SANE_SCALE: Final = 1e6
# The lowest cosine on the calibration data: the worst correct model measured has 0.96, broken ones have at most 0.5.
_LIMITS: Final = UsualLimits(
    **dict.fromkeys(("variation", "few_numbers", "part_numbers", "channel", "maps", "beyond"), 0.0),
    **dict.fromkeys(("cosine", "unit_cosine", "ranks"), 0.9),
    **dict.fromkeys(("iou", "peaks", "characters"), 0.5),
    detail=-10.0,
)
Print = Callable[[str], None]


def calibrate(
    arguments: Sequence[str], skip: tuple[str, ...], timeout: float, print_line: Print, print_error: Print
) -> int:
    """Quantize; the exit status is 0 only for a new int8 model that was verified.

    `print_line` gets the verdict, `print_error` warnings and failures. Raises `Refused` for a configuration or data
    that the tool would misread, and `NativeFailure` if it crashed, hung or wrote nothing. The output is replaced only
    by a model that passes.
    """
    source, output, settings = _paths(arguments)
    model = _source(source)
    config = read_config(settings, model)
    if config.feature == "EMA" and model.external_path is not None:
        raise Refused(
            f"{source}: EMA ignores weights in an external file ({model.external_path.name}) and quantizes nothing; "
            "convert to a float .mnn without --saveExternalData"
        )
    samples = check_samples(config, model, timeout)
    for warning in samples.warnings:
        print_error(f"warning: {warning}")
    recipe = recipe_named(f"mnnquant-{config.feature.lower()}" + ("-admm" if config.weight == "ADMM" else ""))
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=output.parent) as folder:
        absolute = {**config.content, "path": f"{config.path.resolve()}/"}
        quantized = mnnquant(source, Path(folder) / output.name, absolute, timeout=timeout)
        skipped_layers = (*skip, *(glob.escape(name) for name in config.skip))
        again = shell_command("pytest-mnnquant", "calibrate", *arguments)
        command = ConvertCommand(mnn_source(source), output, skip=skip, calibration=again)
        verdict = verify(model, quantized, Requested(recipe, command, skipped_layers))
        if wrong := _wrong_scales(quantized):
            raise NativeFailure(FailureKind.BAD_OUTPUT, "\n".join(wrong))
        similarity = _similarity(model, quantized, samples, timeout)
        verdict = dataclasses.replace(verdict, results=(*verdict.results, similarity))
        if verdict.failed:
            print_error(verdict.failures(str(output), recipe.name))
            print_error(f"{output} was not written")
            return 1
        for warning in verdict.warnings:
            print_error(f"warning {warning}")
        line = verdict.line(model, quantized)
        move_model(quantized.path, output)
    print_line(f"{arguments[1]}: {recipe.name}: {line}")
    return 0


def _paths(arguments: Sequence[str]) -> tuple[Path, Path, Path]:
    options = [word for word in arguments if word.startswith("-")]
    if options or len(arguments) != 3:
        wrong = f"{options[0]}: mnnquant has no options" if options else f"{len(arguments)} arguments"
        raise Refused(f"{wrong}; expected SOURCE.mnn OUTPUT.mnn CONFIG.json")
    source, output, settings = map(Path, arguments)
    if wrong := unwritable(output):
        raise Refused(wrong)
    if output.resolve() in (source.resolve(), settings.resolve()):
        raise Refused(f"{output}: is both input and output; give the output another name")
    return source, output.resolve(), settings


def _source(path: Path) -> Model:
    """The float model to quantize."""
    try:
        model = read_model(path)
    except OSError:
        raise Refused(f"{path}: no such file") from None
    except BadModel as error:
        raise Refused(f"{error}; mnnquant takes a float .mnn: create one with pytest-mnnquant convert") from None
    low = [op for op in model.layers if any(weights.storage is not Storage.FLOAT32 for weights in op.weights)]
    if low:
        raise Refused(f"{path}: {low[0].name} is stored as {low[0].weights[0].label}; mnnquant takes a float .mnn only")
    if model.external_missing:
        raise Refused(f"{path}: its weights are in {model.external_path}, which is missing or too short")
    if model.has_subgraphs:
        raise Refused(
            f"{path}: has While or If bodies (LSTM, GRU, loops), on which mnnquant crashes or leaves layers float; "
            "quantize its weights with pytest-mnnquant convert ... --weightQuantBits 8"
        )
    return model


def _wrong_scales(model: Model) -> list[str]:
    """The tensors with a scale that can't come from calibration data."""
    return [
        f"tensor {model.tensor_names[index]!r} has scale {quant.scale:g}: its calibration data are empty or broken"
        for index, quant in model.tensor_quants.items()
        if not math.isfinite(quant.scale) or not 0 < quant.scale < _SANE_SCALE
    ][:3]


def _similarity(source: Model, quantized: Model, samples: Samples, timeout: float) -> Result:
    """The outputs on the samples, as on ARM, compared with the float model's."""

    def outcome(model: Model) -> Run:
        return run(model, samples.arrays, RunOptions(timeout, batched=samples.batched))

    reference, as_run = outcome(source), outcome(quantized)
    with arm_equivalent(quantized, as_run) as (model, changed):
        as_on_arm = outcome(model) if changed else as_run
    evidence = AccuracyEvidence(
        reference=reference.outputs,
        outputs=as_on_arm.outputs,
        as_run=as_run.outputs,
        pools=changed,
        suspects=KnownCauses(faults=int8_faults(quantized, {op.operator for op in as_run.trace or () if op.int8})),
    )
    return check_accuracy(evidence, Criteria(usual=_LIMITS))
