"""The shape that a chain of PyTorch layers takes, by its first layer with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_PLACES: Final = {1: "length", 2: "height, width", 3: "depth, height, width"}


def expected_shape(model: torch.nn.Module) -> str:
    """The shape that the first layer of an `nn.Sequential` takes, such as (samples, 3, height, width); else empty."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    layers = _chain(model)
    while layers and isinstance(layers[0], nn.Identity | nn.Dropout):
        del layers[0]
    first = layers[0] if layers else None
    if isinstance(first, nn.Flatten) and len(layers) > 1 and isinstance(layers[1], nn.Linear) and first.start_dim == 1:
        return f"(samples, ...) of {layers[1].in_features} values each"
    if isinstance(first, nn.Linear):
        return f"(samples, ..., {first.in_features})"
    if isinstance(first, _ConvNd):
        return f"(samples, {first.in_channels}, {_PLACES[len(first.kernel_size)]})"
    return ""


def _chain(model: torch.nn.Module) -> list[torch.nn.Module]:
    from torch import nn

    if not isinstance(model, nn.Sequential):
        return [model]
    return [layer for item in model for layer in _chain(item)]
