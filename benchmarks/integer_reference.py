"""What a full-int8 `.mnn` means, in integers: the codes of an operator's output from the codes of its inputs.

Read off MNN 3.6.1 (`CPUConvolution.cpp`: `updateInputOutputScale`; `ConvInt8TiledExecutor.cpp`; `GemmInt8.cpp`;
`CPUDepthwiseConvInt8.cpp`; `CPUPoolInt8.cpp`; `CPUBinaryInt8.cpp`; `CPUCast.cpp`). With codes x and zero points z, all
rounding half away from zero, all real numbers float32 in the order written:

    convolution   y = round(float(sum w (x + o)) * s_w * (s_in / s_out) + b), limited to low..high
                  b = (bias - float(sum w) * s_w * (z_in + o) * s_in) / s_out + z_out
    depthwise     y = round(float(sum w (x + o) + b) * (s_w * (s_in / s_out))), limited to low..high
                  b = int(bias / (s_in * s_w)) - sum w (z_in + o) + int(z_out / (s_w * (s_in / s_out)))
    ReLU          y = max(x, z)
    MaxPool       the largest code of each window; padding takes no part
    AveragePool   y = (sum (x + o) * int(2^24 / n)) >> 24 - o, of the n codes of a window; padding takes no part
    Add           y = round(((x_0 - z_0) * s_0 + (x_1 - z_1) * s_1) * (1 / s_out)) + z_out, limited to low..high
    quantization  y = round(x * (1 / s) + z), limited to low..high

o is 128 on x86, where MNN keeps codes as unsigned bytes, and 0 on ARM: the same number, but rounded at another place,
so that about one code in 100,000 (where the real value lies in the middle of two) is another. Where a layer pads, it
pads with z_in. A fused ReLU or ReLU6 of a convolution raises `low` to z_out, that of an Add to 0; MNN has no upper
limit of its own for ReLU6.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from pytest_mnnquant.mnnfile.commands import commands, has_fused_relu
from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant
from pytest_mnnquant.mnnfile.pooling import is_max_pool
from pytest_mnnquant.mnnfile.scale_propagation import outcomes

#: What MNN adds to a code to store it on this machine.
OFFSET: Final = 128 if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else 0
Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# Padding as TensorFlow has it: half of what is missing goes before.
_SAME, _SAME_POOL = 2, 2
_ADD: Final = 0
_OFF_GRID: Final = 1e-3
# Pools, and the slot that says whether their window is the whole plane.
_POOLS: Final = {"Pooling": 2, "Pooling3D": 5}
_SMALLEST: Final = np.float32(1e-6)


class NoReference(Exception):
    """This operator has no integer reference; the message names the operator."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution or a pool moves over its input; each pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]

    def padded(self, x: torch.Tensor, shape: tuple[int, ...], value: float) -> torch.Tensor:
        """Planes with padding (or less) on each side, so that the windows give outputs of this shape."""
        sides: list[int] = []
        for axis in (1, 0):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            missing = (shape[2 + axis] - 1) * self.stride[axis] + reach - x.shape[2 + axis]
            sides += [self.before[axis], missing - self.before[axis]]
        return functional.pad(x, sides, value=value)


def are_codes(values: Floats, quant: TensorQuant) -> bool:
    """Whether a tensor that MNN handed out dequantized holds nothing but values of this grid."""
    exact = values.astype(np.float64) / quant.scale
    return bool(np.abs(exact - np.rint(exact)).max(initial=0) < _OFF_GRID)


def codes_of(values: Floats, quant: TensorQuant) -> Codes:
    """The codes of a tensor that MNN returned dequantized. Raises `ValueError` if a value lies between two codes."""
    if not are_codes(values, quant):
        raise ValueError(f"values are not multiples of {quant.scale}")
    codes: Codes = np.rint(values.astype(np.float64) / quant.scale + quant.zero).astype(np.int64)
    return codes


def quantized(values: Floats, quant: TensorQuant, offset: int = OFFSET) -> Codes:
    """Real values as codes: MNN's FloatToInt8."""
    inverse = np.float32(1) / np.float32(quant.scale)
    return _rounded(values.astype(np.float32) * inverse + np.float32(quant.zero), quant.low, quant.high, offset)


def values_of(codes: Codes, quant: TensorQuant) -> Floats:
    """The real values of codes: MNN's Int8ToFloat."""
    return (codes.astype(np.float32) - np.float32(quant.zero)) * np.float32(quant.scale)


