"""Collects the evidence about an export from folders: the source, and what the exporter's options name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_checkpoint, read_tensors
from pytest_mnnquant.llm.folder import ExportFolder, read_folder
from pytest_mnnquant.llm.json_object import BadExport, read_json
from pytest_mnnquant.llm.options import read_quant_config
from pytest_mnnquant.llm.requests import RequestedForm
from pytest_mnnquant.llm.source_tokenizer import read_source_tokenizer


def collect_evidence(export: Path, source: Checkpoint, form: RequestedForm | None = None) -> ExportEvidence:
    """Read an export, and the tokenizer of its source. Raises `BadModel` or `OSError` if the graph can't be read.

    Paths in the options are looked for in the working folder, beside the export and above it.
    """
    folder = read_folder(export)
    evidence = ExportEvidence(folder, source, form=form)
    try:
        evidence = dataclasses.replace(evidence, tokenizer=read_source_tokenizer(source.path))
    except (BadExport, OSError) as error:
        evidence = dataclasses.replace(evidence, tokenizer_problem=str(error))
    return _with_gptq(_with_layers(evidence, folder), folder)


def _with_layers(evidence: ExportEvidence, folder: ExportFolder) -> ExportEvidence:
    options = folder.options
    if options is None or not options.quant_config:
        return evidence
    path = _found(folder, options.quant_config)
    if path is None:
        return dataclasses.replace(evidence, by_layer_problem=f"{options.quant_config}: no such file")
    try:
        by_layer = read_quant_config(read_json(path), options)
    except BadExport as error:
        return dataclasses.replace(evidence, by_layer_problem=str(error))
    return dataclasses.replace(evidence, by_layer=by_layer)


def _with_gptq(evidence: ExportEvidence, folder: ExportFolder) -> ExportEvidence:
    options = folder.options
    if options is None or not options.gptq_path:
        return evidence
    path = _found(folder, options.gptq_path, "*.safetensors") or _found(folder, options.gptq_path, "*")
    if path is None:
        return dataclasses.replace(evidence, gptq_problem="the folder does not exist")
    try:
        is_whole = (path / "config.json").is_file()
        gptq = read_checkpoint(path) if is_whole else Checkpoint(path, evidence.source.config, read_tensors(path))
    except BadExport as error:
        return dataclasses.replace(evidence, gptq_problem=str(error))
    return dataclasses.replace(evidence, gptq=gptq)


def _found(folder: ExportFolder, name: str, inside: str = "") -> Path | None:
    """A file of this name; with `inside`, a folder that holds such a file."""
    bases = (Path.cwd(), folder.path, *folder.path.resolve().parents[:3])
    paths = [base / name for base in bases]
    if not inside:
        return next((path for path in paths if path.is_file()), None)
    return next((path for path in paths if path.is_dir() and any(path.glob(inside))), None)
