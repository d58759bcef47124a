"""`pytest-mnnquant convert`: MNN's converter with its own arguments; succeeds only with a model that matches them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.cli.convert_arguments import Command, read_command
from pytest_mnnquant.cli.mnnconvert_flags import FLAGS, Refused, Role, as_arguments, read_flags
from pytest_mnnquant.cli.source_formats import undecodable_text, wrong_content
from pytest_mnnquant.cli.verify import Requested, verify
from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.fix_command import ConvertCommand
from pytest_mnnquant.mnnfile.decodable import undecodable
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.quantize.failed_conversion import explain_failure
from pytest_mnnquant.quantize.source_weights import require_finite
from pytest_mnnquant.recipes.mnn_support import can_block
from pytest_mnnquant.runtime.convert import converter_output, known_flags, move_model, run_converter
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.spec import SourceError

Print = Callable[[str], None]
# Flags that are the most likely cause if layers stay float.
_HINTS: Final = {
    ("convertMatmulToConv", "0"): "keeps Linear layers as matrices, which MNN does not quantize; remove it",
    ("useOriginRNNImpl", ""): "keeps LSTM and GRU as one operator, which MNN does not quantize; remove it",
}


def convert(
    arguments: Sequence[str], skip: tuple[str, ...], timeout: float, print_line: Print, print_error: Print
) -> int:
    """Convert; the exit status is 0 only for a new file that was verified.

    `print_line` gets the verdict, `print_error` warnings and failures. Raises `Refused` for arguments that MNN would
    ignore or misread, and `NativeFailure` if it crashed, hung or wrote nothing. The output is replaced only by a model
    that passes.
    """
    given = read_flags(arguments)
    questions = [name for name in given if FLAGS[name].role is Role.QUESTION]
    if questions:
        return _answer(given, questions, timeout, print_line)
    command = read_command(given, known_flags(timeout))
    if "debug" in given:
        print_error("--debug: has no effect in MNN")
    output = command.output.resolve()
    with tempfile.TemporaryDirectory(prefix="convert-", dir=output.parent) as folder:
        fresh = Path(folder) / output.name
        try:
            log = _run(command, fresh, timeout)
        except NativeFailure as error:
            raise explain_failure(error, Path(command.source)) from None
        if command.is_dump:
            line = f"{fresh.stat().st_size:,} bytes of JSON"
        elif command.recipe is None:
            line = _plain_summary(read_model(fresh), command.source)
        else:
            summary = _verify(command, fresh, skip, timeout, print_error)
            if summary is None:
                return 1
            line = summary
        move_model(fresh, output)
    if "dumpPass" in given:
        print_error(log)
    print_line(f"{command.output}: {line}")
    return 0


def _answer(given: dict[str, str], questions: list[str], timeout: float, print_line: Print) -> int:
    others = [name for name in given if name not in (*questions, "framework", "modelFile")]
    if others:
        raise Refused(
            f"--{questions[0]}: MNN prints information and converts nothing; remove --{others[0]} or --{questions[0]}"
        )
    if "info" in questions:
        source = given.get("modelFile", "")
        if given.get("framework") != "MNN":
            raise Refused("--info: MNN describes MNN models only; add -f MNN --modelFile")
        if wrong := wrong_content(Path(source), "MNN"):
            raise Refused(f"--modelFile {source}: {wrong}")
        given = {**given, "modelFile": str(Path(source).resolve())}
    print_line(converter_output(as_arguments(given), timeout=timeout))
    return 0


def _run(command: Command, fresh: Path, timeout: float) -> str:
    what = f"converting {command.source}"
    if command.is_dump:
        return run_converter(command.arguments(), fresh, timeout=timeout, what=what, flag="--JsonFile", check=_is_json)
    return run_converter(command.arguments(), fresh, timeout=timeout, what=what)


def _is_json(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise BadModel(f"MNN's JSON can't be parsed ({error}): the model contains NaN or infinity") from None


def _plain_summary(model: Model, source: Path) -> str:
    if model.external_missing:
        raise Refused(f"{RULES['MNQ803'].title}: {source}: {model.external_missing:,} bytes of its weights are missing")
    if broken := undecodable(model):
        raise Refused(f"{source}: {undecodable_text(broken)}; write {source.name} again")
    _require_finite(model, source)
    kinds = sorted({weights.label for op in model.layers for weights in op.weights})
    return (
        f"a complete model, {len(model.layers)} layers ({', '.join(kinds) or 'without weights'}), {model.size:,} bytes"
    )


def _verify(command: Command, fresh: Path, skip: tuple[str, ...], timeout: float, print_error: Print) -> str | None:
    """The line of the verdict; None if the model does not match the request (the reasons have been printed)."""
    assert command.recipe is not None
    plain = fresh.parent / "plain" / fresh.name
    plain.parent.mkdir()
    run_converter(
        command.arguments(compressed=False), plain, timeout=timeout, what=f"converting {command.source} to float"
    )
    base, model = read_model(plain), read_model(fresh)
    _require_finite(base, command.source)
    _refuse_idle_block(base, command)
    path = command.params_path
    bits = command.given.get("weightQuantBits")
    verdict = verify(
        base,
        model,
        Requested(
            command.recipe,
            ConvertCommand(command.source_words, command.output, skip=skip),
            skip,
            command.params,
            path,
            command.output.resolve().with_name(f"{path.stem}.repaired.bin") if path is not None else None,
            rest=int(bits) if bits else 16 if "fp16" in command.given else None,
            bits=command.bits,
            sparse="detectSparseSpeedUp" in command.given,
        ),
    )
    if verdict.failed:
        print_error(verdict.failures(str(command.output), command.recipe.name))
        for (name, value), hint in _HINTS.items():
            if command.given.get(name) == value:
                print_error(f"--{name} {value}".rstrip() + f": {hint}")
        print_error(f"{command.output} was not written")
        return None
    for warning in verdict.warnings:
        print_error(f"warning {warning}")
    return f"{command.recipe.name}: {verdict.line(base, model)}"


def _require_finite(model: Model, source: Path) -> None:
    """Refuse a source whose weights are not finite. Raises `Refused`."""
    try:
        require_finite(model, source)
    except SourceError as error:
        raise Refused(str(error)) from None


def _refuse_idle_block(base: Model, command: Command) -> None:
    block = command.recipe.block if command.recipe is not None else None
    layers = [op for op in base.layers if op.is_convolution]
    if block and not any(can_block(op.shape, op.group, block) or op.shape[1:2] == (block,) for op in layers):
        raise Refused(
            f"--weightQuantBlock {block}: fits none of {len(layers)} layers (required: 1x1 kernels or Linear layers "
            f"with input channels divisible by {block}); MNN would silently use one scale per channel"
        )
