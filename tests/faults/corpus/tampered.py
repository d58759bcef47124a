"""Section U: faults on no list. A healthy model is edited by hand after it was made, one number or a few of them."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Model, Op, TensorQuant, read_model
from pytest_mnnquant.mnnfile.quants import with_quants
from pytest_mnnquant.quantize.prepared import Prepared
from tests.faults.corpus.params_files import FLAG
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, SECOND, Factory

# Slots and numbers of MNN 3.6.1's schema.
STRIDE_X, STRIDE_Y, DILATE_X, DILATE_Y, RELU, RELU6, PADS = 4, 5, 6, 7, 12, 13, 14
KERNEL_X, KERNEL_Y, POOL_TYPE = 3, 4, 7
BIAS, QUANTIZED, SYMMETRIC = 2, 3, 4
BUFFER, ALPHA, SCALE_IN = 0, 1, 5
ZERO_OUT, CLAMP_MIN, CLAMP_MAX = 7, 8, 9
OUTPUT_NAMES, TENSOR_NAMES = 4, 7
SUBTRACT, MULTIPLY, AVERAGE, TANH, LARGEST = 1, 2, 1, 30, 4
#: The operators of the net below.
ONE, TWO, THREE = "/first/Conv_output_0", "/second/Conv_output_0", "/third/Conv_output_0"
SUM, POOL, SIGMOID, CONSTANT, TURNED, MEAN = (
    "/Add_output_0",
    "/pool/MaxPool_output_0",
    "/Sigmoid_output_0",
    "/Constant_output_0",
    "/Transpose_output_0",
    "/ReduceMean_output_0",
)


class Copy:
    """The bytes of a model, to be edited where they are."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.data = bytearray(model.path.read_bytes())
        self._net = Table.root(memoryview(bytes(self.data)))

    def op(self, name: str) -> Op:
        (found,) = [op for op in self.model.ops if op.name == name]
        return found

    def table(self, name: str, *slots: int) -> Table:
        """A table of an operator's parameters."""
        found = self.op(name).parameters
        for slot in slots:
            assert found is not None
            found = found.table(slot)
        assert found is not None
        return found

    def put(self, table: Table, slot: int, form: str, value: float) -> None:
        """Overwrite a number."""
        at = table.field(slot)
        assert at, f"slot {slot} is not in the file"
        assert struct.unpack_from(f"<{form}", self.data, at)[0] != value
        struct.pack_into(f"<{form}", self.data, at, value)

    def array(self, table: Table, slot: int, dtype: str) -> npt.NDArray[Any]:
        """A vector of numbers, to write into."""
        at, count = table.span(slot, np.dtype(dtype).itemsize)
        assert count, f"slot {slot} holds no vector"
        return np.frombuffer(self.data, dtype, count, at)

    def codes(self, name: str) -> npt.NDArray[Any]:
        """The 8-bit codes of a layer, a row a channel."""
        count = self.op(name).weights[0].count
        return self.array(self.table(name, QUANTIZED), BUFFER, "u1")[-count:].reshape(self.op(name).shape[0], -1)

    def take(self, name: str, number: int, other: str) -> None:
        """Let input `number` of an operator come from another operator."""
        ops = [one for one in self._net.tables(3) if one.string(3) == name]
        self.array(ops[0], 0, "<i4")[number] = self.op(other).outputs[0]

    def swap_names(self, slot: int, first: int, second: int) -> None:
        """Two names of a list of the net's, the one for the other."""
        at, _ = self._net.span(slot, 4)
        places = (at + 4 * first, at + 4 * second)
        strings = [place + struct.unpack_from("<I", self.data, place)[0] for place in places]
        for place, string in zip(places, reversed(strings), strict=True):
            struct.pack_into("<I", self.data, place, string - place)

    def quantize(self, change: Callable[[dict[int, TensorQuant]], None]) -> None:
        """Describe the tensors otherwise."""
        quants = dict(self.model.tensor_quants)
        change(quants)
        self.data = bytearray(with_quants(bytes(self.data), quants))


Edit = Callable[[Copy], None]


