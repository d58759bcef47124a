"""Section D: what MNN's converter does otherwise than it was told, and prints Success."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.jobs import Job, run_job
from tests.conftest import TIMEOUT
from tests.faults.corpus.params_files import FLAG, W8, healthy, renamed, weight_only
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, SECOND, Factory

GARMENT, MOBILE = "garment_classifier", "mobile_net"
FC1 = "/fc1/Gemm_output_0__matmul_converted"
BITS = "--weightQuantBits"
#: Why rows of the catalogue's section D are not built here.
NOT_BUILT = {
    "asymmetric-means-symmetric": "`w8` asks for 8 bits, and symmetric weights are that too (`w8-sym` insists)",
    "auto_quant-zero-error": "auto_quant.py is not in the wheel; the flags by which it loses HQQ are hqq-switched-off",
    "overlapping-conversions": "which bytes conversions in one folder take from each other is left to chance",
    "rc0-on-failure-cut-mnn": "what MNN makes of a .mnn that was cut is left to chance: an empty model, or a crash",
    "benchmark-model": "--benchmarkModel leaves an ONNX model's weights as they are in MNN 3.6.1",
}


def known(factory: Factory, key: str, make: Callable[[], Any]) -> Any:
    """What is made once."""
    if ("converter", key) not in factory._known:
        factory._known["converter", key] = make()
    return factory._known["converter", key]


def recipe(name: str) -> tuple[str, ...]:
    return (f"--mnn-recipe={name}",)


def judged(factory: Factory, model: Path, name: str, data: bool = True, net: str = NET) -> Planted:
    """A weight-only model, judged by the recipe that was meant."""
    if data:
        return Planted(factory.onnx(net), model, data=factory.evaluation(net), options=recipe(name))
    return Planted(factory.float(net), model, options=recipe(name))


def raw(output: Path, *arguments: str | Path) -> None:
    """The converter as a script calls it: what it leaves at `output` is what there is, and its exit status is 0."""
    with tempfile.TemporaryDirectory(prefix="raw-", dir=output.parent) as folder:
        given = ["--MNNModel", str(output), "--bizCode", "MNN", *map(str, arguments)]
        run_job(Job("convert", "converting", TIMEOUT, {"arguments": given}), Path(folder))


# Flags that MNN does not know ----------------------------------------------------------------------------------------


def mistyped_params(slug: str, *flags: str, data: bool = True, told: bool = True) -> None:
    """The params file under a flag that MNN does not know; `told`: the gate is given the params file."""
    code = "MNQ305" if told else "MNQ401"

    @fault("D", f"unknown-flag-ignored-{slug}", code, HIDDEN)
    def build(factory: Factory) -> Pair:
        params = factory.params()
        model = factory.convert(factory.float(), *[flag.format(params=params) for flag in flags])
        source = factory.onnx() if data else factory.float()
        evaluation = factory.evaluation() if data else None
        twin = healthy(factory, data)
        return Pair(Planted(source, model, params if told else None, evaluation), twin)


mistyped_params("compressionParams", "--compressionParams", "{params}")
mistyped_params("compressionParams-params-not-given", "--compressionParams", "{params}", data=False, told=False)
mistyped_params("compressParamsFile", "--compressParamsFile", "{params}", data=False)
mistyped_params("upper-case", "--CompressionParamsFile", "{params}", data=False)
mistyped_params("underscores", "--compression_params_file={params}", data=False)
mistyped_params("left-out", data=False)


def mistyped(
    slug: str,
    name: str,
    code: str,
    *flags: str,
    twin: Sequence[str],
    layer: str = HIDDEN,
    named: str = "",
    warnings: tuple[str, ...] = (),
) -> None:
    """A weight-only conversion with these flags, where `twin` were meant (of the recipe `named`, if another)."""

    @fault("D", slug, code, layer, warnings=warnings)
    def build(factory: Factory) -> Pair:
        made, meant = (factory.convert(factory.onnx(), *one) for one in (flags, twin))
        return Pair(judged(factory, made, name), judged(factory, meant, named or name))


EIGHT, FOUR = (BITS, "8"), (BITS, "4")
mistyped("unknown-flag-ignored-weightQuantBit", "w8", "MNQ401", "--weightQuantBit", "8", twin=EIGHT)
mistyped("unknown-flag-ignored-lower-case", "w4", "MNQ401", "--weightquantbits", "4", twin=FOUR)
mistyped("unknown-flag-ignored-quantBits", "w8", "MNQ401", "--quantBits=8", twin=EIGHT)
mistyped("unknown-flag-ignored-FP16", "fp16", "MNQ401", "--FP16", twin=["--fp16"])
mistyped("missing-weightQuantBits-hqq-alone", "w4-hqq", "MNQ401", "--hqq", twin=[*FOUR, "--hqq"])
mistyped(
    "missing-weightQuantBits-block-alone",
    "w8b32",
    "MNQ401",
    "--weightQuantBlock",
    "32",
    twin=[*EIGHT, "--weightQuantBlock", "32"],
    warnings=("MNQ414",),
)
mistyped("missing-weightQuantBits-zero", "w8", "MNQ401", BITS, "0", twin=EIGHT)
mistyped("fp16-swallows-int8", "w8", "MNQ402", "--fp16", *EIGHT, twin=EIGHT)
mistyped("fp16-swallows-int8-four", "w4", "MNQ402", *FOUR, "--fp16", twin=FOUR)
mistyped("bits-clamped-40", "w4", "MNQ402", BITS, "40", twin=FOUR)
mistyped("bits-clamped-1", "w8", "MNQ402", BITS, "1", twin=EIGHT)
mistyped("bits-clamped-16", "fp16", "MNQ402", BITS, "16", twin=["--fp16"])
mistyped("bits-other-number", "w4", "MNQ402", *EIGHT, twin=FOUR)
mistyped("asymmetric-flag-left-out", "w8-sym", "MNQ402", *EIGHT, twin=[*EIGHT, "--weightQuantAsymmetric=0"])
mistyped("hqq-switched-off", "w4-hqq", "MNQ415", *FOUR, "--hqq", "--weightQuantAsymmetric=0", twin=[*FOUR, "--hqq"])
mistyped("hqq-mistyped", "w4-hqq", "MNQ415", *FOUR, "--HQQ", twin=[*FOUR, "--hqq"])
mistyped(
    "scale-bits-mistyped",
    "w8-scale16",
    "MNQ415",
    *EIGHT,
    "--weightQuantScaleBits",
    "16",
    twin=[*EIGHT, "--weightQuantScaleBit", "16"],
)


# Params with no bits beside them -------------------------------------------------------------------------------------


@fault("D", "missing-weightQuantBits", "MNQ303")
def params_of_weights_alone(factory: Factory) -> Pair:
    """What mnncompress's WeightQuantizer writes lists no layer: the bits must be given by hand."""
    params = known(factory, "no layers", lambda: _without_layers(factory))
    model = factory.convert(factory.onnx(), FLAG, params)
    twin = factory.convert(factory.onnx(), FLAG, params, *EIGHT)
    return Pair(Planted(factory.onnx(), model, params, factory.evaluation()), judged(factory, twin, "w8"))


