"""The float model for a finished file made with `--saveStaticModel`, which has the shapes of one input size written in.

Sizes are then attributes of operators, and others than the float model's. The float model is converted alike.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import NativeFailure

_FLOAT: Final = "float.mnn"


def as_static(source: Prepared, quantized: Path, store: Store, timeout: float) -> Prepared:
    """The source with a float model of the same static shapes, if the finished file is static; else unchanged.

    A file for a batch of one takes one sample at a time.
    """
    try:
        shapes = _static_shapes(read_model(quantized))
    except (BadModel, OSError):  # The variant reports it.
        return source
    if not shapes or source.model.is_static or set(shapes) != {item.name for item in source.model.inputs}:
        return source
    lines = (
        f"input_size = {len(shapes)}",
        f"input_names = {','.join(shapes)}",
        f"input_dims = {','.join('x'.join(map(str, shape)) for shape in shapes.values())}",
    )

    def build(folder: Path) -> None:
        settings = folder / "inputs.txt"
        settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags = ("--saveStaticModel", "--inputConfigFile", str(settings.resolve()))
        convert(source.model.path, folder / _FLOAT, flags, timeout=timeout)

    try:
        made = store.folder("static", {"float": file_digest(source.model.path), "inputs": lines}, build) / _FLOAT
    except NativeFailure:
        return source
    takes_more = all(shape[0] > 1 for shape in shapes.values())
    return dataclasses.replace(source, model=read_model(made), batched=source.batched and takes_more)


def _static_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of a static model, by name; empty for others."""
    if not model.is_static or any(not item.shape or min(item.shape) < 1 for item in model.inputs):
        return {}
    return {item.name: item.shape for item in model.inputs}
