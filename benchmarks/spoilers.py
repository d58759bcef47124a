"""Quantized models that were made wrong on purpose, with MNN's real tools: one thing in each.

Of a healthy variant, the params file with one layer changed, or the stored scales of one layer; of the network, other
weights or another order of outputs.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from architectures import Architecture
from torch import Tensor, nn

from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, read_params, write_params
from pytest_mnnquant.quantize.described_tensors import describe_tensors
from pytest_mnnquant.quantize.job import FLOAT_NAME, MODEL_NAME, PARAMS_NAME
from pytest_mnnquant.quantize.prepare_pytorch import export_float
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Observer
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.pytorch import ExportOptions

TIMEOUT: Final = 120.0
_EXPORTED: Final = 64
_ENORMOUS: Final = 1e6
_QUANTIZATION, _SCALES = 3, 1  # Slots of Convolution2D.quanParameter and of its alpha.


@dataclass(frozen=True)
class Spoilt:
    """A model file made wrong. `layers` are those that were spoilt, by the float model's names; none: the whole model.

    `recipe` is what the file claims to be.
    """

    what: str
    recipe: str
    model: Path
    params: Path | None = None
    layers: tuple[str, ...] = ()


class Both(nn.Module):
    """Two outputs: the logits of an image, and of its transpose; `swapped` gives them in the other order."""

    def __init__(self, network: nn.Module, swapped: bool) -> None:
        super().__init__()
        self.network, self.swapped = network, swapped

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of both."""
        logits, others = self.network(x), self.network(x.transpose(2, 3))
        return (others, logits) if self.swapped else (logits, others)


def chosen(layers: Sequence[Any]) -> list[Any]:
    """The first, a middle and the last one, each once."""
    places = dict.fromkeys((0, len(layers) // 2, len(layers) - 1))
    return [layers[place] for place in places if layers]


# By the params file --------------------------------------------------------------------------------------------------

Change = Callable[[ActivationParams], ActivationParams]


def scaled(factor: float) -> Change:
    """A tensor's scale, multiplied by `factor`."""
    return lambda tensor: dataclasses.replace(tensor, scale=tensor.scale * factor)


def shifted(tensor: ActivationParams) -> ActivationParams:
    """The zero point off by 20, to where there is room."""
    zero = tensor.zero_point
    return dataclasses.replace(tensor, zero_point=zero + 20 if zero + 20 <= 127 else zero - 20)


def with_tensor(params: Params, name: str, change: Change) -> Params:
    """The params with one tensor changed wherever it is listed: as an output, and as the input of the next layers."""

    def side(tensor: ActivationParams | None) -> ActivationParams | None:
        return change(tensor) if tensor is not None and tensor.name == name else tensor

    layers = (dataclasses.replace(one, input=side(one.input), output=side(one.output)) for one in params.layers)
    return dataclasses.replace(params, layers=tuple(layers))


def with_weight_scales(params: Params, layer: LayerParams, factor: float) -> Params:
    """The params with one layer's weight scales multiplied by `factor`."""
    scales = tuple(scale * factor for scale in layer.weight.scales)
    other = dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, scales=scales))
    return dataclasses.replace(params, layers=tuple(other if one is layer else one for one in params.layers))


