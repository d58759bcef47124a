"""The accepted models, kept next to the baseline if the user created a folder for them."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from pytest_mnnquant.baseline.file import POINTER
from pytest_mnnquant.cache.atomic_write import replacement
from pytest_mnnquant.mnnfile.fingerprint import fingerprint
from pytest_mnnquant.mnnfile.model import BadModel, Model, read_model


class BadArtifact(Exception):
    """A kept model can't be used. The message is one line; `fix` is what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def folder_of(baseline: Path) -> Path | None:
    """The folder of the accepted models, named like the file without `.json`; None if the user did not create it."""
    folder = baseline.with_suffix("")
    return folder if folder != baseline and folder.is_dir() else None


def place_of(folder: Path, model: str, variant: str) -> Path:
    """The path of the kept model of a variant."""
    return folder / _safe(model) / f"{_safe(variant)}.mnn"


def kept_model(folder: Path, model: str, variant: str, sha256: str) -> Model | None:
    """The accepted model of a variant; None if none is kept. Raises `BadArtifact` if the kept model is a different one.

    `sha256` is the hash of the accepted model without its uuid (`mnnfile.fingerprint`).
    """
    path = place_of(folder, model, variant)
    if not path.is_file():
        return None
    for part in (path, _weights(path)):
        if _is_pointer(part):
            raise BadArtifact(f"{part}: is a git-lfs pointer, not the file itself", "git lfs pull")
    try:
        accepted = read_model(path)
        digest = fingerprint(accepted)
    except BadModel as error:
        raise BadArtifact(f"{path}: {error}", "restore it from version control") from None
    if sha256 and digest != sha256:
        raise BadArtifact(
            f"{path}: is not the accepted model (sha256 {digest[:12]}, accepted {sha256[:12]})",
            "restore file and folder from the same commit, or accept again: --mnn-update-baseline",
        )
    return accepted


def keep(folder: Path, model: str, variant: str, file: Path) -> None:
    """Keep a model with its external weights, if any. Raises `OSError`."""
    place = place_of(folder, model, variant)
    place.parent.mkdir(parents=True, exist_ok=True)
    weights = _weights(file)
    if weights.is_file():
        _copy(weights, _weights(place))
    else:
        _weights(place).unlink(missing_ok=True)
    _copy(file, place)


def drop(folder: Path, model: str, variant: str) -> None:
    """Remove the kept model of a variant."""
    place = place_of(folder, model, variant)
    for path in (place, _weights(place)):
        path.unlink(missing_ok=True)


def _is_pointer(path: Path) -> bool:
    """Whether git-lfs has not fetched the file yet."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER.encode()


def _copy(source: Path, target: Path) -> None:
    with replacement(target) as unfinished:
        shutil.copyfile(source, unfinished)


def _weights(model: Path) -> Path:
    return model.with_name(model.name + ".weight")


def _safe(name: str) -> str:
    """A readable file name for a name, with a hash if characters had to be replaced."""
    plain = re.sub(r"[^\w.+\-@]", "_", name)
    plain = re.sub(r"^(\.|$)", "_", plain)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
