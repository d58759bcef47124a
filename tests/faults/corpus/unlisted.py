"""Section V: more faults on no list, of other networks, recipes and deployments than those of section U."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import TensorQuant, read_model
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from tests.faults.corpus.deployment import APART, weights_of
from tests.faults.corpus.mnnquant import EMA, KL, Made, of_images, of_samples, quantized, retrained
from tests.faults.corpus.mnnquant import images as pictures
from tests.faults.corpus.params_files import FLAG, W8
from tests.faults.corpus.plan import ANY, Pair, Planted, fault
from tests.faults.corpus.tampered import (
    ALPHA,
    BIAS,
    BUFFER,
    QUANTIZED,
    RUN,
    STILL,
    TENSOR_NAMES,
    Copy,
    Edit,
    Healthy,
    Start,
    digits_int8,
    images,
    untold,
    varied,
)
from tests.faults.corpus.tools import held_out, keep, known, source, write_samples
from tests.faults.factory import HIDDEN, LAST, NET, Factory
from tests.smallnets import Words

TRANSFORMER: Final = "tiny_transformer"
GARMENT: Final = "garment_classifier"
MOBILE: Final = "mobile_net"
BITS: Final = "--weightQuantBits"
# Slots of MNN 3.6.1's schema.
INTEGERS, NUMBERS, LOWEST, EPSILON, APART_AT = 5, 7, 8, 1, 6
OPS, SUBGRAPHS, SUBGRAPH_OPS = 3, 10, 4
#: Layers of the networks below.
QUERY, KEY = (f"/blocks/blocks.0/attention/{name}/Add_output_0__matmul_converted" for name in ("query", "key"))
HEADS = "/blocks/blocks.0/attention/Constant_output_0"
NORM, POSITION = "/norm/LayerNormalization_output_0", "position"
FC1 = "/fc1/Gemm_output_0__matmul_converted"
STEM = "/stem/stem.0/stem.0.0/Conv_output_0"
EXCITE = "/blocks/blocks.3/gate/gate/gate.3/Conv_output_0"
DIFFERENCE = "/Sub_output_0"


# Networks and healthy models -----------------------------------------------------------------------------------------


class Beside(nn.Module):
    """Tells what changed between two images of one shape: who is first matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(1, 16, 3, padding=1)
        self.mixed = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24 * 25, 10)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.left(left)) - functional.relu(self.right(right))
        out: torch.Tensor = self.head(functional.relu(self.mixed(x)).flatten(1))
        return out


def two_images(loud: float = 1.0) -> dict[str, npt.NDArray[np.float32]]:
    """Pairs of images; those on the right are `loud` times as bright."""
    random = np.random.default_rng(0)
    shape = (80, 1, 12, 12)
    return {"left": random.random(shape, np.float32), "right": np.float32(loud) * random.random(shape, np.float32)}


def beside(factory: Factory) -> Prepared:
    return source(factory, "beside", Beside, two_images())


def beside_w8(factory: Factory) -> Healthy:
    net = beside(factory).model.path
    return Healthy(net, factory.convert(net, BITS, "8"), None, held_out(factory, "beside", two_images()), W8)


def beside_int8(factory: Factory) -> Healthy:
    """Of the recipe that stores in 8 bits what can't run in int8: here nothing is left to that."""
    net, params = beside(factory), factory.params(beside(factory))
    model = factory.convert(net.model.path, "--compressionParamsFile", params, BITS, "8")
    data = held_out(factory, "beside", two_images())
    return Healthy(net.model.path, model, params, data, ("--mnn-recipe=int8+w8",))


def weights_only(net: str, recipe: str, *flags: str) -> Start:
    def start(factory: Factory) -> Healthy:
        model = factory.convert(factory.float(net), *flags)
        return Healthy(factory.float(net), model, None, factory.evaluation(net), (f"--mnn-recipe={recipe}",))

    return start


def transformer_int8(factory: Factory) -> Healthy:
    model, params = factory.int8(TRANSFORMER), factory.params(TRANSFORMER)
    return Healthy(factory.float(TRANSFORMER), model, params, factory.evaluation(TRANSFORMER))