class Varied(nn.Module):
    """Layers of one shape, a sum, a pool, a permutation, a constant, a mean, two outputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second, self.third = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.token = nn.Linear(16, 12)
        self.classes, self.offsets = nn.Linear(12, 10), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.first(x))
        x = x + self.third(torch.relu(self.second(x)))
        x = torch.sigmoid(self.pool(x)) * 0.7
        x = self.token(x.permute(0, 2, 3, 1)).mean((1, 2))
        return self.classes(x), self.offsets(x)


def varied(factory: Factory) -> Prepared:
    """The net, with weights that are large enough for its outputs to hang on its inputs."""
    if ("varied",) not in factory._known:
        torch.manual_seed(0)
        net = Varied()
        with torch.no_grad():
            for layer in (net.first, net.second, net.third, net.token):
                layer.weight.mul_(3)
        factory._known["varied",] = factory.prepared(NET, net.eval())
    return factory._known["varied",]  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class Healthy:
    """A float model, what was made of it, and the images that it is evaluated on."""

    source: Path
    model: Path
    params: Path | None
    data: Path
    options: tuple[str, ...] = ()


Start = Callable[[Factory], Healthy]


def digits_int8(factory: Factory) -> Healthy:
    return Healthy(factory.float(), factory.int8(), factory.params(), factory.evaluation())


def digits_w8(factory: Factory) -> Healthy:
    model = factory.convert(factory.float(), "--weightQuantBits", "8")
    return Healthy(factory.float(), model, None, factory.evaluation(), ("--mnn-recipe=w8",))


def varied_int8(factory: Factory) -> Healthy:
    source = varied(factory)
    params = factory.params(source)
    return Healthy(source.model.path, factory.convert(source.model.path, FLAG, params), params, images(factory))


def untold(start: Start) -> Start:
    """The same, without the params file."""
    return lambda factory: dataclasses.replace(start(factory), params=None)


def varied_w8(factory: Factory) -> Healthy:
    source = varied(factory).model.path
    model = factory.convert(source, "--weightQuantBits", "8")
    return Healthy(source, model, None, images(factory), ("--mnn-recipe=w8",))


def images(factory: Factory) -> Path:
    """Held-out images without labels, for a net that was never trained."""
    if ("images",) not in factory._known:
        path = factory.fresh("images.npz")
        np.savez(path, x=factory.module(NET).evaluation()["x"][:100])
        factory._known["images",] = path
    return factory._known["images",]  # type: ignore[no-any-return]


RUN, STILL, ALONE = "run", "still", "alone"
#: With data; from the files alone, params included; from the model alone.
ASKED: Final = {RUN: "", STILL: "-from-the-files", ALONE: "-from-the-model"}


def edited(slug: str, start: Start, code: str, layer: str, *ways: str) -> Callable[[Edit], Edit]:
    """Plant the decorated edit, and have it looked for in these ways."""

    def add(edit: Edit) -> Edit:
        for way in ways or (RUN, STILL):
            _plant(f"{slug}{ASKED[way]}", start, code, layer, edit, way)
        return edit

    return add


def _plant(slug: str, start: Start, code: str, layer: str, edit: Edit, way: str) -> None:
    @fault("U", slug, code, layer)
    def build(factory: Factory) -> Pair:
        healthy = start(factory)
        key = ("edited", healthy.model, edit.__name__)
        if key not in factory._known:
            copy = Copy(read_model(healthy.model))
            edit(copy)
            path = factory.fresh("net.mnn")
            path.write_bytes(copy.data)
            factory._known[key] = path
        data = healthy.data if way == RUN else None
        params = None if way == ALONE else healthy.params
        made, twin = (
            Planted(healthy.source, model, params, data, options=healthy.options)
            for model in (factory._known[key], healthy.model)
        )
        return Pair(made, twin)


# How a layer is set --------------------------------------------------------------------------------------------------


@edited("stride", varied_int8, "MNQ204", ONE)
def stride(copy: Copy) -> None:
    """The mean at the end takes images of any size."""
    for slot in (STRIDE_X, STRIDE_Y):
        copy.put(copy.table(ONE, 0), slot, "i", 2)


@edited("padding", varied_int8, "MNQ204", TWO)
def padding(copy: Copy) -> None:
    """One row lower, at the same size."""
    pads = copy.array(copy.table(TWO, 0), PADS, "<i4")
    assert list(pads) == [1, 1, 1, 1]
    pads[:] = [0, 1, 2, 1]


@edited("dilation", varied_int8, "MNQ204", THREE)
def dilation(copy: Copy) -> None:
    """With the padding that it needs."""
    copy.put(copy.table(THREE, 0), DILATE_X, "i", 2)
    copy.put(copy.table(THREE, 0), DILATE_Y, "i", 2)
    copy.array(copy.table(THREE, 0), PADS, "<i4")[:] = 2


@edited("relu-removed", digits_w8, "MNQ204", HIDDEN)
def relu_removed(copy: Copy) -> None:
    copy.put(copy.table(HIDDEN, 0), RELU, "B", 0)


@edited("relu-added", varied_int8, "MNQ204", THREE)
def relu_added(copy: Copy) -> None:
    copy.put(copy.table(THREE, 0), RELU, "B", 1)


@edited("relu-added-to-logits", digits_w8, "MNQ204", LAST)
def relu_added_to_logits(copy: Copy) -> None:
    copy.put(copy.table(LAST, 0), RELU, "B", 1)


@edited("relu6-for-relu", varied_w8, "MNQ204", TWO)
def relu6(copy: Copy) -> None:
    copy.put(copy.table(TWO, 0), RELU, "B", 0)
    copy.put(copy.table(TWO, 0), RELU6, "B", 1)


# Weights, biases, scales ---------------------------------------------------------------------------------------------


@edited("weights-swapped", untold(varied_int8), "MNQ410", TWO)
def weights_swapped(copy: Copy) -> None:
    """Of two layers of one shape, codes and scales."""
    parts = [[copy.codes(name), copy.array(copy.table(name, QUANTIZED), ALPHA, "<f4")] for name in (TWO, THREE)]
    for ours, theirs in zip(*parts, strict=True):
        ours[:], theirs[:] = theirs.copy(), ours.copy()


@edited("codes-swapped", varied_w8, "MNQ410", TWO)
def codes_swapped(copy: Copy) -> None:
    first, second = copy.codes(TWO), copy.codes(THREE)
    first[:], second[:] = second.copy(), first.copy()


@edited("scale-doubled", digits_int8, "MNQ305", HIDDEN, RUN, STILL)
def scale_doubled(copy: Copy) -> None:
    copy.array(copy.table(HIDDEN, QUANTIZED), ALPHA, "<f4")[5] *= 2


@edited("scale-doubled", digits_int8, "MNQ412", HIDDEN, ALONE)
def scale_doubled_untold(copy: Copy) -> None:
    copy.array(copy.table(HIDDEN, QUANTIZED), ALPHA, "<f4")[5] *= 2


@edited("scale-negative", digits_w8, "MNQ412", HIDDEN)
def scale_negative(copy: Copy) -> None:
    """Of asymmetric weights, the scale of one channel: [minimum, scale] each."""
    copy.array(copy.table(HIDDEN, QUANTIZED), ALPHA, "<f4")[11] *= -1


@edited("minimum-zeroed", digits_w8, "MNQ412", SECOND)
def minimum_zeroed(copy: Copy) -> None:
    copy.array(copy.table(SECOND, QUANTIZED), ALPHA, "<f4")[6] = 0


@edited("channels-permuted", untold(digits_int8), "MNQ410", SECOND)
def channels_permuted(copy: Copy) -> None:
    """Codes, scales and biases in reverse, as a tool that sorts channels would leave them."""
    table = copy.table(SECOND)
    for part in (copy.codes(SECOND), copy.array(copy.table(SECOND, QUANTIZED), ALPHA, "<f4")):
        part[:] = part[::-1].copy()
    bias = copy.array(table, BIAS, "<f4")
    bias[:] = bias[::-1].copy()


@edited("two-channels-swapped", digits_w8, "MNQ412", SECOND)
def two_channels_swapped(copy: Copy) -> None:
    rows, pairs = copy.codes(SECOND), copy.array(copy.table(SECOND, QUANTIZED), ALPHA, "<f4").reshape(-1, 2)
    for part in (rows, pairs):
        part[[3, 7]] = part[[7, 3]].copy()


@edited("input-channels-swapped", digits_w8, "MNQ410", SECOND)
def input_channels_swapped(copy: Copy) -> None:
    """The order in which a layer takes its inputs."""
    kernels = copy.codes(SECOND).reshape(48, 24, 9)
    kernels[:] = kernels[:, ::-1].copy()


@edited("kernel-flipped", digits_w8, "MNQ410", SECOND)
def kernel_flipped(copy: Copy) -> None:
    """Convolution for cross-correlation."""
    kernels = copy.codes(SECOND).reshape(48, 24, 9)
    kernels[:] = kernels[:, :, ::-1].copy()


@edited("last-rows-zeroed", digits_w8, "MNQ412", HIDDEN)
def last_rows_zeroed(copy: Copy) -> None:
    """What a write that was cut short leaves of the last two channels."""
    copy.codes(HIDDEN)[-2:] = 0


@edited("one-weight-flipped", digits_w8, "MNQ412", LAST)
def one_weight_flipped(copy: Copy) -> None:
    """The highest bit of one code."""
    copy.codes(LAST)[2, 17] ^= 0x80


@edited("bias-zeroed", digits_int8, "MNQ411", LAST, RUN, ALONE)
def bias_zeroed(copy: Copy) -> None:
    copy.array(copy.table(LAST), BIAS, "<f4")[:] = 0


@edited("one-bias-zeroed", digits_int8, "MNQ411", HIDDEN, RUN, STILL)
def one_bias_zeroed(copy: Copy) -> None:
    bias = copy.array(copy.table(HIDDEN), BIAS, "<f4")
    bias[np.abs(bias).argmax()] = 0


@edited("bias-sign", digits_w8, "MNQ411", FIRST)
def bias_sign(copy: Copy) -> None:
    copy.array(copy.table(FIRST), BIAS, "<f4")[:] *= -1


# Activations ---------------------------------------------------------------------------------------------------------


@edited("scale-in", digits_int8, "MNQ305", HIDDEN, RUN, STILL)
def scale_in(copy: Copy) -> None:
    table = copy.table(HIDDEN, QUANTIZED)
    copy.put(table, SCALE_IN, "f", 2 * float(table.scalar(SCALE_IN, "f32")))


@edited("scale-in", digits_int8, "MNQ416", HIDDEN, ALONE)
def scale_in_untold(copy: Copy) -> None:
    """The layer and the tensor that it takes then tell different scales."""
    scale_in(copy)


@edited("tensor-scale", digits_int8, "MNQ416", SECOND, RUN, STILL, ALONE)
def tensor_scale(copy: Copy) -> None:
    """The output's scale as the tensor has it; the layer still tells the old one."""

    def change(quants: dict[int, TensorQuant]) -> None:
        index = copy.op(SECOND).outputs[0]
        quants[index] = dataclasses.replace(quants[index], scale=quants[index].scale / 8)

    copy.quantize(change)


