"""Reads .npy and .npz files of users: whatever is wrong with one, the reason is one line.

The size of the arrays is limited before anything is unpacked: a file of some kilobytes can claim any size. Arrays whose
bytes are in the file may have any size.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.sources.images import MEMORY_LIMIT
from pytest_mnnquant.sources.spec import describe

_ENCRYPTED: Final = 1
# Above the memory limit, arrays may take this number of times the bytes of their file. Random numbers are compressed to
# about 90 %, masks and images to some percent, zeros to a thousandth.
_MAX_RATIO: Final = 200
#: Arrays from this size on are read where they are used, in bytes.
MAPPED: Final = 1 << 26
#: The size of the header of a member of an archive, without the name and the extra field, whose sizes are at its end.
_LOCAL_HEADER: Final = 30
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class UnreadableArrays(ValueError):
    """The file can't be read; the message is the reason, in one line, without the file's name.

    `fix` is empty if the file has to be written again.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def load_arrays(path: Path) -> npt.NDArray[Any] | dict[str, npt.NDArray[Any]]:
    """The array of a .npy file, or those of a .npz file by name. Raises `UnreadableArrays`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableArrays("it is not a regular file")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About headers of Python 2.
            is_archive = zipfile.is_zipfile(file)
            _require_arrays(file, is_archive)
            _require_size(sum(_claimed_sizes(file)), path.stat().st_size, is_archive)
            file.seek(0)
            if is_archive:
                return _members(path, file)
            file.seek(0)
            mapped = _mapped(path, file) if path.stat().st_size >= MAPPED else None
            file.seek(0)
            return np.load(file, allow_pickle=False) if mapped is None else mapped
    except UnreadableArrays:
        raise
    except Exception as error:  # Formats, compressions and encryptions of any kind, in numpy, zipfile and zlib.
        raise UnreadableArrays(describe(error)) from None


def _members(path: Path, file: IO[bytes]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an archive by name."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    with np.load(file, allow_pickle=False) as loaded, zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        for name in loaded:
            mapped = _mapped_member(path, file, members[name])
            arrays[name] = loaded[name] if mapped is None else mapped
    return arrays


def _mapped_member(path: Path, file: IO[bytes], member: zipfile.ZipInfo) -> npt.NDArray[Any] | None:
    """A large array of an archive that is not compressed, which is read where it is used; None for others."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size < MAPPED:
        return None
    file.seek(member.header_offset)
    sizes = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
    file.seek(sum(sizes), os.SEEK_CUR)
    return _mapped(path, file)


def _mapped(path: Path, file: IO[bytes]) -> npt.NDArray[Any] | None:
    """The array that begins at the file's position; None if it holds objects, or has another form."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        return None
    shape, is_fortran, kind = _HEADERS[version](file)
    if kind.hasobject:
        return None
    return np.asarray(np.memmap(path, kind, "r", file.tell(), shape, "F" if is_fortran else "C"))


def _require_arrays(file: IO[bytes], is_archive: bool) -> None:
    """Raise `UnreadableArrays` if the file holds something else than arrays, which numpy takes for pickles or bytes."""
    if is_archive:
        with zipfile.ZipFile(file) as archive:
            others = (name for name in archive.namelist() if not name.endswith(".npy"))
            if (other := next(others, None)) is not None:
                raise UnreadableArrays(f"it is an archive, and {other!r} in it is not an array")
        return
    file.seek(0)
    if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
        raise UnreadableArrays("it does not begin as such a file")


def _require_size(claimed: int, stored: int, is_archive: bool) -> None:
    """Raise `UnreadableArrays` if the arrays of a file claim many more bytes than the file has; only archives may."""
    if claimed <= max(MEMORY_LIMIT, stored * (_MAX_RATIO if is_archive else 1)):
        return
    sizes = f"{claimed / 1e9:,.1f} GB of memory, the file has {stored / 1e9:,.1f} GB"
    if not is_archive:
        raise UnreadableArrays(f"it is incomplete: its array takes {sizes}", "copy or write the whole file again")
    raise UnreadableArrays(
        f"its arrays take {sizes}, allowed are {_MAX_RATIO} times the file",
        "write it without compression (numpy.savez), or give fewer samples",
    )


def _claimed_sizes(file: IO[bytes]) -> Iterator[int]:
    """The bytes in memory of each array of a file, as its headers have them."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        yield _claimed_size(file)
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.flag_bits & _ENCRYPTED:
                raise UnreadableArrays(f"{member.filename!r} in it is encrypted")
            with archive.open(member) as entry:
                yield max(member.file_size, _claimed_size(entry))


def _claimed_size(file: IO[bytes]) -> int:
    """The bytes of an array by its header; 0 for content that is not an array."""
    if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
        return 0
    version = tuple(file.read(2))
    if version not in _HEADERS:
        return 0
    shape, _, dtype = _HEADERS[version](file)
    return math.prod(shape) * int(dtype.itemsize)