def by_params(healthy: VariantUnderTest, folder: Path) -> Iterator[Spoilt]:
    """The `int8` variant quantized again, each time with another thing changed in its params file.

    The tensors that MNN's propagation gets wrong are described, as in the variant, so that only one thing is wrong.
    """
    variant, prepared = healthy.variant, healthy.source.prepared
    assert variant.params is not None
    assert prepared.data is not None
    data, options = prepared.data, prepared.options(TIMEOUT)
    params, base = read_params(variant.params), variant.base
    by_output = {op.output_names[0]: op.name for op in base.convolutions}

    def made(what: str, changed: Params, *layers: str) -> Spoilt:
        path = folder / f"params{len(list(folder.iterdir()))}"
        path.mkdir()
        write_params(changed, path / PARAMS_NAME)
        convert(base.path, path / MODEL_NAME, ("--compressionParamsFile", str(path / PARAMS_NAME)), timeout=TIMEOUT)
        describe_tensors(path / MODEL_NAME, base, {}, data, options, Observer())
        return Spoilt(what, healthy.recipe.name, path / MODEL_NAME, path / PARAMS_NAME, layers)

    entries = [one for one in params.layers if one.output is not None and one.output.name in by_output]
    outputs = [(one.output.name, by_output[one.output.name], one) for one in entries if one.output]
    for tensor, name, entry in chosen(outputs):
        yield made("output scale x 0.25", with_tensor(params, tensor, scaled(0.25)), name)
        yield made("weight scales x 0.25", with_weight_scales(params, entry, 0.25), name)
    (_, first, entry), (middle, name, _), (last, head, _) = outputs[0], outputs[len(outputs) // 2], outputs[-1]
    yield made("weight scales x 4", with_weight_scales(params, entry, 4.0), first)
    yield made("output scale x 4", with_tensor(params, last, scaled(4.0)), head)
    yield made("zero point off by 20", with_tensor(params, middle, shifted), name)
    yield made("output scale infinite", with_tensor(params, middle, scaled(math.inf)), name)
    for tensor, layer in ((middle, name), (last, head)):
        yield made(f"output scale x {_ENORMOUS:g}", with_tensor(params, tensor, scaled(_ENORMOUS)), layer)
    # The first layer's input is the model's.
    assert entry.input is not None
    fed = [layer for _, layer, one in outputs if one.input and one.input.name == entry.input.name]
    for factor in (0.25, 0.1):
        yield made(f"input scale x {factor:g}", with_tensor(params, entry.input.name, scaled(factor)), *fed)


# By the stored weights -----------------------------------------------------------------------------------------------


def with_stored_scales(model: Model, op: Op, factor: float, path: Path) -> Path:
    """Write a copy of the model with the stored scales of one layer multiplied by `factor`; the codes stay."""
    assert op.parameters is not None
    quantization = op.parameters.table(_QUANTIZATION)
    assert quantization is not None
    start, count = quantization.span(_SCALES, 4)
    assert count, f"{op.name} stores no float32 scales"
    data = bytearray(model.path.read_bytes())
    data[start : start + 4 * count] = (quantization.array(_SCALES, "<f4") * factor).astype("<f4").tobytes()
    path.write_bytes(data)
    return path


def by_stored_scales(healthy: VariantUnderTest, folder: Path) -> Iterator[Spoilt]:
    """A weight-only variant with the scales of one layer wrong in the file."""
    pairs = [(a, b) for a, b in healthy.files.match.pairs if a.is_convolution and b.weights[0].bits == 8]
    for (base, stored), factor in zip(chosen(pairs), (4.0, 0.25, 4.0), strict=False):
        path = folder / f"stored{len(list(folder.iterdir()))}.mnn"
        with_stored_scales(healthy.model, stored, factor, path)
        yield Spoilt(f"stored scales x {factor:g}", healthy.recipe.name, path, None, (base.name,))


# By the network ------------------------------------------------------------------------------------------------------


class Exporter:
    """Exports networks and quantizes them as a pipeline does that never looks at them."""

    def __init__(self, data: Dataset, batched: bool, folder: Path) -> None:
        self._data, self._batched = Dataset(data.head(_EXPORTED)), batched
        self._folder = folder

    def made(self, network: nn.Module, recipe: str, params: Path | None = None) -> Path:
        """The network's `.mnn`, quantized by the flags of `recipe`, or with the params file of an earlier export."""
        folder = self._folder / f"exported{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        options = ExportOptions(type(network).__name__, dynamic=self._batched)
        export_float(network, self._data, folder, options, TIMEOUT)
        flags = recipe_named(recipe).flags if params is None else ("--compressionParamsFile", str(params))
        convert(folder / FLOAT_NAME, folder / MODEL_NAME, flags, timeout=TIMEOUT)
        return folder / MODEL_NAME


def with_weights(network: nn.Module, module: str, change: Callable[[nn.Module], None]) -> nn.Module:
    """A copy of the network with the parameters of one module changed."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        change(other.get_submodule(module))
    return other


def zero_largest_channel(module: Any) -> None:
    """Set the weights of an output channel to zero: of the one that has the largest."""
    channels = module.weight.flatten(1).abs().sum(1)
    module.weight[int(channels.argmax())] = 0


def spoil_bias(module: Any) -> None:
    """One element of the bias becomes NaN."""
    module.bias[0] = math.nan


def by_weights(healthy: VariantUnderTest, network: nn.Module, exporter: Exporter) -> Iterator[Spoilt]:
    """Networks with a channel zeroed or a NaN in one layer; of the `int8` variant `healthy` the modules are known."""
    modules = dict(network.named_modules())
    order = {op.name: place for place, op in enumerate(healthy.variant.base.convolutions)}
    known = [(name, module) for name, module in healthy.variant.modules.items() if module in modules and name in order]
    layers = [one for one in sorted(known, key=lambda one: order[one[0]]) if hasattr(modules[one[1]], "weight")]
    for name, module in chosen(layers):
        path = exporter.made(with_weights(network, module, zero_largest_channel), "w8")
        yield Spoilt("a channel zeroed", "w8", path, None, (name,))
    biased = [one for one in layers if getattr(modules[one[1]], "bias", None) is not None]
    for (name, module), recipe in zip(chosen(biased)[-2:], ("w8", "int8"), strict=False):
        params = healthy.variant.params if recipe == "int8" else None
        path = exporter.made(with_weights(network, module, spoil_bias), recipe, params)
        yield Spoilt("a NaN in the bias", recipe, path, params, (name,))


def of_another_epoch(architecture: Architecture, folder: Path, exporter: Exporter) -> Iterator[Spoilt]:
    """The network as it was early in training."""
    early = dataclasses.replace(architecture, weights=None, epochs=2).trained(folder)
    yield Spoilt("weights of epoch 2", "w8", exporter.made(early, "w8"))


def of_fewer_bits(exporter: Exporter, network: nn.Module) -> Iterator[Spoilt]:
    """4 bits instead of the requested 8."""
    yield Spoilt("4 bit", "w8", exporter.made(network, "w4"))


def with_outputs_swapped(network: nn.Module, exporter: Exporter) -> Iterator[Spoilt]:
    """Of `Both`, exported with its outputs in the other order under the same names."""
    yield Spoilt("outputs swapped", "w8", exporter.made(Both(network, swapped=True).eval(), "w8"))
