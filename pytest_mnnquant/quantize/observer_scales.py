"""The scales of the observers that quantizers put into PyTorch models."""

from __future__ import annotations

import math

import torch
from torch import nn


def _number(module: nn.Module, name: str) -> float | None:
    value = getattr(module, name, None)
    return float(value) if isinstance(value, torch.Tensor) and value.numel() == 1 else None


def has_range(module: nn.Module) -> bool:
    """Whether a module is an observer: it has a scale, or the smallest and largest value it has seen."""
    return isinstance(getattr(module, "scale", None), torch.Tensor) or hasattr(module, "min_val")


def observer_scales(observers: dict[int, nn.Module]) -> dict[int, float]:
    """The scale of each per-tensor observer, or the span of the values that it has seen; by the observer's key."""
    scales = {}
    for key, observer in observers.items():
        scale, low, high = (_number(observer, name) for name in ("scale", "min_val", "max_val"))
        if scale is None and low is not None and high is not None:
            scale = high - low
        if scale is not None and math.isfinite(scale):
            scales[key] = scale
    return scales
