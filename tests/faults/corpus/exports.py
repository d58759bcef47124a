"""Section A: what an export to ONNX makes of a PyTorch model, and params files that do not know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch
from torch import nn

from pytest_mnnquant.mnnfile.params import LayerParams, read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from tests.conftest import FIXTURES
from tests.faults import mnncompress_scripts
from tests.faults.corpus.converter import known, plain
from tests.faults.corpus.mnncompress import HIDDEN as THEIR_HIDDEN
from tests.faults.corpus.mnncompress import bound, finished, pipeline, theirs
from tests.faults.corpus.params_files import FLAG, W8, healthy
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.corpus.tools import run_tool
from tests.faults.factory import HIDDEN, NET, SECOND, Factory

GARMENT, MOBILE = "garment_classifier", "mobile_net"
FOREIGN = Path(__file__).parent.parent / "foreign_quantizers.py"
HALF = ("--mnn-recipe=fp16",)
#: What the heaviest layer is called in the model of the dynamo exporter.
LINEAR = "linear__matmul_converted"
#: Why rows of the catalogue's section A are not built here.
NOT_BUILT = {
    "batchnorm-forces-EMA": "the converter leaves no BatchNorm of an ONNX model: what it can't fold becomes a Scale",
}


def network(factory: Factory, name: str) -> Prepared:
    """One of the networks that mnncompress or MNN leaves something out of, exported by us."""
    return known(factory, f"network {name}", lambda: factory.prepared(NET, mnncompress_scripts.network(name)))  # type: ignore[no-any-return]


def carefully(factory: Factory, name: str) -> tuple[Path, Path]:
    """What mnncompress writes of that network."""
    return theirs(factory, name, pipeline="networks")


# Tensors that have other names in MNN --------------------------------------------------------------------------------


def renamed_output(slug: str, *, told: bool, data: bool) -> None:
    @fault("A", slug, "MNQ304" if told else "MNQ401", "output")
    def build(factory: Factory) -> Pair:
        onnx_, params = carefully(factory, "segmenter")
        right = known(
            factory, "segmenter's names", lambda: with_names(factory, params, {"output": "output__before_tr"})
        )
        source = onnx_ if data else factory.convert(onnx_)
        given = plain(factory) if data else None
        wrong, twin = (
            Planted(source, factory.convert(onnx_, FLAG, one), one if told else None, given) for one in (params, right)
        )
        return Pair(wrong, twin)


def with_names(factory: Factory, params: Path, names: dict[str, str]) -> Path:
    path = factory.fresh("renamed.bin")
    write_params(read_params(params).renamed(names), path)
    return path


renamed_output("conv-output-renamed", told=True, data=True)
renamed_output("conv-output-renamed-params-not-given", told=False, data=True)
renamed_output("conv-output-renamed-from-the-file", told=False, data=False)


@fault("A", "gemm-relu-renamed", "MNQ304", THEIR_HIDDEN)
def linear_layers_with_a_relu(factory: Factory) -> Pair:
    """The network of MNN's issue 2890, calibrated by mnncompress."""
    onnx_, params = theirs(factory, "careful", GARMENT, "just_careful")
    model, data = factory.convert(onnx_, FLAG, params), factory.evaluation(GARMENT)
    twin = Planted(factory.onnx(GARMENT), factory.int8(GARMENT), factory.params(GARMENT), data)
    return Pair(Planted(onnx_, model, params, data), twin)


@fault("A", "gemm-relu-renamed-params-not-given", "MNQ401", THEIR_HIDDEN)
def linear_layers_with_a_relu_untold(factory: Factory) -> Pair:
    onnx_, params = theirs(factory, "careful", GARMENT, "just_careful")
    twin = Planted(factory.float(GARMENT), factory.int8(GARMENT))
    return Pair(Planted(factory.convert(onnx_), factory.convert(onnx_, FLAG, params)), twin)


# Params of one export, model of another ------------------------------------------------------------------------------


