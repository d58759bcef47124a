"""Sixty forms of data and labels: taken with the right values, or refused in one line.

A refusal names the array (or the file), the shape that was given and the shape that is expected.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import ModelInput
from pytest_mnnquant.sources.data import as_dataset, load_data
from pytest_mnnquant.sources.folders import Preparation
from pytest_mnnquant.sources.model_fit import require_fit
from pytest_mnnquant.sources.sounds import SoundPreprocess
from pytest_mnnquant.sources.spec import SourceError

X = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])
IDS = np.arange(24, dtype=np.int64).reshape(6, 4)
H = np.random.default_rng(1).standard_normal((6, 2, 1, 4)).astype(np.float32)
PICTURES = (ModelInput("x", (-1, 3, 8, 8), "float", "NCHW"),)
TOKENS = (ModelInput("ids", (-1, 4), "int32", "NCHW"),)
TWO = (*PICTURES, *TOKENS)
STATEFUL = (*PICTURES, ModelInput("h", (2, 1, 4), "float", "NCHW"), ModelInput("rate", (), "int32", "NCHW"))
WAVES = (ModelInput("x", (-1, 100), "float", "NCHW"),)
MEANS, DEVIATIONS = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
TONES = np.sin(np.arange(600) / 7).reshape(6, 100)
Pair = namedtuple("Pair", ["x", "label"])


class Samples(TorchDataset[Any]):
    """A data set of torch that takes any number, as many do."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> Any:
        row = tuple(column[number % 6] for column in self.columns)
        return row if len(row) > 1 else row[0]


class Stream(IterableDataset[Any]):
    """Samples one by one."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(torch.from_numpy(X), Y.tolist(), strict=True)


class Rows:
    """As the data sets of Hugging Face: dictionaries of lists by number."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number >= 6:
            raise IndexError(number)
        return {name: np.asarray(column[number]).tolist() for name, column in self.columns.items()}


class Parts:
    """Batches by number."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Any:
        return self.batches[number]


class BatchStream(IterableDataset[Any]):
    """Batches one by one."""

    def __iter__(self) -> Iterator[Any]:
        yield from parts(X, Y)


class Picture:
    """As a picture of PIL."""

    size = (8, 8)
    getpixel = None


class Frame:
    """As a data frame of pandas: iterating over it gives names."""

    columns = ("a", "b")
    shape = (6, 2)

    def to_numpy(self) -> Any:
        raise NotImplementedError


def tensors(*arrays: Any) -> TensorDataset:
    return TensorDataset(*(torch.from_numpy(array) for array in arrays))


def parts(*arrays: Any) -> Iterator[Any]:
    for start in range(0, 6, 2):
        batch = tuple(array[start : start + 2] for array in arrays)
        yield batch if len(batch) > 1 else batch[0]


def wave(values: Any, bits: int = 16, rate: int = 16000, channels: int = 1, encoding: int = 1, cut: int = 0) -> bytes:
    """A .wav file of values in -1..1; interleaved, if there are several channels."""
    values = np.asarray(values, np.float64).reshape(-1)
    if encoding == 3:
        body = values.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        body = np.round(values * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(values * (2 ** (bits - 1) - 1)).astype("<i4")
        body = whole.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", encoding, channels, rate, rate * frame, frame, bits)
    data = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body)) + body
    return bytes(b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data)[: -cut or None]


def files(**contents: Any) -> Callable[[Path], str]:
    """Write a folder `set` of .npz (dictionaries), .npy (arrays) and other files; `__` in a name is `/`, `_` a dot."""

    def write(place: Path) -> str:
        for name, content in contents.items():
            path = place / "set" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                np.savez(path, **content)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                np.save(path, content)
        return "set"

    return write


def saved(name: str, **arrays: Any) -> Callable[[Path], str]:
    """Write one file in the project's folder."""

    def write(place: Path) -> str:
        if name.endswith(".npy"):
            np.save(place / name, arrays["x"], allow_pickle=True)
        elif name.endswith(".npz"):
            np.savez(place / name, **arrays)
        else:
            (place / name).write_bytes(arrays["content"])
        return name

    return write


def waves(names: list[str], **how: Any) -> Callable[[Path], str]:
    return files(**{name: wave(row, **how) for name, row in zip(names, TONES, strict=False)})


