"""From the ranges of a model's tensors to the params file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import ActivationParams, LayerParams, Params, WeightParams, write_params
from pytest_mnnquant.quantize.propagation import Propagated

# Codes -127..127 as mnncompress uses them: symmetric kernels never see -128.
LOWEST, HIGHEST = -127, 127
CODES = HIGHEST - LOWEST
_SMALLEST_SCALE = 1e-8


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value seen in a tensor. `symmetric`: its zero point must be 0 (see `propagation`)."""

    low: float
    high: float
    symmetric: bool = False

    def merged(self, other: Range) -> Range:
        """The range of both."""
        return Range(min(self.low, other.low), max(self.high, other.high), self.symmetric or other.symmetric)

    def affine(self) -> tuple[float, int]:
        """(scale, zero point) that map the range, widened to hold 0, onto codes -127..127.

        scale = (high - low) / 254, zero point = round(-low / scale) - 127 (mnncompress 0.3.2, LSQ_quantizer.py);
        symmetric: scale = max(|low|, |high|) / 127, zero point = 0.
        """
        if self.symmetric:
            return max(abs(self.low), abs(self.high), HIGHEST * _SMALLEST_SCALE) / HIGHEST, 0
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        # In float32, as in mnncompress, which gives the same scales and zero points.
        scale = max((np.float32(high) - np.float32(low)) / np.float32(CODES), np.float32(_SMALLEST_SCALE))
        zero = np.rint(np.float32(-low) / scale + np.float32(LOWEST))
        return float(scale), int(np.clip(zero, LOWEST, HIGHEST))


def widen_ranges(ranges: dict[int, Range], links: tuple[Propagated, ...]) -> dict[int, Range]:
    """The ranges for the params file: wide and symmetric enough for the tensors that MNN propagates them to."""
    widened = dict(ranges)
    for link in links:
        if link.tensor in widened:
            merged = widened[link.tensor].merged(ranges.get(link.output, widened[link.tensor]))
            widened[link.tensor] = dataclasses.replace(merged, symmetric=link.clamps_at_zero)
    return widened


def make_params(
    model: Model,
    layers: tuple[Op, ...],
    ranges: dict[int, Range],
    inner: dict[str, tuple[Range, Range]] | None = None,
) -> Params:
    """Params for `layers`, from the ranges of their input and output tensors (by tensor index).

    `inner` gives the ranges of layers in the bodies of loops by name, since their tensors are numbered separately.
    """

    def activation(name: str, seen: Range) -> ActivationParams:
        scale, zero = seen.affine()
        return ActivationParams(name, scale, zero, clamp_min=LOWEST, clamp_max=HIGHEST)

    def layer(op: Op, before: Range, after: Range) -> LayerParams:
        scales = weight_scales(model.decoded(op))
        weight = WeightParams(op.name, tuple(scales.tolist()), clamp_min=LOWEST, clamp_max=HIGHEST)
        return LayerParams(weight, activation(op.input_names[0], before), activation(op.output_names[0], after))

    entries = [layer(op, ranges[op.inputs[0]], ranges[op.outputs[0]]) for op in layers]
    entries += [layer(op, *inner[op.name]) for op in model.layers if inner and op.subgraph and op.name in inner]
    return Params(tuple(entries), model.uuid)


def weight_scales(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Symmetric 8-bit scale of each channel, max |w| / 127; `weights` has shape [channels, n]."""
    return np.maximum(np.abs(weights).max(1) / HIGHEST, _SMALLEST_SCALE)  # type: ignore[no-any-return]


def save_params(params: Params, path: Path) -> Path:
    """Write the params file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_params(params, path)
    return path
