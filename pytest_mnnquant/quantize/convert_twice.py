"""Conversions that are made twice: the judgment of a model is void if the next conversion differs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.mnnfile.fingerprint import difference
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.failed_conversion import explain_failure
from pytest_mnnquant.runtime.background import both
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.jobs import NativeFailure

_NOTE: Final = ".repeated.txt"


def convert_twice(source: Path, output: Path, flags: Sequence[str] = (), *, timeout: float) -> Model:
    """Convert as `convert` does, convert again, and note in a file beside the output how the second result differs.

    Two processes, since results that depend on addresses or on the heap may be equal in one process.
    """
    with tempfile.TemporaryDirectory(prefix="again-", dir=output.parent) as name:
        try:
            model, again = both(
                lambda: convert(source, output, flags, timeout=timeout),
                lambda: convert(source, Path(name) / output.name, flags, timeout=timeout),
            )
        except NativeFailure as error:
            raise explain_failure(error, source) from None
        _note(model.path).write_text(difference(model, again), encoding="utf-8")
    return model


def load_differences(models: Mapping[str, Model]) -> dict[str, str]:
    """How the second conversion of each model differs, by the given titles; empty if equal. Others are missing."""
    paths: dict[Path, str] = {}
    for title, model in models.items():
        paths.setdefault(model.path, title)
    return {title: _note(path).read_text(encoding="utf-8") for path, title in paths.items() if _note(path).is_file()}


def _note(path: Path) -> Path:
    return path.with_name(path.name + _NOTE)