@fault("D", "missing-weightQuantBits-params-not-given", "MNQ401", HIDDEN)
def params_of_weights_alone_that_nobody_mentions(factory: Factory) -> Pair:
    params = known(factory, "no layers", lambda: _without_layers(factory))
    model = factory.convert(factory.onnx(), FLAG, params)
    return Pair(judged(factory, model, "w8"), weight_only(factory))


def _without_layers(factory: Factory) -> Path:
    import dataclasses

    path = factory.fresh("weights.bin")
    write_params(dataclasses.replace(read_params(factory.params()), layers=()), path)
    return path


# What hides layers that the params file missed -----------------------------------------------------------------------


def misnamed(factory: Factory) -> Path:
    """Params with the names of the ONNX graph: those of Linear layers with a ReLU are not MNN's."""

    def make() -> Path:
        found = read_params(factory.params(GARMENT))
        names = {found.layers[2].name: "/Relu_2_output_0", found.layers[3].name: "/Relu_3_output_0"}
        path = factory.fresh("names.bin")
        write_params(found.renamed(names), path)
        return path

    return known(factory, "misnamed", make)  # type: ignore[no-any-return]


def masked(slug: str, *flags: str, data: bool, told: bool, code: str) -> None:
    @fault("D", slug, code, FC1)
    def build(factory: Factory) -> Pair:
        params = misnamed(factory)
        models = [
            factory.convert(factory.float(GARMENT), FLAG, one, *flags) for one in (params, factory.params(GARMENT))
        ]
        evaluation = factory.evaluation(GARMENT) if data else None
        source = factory.onnx(GARMENT) if data else factory.float(GARMENT)
        return Pair(
            Planted(source, models[0], params if told else None, evaluation),
            Planted(source, models[1], factory.params(GARMENT) if told else None, evaluation),
        )


