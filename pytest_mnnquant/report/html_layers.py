"""The layers of a variant as the HTML report lists them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, LayerLossMetrics
from pytest_mnnquant.report.variant_report import LayerReport, VariantReport

#: The state of a layer: its text, and whether it is a fault.
STATES: Final = {
    "requested": ("as requested", False),
    "kept": ("float on request", False),
    "float": ("LEFT FLOAT", True),
    "missing": ("MISSING", True),
    "other": ("OTHER PRECISION", True),
    "unwanted": ("QUANTIZED AGAINST REQUEST", True),
}
_FLOATS: Final = ("float32", "sparse float")


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer. `noise` is the error that the layer adds, as a share of its output's energy; None: not measured.

    `clipped` is the largest share of its input or output values outside of the codes' range, in [0, 1].
    """

    name: str
    module: str
    op: str
    storage: str
    state: str
    weights: int
    float_bytes: int
    bytes: int
    noise: float | None = None
    clipped: float | None = None
    is_suspect: bool = False

    @property
    def title(self) -> str:
        """The layer's name in the user's model, if it is known."""
        return self.module or self.name

    @property
    def word(self) -> str:
        """The state of the layer, as text."""
        return STATES[self.state][0]

    @property
    def is_fault(self) -> bool:
        """Whether the layer is not stored as requested."""
        return STATES[self.state][1]

    @property
    def noise_key(self) -> str:
        """The error as the sort key of the page's script; empty if it was not measured."""
        return "" if self.noise is None else "Infinity" if math.isinf(self.noise) else repr(self.noise)

    @property
    def sqnr(self) -> str:
        """The error in dB as text."""
        if self.noise is None:
            return "-"
        if not math.isfinite(self.noise):
            return "not finite"
        return f"{-10 * math.log10(self.noise):.1f} dB" if self.noise > 0 else "exact"


def layer_views(variant: VariantReport) -> tuple[LayerView, ...]:
    """The layers of a variant, the largest first."""
    losses = {loss.name: loss for loss in variant.charts.losses}
    accuracy = variant.metrics(AccuracyMetrics)
    suspect = accuracy.suspect if accuracy else None
    views = [_layer(layer, losses.get(layer.name), suspect) for layer in variant.layers]
    return tuple(sorted(views, key=lambda view: -view.bytes))


def _layer(layer: LayerReport, loss: LayerLossMetrics | None, suspect: str | None) -> LayerView:
    return LayerView(
        name=layer.name,
        module=layer.module or "",
        op=layer.op,
        storage=layer.storage or "-",
        state=_state(layer),
        weights=layer.weights,
        float_bytes=layer.float_bytes,
        bytes=layer.bytes,
        noise=None if loss is None else noise_of(loss.own_sqnr_db),
        clipped=None if loss is None else max(loss.clipped_in, loss.clipped_out),
        is_suspect=layer.name == suspect,
    )


def noise_of(decibels: float) -> float:
    """The share of energy that an SQNR in dB means."""
    return math.inf if decibels == -math.inf else 10 ** (-decibels / 10)


def _state(layer: LayerReport) -> str:
    if layer.skipped:
        return "kept" if layer.storage in (*_FLOATS, None) else "unwanted"
    if layer.quantized:
        return "requested"
    if layer.storage is None:
        return "missing"
    return "float" if layer.storage in _FLOATS else "other"