@edited("zero-point", digits_int8, "MNQ416", LAST, RUN, STILL, ALONE)
def zero_point(copy: Copy) -> None:
    def change(quants: dict[int, TensorQuant]) -> None:
        index = copy.op(LAST).outputs[0]
        quants[index] = dataclasses.replace(quants[index], zero=quants[index].zero + 60)

    copy.quantize(change)


@edited("zero-point-of-the-layer", digits_int8, "MNQ305", LAST, RUN, STILL)
def zero_point_of_the_layer(copy: Copy) -> None:
    table = copy.table(LAST, SYMMETRIC)
    copy.put(table, ZERO_OUT, "b", int(table.scalar(ZERO_OUT, "i8")) + 60)


@edited("clamp", digits_int8, "MNQ305", LAST, RUN, STILL)
def clamp(copy: Copy) -> None:
    """As many codes as four bits have."""
    copy.put(copy.table(LAST, SYMMETRIC), CLAMP_MAX, "b", 7)
    copy.put(copy.table(LAST, SYMMETRIC), CLAMP_MIN, "b", -7)


@edited("tensor-not-quantized", digits_int8, "MNQ416", LAST, RUN, ALONE)
def tensor_not_quantized(copy: Copy) -> None:
    """Without a description of its output the layer runs in float."""
    copy.quantize(lambda quants: _drop(quants, copy.op(LAST).outputs[0]))


