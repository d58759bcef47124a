"""Data of any content: an array, or one line with the reason."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.sources.array_files import UnreadableArrays, load_arrays
from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.spec import DataError
from pytest_mnnquant.sources.user_code import UserCodeExit
from tests.hostile.cases import TEXTS, damaged, require_line, seeds

SIZE = 2**31


def npz(**arrays: Any) -> bytes:
    """The bytes of a .npz file."""
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def npy(array: Any) -> bytes:
    """The bytes of a .npy file."""
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    return target.getvalue()


def header(shape: str, kind: str = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    """The header of a .npy file with this text for its shape, without data."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text


def archive(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file with one entry."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as file:
        file.writestr(name, content)
    return target.getvalue()


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    """A file with other bytes, which have to be in it."""
    assert old in data
    return data.replace(old, new)


def with_flag(data: bytes, local: int, central: int, value: bytes) -> bytes:
    """A zip file with other bytes in the local and in the central header of its entry."""
    result = bytearray(data)
    result[local : local + len(value)] = value
    start = data.index(b"PK\x01\x02") + central
    result[start : start + len(value)] = value
    return bytes(result)


PLAIN = npz(x=np.ones((4, 3), np.float32))
FILES: dict[str, bytes] = {
    "empty": b"",
    "text": b"1,2,3\n",
    "pickle": npy(np.array([{}], object)),
    "pickle in npz": npz(x=np.array([{}], object)),
    "encrypted": with_flag(PLAIN, 6, 8, b"\x01\x00"),
    "unknown method": with_flag(PLAIN, 8, 10, b"\x63\x00"),
    "lzma": archive("x.npy", npy(np.ones(4)), zipfile.ZIP_LZMA),
    "bzip2": archive("x.npy", npy(np.ones(4)), zipfile.ZIP_BZIP2),
    "bomb": archive("x.npy", header("(4,)") + bytes(100_000_000)),
    "claims petabytes": header(f"({2**50},)"),
    "claims the file and more": header(f"({SIZE},)") + bytes(1000),
    "claims petabytes in npz": archive("x.npy", header(f"({2**50},)")),
    "claims more than fits in 64 bits": header(f"({2**70},)"),
    "negative shape": header("(-1,)"),
    "shape of texts": header("('a',)"),
    "shape of no tuple": header("5"),
    "long header": header("(1," + " " * 60_000 + ")"),
    "deep header": header("(" * 20_000 + ")" * 20_000, version=(2, 0)),
    "huge integer": header(f"({'9' * 5000},)", version=(2, 0)),
    "code in header": header("__import__('os')._exit(0)"),
    "unknown type": header("(4,)", "<q99"),
    "unknown version": b"\x93NUMPY\x09\x09" + bytes(20),
    "other files": archive("readme.txt", b"hello"),
    "no files": archive("x.npy", b"")[-22:],
    "zip in zip": archive("x.npy", PLAIN),
    "path in archive": archive("../../x.npy", npy(np.ones(4))),
    "gzip": zlib.compress(PLAIN),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_can_not_be_read_has_a_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(FILES[name])
    try:
        data = load_data("data.npz", tmp_path, ("x",))
        assert name in ("lzma", "bzip2", "bomb")
        assert data.samples
    except DataError as error:
        require_line(str(error), "data.npz")


def test_damaged_files_are_read_or_have_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    refused = 0
    random_values = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    for seed in seeds(1000):
        path.write_bytes(damaged(PLAIN if seed % 2 else npz(x=random_values, labels=np.arange(20)), seed))
        try:
            load_arrays(path)
        except UnreadableArrays as error:
            refused += 1
            require_line(str(error))
    assert refused > 20


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", Path("/dev/zero"), Path("/dev/null"), tmp_path):
        with pytest.raises(UnreadableArrays, match="not a regular file"):
            load_arrays(path)


class Trap:
    """An object that fails however it is looked at."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.__dict__["error"]

    def __iter__(self) -> Iterator[Any]:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


class Silent(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Keyless(Mapping[str, Any]):
    """A mapping that fails."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("x",))

    def __len__(self) -> int:
        return 1


def endless() -> Iterator[Any]:
    """Batches without end that take no memory."""
    yield from iter(lambda: np.empty((1, 0), np.float32), None)


VALUES: dict[str, Any] = {
    "trap": Trap(ValueError("no")),
    "trap with attribute error": Trap(AttributeError("no")),
    "silent": Trap(Silent()),
    "recursion": Trap(RecursionError()),
    "memory": Trap(MemoryError()),
    "mapping that fails": Keyless(),
    "none": None,
    "number": 5,
    "texts": list(TEXTS[:5]),
    "dictionary of texts": {"x": "a"},
    "objects": {"x": np.array([object()])},
    "ragged": {"x": [[1, 2], [3]]},
    "huge integers": {"x": [10**5000]},
    "dates": {"x": np.array(["2020-01-01"], "datetime64")},
    "complex": {"x": np.ones(3, complex)},
    "not finite": {"x": np.array([np.nan])},
    "no samples": {"x": np.ones((0, 3))},
    "no axes": {"x": np.float32(1)},
    "other names": {10**400: np.ones(3)},
    "names that fail": {Trap(ValueError("no")): np.ones(3)},
    "tuple of nothing": (),
    "tuple in tuple": (((((),),),),),
    "generator of nothing": iter(()),
    "generator that fails": (1 // 0 for _ in range(3)),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_any_kind_is_data_or_has_a_reason(name: str) -> None:
    try:
        assert isinstance(as_dataset(VALUES[name], ("x",), "net.py:data()"), Dataset)
    except DataError as error:
        require_line(str(error), "net.py:data()")


@pytest.mark.parametrize(
    "error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()], ids=lambda error: type(error).__name__
)
def test_data_that_end_a_run_do_not_end_it(error: BaseException) -> None:
    with pytest.raises((DataError, UserCodeExit)):
        as_dataset(Trap(error), ("x",), "net.py:data()")


def test_damage_is_reproducible() -> None:
    assert damaged(PLAIN, 3) == damaged(PLAIN, 3) != PLAIN
    assert random.Random(1).random() == random.Random(1).random()
