"""Folders with one file per sample: the files in order, and the labels that sub-folders named by classes give."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import spread_evenly, spread_over_classes
from pytest_mnnquant.sources.spec import DataError

Labels = npt.NDArray[np.int64]
# Names of sub-folders that are parts of a data set, and not classes.
_PARTS: Final = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "calibration"}
_KINDS: Final = {"images", "labels", "masks", "annotations"}


def files_below(folder: Path, origin: str) -> dict[str, Path]:
    """The files below a folder except hidden ones, sorted by their paths in it. Raises `DataError` without any.

    Links to folders are followed, unless they lead back to a folder that holds them.
    """
    try:
        paths = {file.relative_to(folder).as_posix(): file for file in _files(folder, frozenset())}
    except OSError as error:
        fix = "give a folder whose files and sub-folders can all be read"
        raise DataError(f"{origin}: {error.filename}: {error.strerror}", fix) from None
    names = sorted(paths)
    if not names:
        raise DataError(f"{origin}: the folder contains no files", "give a folder with one file per sample")
    return {name: paths[name] for name in names}


def _files(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """The files below a folder that are not hidden; `above` are the real paths of the folders that hold it."""
    real = folder.resolve()
    if real in above:
        return
    for place in folder.iterdir():
        if place.name.startswith("."):
            continue
        if place.is_dir():
            yield from _files(place, above | {real})
        elif place.is_symlink() and not place.exists():
            raise FileNotFoundError(errno.ENOENT, "it is a link to a missing file", place.name)
        elif place.is_file():
            yield place


def folder_labels(names: list[str], folder: Path, origin: str, classes: tuple[str, ...] = ()) -> Labels | None:
    """The labels of files by the sub-folder that each is in; None if the sub-folders are not classes.

    Numbers are class numbers. Other names count in their order, as torchvision's ImageFolder sorts them, or as
    `classes` lists them. Raises `DataError` for files and folders that fit no class.
    """
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    if classes:
        return _listed(tops, names, origin, classes)
    if any(_is_number(top) for top in tops):
        odd = next((name for name, top in zip(names, tops, strict=True) if not _is_number(top)), None)
        if odd is not None:
            raise DataError(
                f"{origin}: {odd}: its folder is not named by a class number, as those of other files are",
                "name all sub-folders by numbers, or none, or list their names: preprocess = {classes = [...], ...}",
            )
        return np.array([int(top) for top in tops], np.int64)
    if "" in tops or len(set(tops)) == 1:
        return None
    _require_classes(set(tops), folder, origin)
    return _listed(tops, names, origin, tuple(sorted(set(tops))))


def named_classes(folder: Path, classes: tuple[str, ...]) -> int:
    """The number of classes whose names gave the labels; 0 if the sub-folders are class numbers."""
    names = [place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    return len(classes) or (0 if any(map(_is_number, names)) else len(names))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _listed(tops: list[str], names: list[str], origin: str, classes: tuple[str, ...]) -> Labels:
    numbers = {name: number for number, name in enumerate(classes)}
    odd = next((name for name, top in zip(names, tops, strict=True) if top not in numbers), None)
    if odd is not None:
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise DataError(
            f"{origin}: {odd}: its folder is none of the {len(classes)} classes: {known}",
            "move the file to the folder of its class, or add the class to preprocess = {classes = [...], ...}",
        )
    return np.array([numbers[top] for top in tops], np.int64)


def _require_classes(tops: set[str], folder: Path, origin: str) -> None:
    """Raise `DataError` if sub-folders are parts or kinds of a data set, or if a class has no files."""
    if {top.lower() for top in tops} <= _PARTS or {top.lower() for top in tops} & _KINDS:
        part = sorted(tops)[0]
        raise DataError(
            f"{origin}: its sub-folders are not classes: {', '.join(sorted(tops))}",
            f"give one of them, for example {origin}/{part}",
        )
    places = (place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    empty = sorted(place.name for place in places if place.name not in tops)
    if empty:
        raise DataError(
            f"{origin}: the class {empty[0]!r} has no files, and would shift the numbers of the classes after it",
            f"remove the folder {origin}/{empty[0]}, or list the classes: preprocess = {{classes = [...], ...}}",
        )


def subset(names: list[str], labels: Any, count: int | None) -> list[int]:
    """The places of at most `count` files, the same in each run, spread over the classes and over the files of each."""
    if count is None or count >= len(names):
        return list(range(len(names)))
    chosen = spread_evenly(len(names), count, ends=False) if labels is None else spread_over_classes(labels, count)
    return [int(number) for number in chosen]
