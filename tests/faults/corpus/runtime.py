"""Section F: models that run otherwise than they look; what depends on the device is not in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from tests.faults.corpus.params_files import W8, healthy
from tests.faults.corpus.plan import Pair, Planted, fault
from tests.faults.corpus.tools import held_out, keep, known, run_tool, source
from tests.faults.factory import FIRST, HIDDEN, LAST, SECOND, Factory

#: Why rows of the catalogue's section F are not built here.
NOT_BUILT: Final = {
    "pymnn-memory-string-ignored": "it is in the application's call of MNN, not in the file; the gate runs its own",
    "lowmem-not-compiled": "it is in how MNN was built for the device; the wheel is built with low memory",
    "backend-fallback": "it is in the application's call of MNN: the wheel has the CPU alone",
    "op-fallback-sandwich": "healthy models have operators without weights that run in float, too; "
    "layers that fall back are convint8-invisible",
    "gpu-ignores-ptq": "it needs a GPU and an MNN that is built for it",
    "dynamic-quant-slower-x86": "it is in the application's call (memory low); the gate times memory normal",
    "arm-slower": "it needs an ARM device: times under emulation say nothing",
    "x86-arm-mismatch": "what ARM's kernels compute can't be run here; the int8 MaxPool, which is known to differ, is "
    "judged on a copy (MNQ710, a warning)",
    "precision-low-unverifiable": "it is in the application's call of MNN: x86 has no low precision",
}
EIGHT: Final = ("--weightQuantBits", "8")


def judged(factory: Factory, model: Path, data: bool = True, options: tuple[str, ...] = ()) -> Planted:
    if data:
        return Planted(factory.onnx(), model, data=factory.evaluation(), options=options)
    return Planted(factory.float(), model, options=options)


# Smaller files that run in float -------------------------------------------------------------------------------------


def runs_float(slug: str, *flags: str, data: bool = True) -> None:
    """Smaller, and taken for int8: MNN computes such layers in float."""

    @fault("F", f"weight-only-runs-float{slug}", "MNQ402", HIDDEN)
    def build(factory: Factory) -> Pair:
        return Pair(judged(factory, factory.convert(factory.onnx(), *flags), data), healthy(factory, data))


runs_float("", *EIGHT)
runs_float("-without-data", *EIGHT, data=False)
runs_float("-four", "--weightQuantBits", "4")
runs_float("-fp16", "--fp16")


# Layers that are int8 in the file only -------------------------------------------------------------------------------


def edited(factory: Factory, slug: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """The int8 model as JSON, changed, and as a model again: both ways by MNN's converter."""
    if (found := known(factory, "edited", slug)) is None:
        target = factory.fresh("net.mnn")
        text = target.with_suffix(".json")
        form = ("--bizCode", "MNN")
        assert run_tool("mnnconvert", "-f", "MNN", "--modelFile", factory.int8(), "--JsonFile", text, *form) == 0
        content = json.loads(text.read_text())
        change(content)
        text.write_text(json.dumps(content))
        assert run_tool("mnnconvert", "-f", "JSON", "--modelFile", text, "--MNNModel", target, *form) == 0
        found = keep(factory, target, "edited", slug)
    return found  # type: ignore[no-any-return]


def through_json(slug: str, code: str, layer: str, change: Callable[[dict[str, Any]], None], data: bool = True) -> None:
    @fault("F", slug, code, layer)
    def build(factory: Factory) -> Pair:
        made, twin = (edited(factory, *one) for one in ((slug, change), ("as it is", lambda _: None)))
        return Pair(judged(factory, made, data), judged(factory, twin, data))


def tensors(content: dict[str, Any], layer: str) -> tuple[int, int]:
    """The input and the output tensor of a layer."""
    (op,) = [op for op in content["oplists"] if op["name"] == layer]
    return op["inputIndexes"][0], op["outputIndexes"][0]