@edited("input-not-quantized", digits_int8, "MNQ416", FIRST)
def input_not_quantized(copy: Copy) -> None:
    copy.quantize(lambda quants: _drop(quants, copy.op(FIRST).inputs[0]))


@edited("tensor-between-not-quantized", digits_int8, "MNQ416", SECOND)
def tensor_between_not_quantized(copy: Copy) -> None:
    """MNN 3.6.1 takes the scale from the layer then: nothing else is computed by it, but the file is not whole."""
    copy.quantize(lambda quants: _drop(quants, copy.op(SECOND).outputs[0]))


@edited("no-tensor-quantized", digits_int8, "MNQ601", HIDDEN)
def no_tensor_quantized(copy: Copy) -> None:
    copy.quantize(dict.clear)


def _drop(quants: dict[int, TensorQuant], index: int) -> None:
    del quants[index]


# What lies between layers --------------------------------------------------------------------------------------------


@edited("pool-type", digits_int8, "MNQ204", "/features/features.3/MaxPool_output_0")
def pool_type(copy: Copy) -> None:
    copy.put(copy.table("/features/features.3/MaxPool_output_0"), POOL_TYPE, "b", AVERAGE)


@edited("pool-kernel", varied_int8, "MNQ204", POOL)
def pool_kernel(copy: Copy) -> None:
    for slot in (KERNEL_X, KERNEL_Y):
        copy.put(copy.table(POOL), slot, "i", 1)


