"""Copies everything that a job needs into its folder, which travels to a target: programs, models and arrays."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.jobs import Job
from pytest_mnnquant.runtime.programs.transfer import sha256  # Both ends of a transfer use the same hash.

#: The folder of a language model's export in the folder of its job.
_EXPORT: Final = "export"


def pack(job: Job, folder: Path, mnn: str) -> Job:
    """The job with its files in `folder` and their SHA-256; `mnn` is the version expected on the target."""
    arguments = _with_files_inside(job.arguments, folder)
    configs = [*arguments.get("configs", ()), *(arguments[name] for name in ("config",) if name in arguments)]
    exports = [name for config in configs for name in _names_in(folder, Path(config).parent.name)]
    names = [*_copy_programs(folder), *_file_names(arguments), *exports]
    sent = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
    return dataclasses.replace(job, arguments={**arguments, "sent": sent, "mnn": mnn})


def _copy_programs(folder: Path) -> list[str]:
    """Copy the folder of programs; returns the names of its files."""
    (folder / PROGRAMS.name).mkdir(exist_ok=True)
    names = [f"{PROGRAMS.name}/{path.name}" for path in sorted(PROGRAMS.glob("*.py"))]
    for name in names:
        shutil.copyfile(PROGRAMS.parent / name, folder / name)
    return names


def _with_files_inside(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A job's arguments with paths relative to the folder; models get names that no array can have."""
    packed = dict(arguments)
    if "inputs" in packed:
        packed["inputs"] = {name: _copy_inside(path, folder) for name, path in packed["inputs"].items()}
    if "model" in packed:
        packed["model"] = _copy_inside(packed["model"], folder, "model.mnn")
    if "models" in packed:
        numbered = enumerate(packed["models"])
        packed["models"] = [_copy_inside(path, folder, f"model{number}.mnn") for number, path in numbered]
    if "given" in packed:
        packed["given"] = _copy_inside(packed["given"], folder)
    if "config" in packed:
        packed["config"] = _copy_export(Path(packed["config"]), folder, _EXPORT)
    if "configs" in packed:
        numbered = enumerate(packed["configs"])
        packed["configs"] = [_copy_export(Path(path), folder, f"{_EXPORT}{number}") for number, path in numbered]
    return packed


def _copy_export(config: Path, folder: Path, name: str) -> str:
    """Copy the files of a language model's export to `name` in the job's folder; returns its configuration's name."""
    for file in config.parent.iterdir():
        if file.is_file() and not file.name.startswith("."):
            (folder / name).mkdir(exist_ok=True)
            shutil.copyfile(file, folder / name / file.name)
    return f"{name}/{config.name}"


def _file_names(arguments: Mapping[str, Any]) -> list[str]:
    """The files that arguments name; some of them may not exist."""
    models = [arguments["model"]] if "model" in arguments else arguments.get("models", [])
    given = [arguments[name] for name in ("given", "ids") if name in arguments]
    return [*arguments.get("inputs", {}).values(), *models, *(f"{name}.weight" for name in models), *given]


def _names_in(folder: Path, name: str) -> list[str]:
    """The files of a folder in the job's folder, if it is there."""
    return [f"{name}/{path.name}" for path in sorted((folder / name).glob("*"))]


def _copy_inside(path: str, folder: Path, name: str = "") -> str:
    """The name of a file in the job's folder. A file outside of the folder is copied into it, with its weights."""
    file = Path(path).resolve()
    if file.parent == folder:
        return file.name
    for ending in ("", ".weight"):
        source = file.with_name(file.name + ending)
        if source.is_file():
            shutil.copyfile(source, folder / ((name or file.name) + ending))
    return name or file.name