def effective_quants(model: Model) -> dict[int, TensorQuant]:
    """The quantization of each tensor: its own, else what MNN propagates to it in a session that was resized."""
    sources = outcomes(commands(model), model.tensor_quants, resized=True)[0].sources
    return {tensor: model.tensor_quants[source] for tensor, source in sources.items()}


def reference(
    model: Model,
    op: Op,
    codes: Sequence[Codes],
    shape: tuple[int, ...],
    quants: Mapping[int, TensorQuant],
    offset: int = OFFSET,
) -> Codes:
    """The codes of an operator's output, of `shape`, from those of its inputs. Raises `NoReference`."""
    grids = [quants.get(tensor) for tensor in (*op.inputs[: len(codes)], op.outputs[0])]
    if op.kind in _POOLS:
        return pooled(op, codes[0], shape, offset)
    known = [grid for grid in grids if grid is not None]
    if op.kind == "ReLU" and known and not (op.parameters and op.parameters.scalar(0, "f32")):
        return np.maximum(codes[0], int(known[0].zero))
    if op.kind in _CONVOLUTIONS and len(known) == len(grids) == 2:
        return convolution(model, op, codes[0], shape, known[0], known[1], offset)
    if op.kind == "BinaryOp" and len(known) == len(grids) == 3 and codes[0].shape == codes[1].shape:
        return added(op, codes[0], codes[1], known)
    raise NoReference(f"{op.name} ({op.kind})")


def convolution(
    model: Model,
    op: Op,
    codes: Codes,
    shape: tuple[int, ...],
    before: TensorQuant,
    after: TensorQuant,
    offset: int = OFFSET,
) -> Codes:
    """A convolution or Linear layer in int8. `codes` are NCHW, as is the result, of `shape`. Raises `NoReference`."""
    weights = op.weights[0] if op.weights else None
    if weights is None or weights.asymmetric or weights.block or weights.bits != 8 or op.winograd_bytes:
        raise NoReference(f"{op.name} ({op.kind}, {weights.label if weights else 'no weights'})")
    assert op.parameters is not None
    common = op.parameters.table(0)
    assert common is not None
    affine = model.affine(op)
    taken = affine.codes.reshape(op.shape[0], -1, *op.shape[2:]).astype(np.int64)
    planes = (*shape, 1, 1)[:4]
    x = torch.from_numpy(_planes(codes) + offset).double()
    window = _window(common, x.shape, planes)
    x = window.padded(x, planes, int(before.zero) + offset)
    # Exact in float64: sums of integers far below 2^53.
    total = functional.conv2d(x, torch.from_numpy(taken).double(), None, window.stride, 0, window.dilation, op.group)
    fused = bool(common.scalar(12, "u8") or common.scalar(13, "u8"))
    low = int(after.zero) if fused else after.low
    arithmetic = _CONVOLUTIONS[op.kind]
    bias: Floats = op.parameters.array(2, "<f4")
    sums = taken.reshape(len(taken), -1).sum(1)
    real = arithmetic(total.numpy(), bias, sums, affine.scales, before, after, offset)
    return _rounded(real, low, after.high, offset).reshape(shape)


def _dense(
    total: npt.NDArray[np.float64],
    bias: Floats,
    sums: Codes,
    scales: Floats,
    before: TensorQuant,
    after: TensorQuant,
    offset: int,
) -> Floats:
    given, made = np.float32(before.scale), np.float32(after.scale)
    shift = sums.astype(np.float32) * scales * np.float32(int(before.zero) + offset)
    # Compilers for ARM fuse the multiplication and the subtraction: one rounding instead of two.
    fused = (bias.astype(np.float64) - shift.astype(np.float64) * given).astype(np.float32)
    b = (bias - shift * given if offset else fused) / made + np.float32(int(after.zero))
    real: Floats = total.astype(np.float32) * _channels(scales) * (given / made) + _channels(b)
    return real


def _depthwise(
    total: npt.NDArray[np.float64],
    bias: Floats,
    sums: Codes,
    scales: Floats,
    before: TensorQuant,
    after: TensorQuant,
    offset: int,
) -> Floats:
    given, made = np.float32(before.scale), np.float32(after.scale)
    scales = np.where(np.abs(scales) < _SMALLEST, _SMALLEST, scales)
    factors = scales * (given / made)
    b = np.trunc(bias / (given * scales)) - sums.astype(np.float32) * np.float32(int(before.zero) + offset)
    b = np.trunc(b + np.trunc(np.float32(int(after.zero)) / factors))
    real: Floats = (total + _channels(b)).astype(np.float32) * _channels(factors)
    return real


