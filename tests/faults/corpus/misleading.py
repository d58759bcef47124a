"""Section H: models whose accuracy looks well, or is lost where nobody looks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pytest_mnnquant.mnnfile.params import LayerParams, read_params, write_params
from pytest_mnnquant.quantize.prepared import Prepared
from tests.faults.corpus.converter import known, plain
from tests.faults.corpus.mnncompress import FIRST as THEIR_FIRST
from tests.faults.corpus.mnncompress import finished
from tests.faults.corpus.mnnquant import EMA, KL, images, of_images, of_samples, quantized, samples
from tests.faults.corpus.params_files import FLAG, healthy
from tests.faults.corpus.plan import ANY, Pair, Planted, fault
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, SECOND, Factory

MOBILE = "mobile_net"
FLOOR = ("--mnn-min-float-accuracy=0.9",)
#: Why rows of the catalogue's section H are not built here.
NOT_BUILT = {
    "unary-table": "mended in MNN: 3.6.1 computes Sigmoid, Tanh, ELU, GELU and HardSwish between int8 layers rightly",
    "reflect": "mended in MNN: 3.6.1 pads between int8 layers rightly",
}


# The quantized model computes as the float one does ------------------------------------------------------------------


def float_all_along(slug: str, made: Callable[[Factory], Path], code: str, layer: str = HIDDEN) -> None:
    """A model in which all labels are met, for another reason than good quantization."""

    @fault("H", f"accuracy-passes-because-float-{slug}", code, layer)
    def build(factory: Factory) -> Pair:
        data = factory.evaluation()
        return Pair(
            Planted(factory.onnx(), made(factory), data=data), Planted(factory.onnx(), factory.int8(), data=data)
        )


def without(factory: Factory, *layers: str) -> Path:
    return factory.convert(factory.float(), FLAG, factory.params(skip=layers))


float_all_along("the-float-file", lambda factory: factory.float(), "MNQ401")
float_all_along("the-heaviest-layer", lambda factory: without(factory, HIDDEN), "MNQ401")
float_all_along("all-but-the-last", lambda factory: without(factory, FIRST, SECOND, HIDDEN), "MNQ401")
float_all_along("halves", lambda factory: factory.convert(factory.float(), "--fp16"), "MNQ402")
float_all_along("weights-alone", lambda factory: factory.convert(factory.float(), "--weightQuantBits", "8"), "MNQ402")


def compared_with_itself(slug: str, source: Callable[[Factory], Path]) -> None:
    """The baseline is not the float model: what both lost, no comparison shows."""

    @fault("H", f"accuracy-passes-because-float-{slug}", "MNQ104", ANY)
    def build(factory: Factory) -> Pair:
        data = factory.evaluation()
        return Pair(
            Planted(source(factory), factory.int8(), data=data), Planted(factory.float(), factory.int8(), data=data)
        )


compared_with_itself("compared-with-itself", lambda factory: factory.int8())
compared_with_itself("compared-with-w8", lambda factory: factory.convert(factory.onnx(), "--weightQuantBits", "8"))


# Metrics that were taken on the wrong data ---------------------------------------------------------------------------


@fault("H", "agreement-metric-misleads", "MNQ540", THEIR_FIRST)
def faint_images_alone(factory: Factory) -> Pair:
    """The quantized model agrees with the float one on its calibration images, which are faint, and on no others."""
    return Pair(finished(factory, "on_faint_images"), finished(factory, "careful"))


def labelled(factory: Factory, name: str, change: Callable[[Any, Any], tuple[Any, Any]]) -> Path:
    """The held-out images and labels, changed."""

    def make() -> Path:
        with np.load(factory.evaluation()) as arrays:
            images, labels = change(arrays["x"], arrays["labels"])
        path = factory.fresh("data.npz")
        np.savez(path, x=images, labels=labels)
        return path

    return known(factory, f"labelled {name}", make)  # type: ignore[no-any-return]


def below_the_floor(slug: str, change: Callable[[Any, Any], tuple[Any, Any]], code: str = "MNQ708") -> None:
    """Data on which the float model is no good either, so that the quantized one loses nothing."""

    @fault("H", f"agreement-metric-misleads-{slug}", code)
    def build(factory: Factory) -> Pair:
        good = healthy(factory)
        data = labelled(factory, slug, change)
        return Pair(
            Planted(good.source, good.quantized, good.params, data, options=FLOOR),
            Planted(good.source, good.quantized, good.params, good.data, options=FLOOR),
        )


below_the_floor("labels-off-by-one", lambda images, labels: (images, (labels + 1) % 10))
below_the_floor("labels-from-one", lambda images, labels: (images, labels + 1), "MNQ721")
below_the_floor("labels-of-another-order", lambda images, labels: (images, labels[::-1]))
below_the_floor("images-upside-down", lambda images, labels: (images[:, :, ::-1], labels))


@fault("H", "agreement-metric-misleads-baseline-spoilt-alike", "MNQ708")
def a_baseline_with_statistics_of_noise(factory: Factory) -> Pair:
    """Calibration in train mode changed the float model as well: both answer the same nonsense."""
    spoilt, careful = finished(factory, "on_noise_in_train_mode"), finished(factory, "careful")
    wrong, twin = (Planted(one.source, one.quantized, one.params, one.data, options=FLOOR) for one in (spoilt, careful))
    return Pair(wrong, twin)


def collapsed(factory: Factory, layer: str, factor: float) -> Path:
    """The int8 net with the range of a layer's output `factor` times too wide."""

    def widened(entry: LayerParams) -> LayerParams:
        if entry.weight.name != layer or entry.output is None:
            return entry
        return dataclasses.replace(entry, output=dataclasses.replace(entry.output, scale=factor * entry.output.scale))

    def make() -> Path:
        params = read_params(factory.params())
        path = factory.fresh("wide.bin", b" ")
        write_params(dataclasses.replace(params, layers=tuple(map(widened, params.layers))), path)
        return path

    return factory.convert(factory.float(), FLAG, known(factory, f"collapsed {layer}", make))