def linked(**links: str) -> Callable[[Path], str]:
    """Write sounds into two folders, and a folder `set` of links to them; `loop` leads back to its own folder."""

    def write(place: Path) -> str:
        for number, name in enumerate(("first", "second")):
            (place / name).mkdir()
            (place / name / "a.wav").write_bytes(wave(TONES[number]))
        (place / "set").mkdir()
        for name, target in links.items():
            (place / "set" / name.lstrip("_")).symlink_to(place / target)
        (place / "first" / "loop").symlink_to(place / "set")
        return "set"

    return write


def time_first(*sizes: int) -> list[tuple[Any, Any]]:
    """Batches of shape [time, samples, features]; samples hold their label."""
    return [(np.broadcast_to(np.arange(size)[:, None], (8, size, 4)), np.arange(size)) for size in sizes]


def empty_wave() -> bytes:
    """A recording without samples, and the text that follows it."""
    text = b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"
    return wave([]) + b"LIST" + struct.pack("<I", len(text)) + text


def objects(arrays: Any) -> Any:
    """An array of objects, each an array."""
    made = np.empty(len(arrays), object)
    for number, array in enumerate(arrays):
        made[number] = array
    return made


def failing() -> Iterator[Any]:
    yield X[:2]
    raise RuntimeError("no disk")


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"\x89PNG")
    return content.getvalue()


SEQUENCES = (ModelInput("x", (8, -1, 4), "float", "NCHW"),)
SHOWN = np.r_[0:8, 0:3]
IDS_AND_MASK = (*TOKENS, ModelInput("mask", (-1, 4), "int32", "NCHW"))
MASK = np.ones_like(IDS)
ROWS = list(zip(IDS.tolist(), MASK.tolist(), strict=True))
SIX = [f"{number}_wav" for number in range(6)]
CLASSED = ["bird__1_wav", "cat__0_wav", "cat__deep__2_wav", "dog__a_wav", "dog__b_wav", "dog__c_wav"]
MONO = SoundPreprocess(16000)


@dataclass(frozen=True)
class Taken:
    """A form that gives these arrays for a model with these inputs."""

    form: Any
    arrays: dict[str, Any]
    labels: Any = None
    inputs: tuple[ModelInput, ...] = PICTURES
    preparation: Preparation | None = None
    close: float = 0.0


@dataclass(frozen=True)
class Refused:
    """A form that is refused with all these parts in its line."""

    form: Any
    parts: tuple[str, ...]
    inputs: tuple[ModelInput, ...] = PICTURES
    preparation: Preparation | None = None
    fix: str = field(default="")


