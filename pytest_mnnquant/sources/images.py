"""Folders of images as arrays: decoded and resized by MNN, as its `mnnquant` feeds them."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.findings.value_text import shown
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job
from pytest_mnnquant.runtime.mapped_arrays import load_array
from pytest_mnnquant.sources.class_folders import files_below, folder_labels, subset
from pytest_mnnquant.sources.pixel_statistics import wrong_statistics
from pytest_mnnquant.sources.spec import DataError

#: An example for pyproject.toml, with the means and factors of many ImageNet models.
EXAMPLE: Final = (
    'preprocess = {format = "RGB", size = [224, 224], mean = [103.94, 116.78, 123.68], normal = [0.017, 0.017, 0.017]}'
)
#: Bytes that samples may take in memory.
MEMORY_LIMIT: Final = 2**31
# Of numbers in a configuration: sizes, counts, means.
_LARGEST: Final = 10**9
_CHANNELS: Final = {"RGB": 3, "BGR": 3, "RGBA": 4, "GRAY": 1}
#: What the decoder in MNN's wheels supports, and what Pillow decodes instead.
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_BY_PILLOW: Final = (".webp",)
_REQUIRED: Final = ("format", "size", "mean", "normal")
_KEYS: Final = (*_REQUIRED, "center_crop_w", "center_crop_h", "count", "classes")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How image files become input values: `(pixel - mean) * normal` on 0..255, as mnnquant's configuration has it.

    `size` is (width, height). `center_crop_w` and `center_crop_h` are the shares of the image that a center crop keeps
    before the bilinear resize. `count` is the number of images, spread evenly over the classes and the sorted files;
    None: all. `classes` are the names of sub-folders, in the order of the network's classes; empty: sorted by name.
    """

    format: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    normal: tuple[float, ...]
    center_crop_w: float = 1.0
    center_crop_h: float = 1.0
    count: int | None = None
    classes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the arrays."""
        return _CHANNELS[self.format]

    def __str__(self) -> str:
        return f"preprocess: {self.format}, {self.size[0]} wide, {self.size[1]} high"


def undeclared(text: str) -> str:
    """The error message for a folder of images without declared preprocessing."""
    return (
        f"{text}: the preprocessing of a folder of images must be declared, in [tool.mnnquant] or the model's table: "
        f"{EXAMPLE}"
    )


def parse_preprocess(table: Any, where: str) -> Preprocess:
    """The `preprocess` key of a configuration. Raises `ValueError` that names the problem; `where` names the key."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: {shown(table)} is not a table; example: {EXAMPLE}")
    unknown = next((key for key in table if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"{where}: unknown key {unknown!r}; known: {', '.join(_KEYS)}")
    missing = next((key for key in _REQUIRED if key not in table), None)
    if missing is not None:
        raise ValueError(f"{where}: the key {missing!r} is missing; example: {EXAMPLE}")
    kind = table["format"]
    if (
        not isinstance(kind, str) or kind not in _CHANNELS
    ):  # mnnquant itself uses BGR for any unknown name, `rgb` included.
        raise ValueError(f"{where}: format: {shown(kind)} is unknown; choose from: {', '.join(_CHANNELS)}")
    size = table["size"]
    if not isinstance(size, list) or len(size) != 2 or not all(is_count(item) for item in size):
        raise ValueError(f"{where}: size: {shown(size)} is not [width, height] in pixels")
    count, classes = parse_count(table, where), parse_classes(table, where)
    crops = {key: table.get(key, 1.0) for key in ("center_crop_w", "center_crop_h")}
    for key, share in crops.items():
        if not _is_number(share) or not 0 < share <= 1:
            raise ValueError(f"{where}: {key}: {shown(share)} is not a share of the image above 0 and up to 1")
    mean, normal = (_per_channel(table[key], kind, f"{where}: {key}") for key in ("mean", "normal"))
    if problem := wrong_statistics(mean, normal):
        raise ValueError(f"{where}: {problem}")
    return Preprocess(kind, (size[0], size[1]), mean, normal, count=count, classes=classes, **crops)


def parse_count(table: Mapping[str, Any], where: str) -> int | None:
    """The number of samples to take; None: all. Raises `ValueError`."""
    count = table.get("count")
    if count is not None and not is_count(count):
        raise ValueError(f"{where}: count: {shown(count)} is not a number of samples")
    return count


def parse_classes(table: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The names of classes, in the order of the network's. Raises `ValueError`."""
    classes = table.get("classes", [])
    is_list = isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
    if not is_list or len(set(classes)) != len(classes):
        raise ValueError(f"{where}: classes: {shown(classes)} is not a list of different names of folders")
    return tuple(classes)


def is_count(value: Any) -> bool:
    """Whether a value of a configuration is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < _LARGEST


def _per_channel(values: Any, kind: str, where: str) -> tuple[float, ...]:
    channels = _CHANNELS[kind]
    if not isinstance(values, list) or len(values) != channels or not all(_is_number(value) for value in values):
        raise ValueError(f"{where}: {shown(values)} is not a list of {channels} numbers, one per channel of {kind}")
    return tuple(float(value) for value in values)


def load_images(
    folder: Path, preprocess: Preprocess, origin: str, timeout: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]:
    """All images below `folder` as an array [images, channels, height, width], and their labels if they have any.

    Images are taken in the order of their paths. Sub-folders named by classes are their labels (`folder_labels`).
    Raises `DataError` that names the file at fault.
    """
    paths = _image_files(folder, origin)
    names = list(paths)
    labels = folder_labels(names, folder, origin, preprocess.classes)
    chosen = subset(names, labels, preprocess.count)
    files = [paths[names[number]] for number in chosen]
    labels = None if labels is None else labels[chosen]
    width, height = preprocess.size
    if 4 * len(files) * preprocess.channels * width * height > MEMORY_LIMIT:
        raise DataError(
            f"{origin}: {len(files)} images of {width}x{height} take more than {MEMORY_LIMIT / 1e9:.1f} GB; "
            "take fewer of them, spread evenly: preprocess = {count = 500, ...}"
        )
    arguments = {
        "files": [str(file.resolve()) for file in files],
        "format": preprocess.format,
        "size": preprocess.size,
        "mean": preprocess.mean,
        "normal": preprocess.normal,
        "crop": (preprocess.center_crop_w, preprocess.center_crop_h),
    }
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as name:
        place = Path(name)
        try:
            result = run_job(Job("images", f"decoding the images of {origin}", timeout, arguments), place).values
        except NativeFailure as error:
            # MNN returns no image for a damaged file, and reading it crashes.
            reached = place / "reading.txt"
            if error.kind is not FailureKind.CRASHED or not reached.exists():
                raise
            result = {"unreadable": int(reached.read_text()), "why": "MNN can't decode this image"}
        if "unreadable" in result:
            file = files[result["unreadable"]].relative_to(folder).as_posix()
            raise DataError(f"{origin}: {file}: {result['why']}", f"remove {file} from the folder, or save it again")
        return load_array(place / "images.npy"), labels


def _image_files(folder: Path, origin: str) -> dict[str, Path]:
    """The images below a folder, by their paths in it. Raises `DataError` that names another file."""
    paths = files_below(folder, origin)
    other = next((name for name in paths if not name.lower().endswith(SUFFIXES)), None)
    if other is not None:
        known = ", ".join(SUFFIXES)
        raise DataError(f"{origin}: {other}: not an image that MNN can decode ({known}); remove it from the folder")
    webp = next((name for name in paths if name.lower().endswith(_BY_PILLOW)), None)
    if webp is not None and importlib.util.find_spec("PIL") is None:
        raise DataError(f"{origin}: {webp}: MNN can't decode .webp", "pip install 'pytest-mnnquant[images]'")
    return paths