masked("fp16-hides-unmatched", "--fp16", data=True, told=True, code="MNQ304")
masked("fp16-hides-unmatched-params-not-given", "--fp16", data=False, told=False, code="MNQ402")
masked("weightbits-masks-unmatched", *EIGHT, data=True, told=True, code="MNQ304")
masked("weightbits-masks-unmatched-params-not-given", *EIGHT, data=True, told=False, code="MNQ402")
masked("weightbits-masks-unmatched-from-the-file", *EIGHT, data=False, told=False, code="MNQ402")
masked("weightbits4-masks-unmatched", *FOUR, data=False, told=True, code="MNQ304")


# Blocks --------------------------------------------------------------------------------------------------------------


BLOCK = "--weightQuantBlock"


def unblocked(slug: str, name: str, *flags: str, named: str = "") -> None:
    """Blocks that were asked by the recipe, and by these flags not given; 3x3 kernels never have them (a warning)."""
    right = named or name
    bits, _, block = right[1:].partition("b")
    twin = (BITS, bits, BLOCK, block)
    mistyped(f"block-ignored-{slug}", name, "MNQ414", *flags, twin=twin, named=right, warnings=("MNQ414",))


unblocked("flag-mistyped", "w8b32", *EIGHT, "--weightQuantBlok", "32")
unblocked("left-out", "w4b64", *FOUR)
unblocked("other-block", "w8b32", *EIGHT, BLOCK, "64")
unblocked("not-16", "w8b24", *EIGHT, BLOCK, "24", named="w8b32")
unblocked("8", "w8b8", *EIGHT, BLOCK, "8", named="w8b32")
unblocked("does-not-divide", "w8b112", *EIGHT, BLOCK, "112", named="w8b32")