def without_tensors(content: dict[str, Any]) -> None:
    """As tools leave it that do not know `extraTensorDescribe`."""
    content["extraTensorDescribe"] = []


def without_those_of(layer: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        lost = tensors(content, layer)
        kept = [one for one in content["extraTensorDescribe"] if one["index"] not in lost]
        content["extraTensorDescribe"] = kept

    return change


def doubled(layer: str, which: int) -> Callable[[dict[str, Any]], None]:
    """The tensor has another scale than its layer."""

    def change(content: dict[str, Any]) -> None:
        index = tensors(content, layer)[which]
        (found,) = [one for one in content["extraTensorDescribe"] if one["index"] == index]
        found["quantInfo"]["scale"] *= 2

    return change


through_json("convint8-invisible", "MNQ601", HIDDEN, without_tensors)
through_json("convint8-invisible-first-layer", "MNQ416", FIRST, without_those_of(FIRST))
through_json("convint8-invisible-last-layer", "MNQ416", LAST, without_those_of(LAST))
through_json("quant-info-mismatch-log", "MNQ416", SECOND, doubled(SECOND, 0))
through_json("quant-info-mismatch-log-without-data", "MNQ416", HIDDEN, doubled(HIDDEN, 1), data=False)
through_json("quant-info-mismatch-log-input", "MNQ416", FIRST, doubled(FIRST, 0))


# Numbers beyond half precision ---------------------------------------------------------------------------------------


def scaled(factory: Factory, factor: float) -> Path:
    """The net with the weights of a layer multiplied, and what follows it divided: it computes the same."""
    if (found := known(factory, "scaled", factor)) is None:
        net = onnx.load(factory.onnx())
        for tensor in net.graph.initializer:
            scale = {"classifier.2.weight": factor, "classifier.2.bias": factor, "classifier.4.weight": 1 / factor}
            if tensor.name in scale:
                values = onnx.numpy_helper.to_array(tensor) * np.float32(scale[tensor.name])
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        found = keep(factory, factory.fresh("scaled.onnx", net.SerializeToString()), "scaled", factor)
    return found  # type: ignore[no-any-return]


def overflowing(slug: str, factor: float, within: float) -> None:
    """Weights that float32 holds and float16 does not; `within` is a factor that both can take."""

    @fault("F", slug, "MNQ410", HIDDEN)
    def build(factory: Factory) -> Pair:
        nets = [scaled(factory, one) for one in (factor, within)]
        made, twin = (
            Planted(net, factory.convert(net, "--fp16"), data=factory.evaluation(), options=("--mnn-recipe=fp16",))
            for net in nets
        )
        return Pair(made, twin)


overflowing("low-precision-overflow", 1e7, 100)
overflowing("low-precision-overflow-to-zero", 1e-8, 0.01)


# Speed ---------------------------------------------------------------------------------------------------------------


class Kernels(nn.Sequential):
    """3x3 convolutions, which MNN's float kernels compute by Winograd, and its int8 ones on x86 do not."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 48, 3, padding=1), nn.ReLU()]
        for _ in range(4):
            layers += [nn.Conv2d(48, 48, 3, padding=1), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
        return x


@fault("F", "int8-slower-x86", "MNQ901")
def int8_slower_than_float(factory: Factory) -> Pair:
    """MNN's wheels for Linux have no AVX512: on any x86 their int8 kernels are the slower ones."""
    images = np.random.default_rng(0).random((8, 1, 48, 48), np.float32)
    prepared = source(factory, "kernels", Kernels, {"x": images})
    params, data = factory.params(prepared), held_out(factory, "kernels", {"x": images})
    model = factory.convert(prepared.model.path, "--compressionParamsFile", params)
    asked = ("--mnn-max-latency-ratio=1.5", "-k", "latency or coverage")
    made = Planted(prepared.model.path, model, params, data, options=asked)
    weights = factory.convert(prepared.model.path, *EIGHT)
    return Pair(made, Planted(prepared.model.path, weights, data=data, options=(*W8, *asked)))
