"""Holds the files that a run writes against those that it reads: nothing of the user's is overwritten."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_mnnquant.config.settings import ModelSettings, Settings
from pytest_mnnquant.report.formats import is_own_report
from pytest_mnnquant.sources.spec import SourceError, parse_spec


def require_free_outputs(settings: Settings, configuration_files: Iterable[Path]) -> None:
    """Raise `ValueError` for a report file that is an input, another output, or a file that no report is in."""
    inputs = dict(_inputs(settings, configuration_files))
    written: set[Path] = set()
    for path in settings.reports:
        real = _real(path)
        if real in inputs:
            raise ValueError(f"--mnn-report: {path} is {inputs[real]}; give another name")
        if real in written:
            raise ValueError(f"--mnn-report: {path} is named twice")
        written.add(real)
        _require_replaceable(path)


def _require_replaceable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # It does not exist yet; other errors are reported when it is written.
        return
    if stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):
        raise ValueError(f"--mnn-report: {path} is not a regular file")
    if not is_own_report(path):
        raise ValueError(f"--mnn-report: {path} is not a report of an earlier run; give another name")


def _inputs(settings: Settings, configuration_files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The files that a run reads, with what they are."""
    for path in configuration_files:
        yield _real(path), "a configuration file"
    if settings.baseline is not None:
        yield _real(settings.baseline), "the baseline"
    for model in settings.models:
        for text in (model.calibration, model.evaluation, model.limits.metric):
            if text is not None:
                place = text.rpartition(":")[0] if ".py:" in text else text
                yield _real(model.base / place), f"data of {model.name}"
        for text in (model.quantized, model.params, model.latency_reference):
            if text is not None:
                yield _real(model.base / text), f"a file of {model.name}"
        yield from ((_real(path), f"a file of {model.name}") for path in _source(model))


def _source(model: ModelSettings) -> Iterator[Path]:
    try:
        path = parse_spec(model.source, model.base).path
    except SourceError:
        return
    if path is not None:
        yield path
        if path.is_dir():
            yield from path.iterdir()


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