def varied_fp16_apart(factory: Factory) -> Healthy:
    net = varied(factory).model.path
    return Healthy(net, factory.convert(net, "--fp16", APART), None, images(factory), ("--mnn-recipe=fp16",))


def digits_ema(factory: Factory) -> Healthy:
    made = quantized(factory, of_images(pictures(factory), feature_quantize_method="EMA", batch_size=8))
    return Healthy(factory.onnx(), made.path, None, factory.evaluation(), EMA)


def words() -> dict[str, npt.NDArray[np.int64]]:
    """Sentences in which the last word of the vocabulary of 50 never comes."""
    return {"tokens": np.random.default_rng(0).integers(0, 49, (80, 6))}


def words_w8(factory: Factory) -> Healthy:
    """Embedding tables stay float whatever is asked."""
    net = source(factory, "words", Words, words()).model.path
    options = (*W8, "--mnn-skip-layer=table.weight")
    return Healthy(net, factory.convert(net, BITS, "8"), None, held_out(factory, "words", words()), options)


def probabilities_w8(factory: Factory) -> Healthy:
    """The net of the digits with a Softmax at its end."""
    if (net := known(factory, "probabilities")) is None:
        net = keep(factory, factory.prepared(NET, Probabilities(factory.module(NET).build()).eval()), "probabilities")
    model = factory.convert(net.model.path, BITS, "8")
    return Healthy(net.model.path, model, None, factory.evaluation(), W8)


class Probabilities(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.net(x), 1)


def edited(
    slug: str,
    start: Start,
    code: str,
    layer: str,
    way: str,
    *,
    warnings: tuple[str, ...] = (),
    beside: tuple[tuple[str, str], ...] = (),
) -> Callable[[Edit], Edit]:
    """Plant the decorated edit of a healthy model, to be found with data or from the files alone."""

    def add(edit: Edit) -> Edit:
        @fault("V", slug, code, layer, warnings=warnings, beside=beside)
        def build(factory: Factory) -> Pair:
            healthy = start(factory)
            if (made := known(factory, "unlisted", slug)) is None:
                copy = Copy(read_model(healthy.model))
                edit(copy)
                made = factory.copy(healthy.model)
                made.write_bytes(copy.data)
                keep(factory, made, "unlisted", slug)
            return pair(healthy, made, way)

        return edit

    return add


def pair(healthy: Healthy, made: Path, way: str) -> Pair:
    data = healthy.data if way == RUN else None
    wrong, twin = (
        Planted(healthy.source, one, healthy.params, data, options=healthy.options) for one in (made, healthy.model)
    )
    return Pair(wrong, twin)


# Attention -----------------------------------------------------------------------------------------------------------


@edited("attention-heads", transformer_int8, "MNQ204", HEADS, STILL)
def attention_heads(copy: Copy) -> None:
    """Six heads of 16 instead of four of 24: every shape still fits."""
    shape = copy.array(copy.table(HEADS), INTEGERS, "<i4")
    assert list(shape) == [-1, 9, 4, 24]
    shape[2:] = [6, 16]


@edited("query-and-key-exchanged", weights_only(TRANSFORMER, "w8", BITS, "8"), "MNQ410", QUERY, STILL)
def query_and_key_exchanged(copy: Copy) -> None:
    """Codes, scales and biases, as a list of layers in another order would leave them."""
    parts = [
        [copy.codes(name), copy.array(copy.table(name, QUANTIZED), ALPHA, "<f4"), bias(copy, name)]
        for name in (QUERY, KEY)
    ]
    for ours, theirs in zip(*parts, strict=True):
        ours[:], theirs[:] = theirs.copy(), ours.copy()


@edited("norm-epsilon", transformer_int8, "MNQ204", NORM, STILL)
def norm_epsilon(copy: Copy) -> None:
    """What keeps a norm from dividing by 0 is as large as the variances here."""
    copy.put(copy.table(NORM), EPSILON, "f", 0.1)


@edited("positions-exchanged", transformer_int8, "MNQ410", POSITION, RUN)
def positions_exchanged(copy: Copy) -> None:
    """The first and the last place of the learned positional table, which is float in both models."""
    rows = copy.array(copy.table(POSITION), NUMBERS, "<f4").reshape(9, 96)
    rows[[0, 8]] = rows[[8, 0]].copy()


