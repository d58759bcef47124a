"""Runs the other graphs of an export (vision, audio) as ordinary models: they load, and compute finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.evidence.language_runs import LanguageRuns
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.llm.folder import ExportFolder, Purpose
from pytest_mnnquant.mnnfile.model import Model, ModelInput, read_model
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions

#: Types of inputs that random numbers can be made for.
_WHOLE: Final = {"int32": np.int32, "int64": np.int64}


def judge_parts(runs: LanguageRuns) -> Iterator[Finding]:
    """What a run of the parts shows. Those with dynamic dimensions need an image or a sound, and do not run."""
    if runs.is_on_target:
        return
    folder = runs.folder
    for name in _part_files(folder):
        model = read_model(folder.path / name, folder.path / f"{name}.weight")
        inputs = _random_inputs(model)
        if inputs is None:
            continue
        # Attention needs the Module API, which returns only what the file lists as its outputs.
        options = RunOptions(runs.settings.timeout, batched=False, through_module=bool(model.output_names))
        try:
            outputs = run(model, inputs, options).outputs
        except NativeFailure as error:
            yield Finding("MNQ201", error.what, name, fix="see the findings on files, if any")
            continue
        broken = [output for output, values in outputs.items() if not np.isfinite(values).all()]
        if broken:
            yield Finding("MNQ640", f"{broken[0]} of {name} is not finite", name, fix="export again with more bits")


def _part_files(folder: ExportFolder) -> list[str]:
    return [file.name for file in folder.files if file.purpose is Purpose.PART and file.name.endswith(".mnn")]


def _random_inputs(model: Model) -> dict[str, npt.NDArray[np.generic]] | None:
    """Numbers in [0, 1) for each input; None if a dimension is dynamic."""
    if any(min(item.shape, default=1) < 1 for item in model.inputs):
        return None
    random = np.random.default_rng(24)
    return {item.name: _values(item, random) for item in model.inputs}


def _values(item: ModelInput, random: np.random.Generator) -> npt.NDArray[np.generic]:
    if item.data_type in _WHOLE:
        return np.zeros(item.shape, _WHOLE[item.data_type])
    return random.random(item.shape, np.float32)
