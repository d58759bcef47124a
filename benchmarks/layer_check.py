"""Whether decoded weights are those that MNN computes with: each layer's real input, convolved again with them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from corpus import TIMEOUT, Wheel
from corpus_nets import Arrays, arrays
from torch.nn import functional

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.runtime.command import PROGRAMS

# Of the layer's largest output: MNN adds in another order, and large filters by Winograd's algorithm.
ROUNDING: Final = 1e-5
WINOGRAD_ROUNDING: Final = 1e-3
# In steps of a quantized output: half for rounding, and half for the bias, which MNN rounds to its accumulator's step.
STEPS: Final = 1.0
_ODD_STRIDES: Final = "Deconvolution"

Floats = npt.NDArray[np.float32]


@dataclass
class Checked:
    """How many layers were run and compared, and what was wrong."""

    layers: int = 0
    wrong: list[str] = field(default_factory=list)


def check_layers(model: Model, wheel: Wheel) -> Checked:
    """Run the model in `wheel`'s runtime and compare every convolution of its main graph.

    Models with subgraphs have no op trace; int8 layers that MNN computes by Winograd's algorithm (after EMA) lose more
    than a step, whatever their weights.
    """
    checked = Checked()
    layers = [op for op in model.convolutions if len(op.inputs) == 1 and not _is_winograd(op)]
    if model.has_subgraphs or not layers:
        return checked
    if wheel.version == "3.0.0" and model.path.stem.startswith("mnnquant-ema"):
        return checked  # That wheel writes scales at random there (often NaN), and models that it can not run itself.
    if any(item.data_type == "int8" for item in model.inputs):
        return checked  # MNN's Python tensors hold no int8.
    seen = observed(model, layers, wheel, arrays({item.name: item.shape[1:] for item in model.inputs}))
    for number, op in enumerate(layers):
        given, made = seen.get(f"{number}i"), seen.get(f"{number}o")
        if given is None or made is None:
            checked.wrong.append(f"{op.name}: MNN did not run it")
            continue
        expected = computed(model, op, given, made.shape)
        error = np.abs(made - expected)
        rounding = WINOGRAD_ROUNDING if max(op.shape[2:]) > 1 and op.group == 1 else ROUNDING
        allowed = rounding * float(np.abs(expected).max()) + 1e-6
        quant = model.tensor_quants.get(op.outputs[0])
        if quant is not None:  # MNN may compute in float and quantize later, or not at all.
            low, high = (quant.scale * (code - quant.zero) for code in (quant.low, quant.high))
            error = np.minimum(error, np.abs(made - np.clip(expected, low, high)))
            allowed += STEPS * quant.scale
        checked.layers += 1
        if not error.max() <= allowed:
            checked.wrong.append(f"{op.name} ({op.weights[0].label}): off by {error.max():.3g}, allowed {allowed:.3g}")
    return checked


def _is_winograd(op: Op) -> bool:
    symmetric = op.parameters.table(4) if op.parameters else None
    return symmetric is not None and symmetric.span(10, 4)[1] > 0


def computed(model: Model, op: Op, given: Floats, shape: tuple[int, ...]) -> Floats:
    """The layer's output on `given`, in float32, from its decoded weights."""
    assert op.parameters is not None
    common = op.parameters.table(0)
    assert common is not None

    def number(slot: int, default: int = 1) -> int:
        return int(common.scalar(slot, "i32", default))

    outputs, _, height, width = op.shape
    stride, dilation = (number(5), number(4)), (number(7), number(6))
    kernel = tuple(dilation[axis] * (size - 1) + 1 for axis, size in enumerate((height, width)))
    pads = common.ints(14)
    before = (pads[0], pads[1]) if len(pads) >= 2 else (number(1, 0), number(0, 0))
    same = int(common.scalar(8, "i8")) == 2
    x, bias = torch.from_numpy(_planes(given)), torch.from_numpy(_bias(model, op))
    wanted = _planes_of(shape)
    if op.kind.startswith(_ODD_STRIDES):
        weight = torch.from_numpy(np.array(model.decoded(op))).reshape(x.shape[1], -1, height, width)
        y = functional.conv_transpose2d(x, weight, None, stride, 0, 0, op.group, dilation)
        cut = [max(0, y.shape[2 + axis] - wanted[axis]) // 2 if same else before[axis] for axis in (0, 1)]
        y = y[:, :, cut[0] :, cut[1] :]
        y = functional.pad(y, (0, wanted[1] - y.shape[3], 0, wanted[0] - y.shape[2])) + bias.reshape(1, -1, 1, 1)
    else:
        weight = torch.from_numpy(np.array(model.decoded(op))).reshape(outputs, -1, height, width)
        missing = [(wanted[i] - 1) * stride[i] + kernel[i] - x.shape[2 + i] for i in (0, 1)]
        start = [max(0, missing[i]) // 2 if same else before[i] for i in (0, 1)]
        x = functional.pad(x, (start[1], missing[1] - start[1], start[0], missing[0] - start[0]))
        y = functional.conv2d(x, weight, bias, stride, 0, dilation, op.group)
    if common.scalar(13, "u8"):
        y = y.clamp(0, 6)
    elif common.scalar(12, "u8"):
        y = y.clamp_min(0)
    result: Floats = y.numpy().reshape(shape)
    return result


def _planes(array: Floats) -> Floats:
    return array.reshape(*array.shape[:2], *_planes_of(array.shape))


def _planes_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a tensor of 2 to 4 dimensions."""
    height, width = (*shape[2:], 1, 1)[:2]
    return height, width


def _bias(model: Model, op: Op) -> Floats:
    assert op.parameters is not None
    stored: Floats = op.parameters.array(2, "<f4")
    if stored.size:
        return np.array(stored)
    place = [int(value) for value in op.parameters.array(6, "<i8")]
    part = 3 if isinstance(op.parameters.table(3), Table) else 2
    if len(place) <= part or not place[part]:
        return np.zeros(op.shape[0], np.float32)
    data = model.bytes_at(place[0] + sum(place[1:part]), place[part], external=True)
    assert data is not None
    return np.frombuffer(data, np.float32).copy()


def observed(model: Model, layers: list[Op], wheel: Wheel, inputs: Arrays) -> dict[str, Floats]:
    """First input (`0i`) and first output (`0o`) of each layer, in NCHW order, as `wheel`'s runtime computes them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job: dict[str, Any] = {
            "model": str(model.path.resolve()),
            "ops": [op.name for op in layers],
            "values": str(folder / "values.npz"),
            "inputs": {},
        }
        for number, (key, array) in enumerate(inputs.items()):
            file = folder / f"input{number}.npy"
            np.save(file, array.astype(np.int32) if array.dtype.kind == "i" else array)
            job["inputs"][key] = str(file)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        program = [wheel.python, str(Path(__file__).with_name("layer_probe.py")), str(folder / "job.json")]
        done = subprocess.run(
            [*program, str(PROGRAMS)], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
        if done.returncode or not (folder / "values.npz").exists():
            raise RuntimeError(f"{model.path.name} does not run: {done.stderr[-300:].decode('utf-8', 'replace')}")
        with np.load(folder / "values.npz") as values:
            return dict(values)