@fault("V", "scales-of-another-layer", "MNQ410", QUERY)
def scales_of_another_layer(factory: Factory) -> Pair:
    """A params file that lists the weight scales of query and key the wrong way round, and the model made with it."""
    if (path := known(factory, "unlisted", "scales")) is None:
        params = read_params(factory.params(TRANSFORMER))
        scales = {entry.weight.name: entry.weight.scales for entry in params.layers}
        scales[QUERY], scales[KEY] = scales[KEY], scales[QUERY]
        layers = tuple(
            dataclasses.replace(entry, weight=dataclasses.replace(entry.weight, scales=scales[entry.weight.name]))
            for entry in params.layers
        )
        path = keep(factory, factory.fresh("exchanged.bin", b" "), "unlisted", "scales")
        write_params(dataclasses.replace(params, layers=layers), path)
    twin = transformer_int8(factory)
    model = factory.convert(twin.source, FLAG, path)
    return Pair(Planted(twin.source, model, path), Planted(twin.source, twin.model, twin.params))


# Codes of few bits ---------------------------------------------------------------------------------------------------


@edited("code-book", weights_only(GARMENT, "w4", BITS, "4"), "MNQ410", FC1, STILL)
def code_book(copy: Copy) -> None:
    """An entry of the list of codes that the buffer starts with: all that lie below are one step lower."""
    book = copy.array(copy.table(FC1, QUANTIZED), BUFFER, "i1")[6:22]
    assert list(book) == list(range(-8, 8))
    book[8] = -8


