"""MNN's offline quantization tool (`mnnquant`), called in the only way that works: with a list, in a child process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job, tail


def mnnquant(source: Path, output: Path, config: Mapping[str, Any], *, timeout: float) -> Model:
    """Quantize a float `.mnn` with MNN's tool and return the model that was written to `output`.

    `config` is the tool's configuration; relative paths in it start at a temporary folder, so use absolute ones.
    Raises `NativeFailure` without a new, readable model: the tool always returns 0 and prints "done".
    """
    what = f"mnnquant ({config.get('feature_quantize_method', 'KL')}) on {source.name}"
    output = output.resolve()
    try:
        read_model(source)
    except (BadModel, OSError) as error:
        raise NativeFailure(FailureKind.BAD_INPUT, f"{what}: {error}") from None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=output.parent) as name:
        folder = Path(name)
        fresh, config_file = folder / output.name, folder / "config.json"
        config_file.write_text(json.dumps(config), encoding="utf-8")
        arguments = [str(source.resolve()), str(fresh), str(config_file)]
        run_job(Job("quantize", what, timeout, {"arguments": arguments}), folder)
        if not fresh.exists():
            raise NativeFailure(FailureKind.BAD_OUTPUT, f"{what}: the tool wrote no file", tail(folder / "log.txt"))
        try:
            read_model(fresh)
        except BadModel as error:
            raise NativeFailure(FailureKind.BAD_OUTPUT, f"{what}: {error}", tail(folder / "log.txt")) from None
        fresh.replace(output)
    return read_model(output)