@edited("sum-to-difference", varied_int8, "MNQ204", SUM)
def sum_to_difference(copy: Copy) -> None:
    copy.put(copy.table(SUM), 0, "i", SUBTRACT)


@edited("sum-to-product", varied_w8, "MNQ204", SUM)
def sum_to_product(copy: Copy) -> None:
    copy.put(copy.table(SUM), 0, "i", MULTIPLY)


@edited("sigmoid-to-tanh", varied_w8, "MNQ204", SIGMOID)
def sigmoid_to_tanh(copy: Copy) -> None:
    copy.put(copy.table(SIGMOID), 0, "i", TANH)


@edited("permutation", varied_w8, "MNQ204", TURNED)
def permutation(copy: Copy) -> None:
    """Rows and columns changed places with channels otherwise; after the mean the shape is another all the same."""
    dims = copy.array(copy.table(TURNED), 0, "<i4")
    assert list(dims) == [0, 2, 3, 1]
    dims[:] = [0, 3, 2, 1]


@edited("mean-to-maximum", varied_w8, "MNQ204", MEAN)
def mean_to_maximum(copy: Copy) -> None:
    copy.put(copy.table(MEAN), 0, "b", LARGEST)


@edited("constant", varied_w8, "MNQ204", CONSTANT)
def constant(copy: Copy) -> None:
    """A factor that stands in the network itself."""
    copy.array(copy.table(CONSTANT), 7, "<f4")[:] = 0.5


@edited("constant-slightly", varied_int8, "MNQ204", CONSTANT)
def constant_slightly(copy: Copy) -> None:
    copy.array(copy.table(CONSTANT), 7, "<f4")[:] = 0.665


@edited("input-redirected", varied_int8, "MNQ204", SUM)
def input_redirected(copy: Copy) -> None:
    """The sum takes the same tensor twice."""
    copy.take(SUM, 0, THREE)


@edited("layer-skipped", varied_w8, "MNQ204", THREE)
def layer_skipped(copy: Copy) -> None:
    """The third layer takes what the second one takes, which then computes for nobody."""
    copy.take(THREE, 0, ONE)


@edited("branch-redirected", varied_w8, "MNQ204", SIGMOID)
def branch_redirected(copy: Copy) -> None:
    """What follows the pool takes what came before it."""
    copy.take(SIGMOID, 0, SUM)


@edited("outputs-reordered", varied_w8, "MNQ204", "")
def outputs_reordered(copy: Copy) -> None:
    """The same values under the same names: who takes outputs by their number gets the other one."""
    copy.swap_names(OUTPUT_NAMES, 0, 1)


@edited("outputs-renamed", varied_w8, "MNQ204", "")
def outputs_renamed(copy: Copy) -> None:
    """The values of each head under the name of the other one."""
    names = copy.model.tensor_names
    copy.swap_names(TENSOR_NAMES, names.index("output"), names.index("output1"))


@edited("heads-redirected", varied_w8, "MNQ204", "output1")
def heads_redirected(copy: Copy) -> None:
    """Each output takes the values of the other one; one of them is then computed before what it takes."""
    first, second = "ConvertTensor73", "ConvertTensor48"
    copy.take("output", 0, second)
    copy.take("output1", 0, first)
