"""MNN's converter: one conversion, believed only for what its output file holds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.runtime.child import NativeFailure, run_job, tail


def convert(source: Path, output: Path, flags: Sequence[str] = (), *, timeout: float) -> Model:
    """Convert an `.onnx` or `.mnn` file with MNN's `flags` and return the model that was written to `output`.

    Runs in a folder of its own, since MNN writes a temporary file of a fixed name into the working directory and
    parallel conversions would corrupt each other. A file at `output` is replaced only by a complete model. Raises
    `NativeFailure` when no new, readable model came out, whatever MNN printed or returned.
    """
    framework = "ONNX" if source.suffix == ".onnx" else "MNN"
    output = output.resolve()
    what = f"converting {source.name} ({' '.join(flags) or 'float'})"
    if framework == "MNN":  # Of a truncated model MNN makes one that lacks operators, and prints Success.
        try:
            read_model(source)
        except (BadModel, OSError) as error:
            raise NativeFailure(f"{what}: {error}") from None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="convert-", dir=output.parent) as name:
        folder = Path(name)
        fresh = folder / output.name
        arguments = ["-f", framework, "--modelFile", str(source.resolve()), "--MNNModel", str(fresh)]
        run_job("convert", folder, timeout=timeout, what=what, arguments=[*arguments, "--bizCode", "MNN", *flags])
        if not fresh.exists():
            raise NativeFailure(f"{what}: the converter wrote no file", tail(folder / "log.txt"))
        try:
            read_model(fresh)
        except BadModel as error:
            raise NativeFailure(f"{what}: {error}", tail(folder / "log.txt")) from None
        for part in (fresh, fresh.with_name(fresh.name + ".weight")):
            if part.exists():
                part.replace(output.with_name(part.name))
    return read_model(output)