def mixed(slug: str, layer: str, *, told: bool = True, data: bool = True, from_dynamo: bool) -> None:
    """Params that were calibrated on one exporter's model, and the model of the other."""

    @fault("A", slug, "MNQ304" if told else "MNQ401", layer)
    def build(factory: Factory) -> Pair:
        script, dynamo = factory.prepared(NET), factory.prepared(NET, exporter="dynamo")
        calibrated, exported = (dynamo, script) if from_dynamo else (script, dynamo)
        evaluation = factory.evaluation() if data else None
        source = exported.model.path.with_name("float.onnx") if data else exported.model.path
        wrong, twin = (
            Planted(source, factory.convert(exported.model.path, FLAG, one), one if told else None, evaluation)
            for one in (factory.params(calibrated), factory.params(exported))
        )
        return Pair(wrong, twin)


mixed("exporter-name-mismatch", HIDDEN, from_dynamo=True)
mixed("exporter-name-mismatch-reversed", LINEAR, from_dynamo=False)
mixed("exporter-name-mismatch-params-not-given", HIDDEN, from_dynamo=True, told=False)
mixed("exporter-name-mismatch-from-the-file", LINEAR, from_dynamo=False, told=False, data=False)


@fault("A", "exporter-name-mismatch-merged-graph", "MNQ304", f"net/{SECOND}")
def a_graph_with_a_prefix(factory: Factory) -> Pair:
    """Joining graphs, as of preprocessing and network, puts a prefix before every name."""

    def make() -> tuple[Path, Path, Path]:
        net, data = onnx.compose.add_prefix(onnx.load(factory.onnx()), "net/"), factory.fresh("data.npz")
        with np.load(factory.evaluation()) as arrays:
            np.savez(data, **{"net/x": arrays["x"], "labels": arrays["labels"]})
        tensors = {name for entry in read_params(factory.params()).layers for name in (entry.name, input_of(entry))}
        right = {name: f"net/{name}" for name in tensors if not name.startswith("ConvertTensor")}
        return factory.fresh("joined.onnx", net.SerializeToString()), with_names(factory, factory.params(), right), data

    joined, right, data = known(factory, "joined", make)
    wrong, twin = (Planted(joined, factory.convert(joined, FLAG, one), one, data) for one in (factory.params(), right))
    return Pair(wrong, twin)


def input_of(entry: LayerParams) -> str:
    assert entry.input is not None
    return entry.input.name