@fault("H", "agreement-metric-misleads-one-class", "MNQ541", LAST, warnings=("MNQ709",))
def one_answer_for_images_of_one_class(factory: Factory) -> Pair:
    """A model that says 0 whatever it sees has a perfect score on images of the digit 0."""

    def zeros(images: Any, labels: Any) -> tuple[Any, Any]:
        del images, labels
        every = factory.module(NET).evaluation()
        chosen = every["labels"] == 0
        return every["x"][chosen], every["labels"][chosen]

    data = labelled(factory, "zeros", zeros)
    model = collapsed(factory, LAST, 2000.0)
    return Pair(Planted(factory.onnx(), model, data=data), Planted(factory.onnx(), factory.int8(), data=data))


# Similarity that comes from what is the same in all samples ----------------------------------------------------------


class Offset(nn.Module):
    """Scores of about a hundred, which differ by little."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(16 * 49, 8)
        with torch.no_grad():
            self.head.bias.fill_(offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


class TwoHeads(nn.Module):
    """Two regressions of one body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten())
        self.first, self.second = nn.Linear(16 * 196, 6), nn.Linear(16 * 196, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return self.first(x), self.second(x)


def prepared(factory: Factory, name: str, make: Callable[[], nn.Module]) -> Prepared:
    return known(factory, f"misleading {name}", lambda: factory.prepared(NET, make().eval()))  # type: ignore[no-any-return]


def int8_of(factory: Factory, source: Prepared, params: Path | None = None) -> Planted:
    params = params or factory.params(source)
    model = factory.convert(source.model.path, FLAG, params)
    return Planted(source.model.path.with_name("float.onnx"), model, params, plain(factory))


@fault("H", "agreement-metric-misleads-common-part", "MNQ702", "output__matmul_converted")
def differences_of_scores_lost(factory: Factory) -> Pair:
    """The cosine is 0.9999, by what all samples share; steps of the output are as wide as what tells them apart."""
    wrong, twin = (
        int8_of(factory, prepared(factory, f"offset {offset}", functools.partial(Offset, offset)))
        for offset in (100.0, 0.0)
    )
    return Pair(wrong, twin)


@fault("H", "agreement-metric-misleads-one-output-of-two", "MNQ540", "output1__matmul_converted")
def one_output_of_two_lost(factory: Factory) -> Pair:
    """A mean over outputs hides that one of them is clipped."""
    source = prepared(factory, "heads", TwoHeads)

    def make() -> Path:
        params = read_params(factory.params(source))
        path = factory.fresh("narrow.bin", b" ")
        write_params(dataclasses.replace(params, layers=tuple(map(narrowed, params.layers))), path)
        return path

    def narrowed(entry: LayerParams) -> LayerParams:
        output = entry.output
        if output is None or not output.name.startswith("output1"):
            return entry
        return dataclasses.replace(entry, output=dataclasses.replace(output, scale=0.05 * output.scale))

    return Pair(int8_of(factory, source, known(factory, "narrow", make)), int8_of(factory, source))


# Architectures that lose more than others ----------------------------------------------------------------------------


def stretched(factory: Factory, factor: float) -> Prepared:
    """The net with a channel that is `factor` times as loud, and a next layer that knows it: it computes the same."""

    def make() -> nn.Module:
        net: nn.Module = factory.module(NET).build()
        norm, after = net.get_submodule("features.1"), net.get_submodule("features.4")
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(after, nn.Conv2d)
        with torch.no_grad():
            norm.weight[:4] *= factor
            norm.bias[:4] *= factor
            after.weight[:, :4] /= factor
        return net

    return prepared(factory, f"stretched {factor}", make)


@fault("H", "sensitive-architectures", "MNQ701", SECOND)
def channels_of_different_loudness(factory: Factory) -> Pair:
    wrong, twin = (int8_of(factory, stretched(factory, factor)) for factor in (300.0, 1.0))
    data = factory.evaluation()
    return Pair(
        Planted(wrong.source, wrong.quantized, wrong.params, data),
        Planted(twin.source, twin.quantized, twin.params, data),
    )


def few_bits(slug: str, bits: str, layer: str) -> None:
    """Depthwise convolutions do not bear what others do."""

    @fault("H", slug, "MNQ701", layer)
    def build(factory: Factory) -> Pair:
        wrong, twin = (
            Planted(
                factory.onnx(MOBILE),
                factory.convert(factory.onnx(MOBILE), "--weightQuantBits", number),
                data=factory.evaluation(MOBILE),
                options=(f"--mnn-recipe=w{number}",),
            )
            for number in (bits, "8")
        )
        return Pair(wrong, twin)


few_bits("sensitive-architectures-two-bits", "2", ANY)


class Branches(nn.Module):
    """Two branches, joined; the second is `factor` times as loud, and weighted that much less."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near, self.far = nn.Conv2d(1, 16, 3), nn.Conv2d(1, 16, 3)
        self.join, self.head = nn.Conv2d(32, 16, 3, stride=2), nn.Linear(16 * 36, 8)
        with torch.no_grad():
            self.far.weight *= factor
            assert self.far.bias is not None
            self.far.bias *= factor
            self.join.weight[:, 16:] /= factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([torch.relu(self.near(x)), torch.relu(self.far(x))], 1)
        out: torch.Tensor = self.head(torch.relu(self.join(x)).flatten(1))
        return out


def branches(factory: Factory, factor: float) -> Prepared:
    return prepared(factory, f"branches {factor}", lambda: Branches(factor))


@fault("H", "concat-scale-collapse", "MNQ541", "/near/Conv_output_0")
def branches_of_different_loudness(factory: Factory) -> Pair:
    """mnnquant gives all inputs of a concat one scale: that of the loudest."""

    def planted(factor: float) -> Planted:
        source = branches(factory, factor).model.path
        made = quantized(factory, of_samples(samples(factory)), source)
        return Planted(source.with_name("float.onnx"), made.path, data=plain(factory), options=KL)

    return Pair(planted(500.0), planted(1.0))


@fault("H", "concat-scale-collapse-ours", "MNQ702", "/join/Conv_output_0")
def branches_of_different_loudness_in_one_tensor(factory: Factory) -> Pair:
    """However it is calibrated: a joined tensor has one scale."""
    wrong, twin = (int8_of(factory, branches(factory, factor)) for factor in (500.0, 1.0))
    return Pair(wrong, twin)


class Sloped(nn.Module):
    """Convolutions with a PReLU between them, of one slope or of one a channel."""

    def __init__(self, slopes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.PReLU(slopes), nn.Conv2d(16, 16, 3, stride=2))
        self.head = nn.Linear(16 * 49, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.body(x)).flatten(1))
        return out


@fault("H", "PReLU", "MNQ702", "/body/body.1/PRelu_output_0")
def slopes_of_channels(factory: Factory) -> Pair:
    """Of what a PReLU with a slope a channel is lowered to, mnnquant makes something else."""

    def planted(slopes: int) -> Planted:
        source = prepared(factory, f"slopes {slopes}", lambda: Sloped(slopes)).model.path
        made = quantized(factory, of_samples(samples(factory)), source)
        return Planted(source.with_name("float.onnx"), made.path, data=plain(factory), options=KL)

    return Pair(planted(16), planted(1))


@fault("H", "EMA-collapse", "MNQ541", ANY)
def a_moving_average_of_raw_pixels(factory: Factory) -> Pair:
    """EMA calibrates on 0..255 where the other methods' configuration had a normal."""

    def planted(**changes: Any) -> Planted:
        made = quantized(factory, of_images(images(factory), feature_quantize_method="EMA", **changes))
        return Planted(factory.onnx(), made.path, data=factory.evaluation(), options=EMA, status=made.status)

    return Pair(planted(normal=[1.0]), planted(batch_size=8))
