"""MNN's converter: one conversion, judged only by the content of its output file."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.runtime.disk import full_disk_named
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, UnsupportedOperators, run_job, tail

_ALL: Final = 10_000
_EXTERNAL: Final = ".__convert_external_data.bin"
_FRAMEWORKS: Final = {".onnx": "ONNX", ".tflite": "TFLITE"}


def convert(source: Path, output: Path, flags: Sequence[str] = (), *, timeout: float) -> Model:
    """Convert an `.onnx`, `.tflite` or `.mnn` file with MNN's `flags` and return the model written to `output`.

    See `run_converter`.
    """
    framework = _FRAMEWORKS.get(source.suffix, "MNN")
    what = f"converting {source.name} ({' '.join(flags) or 'float'})"
    if framework == "MNN":  # MNN converts a truncated model to a model without some operators, and prints Success.
        try:
            read_model(source)
        except (BadModel, OSError) as error:
            raise NativeFailure(FailureKind.BAD_INPUT, f"{what}: {error}") from None
    output.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["-f", framework, "--modelFile", str(source.resolve()), "--bizCode", "MNN", *flags]
    run_converter(arguments, output, timeout=timeout, what=what)
    return read_model(output.resolve())


def run_converter(
    arguments: Sequence[str],
    output: Path,
    *,
    timeout: float,
    what: str,
    flag: str = "--MNNModel",
    check: Callable[[Path], object] = read_model,
) -> str:
    """Run MNN's converter with `arguments`, all paths absolute, and `flag` for the output; returns its log.

    Runs in a temporary folder, since MNN writes a temporary file of a fixed name into the working directory and
    parallel conversions would corrupt each other. A file at `output` is replaced only by a complete one for which
    `check` does not raise `BadModel`. Raises `NativeFailure` if there is none, whatever MNN printed or returned.
    """
    output = output.resolve()
    with tempfile.TemporaryDirectory(prefix="convert-", dir=output.parent) as name:
        folder = Path(name)
        fresh = folder / output.name
        job = Job("convert", what, timeout, {"arguments": [flag, str(fresh), *arguments]})
        with full_disk_named(what, folder):
            _bring_external(arguments, folder)
            _write_model(job, fresh, check)
        move_model(fresh, output)
        return tail(folder / "log.txt", _ALL)


def _write_model(job: Job, fresh: Path, check: Callable[[Path], object]) -> None:
    """Run the converter in the folder of the file that it writes. Raises `NativeFailure` without a complete file."""
    log = fresh.with_name("log.txt")
    run_job(job, fresh.parent)
    if not fresh.exists():
        raise _wrote_nothing(job.what, log)
    try:
        check(fresh)
    except BadModel as error:
        wrong = str(error).replace(str(fresh), fresh.name)
        raise NativeFailure(FailureKind.BAD_OUTPUT, f"{job.what}: {wrong}", tail(log)) from None


def _wrote_nothing(what: str, log: Path) -> NativeFailure:
    """The failure of a conversion without a file, with the operators that MNN's log names."""
    if operators := unsupported_operators(tail(log, _ALL)):
        return UnsupportedOperators(f"{what}: MNN's converter does not support {', '.join(operators)}", operators)
    return NativeFailure(FailureKind.BAD_OUTPUT, f"{what}: the converter wrote no file", tail(log))


def unsupported_operators(log: str) -> tuple[str, ...]:
    """The kinds of operators that the converter's log names as not supported: of ONNX, TFLite and other sources."""
    lists = re.findall(r"These Op Not Support:(.*)|NOT_SUPPORTED_OP: \[ *(\S+) *\]", log)
    names = [name for several, single in lists for name in (*several.replace("|", " ").split(), single) if name]
    return tuple(dict.fromkeys(name.rpartition("::")[2] for name in names))


def _bring_external(arguments: Sequence[str], folder: Path) -> None:
    """Put the external weights of a `.mnn` source where MNN's converter expects them: a fixed name in its folder.

    Without this file, the converter uses uninitialized memory. It deletes the file afterwards.
    """
    for flag, value in itertools.pairwise(arguments):
        external = Path(value + ".weight")
        if flag == "--modelFile" and external.is_file():
            shutil.copyfile(external, folder / _EXTERNAL)


def move_model(fresh: Path, output: Path) -> None:
    """Move a finished model with its external weights to the requested path, which is on the same disk.

    External weights of an earlier model at this path are removed.
    """
    if not fresh.with_name(fresh.name + ".weight").exists():
        output.with_name(output.name + ".weight").unlink(missing_ok=True)
    for part in (fresh.with_name(fresh.name + ".weight"), fresh):
        if part.exists():
            part.replace(output.with_name(output.name + part.name.removeprefix(fresh.name)))


def converter_output(arguments: Sequence[str], *, timeout: float) -> str:
    """The output of MNN's converter for arguments that make it print information instead of converting."""
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        run_job(Job("convert", "querying MNN's converter", timeout, {"arguments": list(arguments)}), Path(name))
        return tail(Path(name) / "log.txt", _ALL)


@functools.cache
def known_flags(timeout: float) -> frozenset[str]:
    """The long flags of the installed MNN, from its help: MNN silently ignores others."""
    return frozenset(re.findall(r"--(\w+)", converter_output(["--help"], timeout=timeout)))