class Wrapper(nn.Module):
    """What many a training framework puts around a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x)
        return out


@fault("A", "exporter-name-mismatch-wrapped", "MNQ304", f"/inner{SECOND}")
def a_network_in_a_wrapper(factory: Factory) -> Pair:
    """All modules have another path there, and all tensors another name."""

    def make() -> Prepared:
        return factory.prepared(NET, Wrapper(factory.module(NET).build()).eval())

    wrapped = known(factory, "wrapped", make)
    source = wrapped.model.path.with_name("float.onnx")
    wrong, twin = (
        Planted(source, factory.convert(wrapped.model.path, FLAG, one), one, factory.evaluation())
        for one in (factory.params(), factory.params(wrapped))
    )
    return Pair(wrong, twin)


@fault("A", "dynamo-export-breaks-mnncompress", "MNQ304", LINEAR)
def the_float_network_exported_instead(factory: Factory) -> Pair:
    """The export of what mnncompress left fails, so the float network is exported, and meets its params file."""
    exported = factory.prepared(NET, exporter="dynamo")
    source, params = exported.model.path.with_name("float.onnx"), bound(factory, "careful")[1]
    data = factory.evaluation()
    return Pair(
        Planted(source, factory.convert(exported.model.path, FLAG, params), params, data),
        finished(factory, "careful"),
    )


@fault("A", "dynamo-export-breaks-mnncompress-aloud", "MNQ101")
def an_export_that_fails(factory: Factory) -> Pair:
    return Pair(pipeline("dynamo_of_the_quantized"), pipeline("careful"))


# Layers that the quantizer does not know -----------------------------------------------------------------------------


def unknown(slug: str, name: str, layer: str, *, told: bool = True) -> None:
    """A network of which mnncompress leaves out a layer and says nothing; ours knows it."""

    @fault("A", slug, "MNQ306" if told else "MNQ401", layer)
    def build(factory: Factory) -> Pair:
        onnx_, params = carefully(factory, name)
        source = network(factory, name)
        float_, ours = source.model.path, factory.params(source)
        data = plain(factory)
        return Pair(
            Planted(onnx_, factory.convert(onnx_, FLAG, params), params if told else None, data),
            Planted(float_.with_name("float.onnx"), factory.convert(float_, FLAG, ours), ours if told else None, data),
        )


unknown("unsupported-module-types-conv1d", "signals", "/3/Conv_output_0")
unknown("unsupported-module-types-conv1d-params-not-given", "signals", "/3/Conv_output_0", told=False)
unknown("unsupported-module-types-reused", "reused", "/Conv_1_output_0")


def recurrent(slug: str, name: str, layer: str) -> None:
    """MNN runs no recurrent layer in int8: whoever knows that asks for its weights only, or to leave it."""

    @fault("A", slug, "MNQ306", layer)
    def build(factory: Factory) -> Pair:
        onnx_, params = carefully(factory, name)
        model, data = factory.convert(onnx_, FLAG, params), plain(factory)
        eight = factory.convert(onnx_, "--weightQuantBits", "8")
        return Pair(Planted(onnx_, model, params, data), Planted(onnx_, eight, data=data, options=W8))


recurrent("unsupported-module-types-lstm", "lstm", "Convolution23")
recurrent("unsupported-module-types-gru", "gru", "Convolution24")


@fault("A", "unsupported-module-types-transposed", "MNQ401", "/2/ConvTranspose_output_0")
def a_transposed_convolution(factory: Factory) -> Pair:
    """Nor does MNN run a transposed convolution in int8."""
    onnx_, params = carefully(factory, "upsampler")
    wrong, twin = (
        Planted(onnx_, factory.convert(onnx_, FLAG, params, *flags), params, plain(factory), options=options)
        for flags, options in (((), ()), (("--weightQuantBits", "8"), ("--mnn-recipe=int8+w8",)))
    )
    return Pair(wrong, twin)


class Mixer(nn.Module):
    """Mixes the rows of an image with a matrix that is no Linear layer: it stands at the left of the product."""

    def __init__(self, linear: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Parameter(0.2 * torch.randn(16, 16))
        self.grow, self.head = nn.Linear(16, 32), nn.Linear(16 * 32, 10)
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x[:, 0]
        if self.linear:
            rows = nn.functional.linear(rows.transpose(1, 2), self.mix).transpose(1, 2)
        else:
            rows = torch.matmul(self.mix, rows)
        out: torch.Tensor = self.head(torch.relu(self.grow(rows)).flatten(1))
        return out


@fault("A", "activation-matmul-float", "MNQ401", "mix")
def a_matrix_at_the_left(factory: Factory) -> Pair:
    """MNN makes a layer of a product with a constant at its right only."""

    def make() -> tuple[Prepared, Prepared]:
        left, right = (factory.prepared(NET, Mixer(linear).eval()) for linear in (False, True))
        return left, right

    wrong, twin = (
        Planted(
            one.model.path.with_name("float.onnx"),
            factory.convert(one.model.path, FLAG, factory.params(one)),
            factory.params(one),
            plain(factory),
        )
        for one in known(factory, "mixers", make)
    )
    return Pair(wrong, twin)


# ONNX models of other tools ------------------------------------------------------------------------------------------


def foreign(factory: Factory, kind: str) -> Path:
    """The net as another tool narrowed it."""

    def make() -> Path:
        images, output = factory.fresh("images.npz"), factory.fresh("net.onnx")
        np.savez(images, x=factory.module(NET).calibration()["x"][:32])
        command = [sys.executable, str(FOREIGN), kind, str(factory.onnx()), str(output), str(images)]
        subprocess.run(command, check=True, capture_output=True)
        return output

    return known(factory, f"foreign {kind}", make)  # type: ignore[no-any-return]


@fault("A", "qdq-onnx-import-convolutions", "MNQ203")
def convolutions_between_casts(factory: Factory) -> Pair:
    """MNN's converter takes the casts as they are, and the weights as floats."""
    model = factory.convert(foreign(factory, "qdq-convolutions"))
    return Pair(Planted(factory.onnx(), model, data=factory.evaluation()), healthy(factory))