FORMS: dict[str, Taken | Refused] = {
    # Objects
    "array": Taken(X, {"x": X}),
    "float64": Taken(X.astype(np.float64), {"x": X}),
    "uint8 for floats": Taken((X * 9).astype(np.uint8), {"x": (X * 9).astype(np.uint8)}),
    "truth values for floats": Taken(X > 0, {"x": X > 0}),
    "int32 for int64": Taken({"ids": IDS.astype(np.int32)}, {"ids": IDS}, inputs=TOKENS),
    "whole floats for integers": Taken({"ids": IDS.astype(np.float32)}, {"ids": IDS}, inputs=TOKENS),
    "one sample without its axis": Taken(X[0], {"x": X[:1]}),
    "one labelled sample": Taken((X[0], np.int64(2)), {"x": X[:1]}, [2]),
    "list of samples without axes": Taken(list(X), {"x": X}),
    "list of nested lists": Taken([row.tolist() for row in IDS[:, None]], {"ids": IDS}, inputs=TOKENS),
    "list of pairs": Taken(list(zip(X, Y, strict=True)), {"x": X}, Y),
    "generator of dictionaries": Taken(({"x": a, "labels": b} for a, b in parts(X, Y)), {"x": X}, Y),
    "dictionaries with label": Taken([{"x": a, "label": b} for a, b in parts(X, Y)], {"x": X}, Y),
    "named tuples": Taken([Pair(a, b) for a, b in parts(X, Y)], {"x": X}, Y),
    "two inputs in another order": Taken({"ids": IDS, "x": X}, {"x": X, "ids": IDS}, inputs=TWO),
    "scalar and state": Taken(
        {"x": X, "h": np.moveaxis(H, 0, 0), "rate": np.array(16000)},
        {"x": X, "h": H, "rate": np.full(6, 16000)},
        inputs=STATEFUL,
    ),
    "time-first batches": Taken(
        time_first(8, 3), {"x": np.broadcast_to(SHOWN[:, None, None], (11, 8, 4))}, SHOWN, SEQUENCES
    ),
    "lists of two inputs": Taken(ROWS, {"ids": IDS, "mask": MASK}, inputs=IDS_AND_MASK),
    "short lists of two inputs": Taken(
        [([101, 5], [1, 1]), ([7, 8], [1, 0])], {"ids": [[101, 5], [7, 8]], "mask": [[1, 1], [1, 0]]},
        inputs=(ModelInput("ids", (1, 2), "int32", "NCHW"), ModelInput("mask", (1, 2), "int32", "NCHW")),
    ),
    "lists of two inputs in batches": Taken(
        [(IDS[:2].tolist(), MASK[:2].tolist()), (IDS[2:].tolist(), MASK[2:].tolist())],
        {"ids": IDS, "mask": MASK}, inputs=IDS_AND_MASK,
    ),
    "lists of two inputs and labels": Taken(
        [([IDS.tolist(), MASK.tolist()], Y.tolist())], {"ids": IDS, "mask": MASK}, Y, IDS_AND_MASK
    ),
    "deque of batches": Taken(deque([(X[:4], Y[:4]), (X[4:], Y[4:])]), {"x": X}, Y),
    "half precision": Taken(torch.from_numpy(X).half(), {"x": X}, close=2e-3),
    "bfloat16": Taken({"x": torch.from_numpy(X).bfloat16()}, {"x": X}, close=2e-2),
    "array of arrays": Taken(objects(X), {"x": X}),
    "lists of arrays by name": Taken({"x": list(X), "labels": Y.tolist()}, {"x": X}, Y),
    "masked array without a mask": Taken(np.ma.masked_array(X), {"x": X}),
    "other order of bytes": Taken(np.asfortranarray(X.astype(">f4")), {"x": X}),
    "generator that ends early": Taken(islice(parts(X, Y), 2), {"x": X[:4]}, Y[:4]),
    # Data sets
    "batches by number": Taken(Parts(*parts(X, Y)), {"x": X}, Y),
    "batches by number without labels": Taken(Parts(*parts(X)), {"x": X}),
    "one batch by number": Taken(Parts(X), {"x": X}),
    "stream of batches": Taken(BatchStream(), {"x": X}, Y),
    "loader of a stream of batches": Taken(DataLoader(BatchStream(), batch_size=None), {"x": X}, Y),
    "whole inputs by number": Taken(
        Rows(h=H), {"h": H}, inputs=(ModelInput("h", (2, 1, 4), "float", "NCHW"),)
    ),
    "torch data set": Taken(Samples(X), {"x": X}),
    "torch data set with labels": Taken(Samples(X, Y), {"x": X}, Y),
    "torch tensors": Taken(tensors(X, Y), {"x": X}, Y),
    "torch subset": Taken(torch.utils.data.Subset(Samples(X, Y), [4, 1]), {"x": X[[4, 1]]}, Y[[4, 1]]),
    "torch stream": Taken(Stream(), {"x": X}, Y),
    "loader": Taken(DataLoader(tensors(X, Y), 4), {"x": X}, Y),
    "loader that drops the last batch": Taken(DataLoader(tensors(X, Y), 4, drop_last=True), {"x": X[:4]}, Y[:4]),
    "loader without batches": Taken(DataLoader(Samples(X, Y), batch_size=None), {"x": X}, Y),
    "loader with collated dictionaries": Taken(
        DataLoader(Samples(X, Y), 2, collate_fn=lambda rows: {"x": torch.tensor(np.stack([row[0] for row in rows]))}),
        {"x": X},
    ),
    "rows by number": Taken(Rows(x=X, label=Y), {"x": X}, Y),
    "rows of ids": Taken(Rows(input=IDS), {"input": IDS}, inputs=(ModelInput("input", (-1, 4), "int64", "NCHW"),)),
    # Files
    "npz": Taken(saved("d.npz", x=X, labels=Y), {"x": X}, Y),
    "npz without names": Taken(saved("d.npz", arr_0=X), {"x": X}),
    "npz without names, with labels": Taken(saved("d.npz", arr_0=X, arr_1=Y), {"x": X}, Y),
    "npz without names of two inputs": Taken(saved("d.npz", arr_0=X, arr_1=IDS), {"x": X, "ids": IDS}, inputs=TWO),
    "npz of one sample": Taken(saved("d.npz", x=X[0]), {"x": X[:1]}),
    "npy": Taken(saved("d.npy", x=X), {"x": X}),
    "folder of npz": Taken(
        files(**{f"{n}_npz": {"x": X[n : n + 1], "h": H[n], "rate": 16000} for n in range(6)}),
        {"x": X, "h": H, "rate": np.full(6, 16000)},
        inputs=STATEFUL,
    ),
    "folder of npz without sample axes": Taken(
        files(**{f"{n}_npz": {"x": X[n], "label": Y[n]} for n in range(6)}), {"x": X}, Y
    ),
    "folder of npy": Taken(files(**{f"{n}_npy": X[n] for n in range(6)}), {"x": X}),
    # Sounds
    "sounds of 16 bits": Taken(waves(SIX), {"x": TONES}, None, WAVES, MONO, 1e-4),
    "sounds of 8 bits": Taken(waves(SIX, bits=8), {"x": TONES}, None, WAVES, MONO, 2e-2),
    "sounds of 24 bits": Taken(waves(SIX, bits=24), {"x": TONES}, None, WAVES, MONO, 1e-6),
    "sounds of 32 bits": Taken(waves(SIX, bits=32), {"x": TONES}, None, WAVES, MONO, 1e-6),
    "sounds of floats": Taken(waves(SIX, bits=32, encoding=3), {"x": TONES}, None, WAVES, MONO, 1e-6),
    "sounds that are cut and padded": Taken(
        waves(SIX),
        {"x": np.pad(TONES, ((0, 0), (0, 50)))},
        None,
        (ModelInput("x", (-1, 150), "float", "NCHW"),),
        SoundPreprocess(16000, length=150),
        1e-4,
    ),
    "stereo sounds": Taken(
        waves(SIX, channels=2),
        {"x": np.moveaxis(TONES.reshape(6, 50, 2), 2, 1)},
        None,
        (ModelInput("x", (-1, 2, 50), "float", "NCHW"),),
        SoundPreprocess(16000, channels=2),
        1e-4,
    ),
    "sounds in folders of classes": Taken(
        waves(CLASSED), {"x": TONES}, [0, 1, 1, 2, 2, 2], WAVES, MONO, 1e-4
    ),
    "a subset of all classes": Taken(
        waves(CLASSED), {"x": TONES[[0, 2, 4]]}, [0, 1, 2], WAVES, SoundPreprocess(16000, count=3), 1e-4
    ),
    "sounds of listed classes": Taken(
        waves(CLASSED), {"x": TONES}, [5, 0, 0, 3, 3, 3], WAVES,
        SoundPreprocess(16000, classes=("cat", "a", "b", "dog", "c", "bird")), 1e-4,
    ),
    "sounds in linked folders": Taken(
        linked(no="first", yes="second"), {"x": TONES[:2]}, [0, 1], WAVES, MONO, 1e-4
    ),
    "sounds in linked numbers": Taken(
        linked(_1="first", _0="second"), {"x": TONES[[1, 0]]}, [0, 1], WAVES, MONO, 1e-4
    ),
    "two names of a class": Taken(
        linked(a="first", b="first"), {"x": TONES[[0, 0]]}, [0, 1], WAVES, MONO, 1e-4
    ),
    # Refused: layouts and types
    "channels last": Refused(
        np.moveaxis(X, 1, 3), ("'x'", "[6, 8, 8, 3]", "[samples, 3, 8, 8]"), fix="x.transpose(0, 3, 1, 2)"
    ),
    "another size": Refused(X[..., :7], ("'x'", "[6, 3, 8, 7]", "[samples, 3, 8, 8]")),
    "grey for colour": Refused(X[:, :1], ("'x'", "[6, 1, 8, 8]", "[samples, 3, 8, 8]")),
    "fractions for integers": Refused({"ids": IDS + 0.5}, ("'ids'", "float64", "[6, 4]", "int32"), TOKENS),
    "text for integers": Refused({"ids": np.array(["a", "b"])}, ("'ids'", "<U1"), TOKENS, fix="tokenizer"),
    "NaN": Refused(np.where(X > 2.5, np.nan, X), ("'x'", "NaN", "of 6 samples", "[6, 3, 8, 8]")),
    "masked values": Refused(np.ma.masked_array(X, X > 2), ("'x'", "20 of 1,152 values", "[6, 3, 8, 8]"), fix="filled"),
    "arrays of several shapes": Refused(objects([X[0], X[1, :, :7]]), ("'x'", "[3, 8, 8]", "[3, 7, 8]", "equal")),
    "list of several shapes": Refused({"x": [X[0], X[1, :, :7]]}, ("'x'", "[3, 8, 8]", "[3, 7, 8]", "equal")),
    "ids above int32": Refused({"ids": IDS + 2**40}, ("'ids'", "1,099,511,627,799", "[6, 4]", "int32"), TOKENS),
    "generator that fails": Refused(failing(), ("RuntimeError: no disk",)),
    "too large for float32": Refused(X.astype(np.float64) * 1e39, ("'x'", "more than float32")),
    "complex": Refused(X.astype(complex), ("'x'", "complex128", "[6, 3, 8, 8]")),
    "empty": Refused(X[:0], ("'x'", "(0, 3, 8, 8)")),
    "pixels of 0 to 255, normalized for 0 to 1": Refused(
        (np.linspace(0, 255, 384).reshape(6, 1, 8, 8) - MEANS) / DEVIATIONS, ("'x'", "-2.118", "0..255"), fix="255"
    ),
    # Refused: labels
    "too few labels": Refused({"x": X, "labels": Y[:5]}, ("'labels'", "[5]", "[6, 3, 8, 8]")),
    "boxes as labels": Refused([(X, {"boxes": Y})], ("'labels'", "dict")),
    "labels that are not numbers": Refused((X, np.where(Y > 1, np.nan, Y)), ("'labels'", "NaN", "(6,)")),
    # Refused: objects
    "uneven batches by number": Refused(Parts(X[:4], X[4:]), ("'x'", "4, 3, 8, 8]", "2, 3, 8, 8]"), fix="list("),
    "batches of other sizes": Refused([X, X[..., :7]], ("'x'", "[6, 3, 8, 8]", "[6, 3, 8, 7]")),
    "samples of other lengths": Refused(Rows(ids=[[1], [1, 2]] * 3), ("'ids'", "[1, 1]", "[1, 2]"), TOKENS),
    "too many columns": Refused(Rows(x=X, text=["a"] * 6), ("'text'", "known: x, labels")),
    "data frame": Refused(Frame(), ("Frame", "(6, 2)"), fix="to_numpy()"),
    "picture": Refused([Picture()], ("'x'", "(8, 8)"), fix="transpose"),
    "unlabelled path": Refused(b"data.npz", ("bytes",)),
    # Refused: files
    "pickled arrays": Refused(saved("d.npy", x=np.array([{}], object)), ("d.npy", "pickle")),
    "archive of pictures": Refused(saved("d.zip", content=archive("a.png")), ("d.zip", "'a.png'"), fix="unpack"),
    "more arrays than inputs": Refused(saved("d.npz", x=X, ids=IDS), ("d.npz", "'ids'", "known: x, labels")),
    "checkpoint": Refused(saved("d.pt", content=b"PK\x03\x04"), ("d.pt",), fix="torch.load('d.pt')"),
    "table": Refused(saved("d.csv", content=b"1,2\n"), ("d.csv",), fix="read_csv('d.csv')"),
    "safetensors": Refused(saved("d.safetensors", content=b"\x08"), ("d.safetensors",), fix="load_file"),
    "one picture": Refused(saved("d.jpg", content=b"\xff\xd8\xff"), ("d.jpg",), fix="folder"),
    "python file without a callable": Refused(saved("d.py", content=b""), ("d.py",), fix="d.py:calibration"),
    "folder of arrays and others": Refused(files(a_npz={"x": X}, b_txt=b"1"), ("set", "b.txt")),
    "arrays of other shapes": Refused(
        files(a_npz={"x": X[0]}, b_npz={"x": X[0, :2]}), ("set", "'x'", "[2, 8, 8]", "[3, 8, 8]")
    ),
    "link to a missing file": Refused(linked(a_wav="gone.wav"), ("a_wav", "link to a missing file"), WAVES, MONO),
    "undeclared sounds": Refused(waves(SIX), ("set", "rate"), WAVES),
    "another rate": Refused(waves(SIX, rate=8000), ("0.wav", "8000", "16000"), WAVES, MONO, "-ar 16000"),
    "undeclared stereo": Refused(waves(SIX, channels=2), ("0.wav", "[2, 50]", "1 channels"), WAVES, MONO, "-ac 1"),
    "sounds of other lengths": Refused(
        files(a_wav=wave(TONES[0]), b_wav=wave(TONES[1, :60])), ("b.wav 60", "a.wav 100"), WAVES, MONO, "length = 100"
    ),
    "truncated sound": Refused(waves(["a_wav"], cut=7), ("a.wav", "193 of 200"), WAVES, MONO),
    "empty sound": Refused(files(a_wav=empty_wave()), ("a.wav",), WAVES, MONO),
    "compressed sound": Refused(files(a_mp3=b"ID3"), ("a.mp3",), WAVES, MONO, "ffmpeg -i a.mp3 -ar 16000 a.wav"),
    "parts of a data set": Refused(waves(["train__0_wav", "val__1_wav"]), ("train, val",), WAVES, MONO, "set/train"),
    "unknown class": Refused(
        waves(CLASSED), ("bird/1.wav", "cat, dog"), WAVES, SoundPreprocess(16000, classes=("cat", "dog"))
    ),
    "numbers and names": Refused(waves(["0__a_wav", "cat__b_wav"]), ("cat/b.wav",), WAVES, MONO),
}  # fmt: skip


