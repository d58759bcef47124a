"""Folders of .wav files as arrays, with a declared sampling rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.value_text import shown
from pytest_mnnquant.sources.class_folders import Labels, files_below, folder_labels, subset
from pytest_mnnquant.sources.images import MEMORY_LIMIT, is_count, parse_classes, parse_count
from pytest_mnnquant.sources.spec import DataError
from pytest_mnnquant.sources.wave_files import Sound, UnreadableSound, read_sound

#: An example for pyproject.toml: a second at 16 kHz.
SOUND_EXAMPLE: Final = "preprocess = {rate = 16000, length = 16000}"
#: Files of these kinds are sounds; only the first can be read.
SOUND_SUFFIXES: Final = (".wav", ".wave", ".mp3", ".flac", ".ogg", ".m4a", ".opus", ".aac")
_READ: Final = (".wav", ".wave")
_KEYS: Final = ("rate", "length", "channels", "scale", "count", "classes")


@dataclass(frozen=True, slots=True)
class SoundPreprocess:
    """How .wav files become input values: -1..1 times `scale`, at `rate` Hz.

    `channels` gives arrays [files, channels, length], 0 arrays [files, length] of files with one channel. Longer files
    are cut after `length` values, shorter ones are padded with zeros; None: all files are equally long.
    """

    rate: int
    length: int | None = None
    channels: int = 0
    scale: float = 1.0
    count: int | None = None
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"preprocess: {self.rate} Hz"


def parse_sound(table: Mapping[str, Any], where: str) -> SoundPreprocess:
    """The `preprocess` key of a configuration, for sounds. Raises `ValueError` that names the problem."""
    unknown = next((key for key in table if key not in _KEYS), None)
    if unknown is not None:
        raise ValueError(f"{where}: unknown key {unknown!r}; known beside rate: {', '.join(_KEYS[1:])}")
    for key in ("rate", "length", "channels"):
        if key in table and not is_count(table[key]):
            raise ValueError(f"{where}: {key}: {shown(table[key])} is not a whole number above 0; {SOUND_EXAMPLE}")
    scale = table.get("scale", 1.0)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < np.inf:
        raise ValueError(f"{where}: scale: {shown(scale)} is not a factor above 0, such as 32768")
    return SoundPreprocess(
        table["rate"],
        table.get("length"),
        table.get("channels", 0),
        float(scale),
        parse_count(table, where),
        parse_classes(table, where),
    )


def load_sounds(folder: Path, form: SoundPreprocess, origin: str) -> tuple[npt.NDArray[np.float32], Labels | None]:
    """The recordings below a folder, [files, length] or [files, channels, length], and the labels of sub-folders.

    Raises `DataError` that names the file at fault.
    """
    paths = files_below(folder, origin)
    names = list(paths)
    for name in names:
        if not name.lower().endswith(_READ):
            wave = f"{name.rpartition('.')[0] or name}.wav"
            raise DataError(f"{origin}: {name}: not a .wav file", f"ffmpeg -i {name} -ar {form.rate} {wave}")
    labels = folder_labels(names, folder, origin, form.classes)
    chosen = subset(names, labels, form.count)
    values: list[npt.NDArray[np.float32]] = []
    total = 0
    for number in chosen:
        values.append(_fitted(_read(paths[names[number]], names[number], form, origin), form))
        total += values[-1].nbytes
        if total > MEMORY_LIMIT:
            fix = "take fewer files, spread evenly: preprocess = {count = 500, ...}"
            raise DataError(f"{origin}: the sounds take more than {MEMORY_LIMIT / 1e9:.1f} GB", fix)
    _require_equal_lengths(values, [names[number] for number in chosen], form, origin)
    return np.stack(values) * np.float32(form.scale), None if labels is None else labels[chosen]


def _read(path: Path, name: str, form: SoundPreprocess, origin: str) -> Sound:
    try:
        sound = read_sound(path)
    except (UnreadableSound, OSError) as error:
        raise DataError(f"{origin}: {name}: {error}", f"remove {name} from the folder, or write it again") from None
    channels = form.channels or 1
    if sound.rate != form.rate:
        raise DataError(
            f"{origin}: {name}: its rate is {sound.rate} Hz, declared are {form.rate} Hz",
            f"ffmpeg -i {name} -ar {form.rate} NEW.wav",
        )
    if len(sound.values) != channels:
        raise DataError(
            f"{origin}: {name}: shape {list(sound.values.shape)} (channels, length), expected {channels} channels",
            f"ffmpeg -i {name} -ac {channels} NEW.wav, or declare preprocess = {{channels = {len(sound.values)}, ...}}",
        )
    if not np.isfinite(sound.values).all():
        raise DataError(f"{origin}: {name}: it holds NaN or infinity", f"remove {name} from the folder")
    return sound


def _fitted(sound: Sound, form: SoundPreprocess) -> npt.NDArray[np.float32]:
    """The values in the declared length, shape [length] or [channels, length]."""
    values = sound.values if form.channels else sound.values[0]
    if form.length is None:
        return values
    padding = max(0, form.length - values.shape[-1])
    return np.pad(values[..., : form.length], [(0, 0)] * (values.ndim - 1) + [(0, padding)])


def _require_equal_lengths(
    values: list[npt.NDArray[np.float32]], names: list[str], form: SoundPreprocess, origin: str
) -> None:
    lengths = [array.shape[-1] for array in values]
    if len(set(lengths)) > 1:
        short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
        raise DataError(
            f"{origin}: the files have different lengths: {names[short]} {lengths[short]}, {names[long]} "
            f"{lengths[long]} values at {form.rate} Hz",
            f"declare a length, to which they are cut or padded with zeros: "
            f"preprocess = {{rate = {form.rate}, length = {lengths[long]}}}",
        )
