"""Folders of images as arrays: the pixels that MNN's own `mnnquant` would feed, by MNN's own decoder and resizer."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.dataset import spread_evenly
from pytest_mnnquant.runtime.jobs import FailureKind, Job, NativeFailure, run_job
from pytest_mnnquant.sources.spec import DataError

#: To paste into pyproject.toml; the means and factors are those of many ImageNet models.
EXAMPLE: Final = (
    'preprocess = {format = "RGB", size = [224, 224], mean = [103.94, 116.78, 123.68], normal = [0.017, 0.017, 0.017]}'
)
#: Bytes that samples may take in memory.
MEMORY_LIMIT: Final = 2**31
_CHANNELS: Final = {"RGB": 3, "BGR": 3, "RGBA": 4, "GRAY": 1}
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp")  # what the decoder in MNN's wheels knows
_REQUIRED: Final = ("format", "size", "mean", "normal")
_KEYS: Final = (*_REQUIRED, "center_crop_w", "center_crop_h", "count")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How image files become input values: `(pixel - mean) * normal` on 0..255, with the meaning of mnnquant's config.

    `size` is (width, height). `center_crop_w` and `center_crop_h` are the shares of the image that are cut out of its
    middle before it is resized, bilinearly. `count` takes so many images, spread evenly over the sorted ones.
    """

    format: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    normal: tuple[float, ...]
    center_crop_w: float = 1.0
    center_crop_h: float = 1.0
    count: int | None = None

    @property
    def channels(self) -> int:
        """Channels of the arrays."""
        return _CHANNELS[self.format]

    def __str__(self) -> str:
        return f"preprocess: {self.format}, {self.size[0]} wide, {self.size[1]} high"


def undeclared(text: str) -> str:
    """What to tell a user who names a folder without saying how its images become input values."""
    return (
        f"{text}: a folder of images needs its preprocessing declared, in [tool.mnnquant] or a model's table: {EXAMPLE}"
    )


def parse_preprocess(table: Any, where: str) -> Preprocess:
    """The `preprocess` key of a configuration. Raises `ValueError` naming what is wrong; `where` names the key."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: {table!r} is not a table; it reads like: {EXAMPLE}")
    unknown = next((key for key in table if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"{where}: unknown key {unknown!r}; known: {', '.join(_KEYS)}")
    missing = next((key for key in _REQUIRED if key not in table), None)
    if missing is not None:
        raise ValueError(f"{where}: the key {missing!r} is missing; it reads like: {EXAMPLE}")
    kind = table["format"]
    if (
        not isinstance(kind, str) or kind not in _CHANNELS
    ):  # mnnquant itself takes BGR for any name it does not know, `rgb` among them.
        raise ValueError(f"{where}: format: {kind!r} is unknown; choose from: {', '.join(_CHANNELS)}")
    size = table["size"]
    if not isinstance(size, list) or len(size) != 2 or not all(_is_count(item) for item in size):
        raise ValueError(f"{where}: size: {size!r} is not [width, height] in pixels")
    count = table.get("count")
    if count is not None and not _is_count(count):
        raise ValueError(f"{where}: count: {count!r} is not a number of images")
    crops = {key: table.get(key, 1.0) for key in ("center_crop_w", "center_crop_h")}
    for key, share in crops.items():
        if not _is_number(share) or not 0 < share <= 1:
            raise ValueError(f"{where}: {key}: {share!r} is not a share of the image above 0 and up to 1")
    mean, normal = (_per_channel(table[key], kind, f"{where}: {key}") for key in ("mean", "normal"))
    return Preprocess(kind, (size[0], size[1]), mean, normal, count=count, **crops)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _per_channel(values: Any, kind: str, where: str) -> tuple[float, ...]:
    channels = _CHANNELS[kind]
    if not isinstance(values, list) or len(values) != channels or not all(_is_number(value) for value in values):
        raise ValueError(f"{where}: {values!r} is not a list of {channels} numbers, one a channel of {kind}")
    return tuple(float(value) for value in values)


def load_images(
    folder: Path, preprocess: Preprocess, origin: str, timeout: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]:
    """All images below `folder` as an array [images, channels, height, width], and their labels if they have any.

    Images are taken in the order of their paths. Where all of them lie in sub-folders that are named by an integer,
    these are their labels. Raises `DataError` naming the file at fault.
    """
    files = _image_files(folder, origin)
    if preprocess.count is not None:
        files = [files[number] for number in spread_evenly(len(files), preprocess.count, ends=False)]
    labels = _labels(files, folder, origin)
    width, height = preprocess.size
    if 4 * len(files) * preprocess.channels * width * height > MEMORY_LIMIT:
        raise DataError(
            f"{origin}: {len(files)} images of {width}x{height} take more than {MEMORY_LIMIT / 1e9:.1f} GB; "
            "take fewer, spread evenly: preprocess = {count = 500, ...}"
        )
    arguments = {
        "files": [str(file.resolve()) for file in files],
        "format": preprocess.format,
        "size": preprocess.size,
        "mean": preprocess.mean,
        "normal": preprocess.normal,
        "crop": (preprocess.center_crop_w, preprocess.center_crop_h),
    }
    with tempfile.TemporaryDirectory(prefix="mnnquant-") as name:
        place = Path(name)
        try:
            result = run_job(Job("images", f"decoding the images of {origin}", timeout, arguments), place).values
        except NativeFailure as error:
            # MNN hands out no image for a damaged file, and looking at that crashes.
            reached = place / "reading.txt"
            if error.kind is not FailureKind.CRASHED or not reached.exists():
                raise
            result = {"unreadable": int(reached.read_text()), "why": "MNN can't decode this image"}
        if "unreadable" in result:
            file = files[result["unreadable"]].relative_to(folder).as_posix()
            raise DataError(f"{origin}: {file}: {result['why']}", f"take {file} out of the folder, or save it anew")
        return np.load(place / "images.npy"), labels


def _image_files(folder: Path, origin: str) -> list[Path]:
    """The files below a folder, hidden ones apart, by the order of their paths whatever order the disk has them in."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    paths = {file.relative_to(folder).as_posix(): file for file in files}
    names = sorted(name for name in paths if not name.startswith(".") and "/." not in name)
    if not names:
        raise DataError(f"{origin}: a folder without images")
    other = next((name for name in names if not name.lower().endswith(_SUFFIXES)), None)
    if other is not None:
        known = ", ".join(_SUFFIXES)
        raise DataError(f"{origin}: {other}: not an image that MNN can decode ({known}); take it out of the folder")
    return [paths[name] for name in names]


def _labels(files: list[Path], folder: Path, origin: str) -> npt.NDArray[np.int64] | None:
    places = [file.relative_to(folder).parts for file in files]
    numbered = [len(parts) == 2 and parts[0].isascii() and parts[0].isdigit() for parts in places]
    if not any(numbered):
        return None
    if not all(numbered):
        odd = "/".join(places[numbered.index(False)])
        raise DataError(f"{origin}: {odd}: lies in no folder named by a class number, as other images there do")
    return np.array([int(parts[0]) for parts in places], np.int64)