def read(case: Taken | Refused, place: Path) -> Dataset:
    """The data as the model takes them."""
    names = tuple(item.name for item in case.inputs)
    form = case.form(place) if type(case.form) is type(wave) else case.form
    given = load_data(form, place, names, case.preparation) if isinstance(form, str) else as_dataset(form, names, "set")
    return require_fit(given, case.inputs)


@pytest.mark.parametrize("name", [name for name, case in FORMS.items() if isinstance(case, Taken)])
def test_the_form_gives_the_right_values(name: str, tmp_path: Path) -> None:
    case = FORMS[name]
    assert isinstance(case, Taken)
    data = read(case, tmp_path)
    assert list(data.inputs) == list(case.arrays)
    for key, array in case.arrays.items():
        assert data.inputs[key].shape == np.shape(array)
        np.testing.assert_allclose(data.inputs[key], array, rtol=0, atol=case.close)
    assert (data.labels is None) == (case.labels is None)
    if data.labels is not None:
        assert data.labels.tolist() == np.asarray(case.labels).tolist()


@pytest.mark.parametrize("name", [name for name, case in FORMS.items() if isinstance(case, Refused)])
def test_the_form_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    case = FORMS[name]
    assert isinstance(case, Refused)
    with pytest.raises(SourceError) as raised:
        read(case, tmp_path)
    line = str(raised.value)
    assert "\n" not in line
    assert [part for part in case.parts if part not in line] == [], line
    assert case.fix in raised.value.fix, raised.value.fix


def test_the_table_has_sixty_forms() -> None:
    assert len(FORMS) >= 60


def test_a_loader_that_shuffles_gives_the_same_data_each_time() -> None:
    """In its own order, whatever random numbers were drawn before, and with processes that load."""
    loader = DataLoader(Samples(X, Y), 2, shuffle=True, num_workers=1)
    first = as_dataset(loader, ("x",), "set")
    torch.rand(3)
    state = torch.random.get_rng_state()
    second = as_dataset(loader, ("x",), "set")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.digest() == second.digest()
    assert first.labels is not None
    assert sorted(first.labels.tolist()) == sorted(Y.tolist())
    assert first.labels.tolist() != Y.tolist()