def as_source(slug: str, kind: str) -> None:
    """A model that is quantized already, given to be quantized."""

    @fault("A", slug, "MNQ104")
    def build(factory: Factory) -> Pair:
        data = factory.evaluation()
        return Pair(
            Planted(foreign(factory, kind), data=data, options=W8), Planted(factory.onnx(), data=data, options=W8)
        )


as_source("qdq-onnx-import-as-source", "qdq")
as_source("qdq-onnx-import-as-source-convolutions", "qdq-convolutions")
as_source("qdq-onnx-import-as-source-dynamic", "dynamic")
as_source("qdq-onnx-import-as-source-operators", "operators")


def nothing_came(slug: str, kind: str) -> None:
    """The conversion of a model that is quantized already leaves no file, whatever its exit status."""

    @fault("A", slug, "MNQ202")
    def build(factory: Factory) -> Pair:
        def make() -> Planted:
            output = factory.fresh("net.mnn")
            given = ("-f", "ONNX", "--modelFile", foreign(factory, kind), "--MNNModel", output, "--bizCode", "MNN")
            status = run_tool("mnnconvert", *given)
            return Planted(factory.onnx(), output, data=factory.evaluation(), status=status)

        return Pair(known(factory, f"nothing of {kind}", make), healthy(factory))


nothing_came("qdq-onnx-import", "qdq")
nothing_came("qdq-onnx-import-dynamic", "dynamic")
nothing_came("qdq-onnx-import-operators", "operators")


@fault("A", "fp16-onnx-inflates", "MNQ401", HIDDEN)
def halves_made_whole(factory: Factory) -> Pair:
    """The converter makes float32 of an ONNX model in float16, unless told --fp16 again."""
    halves = foreign(factory, "half")
    wrong, twin = (
        Planted(factory.onnx(), factory.convert(halves, *flags), data=factory.evaluation(), options=HALF)
        for flags in ([], ["--fp16"])
    )
    return Pair(wrong, twin)


@fault("A", "fp16-onnx-inflates-as-source", "MNQ401", HIDDEN)
def halves_made_whole_of_their_own_source(factory: Factory) -> Pair:
    halves = foreign(factory, "half")
    wrong, twin = (
        Planted(halves, factory.convert(halves, *flags), data=factory.evaluation(), options=HALF)
        for flags in ([], ["--fp16"])
    )
    return Pair(wrong, twin)


# What calibration does to the caller's model -------------------------------------------------------------------------


@fault("A", "train-mode-mutates-caller", "MNQ410", SECOND)
def statistics_of_noise(factory: Factory) -> Pair:
    """The export has the statistics of the noise it was calibrated on, and so has the caller's own float model."""
    source = f"{FIXTURES / NET}.py:build"
    wrong, twin = (finished(factory, script) for script in ("on_noise_in_train_mode", "careful"))
    return Pair(
        Planted(source, wrong.quantized, wrong.params, factory.evaluation()),
        Planted(source, twin.quantized, twin.params, factory.evaluation()),
    )


@fault("A", "train-mode-mutates-caller-watched", "MNQ504")
def statistics_of_the_calibration_data(factory: Factory) -> Pair:
    return Pair(pipeline("in_train_mode", MOBILE), pipeline("careful", MOBILE))