class Chain(nn.Sequential):
    """Modules one after the other, for an input called x as the data of the net have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
        return x


def only_kernels(factory: Factory) -> Prepared:
    """A net of 3x3 convolutions, of which MNN blocks none."""

    def make() -> Prepared:
        torch.manual_seed(0)
        net = Chain(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
        return factory.prepared(NET, net.eval())

    return known(factory, "kernels", make)  # type: ignore[no-any-return]


@fault("D", "block-ignored-kernels", "MNQ414", "/2/Conv_output_0")
def blocks_for_kernels(factory: Factory) -> Pair:
    source = only_kernels(factory).model.path
    model, data = factory.convert(source, *EIGHT, BLOCK, "32"), plain(factory)
    return Pair(
        Planted(source, model, data=data, options=recipe("w8b32")),
        Planted(source, factory.convert(source, *EIGHT), data=data, options=W8),
    )


def plain(factory: Factory) -> Path:
    """Held-out images without labels, for nets that were never trained."""

    def make() -> Path:
        path = factory.fresh("plain.npz")
        np.savez(path, x=factory.module(NET).evaluation()["x"][:100])
        return path

    return known(factory, "plain", make)  # type: ignore[no-any-return]


# Other ways to convert -----------------------------------------------------------------------------------------------


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(16, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(x[:, 0])
        out: torch.Tensor = self.head(states[:, -1])
        return out


def rows(factory: Factory) -> Prepared:
    def make() -> Prepared:
        torch.manual_seed(0)
        return factory.prepared(NET, Rows().eval())

    return known(factory, "rows", make)  # type: ignore[no-any-return]


#: What MNN calls the half of an LSTM in its While body.
RECURRENT = "Convolution23"


def native(slug: str, code: str, layer: str, data: bool) -> None:
    @fault("D", slug, code, layer)
    def build(factory: Factory) -> Pair:
        source = rows(factory).model.path.with_name("float.onnx")
        given = source if data else rows(factory).model.path
        models = [factory.convert(source, *EIGHT, *flags) for flags in (["--useOriginRNNImpl"], [])]
        made, twin = (Planted(given, model, data=plain(factory) if data else None, options=W8) for model in models)
        return Pair(made, twin)


native("native-rnn-float", "MNQ401", RECURRENT, data=True)
native("native-rnn-float-from-the-file", "MNQ401", RECURRENT, data=False)


def other_way(slug: str, code: str, layer: str, *flags: str, data: bool = True) -> None:
    """Eight bits, with a flag more that keeps a layer from them."""
    mistyped(slug, "w8", code, *EIGHT, *flags, twin=EIGHT, layer=layer)


other_way("matmul-kept-as-matmul", "MNQ401", HIDDEN, "--convertMatmulToConv", "0")


@fault("D", "second-conversion-does-nothing", "MNQ402", HIDDEN)
def four_bits_of_a_model_of_eight(factory: Factory) -> Pair:
    eight = factory.convert(factory.onnx(), *EIGHT)
    return Pair(
        judged(factory, factory.convert(eight, *FOUR), "w4"),
        judged(factory, factory.convert(factory.float(), *FOUR), "w4"),
    )


@fault("D", "second-conversion-does-nothing-fp16", "MNQ402", HIDDEN)
def eight_bits_of_a_model_of_halves(factory: Factory) -> Pair:
    halves = factory.convert(factory.onnx(), "--fp16")
    return Pair(judged(factory, factory.convert(halves, *EIGHT), "w8"), weight_only(factory))


@fault("D", "second-conversion-empties-the-layers", "MNQ403", HIDDEN)
def params_for_a_model_of_eight_bits(factory: Factory) -> Pair:
    """MNN finds no float weights, and writes int8 layers without any."""
    eight = factory.convert(factory.float(), *EIGHT)
    model = factory.convert(eight, FLAG, factory.params())
    return Pair(Planted(factory.onnx(), model, data=factory.evaluation()), healthy(factory))


@fault("D", "params-on-large-linear", "MNQ403", "/1/Gemm_output_0__matmul_converted")
def params_on_a_large_linear_straight_from_onnx(factory: Factory) -> Pair:
    def make() -> Prepared:
        torch.manual_seed(0)
        net = Chain(nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        return factory.prepared(NET, net.eval())

    source = known(factory, "wide", make)
    onnx_, params = source.model.path.with_name("float.onnx"), factory.params(source)
    models = [factory.convert(one, FLAG, params) for one in (onnx_, source.model.path)]
    made, twin = (Planted(onnx_, model, params, plain(factory)) for model in models)
    return Pair(made, twin)


# Sparse storage ------------------------------------------------------------------------------------------------------


def pruned(factory: Factory) -> Prepared:
    """The net with nineteen of twenty hidden weights at zero, as pruning leaves them."""

    def make() -> Prepared:
        net = factory.module(NET).build()
        hidden = net.classifier[2]
        with torch.no_grad():
            keep = hidden.weight.abs() >= hidden.weight.abs().flatten().quantile(0.95)
            hidden.weight.mul_(keep)
        return factory.prepared(NET, net)

    return known(factory, "pruned", make)  # type: ignore[no-any-return]


def sparse(slug: str, name: str, code: str, layer: str, flags: Sequence[str], twin: Sequence[str], own: bool) -> None:
    """`own`: judged against the pruned net itself, not against the one that was never pruned."""

    @fault("D", slug, code, layer)
    def build(factory: Factory) -> Pair:
        zeroed = pruned(factory).model.path
        source = zeroed if own else factory.float()
        model = factory.convert(zeroed, *flags)
        meant = factory.convert(source, *twin)
        return Pair(
            Planted(source, model, data=plain(factory), options=recipe(name)),
            Planted(source, meant, data=plain(factory), options=recipe(name)),
        )


SPARSE = "--detectSparseSpeedUp"
sparse("sparse-inflated-ratio", "w8", "MNQ410", HIDDEN, [*EIGHT, SPARSE], EIGHT, own=False)
sparse("sparse-inflated-ratio-dense", "w8", "MNQ410", HIDDEN, EIGHT, EIGHT, own=False)
sparse("sparse-inflated-ratio-float", "w8", "MNQ401", HIDDEN, [SPARSE], [*EIGHT, SPARSE], own=True)


# Failures with exit status 0 -----------------------------------------------------------------------------------------


def unsupported(factory: Factory) -> Path:
    """The net with an operator that MNN does not know."""
    net = onnx.load(factory.onnx())
    first = net.graph.node[0]
    net.graph.node.insert(0, onnx.helper.make_node("Unheard", [first.input[0]], ["odd"], domain="own"))
    first.input[0] = "odd"
    net.opset_import.append(onnx.helper.make_opsetid("own", 1))
    return factory.fresh("unsupported.onnx", net.SerializeToString())


def cut(factory: Factory) -> Path:
    return factory.fresh("cut.onnx", factory.onnx().read_bytes()[:100_000])


def nowhere(factory: Factory) -> Path:
    return factory.folder / "nowhere.onnx"


def nothing(factory: Factory) -> Path:
    return factory.fresh("empty.onnx", b" ")


def older(factory: Factory) -> Path:
    """The int8 model of an earlier training of the net."""

    def make() -> Path:
        net = factory.module(NET).build()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0)
        source = factory.prepared(NET, net)
        return factory.convert(source.model.path, FLAG, factory.params(source))

    return known(factory, "older", make)  # type: ignore[no-any-return]


def left_behind(factory: Factory) -> dict[str, Path | None]:
    """What may lie at the output's place when a conversion writes nothing."""
    return {
        "": None,
        "-old": older(factory),
        "-old-float": factory.float(),
        "-old-net": factory.int8(GARMENT),
    }