@fault("V", "truncated", "MNQ410", FC1)
def truncated(factory: Factory) -> Pair:
    """Codes of the largest layer as a quantizer gives them that cuts where it should round."""
    healthy = weights_only(GARMENT, "w4", BITS, "4")(factory)
    if (made := known(factory, "unlisted", "truncated")) is None:
        floats = read_model(healthy.source)
        (layer,) = [op for op in floats.ops if op.name == FC1]
        weights, copy = floats.decoded(layer), Copy(read_model(healthy.model))
        low, step = copy.array(copy.table(FC1, QUANTIZED), ALPHA, "<f4").reshape(-1, 2, 1).transpose(1, 0, 2)
        packed = copy.array(copy.table(FC1, QUANTIZED), BUFFER, "u1")[-weights.size // 2 :]
        rounded, cut = (change((weights - low) / step).clip(0, 15).astype("u1") for change in (np.rint, np.floor))
        assert (packed == joined(rounded)).mean() > 0.99
        packed[:] = joined(cut)
        made = keep(factory, factory.fresh("net.mnn", bytes(copy.data)), "unlisted", "truncated")
    return pair(healthy, made, RUN)


def joined(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two codes of 4 bits in a byte."""
    first, second = codes.reshape(-1, 2).T
    return np.asarray(first << 4 | second, np.uint8)


@edited("scales-of-two-blocks", weights_only(GARMENT, "w4b32", BITS, "4", "--weightQuantBlock", "32"), "MNQ412", FC1,
        STILL, warnings=("MNQ414",))  # fmt: skip
def scales_of_two_blocks(copy: Copy) -> None:
    """Two of the eight blocks of one channel have each other's minimum and scale."""
    pairs = copy.array(copy.table(FC1, QUANTIZED), ALPHA, "<f4").reshape(120, 8, 2)
    pairs[17, [2, 5]] = pairs[17, [5, 2]].copy()


@edited("lowest-code", weights_only(MOBILE, "w8", BITS, "8"), "MNQ410", EXCITE, STILL)
def lowest_code(copy: Copy) -> None:
    """The code that stands for a channel's minimum: all weights of the layer are shifted by six steps."""
    copy.put(copy.table(EXCITE, QUANTIZED), LOWEST, "i", -122)


@fault("V", "scales-too-large-for-16-bits", "MNQ403", LAST)
def scales_too_large_for_half_precision(factory: Factory) -> Pair:
    """The head answers in units so small that the minima of its weights are infinite as 16-bit floats."""
    wrong, twin = (
        Planted(
            net,
            factory.convert(net, BITS, "8", "--weightQuantScaleBit", "16"),
            data=factory.evaluation(),
            options=("--mnn-recipe=w8-scale16",),
        )
        for net in (in_other_units(factory, factor) for factor in (1e6, 100.0))
    )
    return Pair(wrong, twin)


def in_other_units(factory: Factory, factor: float) -> Path:
    if (found := known(factory, "units", factor)) is None:
        net = onnx.load(factory.onnx())
        for tensor in net.graph.initializer:
            if tensor.name in ("classifier.4.weight", "classifier.4.bias"):
                values = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        found = keep(factory, factory.fresh("units.onnx", net.SerializeToString()), "units", factor)
    return found  # type: ignore[no-any-return]


# Weights in a file of their own --------------------------------------------------------------------------------------


@edited("places-exchanged", varied_fp16_apart, "MNQ410", "/second/Conv_output_0", STILL)
def places_exchanged(copy: Copy) -> None:
    """Where two layers of one shape find their weights in the second file."""
    first, second = (
        copy.array(copy.table(name), APART_AT, "<i8") for name in ("/second/Conv_output_0", "/third/Conv_output_0")
    )
    first[0], second[0] = second[0], first[0]


@fault("V", "half-a-download", "MNQ410", HIDDEN)
def half_a_download(factory: Factory) -> Pair:
    """An update of the weights stopped half-way: the file begins with the new training and ends with the old one."""
    healthy = factory.convert(factory.onnx(), BITS, "8", APART)
    if (made := known(factory, "unlisted", "half")) is None:
        made = keep(factory, factory.copy(healthy), "unlisted", "half")
        new, old = (
            weights_of(one).read_bytes() for one in (healthy, factory.convert(retrained(factory), BITS, "8", APART))
        )
        assert len(new) == len(old)
        weights_of(made).write_bytes(new[: len(new) // 2] + old[len(old) // 2 :])
    return pair(Healthy(factory.onnx(), healthy, None, factory.evaluation(), W8), made, RUN)


# Inputs and outputs --------------------------------------------------------------------------------------------------


@edited("inputs-renamed", beside_w8, "MNQ204", "/left/Conv_output_0", RUN)
def inputs_renamed(copy: Copy) -> None:
    """Each of two inputs of one shape has the other one's name."""
    names = copy.model.tensor_names
    copy.swap_names(TENSOR_NAMES, names.index("left"), names.index("right"))


@edited("minuend-and-subtrahend", beside_int8, "MNQ204", DIFFERENCE, RUN)
def minuend_and_subtrahend(copy: Copy) -> None:
    net = Table.root(memoryview(bytes(copy.data)))
    (difference,) = [op for op in net.tables(OPS) if op.string(3) == DIFFERENCE]
    inputs = copy.array(difference, 0, "<i4")
    inputs[:] = inputs[::-1].copy()


@edited("logits-for-probabilities", probabilities_w8, "MNQ204", "", RUN)
def logits_for_probabilities(copy: Copy) -> None:
    """The output's name stands at what the Softmax takes: the same label wins, but nothing is a probability."""
    (last,) = [op for op in copy.model.ops if op.kind == "Softmax"]
    copy.swap_names(TENSOR_NAMES, last.inputs[0], last.outputs[0])


@edited("batch-of-one", weights_only(TRANSFORMER, "w8", BITS, "8"), "MNQ204", "/Constant_output_0", STILL)
def batch_of_one(copy: Copy) -> None:
    """The batch axis is no longer open, which no run with one image shows."""
    shape = copy.array(copy.table("/Constant_output_0"), INTEGERS, "<i4")
    assert shape[0] == -1
    shape[0] = 1


# Recurrent and embedded ----------------------------------------------------------------------------------------------


@edited("gates-exchanged", words_w8, "MNQ204", "UnaryOp26", RUN)
def gates_exchanged(copy: Copy) -> None:
    """In the loop's body the forget gate takes the values of the input gate, and the other way round."""
    net = Table.root(memoryview(bytes(copy.data)))
    (body,) = net.tables(SUBGRAPHS)
    gates = [op for op in body.tables(SUBGRAPH_OPS) if op.string(3) in ("UnaryOp26", "UnaryOp29")]
    one, other = (copy.array(gate, 0, "<i4") for gate in gates)
    one[:], other[:] = other.copy(), one.copy()


@edited("word-without-a-vector", words_w8, "MNQ410", "table.weight", RUN)
def word_without_a_vector(copy: Copy) -> None:
    """A word of the vocabulary is lost that no sentence of the evaluation data holds."""
    rows = copy.array(copy.table("table.weight"), NUMBERS, "<f4").reshape(50, 12)
    rows[49] = 0


# Activations ---------------------------------------------------------------------------------------------------------


@edited("narrow-range", untold(digits_int8), "MNQ416", HIDDEN, STILL)
def narrow_range(copy: Copy) -> None:
    """The codes that a tensor may have end in the middle; scale and zero point are right."""

    def change(quants: dict[int, TensorQuant]) -> None:
        index = copy.op(HIDDEN).outputs[0]
        quants[index] = dataclasses.replace(quants[index], high=-64.0)

    copy.quantize(change)


def fed(factory: Factory, names: Mapping[str, str]) -> Made:
    """What mnnquant makes of samples that were written under these names."""
    if (folder := known(factory, "fed", *names.values())) is None:
        folder = factory.fresh("samples").parent / "samples"
        write_samples(folder, {names[key]: array[:40] for key, array in two_images(30.0).items()})
        keep(factory, folder, "fed", *names.values())
    shapes = {"left": (4, 1, 12, 12), "right": (4, 1, 12, 12)}
    return quantized(factory, of_samples(folder, shapes), source(factory, "beside", Beside, two_images()).model.path)


@fault("V", "fed-the-other-way-round", "MNQ540", ANY)
def calibrated_with_inputs_exchanged(factory: Factory) -> Pair:
    """mnnquant was given the samples of each of two inputs under the other one's name; one is far brighter."""
    data = held_out(factory, "loud", two_images(30.0))
    models = (fed(factory, names) for names in ({"left": "right", "right": "left"}, {"left": "left", "right": "right"}))
    wrong, twin = (
        Planted(beside(factory).model.path, one.path, data=data, options=KL, status=one.status) for one in models
    )
    return Pair(wrong, twin)


# Biases --------------------------------------------------------------------------------------------------------------


def bias(copy: Copy, name: str) -> npt.NDArray[Any]:
    return copy.array(copy.table(name), BIAS, "<f4")


@edited("biases-off-by-one", digits_ema, "MNQ411", HIDDEN, RUN)
def biases_off_by_one(copy: Copy) -> None:
    """Each channel of a layer has its neighbour's bias, in a model that MNN's tool trained."""
    found = bias(copy, HIDDEN)
    found[:] = np.roll(found, 1)


@edited(
    "first-and-last-layer",
    weights_only(MOBILE, "w8", BITS, "8"),
    "MNQ411",
    STEM,
    RUN,
    beside=(("MNQ412", LAST),),
)
def first_and_last_layer(copy: Copy) -> None:
    """Two faults that have nothing to do with each other: a bias of the first layer, two classes of the last one."""
    first = bias(copy, STEM)
    first[np.abs(first).argmax()] *= -1
    rows, pairs = copy.codes(LAST), copy.array(copy.table(LAST, QUANTIZED), ALPHA, "<f4").reshape(-1, 2)
    for part in (rows, pairs):
        part[[3, 8]] = part[[8, 3]].copy()


@fault("V", "an-earlier-checkpoint", "MNQ411", ANY)
def an_earlier_checkpoint(factory: Factory) -> Pair:
    """A few steps of training at a small rate lie between them: 8-bit weights hardly tell, biases do."""
    if (net := known(factory, "unlisted", "checkpoint")) is None:
        net = keep(factory, factory.prepared(TRANSFORMER, stepped(factory)), "unlisted", "checkpoint")
    healthy = weights_only(TRANSFORMER, "w8", BITS, "8")(factory)
    return pair(healthy, factory.convert(net.model.path, BITS, "8"), STILL)


@functools.cache
def stepped(factory: Factory) -> nn.Module:
    module = factory.module(TRANSFORMER)
    torch.manual_seed(0)
    digits, labels = map(torch.from_numpy, module.digits_data.train(module.SIZE))
    net: nn.Module = module.build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    for _ in range(5):
        batch = torch.randint(len(digits), (64,))
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(digits[batch]), labels[batch]))
        optimizer.step()
    return net.eval()
