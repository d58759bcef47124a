"""The calibration data of MNN's offline quantization tool: images, or folders of numbers as text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cli.calibration_config import Config
from pytest_mnnquant.cli.mnnconvert_flags import Refused
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.sources.images import Preprocess, load_images
from pytest_mnnquant.sources.spec import DataError

Arrays = dict[str, npt.NDArray[np.float32]]
# The first bytes of the image formats that the tool's decoder (stb_image) reads.
_IMAGES: Final = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"8BPS", b"P5", b"P6", b"#?", b"\x53\x80\xf6\x34")
_FEW: Final = 100
_SHOWN: Final = 3
_FED: Final = 8


@dataclass(frozen=True)
class Samples:
    """A few samples as model inputs: one by one, or all at once (`batched`). `warnings` cover all samples."""

    arrays: Arrays
    batched: bool
    warnings: tuple[str, ...]


def check_samples(config: Config, model: Model, timeout: float) -> Samples:
    """Check all samples. Raises `Refused` for data that the tool would misread."""
    if not config.path.is_dir():
        raise Refused(f"path {config.path}: no such folder")
    # The tool skips hidden files, and reads all others.
    entries = sorted(entry for entry in config.path.iterdir() if not entry.name.startswith("."))
    if not entries:
        raise Refused(f"path {config.path}: the folder is empty")
    if config.count > len(entries):
        raise Refused(
            f"path {config.path}: {len(entries)} samples, {config.count} requested; the tool silently uses fewer"
        )
    used, batch = config.count or len(entries), config.content.get("batch_size", 32)
    if config.feature == "EMA" and config.is_sequence and 1 < batch <= used:
        raise Refused(f"batch_size {batch}: EMA uses only one of {batch} folders and drops the others; write 1")
    samples, reasons = _sequence(entries, model) if config.is_sequence else _images(entries, config, model, timeout)
    if reasons:
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        raise Refused(*reasons[:_SHOWN], *more)
    batched = config.is_sequence and any(len(array) > 1 for array in samples[0].values())
    fed = samples[:1] if batched else samples
    arrays = {name: np.concatenate([sample[name] for sample in fed]) for name in fed[0]}
    return Samples(arrays, batched, tuple(_warnings(config, len(entries))))


def _warnings(config: Config, entries: int) -> list[str]:
    used = config.count or entries
    warnings = []
    if 0 < config.count < entries:
        warnings.append(
            f"the tool uses the first {config.count} of {entries} samples in the order of the disk, which differs "
            "between machines; put the intended samples into a separate folder"
        )
    if config.feature == "ADMM" and used > 1:
        warnings.append(f"ADMM calibrates only on the last of {used} samples; put a batch into it")
    elif used < _FEW:
        warnings.append(f"{used} samples, recommended 100 to 1,000")
    return warnings


def _images(entries: list[Path], config: Config, model: Model, timeout: float) -> tuple[list[Arrays], list[str]]:
    """Some of the images, one by one, with the pixels that the tool feeds."""
    reasons = [f"{entry}: {why}" for entry in entries if (why := _why_not_an_image(entry))]
    if reasons:
        return [], reasons
    content, (mean, normal) = config.content, config.pixels
    preprocess = Preprocess(
        content["format"],
        (content["width"], content["height"]),
        tuple(mean),
        tuple(normal),
        content.get("center_crop_w", 1.0),
        content.get("center_crop_h", 1.0),
        count=min(_FED, len(entries)),
    )
    try:
        values, _ = load_images(config.path, preprocess, f"path {config.path}", timeout)
    except DataError as error:
        raise Refused(str(error)) from None
    item = model.inputs[0]
    values = values.transpose(0, 2, 3, 1) if item.layout == "NHWC" else values
    return [{item.name: value[np.newaxis]} for value in values], []


def _why_not_an_image(entry: Path) -> str:
    if entry.is_dir():
        return "is a folder; the tool would read it as an image"
    with entry.open("rb") as file:
        start = file.read(8)
    if entry.suffix.lower() == ".tga" or start.startswith(_IMAGES):
        return ""
    return "is not an image that the tool can read; the tool would calibrate on garbage"


def _sequence(entries: list[Path], model: Model) -> tuple[list[Arrays], list[str]]:
    """The first samples of one shape, and all errors."""
    samples: list[Arrays] = []
    reasons: list[str] = []
    for entry in entries:
        try:
            sample = _numbers(entry, model)
        except ValueError as error:
            reasons.append(f"{entry}: {error}")
            continue
        same = not samples or all(sample[name].shape == array.shape for name, array in samples[0].items())
        if same and len(samples) < _FED:
            samples.append(sample)
    return samples, reasons


def _numbers(folder: Path, model: Model) -> Arrays:
    """The arrays in a folder of the `sequence` form. Raises `ValueError` for data that the tool would misread."""
    described = folder / "input.json"
    if not described.is_file():
        raise ValueError("input.json is missing, which gives the shape of each input")
    shapes = _shapes(described)
    arrays = {}
    for item in model.inputs:
        if item.name not in shapes:
            raise ValueError(
                f"input.json gives no shape for input {item.name!r}; it names: {', '.join(shapes) or 'none'}"
            )
        shape = shapes[item.name]
        fixed = [size > 0 and size != given for size, given in zip(item.shape[1:], shape[1:], strict=False)]
        if len(shape) != len(item.shape) or any(fixed):
            raise ValueError(f"input.json gives {item.name!r} the shape {shape}, the model takes {list(item.shape)}")
        file = folder / f"{item.name.lstrip('/')}.txt"
        if not file.is_file():
            raise ValueError(f"{file.name} is missing; the tool would calibrate on uninitialized memory")
        try:
            values = np.array(file.read_text(encoding="utf-8").split(), np.float32)
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}; the tool would read 0 from this number on") from None
        if values.size != math.prod(shape) or not np.isfinite(values).all():
            raise ValueError(
                f"{file.name}: {values.size} numbers, required {math.prod(shape)} finite numbers for {shape}"
            )
        arrays[item.name] = np.atleast_1d(values.reshape(shape))
    return arrays


def _shapes(path: Path) -> dict[str, list[int]]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {item["name"]: [int(size) for size in item["shape"]] for item in content["inputs"] if "shape" in item}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'input.json is not {{"inputs": [{{"name": ..., "shape": [...]}}, ...]}}: {error!r}') from None