_Arithmetic = Callable[..., Floats]
_CONVOLUTIONS: Final[dict[str, _Arithmetic]] = {"Convolution": _dense, "ConvolutionDepthwise": _depthwise}


def pooled(op: Op, codes: Codes, shape: tuple[int, ...], offset: int = OFFSET) -> Codes:
    """The largest code of each window, or their average. `codes` are NCHW, as is the result, of `shape`."""
    assert op.parameters is not None
    window = _pool_window(op, codes.shape, shape)
    if is_max_pool(op) or (op.kind == "Pooling3D" and not op.parameters.scalar(3, "i8")):
        x = window.padded(torch.from_numpy(codes).double(), shape, -np.inf)
        return functional.max_pool2d(x, window.kernel, window.stride).numpy().astype(np.int64)

    def summed(of: Codes) -> Codes:
        x = window.padded(torch.from_numpy(of).double(), shape, 0)
        whole = functional.avg_pool2d(x, window.kernel, window.stride, divisor_override=1)
        return whole.numpy().astype(np.int64)

    return ((summed(codes + offset) * ((1 << 24) // summed(np.ones_like(codes)))) >> 24) - offset


def added(op: Op, first: Codes, second: Codes, grids: Sequence[TensorQuant]) -> Codes:
    """The sum of two tensors of one shape; `grids` are theirs and the result's. Raises `NoReference`."""
    assert op.parameters is not None
    if op.parameters.scalar(0, "i32") != _ADD:
        raise NoReference(f"{op.name} ({op.kind})")
    total = values_of(first, grids[0]) + values_of(second, grids[1])
    steps = total * (np.float32(1) / np.float32(grids[2].scale))
    low = 0 if has_fused_relu(op) else int(grids[2].low)
    return np.clip(_rounded(steps, -np.inf, np.inf, 0) + int(grids[2].zero), low, int(grids[2].high))


def _pool_window(op: Op, given: tuple[int, ...], made: tuple[int, ...]) -> Window:
    """Slots of Pool: schema/default/CaffeOp.fbs."""
    assert op.parameters is not None
    pool, size = op.parameters, (given[2], given[3])
    if pool.scalar(_POOLS[op.kind], "u8"):
        return Window(size, size, (1, 1), (0, 0))
    if op.kind != "Pooling":
        raise NoReference(f"{op.name} ({op.kind})")
    numbers = {slot: int(pool.scalar(slot, "i32")) for slot in (0, 1, 3, 4, 5, 6)}
    kernel = (min(numbers[4], size[0]), min(numbers[3], size[1]))
    stride, before, pads = (numbers[6], numbers[5]), (numbers[1], numbers[0]), pool.ints(11)
    if int(pool.scalar(8, "i8")) == _SAME_POOL:
        missing = [(made[2 + i] - 1) * stride[i] + kernel[i] - size[i] for i in (0, 1)]
        before = (max(0, missing[0]) // 2, max(0, missing[1]) // 2)
    elif len(pads) == 4:
        before = (pads[0], pads[1])
    return Window(kernel, stride, (1, 1), before)


def _window(common: Table, given: tuple[int, ...], made: tuple[int, ...]) -> Window:
    """Slots of Convolution2DCommon: schema/default/CaffeOp.fbs."""

    def pair(vertical: int, horizontal: int, default: int) -> tuple[int, int]:
        return int(common.scalar(vertical, "i32", default)), int(common.scalar(horizontal, "i32", default))

    kernel, stride, dilation, before = pair(3, 2, 1), pair(5, 4, 1), pair(7, 6, 1), pair(1, 0, 0)
    pads = common.ints(14)
    if int(common.scalar(8, "i8")) == _SAME:
        reach = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
        missing = [(made[2 + i] - 1) * stride[i] + reach[i] - given[2 + i] for i in (0, 1)]
        before = (missing[0] // 2, missing[1] // 2)
    elif len(pads) >= 2:
        before = (pads[0], pads[1])
    return Window(kernel, stride, dilation, before)


def _rounded(real: Floats, low: float, high: float, offset: int) -> Codes:
    """Rounded half away from zero: on x86 half is added in float32 and the rest cut off, ARM has an instruction."""
    limited = np.clip(real, np.float32(low), np.float32(high))
    exact = limited if offset else limited.astype(np.float64)
    return np.trunc(exact + np.where(limited < 0, exact.dtype.type(-0.5), exact.dtype.type(0.5))).astype(np.int64)


def _channels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(1, -1, 1, 1)


def _planes(codes: Codes) -> Codes:
    return codes.reshape(*codes.shape[:2], *(*codes.shape[2:], 1, 1)[:2])
