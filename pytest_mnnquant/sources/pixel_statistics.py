"""Means and factors that were written for pixels of 0..1, as torchvision's are: MNN applies them to 0..255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics.blocks import sample_blocks

# Standard deviations of ImageNet on 0..1, which no factor of pixels of 0..255 equals by chance.
_DEVIATIONS: Final = (0.229, 0.224, 0.225)
_MEANS: Final = (0.485, 0.456, 0.406)
_NEAR: Final = 0.003
# Of normalized pictures: the number of axes, how far the darkest value may be from black, the least level of white.
_PICTURES: Final = 4
_DARK: Final = 0.35
_BRIGHT: Final = 64
# A factor above this gives values that no network is trained on: of 1/std on 0..1, or std itself on 0..255.
_LARGEST_FACTOR: Final = 1.5
_DEVIATION_OF_PIXELS: Final = 20.0
_WHITE: Final = 255


def wrong_statistics(mean: Sequence[float], normal: Sequence[float]) -> str:
    """Why `(pixel - mean) * normal` can't be intended for pixels of 0..255, with the right numbers; empty if it can."""
    if not mean or not normal:
        return ""
    is_share = all(0 < value <= 1 for value in mean)
    is_deviation = all(_is_deviation(factor) for factor in normal)
    if not (is_share or is_deviation or all(factor > _LARGEST_FACTOR for factor in normal)):
        return ""
    means = [value * _WHITE for value in mean] if is_share else list(mean)
    factors = [_right_factor(factor, is_share=is_share) for factor in normal]
    pairs = list(zip(mean, normal, strict=False))
    low = min(-value * factor for value, factor in pairs)
    high = max((_WHITE - value) * factor for value, factor in pairs)
    return (
        f"the input values would be {low:.4g} to {high:.4g}, since (pixel - mean) * normal is applied to 0..255; these "
        f"numbers are for pixels of 0..1; write mean {_listed(means)} and normal {_listed(factors)}"
    )


def normalized_pixels(array: npt.NDArray[Any]) -> str:
    """Why pictures hold pixels of 0..255 that were normalized for 0..1 by torchvision; empty if they do not.

    The array has shape [samples, 3, height, width] or channels last. Pictures have dark and bright pixels: the least
    value of each channel is near -mean / std, the largest far above the value of a white pixel in 0..1.
    """
    if array.ndim != _PICTURES or 3 not in (array.shape[1], array.shape[3]):
        return ""
    others = (0, 2, 3) if array.shape[1] == 3 else (0, 1, 2)
    ends = [(block.min(others), block.max(others)) for _, (block,) in sample_blocks(array)]
    low, high = np.min([end[0] for end in ends], 0), np.max([end[1] for end in ends], 0)
    black, deviations = -np.array(_MEANS) / _DEVIATIONS, np.array(_DEVIATIONS)
    whitest = high * deviations + _MEANS
    if not (np.abs(low - black) <= _DARK).all() or not ((whitest > _BRIGHT) & (whitest <= _WHITE + 1)).all():
        return ""
    return (
        f"its values are {low.min():.4g} to {high.max():.4g}: torchvision's mean {_listed(_MEANS)} and std "
        f"{_listed(_DEVIATIONS)} are for pixels of 0..1, these pixels are 0..255"
    )


def _is_deviation(factor: float) -> bool:
    return any(abs(factor - known) <= _NEAR for known in _DEVIATIONS)


def _right_factor(factor: float, *, is_share: bool) -> float:
    """The factor for 0..255 of 1/std or std on 0..1, or of std on 0..255; a small one is right already."""
    if factor >= _DEVIATION_OF_PIXELS:
        return 1 / factor
    if factor > _LARGEST_FACTOR:
        return factor / _WHITE
    is_std = _is_deviation(factor) or (is_share and factor >= 0.1)
    return 1 / (factor * _WHITE) if is_std else factor


def _listed(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.5g}" for value in values) + "]"
