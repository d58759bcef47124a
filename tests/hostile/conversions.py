"""Damaged models of every format for `pytest-mnnquant convert`, and what has to be true of each of its answers."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.mnnfile.decodable import undecodable
from pytest_mnnquant.mnnfile.model import read_model
from tests.hostile.cases import damaged
from tests.tflite_nets import Graph

_BEFORE: Final = b"an earlier file"
_REQUESTS: Final = (
    ("w8", ("--weightQuantBits", "8")),
    ("w4b32", ("--weightQuantBits", "4", "--weightQuantBlock", "32")),
    ("fp16", ("--fp16",)),
    ("", ()),
)
# Requests for which a model of this format is refused before MNN runs: the damaged file would not be read.
_FLOAT_ONLY: Final = ("JSON",)
Edit = Callable[[random.Random, bytearray], None]


@dataclass(frozen=True)
class Source:
    """A healthy model: its format, its bytes, and the bytes of the file beside it that holds its weights, if any."""

    framework: str
    name: str
    content: bytes
    beside: str = ""
    weights: bytes = b""


def sources(folder: Path) -> tuple[Source, ...]:
    """Healthy models of all formats that damaged ones are made from, written to a new folder."""
    folder.mkdir()
    (folder / "net.onnx").write_bytes(_onnx())
    external = onnx.load_model_from_string(_onnx())
    onnx.save_model(external, folder / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    _tflite(folder / "net.tflite")
    healthy = [
        Source("ONNX", "net.onnx", _onnx()),
        Source(
            "ONNX", "outside.onnx", (folder / "outside.onnx").read_bytes(), "w.bin", (folder / "w.bin").read_bytes()
        ),
        Source("TFLITE", "net.tflite", (folder / "net.tflite").read_bytes()),
    ]
    requests = {"float": (), "fp16": ("--fp16",), "w8": ("--weightQuantBits", "8"), "outside": ("--saveExternalData",)}
    for name, flags in requests.items():
        path = folder / f"{name}.mnn"
        assert (
            _convert(("-f", "ONNX", "--modelFile", str(folder / "net.onnx"), "--MNNModel", str(path), *flags))[0] == 0
        )
        beside = path.with_name(f"{path.name}.weight")
        weights = beside.read_bytes() if beside.exists() else b""
        healthy.append(Source("MNN", path.name, path.read_bytes(), beside.name if weights else "", weights))
    text = folder / "net.json"
    assert _convert(("-f", "MNN", "--modelFile", str(folder / "float.mnn"), "--JsonFile", str(text)))[0] == 0
    return (*healthy, Source("JSON", "net.json", text.read_bytes()))


def answer(number: int, healthy: tuple[Source, ...], folder: Path, timeout: float = 20.0) -> tuple[str, str]:
    """Damage a model and convert it. Returns what came out, and what is wrong with the answer; empty if nothing is."""
    chooser = random.Random(number)
    source = healthy[number % len(healthy)]
    recipe, flags = ("", ()) if source.framework in _FLOAT_ONLY else chooser.choice(_REQUESTS)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, output = folder / source.name, folder / "result.mnn"
    hits_weights = bool(source.weights) and chooser.random() < 0.3
    path.write_bytes(source.content if hits_weights else _damage(chooser, source.content))
    if source.weights:
        (folder / source.beside).write_bytes(_damage(chooser, source.weights) if hits_weights else source.weights)
    output.write_bytes(_BEFORE)
    words = ("-f", source.framework, "--modelFile", str(path), "--MNNModel", str(output), *flags)
    try:
        status, out, err = _convert((f"--mnn-timeout={timeout}", *words))
    except BaseException as error:
        return f"{source.framework}: {type(error).__name__}", f"raised {error!r}"
    kind = f"{source.framework}: {'converted' if status == 0 else 'refused'}"
    return kind, _fault(status, out, err, output, recipe)


def _fault(status: int, out: str, err: str, output: Path, recipe: str) -> str:
    """What is wrong with an answer."""
    printed = out + err
    for sign in ("Traceback", "INTERNALERROR", "MNQ004"):
        if sign in printed:
            return f"printed {sign}: {printed}"
    if status == 1:
        if output.read_bytes() != _BEFORE:
            return "an earlier file was replaced by a model that is refused"
        return "" if err.strip() else "refused without a word"
    if status != 0:
        return f"exit status {status}"
    if not out.startswith(str(output)):
        return f"exit status 0 without a verdict: {printed}"
    model = read_model(output)
    stored = {weights.label for op in model.layers if op.is_convolution for weights in op.weights}
    if recipe and not stored:
        return "exit status 0 for a model without weights"
    if broken := undecodable(model):
        return f"exit status 0 for weights that can't be decoded: {broken}"
    outside = model.bytes_at(0, model.size - model.main_size, external=True)
    if not all(np.isfinite(weights.decoded(outside)).all() for op in model.layers for weights in op.weights):
        return "exit status 0 for weights that are not finite"
    with contextlib.redirect_stdout(io.StringIO()) as lines, contextlib.redirect_stderr(lines):
        fits = not recipe or main(["inspect", str(output), "--expect", recipe]) == 0
    return "" if fits else f"exit status 0, but the file is not {recipe}: {lines.getvalue()}"


def _damage(chooser: random.Random, content: bytes) -> bytes:
    """A copy with one kind of damage: to single bytes, to a number of the format, or to where an offset points."""
    data = bytearray(content)
    edit = chooser.choice((_bytes, _bytes, _number, _number, _offset, _swap))
    edit(chooser, data)
    return bytes(data)


def _bytes(chooser: random.Random, data: bytearray) -> None:
    data[:] = damaged(bytes(data), chooser.randrange(1 << 30))


def _number(chooser: random.Random, data: bytearray) -> None:
    """A number of 1, 2, 4 or 8 bytes, at the limits of its type; often at the start, where structure is."""
    size, kind = chooser.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")))
    end = max(1, len(data) - size)
    place = chooser.randrange(min(end, 600) if chooser.random() < 0.4 else end) // size * size
    half = 1 << 8 * size - 1
    value = chooser.choice((0, 1, 2, half, 2 * half - 1, half - 1, half // 2))
    if place + size <= len(data):
        struct.pack_into(kind, data, place, value)


def _offset(chooser: random.Random, data: bytearray) -> None:
    """An offset that points to another place, to itself or backwards."""
    words = np.frombuffer(bytes(data[: len(data) // 4 * 4]), "<u4").astype(np.int64)
    places = np.arange(len(words)) * 4
    offsets = places[(words > 3) & (words < 1 << 16) & (places + words < len(data))]
    if len(offsets):
        place = int(offsets[chooser.randrange(len(offsets))])
        target = chooser.choice((place, 0, chooser.randrange(len(data))))
        struct.pack_into("<I", data, place, (target - place) % (1 << 32))


def _swap(chooser: random.Random, data: bytearray) -> None:
    """Two pieces that change places."""
    size = chooser.choice((1, 4, 16, 64))
    first, second = sorted(chooser.randrange(max(1, len(data) - size)) for _ in range(2))
    if first + size <= second:
        head, tail = data[first : first + size], data[second : second + size]
        data[first : first + size], data[second : second + size] = tail, head


def _convert(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run the command; returns its exit status, stdout and stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["convert", *words])
    return status, out.getvalue(), err.getvalue()


def _onnx() -> bytes:
    """A network with the layers that MNN quantizes, and others between them."""
    chooser = np.random.default_rng(0)

    def values(*shape: int) -> npt.NDArray[np.float32]:
        return chooser.standard_normal(shape).astype(np.float32)

    weights = {
        "conv.w": values(32, 3, 3, 3), "conv.b": values(32), "point.w": values(32, 32, 1, 1),
        "depth.w": values(32, 1, 3, 3), "fc.w": values(64, 32), "fc.b": values(64), "mm.w": values(64, 32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "conv.w", "conv.b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "point.w"], ["p"], "point"),
        helper.make_node("Conv", ["p", "depth.w"], ["d"], "depth", pads=[1, 1, 1, 1], group=32),
        helper.make_node("Add", ["p", "d"], ["a"], "add"),
        helper.make_node("GlobalAveragePool", ["a"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["h"], "fc", transB=1),
        helper.make_node("MatMul", ["h", "mm.w"], ["m"], "matmul"),
        helper.make_node("Softmax", ["m"], ["y"], "softmax"),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _tflite(path: Path) -> None:
    """The same kinds of layers as a `.tflite` file."""
    torch.manual_seed(0)
    graph = Graph()
    x = graph.tensor("x", (1, 8, 8, 3))
    x = graph.conv(x, nn.Conv2d(3, 32, 3, padding=1), "conv")
    x = graph.add(x, graph.conv(x, nn.Conv2d(32, 32, 3, padding=1, groups=32), "depth"), "add")
    x = graph.flat(graph.pool(x, 8, "pool", average=True), "flat")
    graph.write(path, [graph.softmax(graph.linear(x, nn.Linear(32, 64), "fc"), "softmax")])


class TooSlow(BaseException):
    """Raised by a clock; not an `Exception`, so that nothing under test catches it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in the main thread after some seconds."""

    def stop(_number: int, _frame: object) -> None:
        raise TooSlow(f"no end after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