def failed(slug: str, source: Callable[[Factory], Path], left: str, code: str, layer: str = "") -> None:
    """A conversion that fails with exit status 0, and what was at the output's place before it."""

    @fault("D", f"rc0-on-failure-{slug}{left}", code, layer)
    def build(factory: Factory) -> Pair:
        def make() -> Path:
            before = left_behind(factory)[left]
            output = factory.copy(before) if before is not None else factory.fresh("net.mnn")
            if before is not None:
                os.utime(output, (1_700_000_000, 1_700_000_000))
            raw(output, "-f", "ONNX", "--modelFile", source(factory), FLAG, factory.params())
            return output

        output = known(factory, f"failed {slug}{left}", make)
        return Pair(Planted(factory.onnx(), output, data=factory.evaluation()), healthy(factory))


failed("missing-input", nowhere, "", "MNQ202")
failed("cut-onnx", cut, "", "MNQ202")
failed("empty-onnx", nothing, "", "MNQ202")
failed("unsupported-op", unsupported, "", "MNQ202")
failed("cut-onnx", cut, "-old", "MNQ410", HIDDEN)
failed("missing-input", nowhere, "-old", "MNQ410", HIDDEN)
failed("unsupported-op", unsupported, "-old-float", "MNQ401", HIDDEN)
failed("cut-onnx", cut, "-old-net", "MNQ203")


@fault("D", "rc0-on-failure-no-folder", "MNQ202")
def a_folder_that_is_not_there(factory: Factory) -> Pair:
    output = factory.folder / "no such folder" / "net.mnn"

    def make() -> Path:
        with tempfile.TemporaryDirectory(dir=factory.folder) as folder:
            given = ["--MNNModel", str(output), "-f", "ONNX", "--modelFile", str(factory.onnx()), "--bizCode", "MNN"]
            run_job(Job("convert", "converting", TIMEOUT, {"arguments": [*given, *EIGHT]}), Path(folder))
        return output

    known(factory, "no folder", make)
    return Pair(Planted(factory.float(), output, options=W8), weight_only(factory, data=False))


# A check of MNN's own that checks nothing ----------------------------------------------------------------------------


def tested(factory: Factory, bits: str, *, reference: bool) -> Path:
    """A conversion with --testdir: the folder holds an input, and what to compare with only where asked."""
    folder = factory.fresh("input.json").parent
    data = factory.module(MOBILE).evaluation()["x"][:1]
    config = {"inputs": [{"name": "x", "shape": list(data.shape)}], "outputs": ["output"]}
    (folder / "input.json").write_text(json.dumps(config))
    np.savetxt(folder / "x.txt", data.reshape(-1))
    if reference:
        np.savetxt(folder / "output.txt", np.zeros(10))
    return factory.convert(factory.onnx(MOBILE), BITS, bits, "--testdir", folder, name=f"w{bits}.mnn")


def untested(slug: str, reference: bool, layer: str) -> None:
    @fault("D", slug, "MNQ701", layer)
    def build(factory: Factory) -> Pair:
        two, eight = (
            known(factory, f"{slug} {bits}", partial(tested, factory, bits, reference=reference)) for bits in "28"
        )
        return Pair(judged(factory, two, "w2", net=MOBILE), judged(factory, eight, "w8", net=MOBILE))


untested("testdir-false-success", reference=False, layer="/stem/stem.0/stem.0.0/Conv_output_0")
untested("testdir-rc0-on-error", reference=True, layer="/stem/stem.0/stem.0.0/Conv_output_0")


__all__ = ["FIRST", "LAST", "NOT_BUILT", "SECOND", "renamed"]
