"""The layers of a variant as the HTML report lists them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]
#: What became of a layer: how it is called, and whether that is a fault.
STATES: Final = {
    "asked": ("as asked", False),
    "kept": ("float on request", False),
    "float": ("LEFT FLOAT", True),
    "missing": ("MISSING", True),
    "other": ("OTHER PRECISION", True),
    "unwanted": ("QUANTIZED AGAINST REQUEST", True),
}
_FLOATS: Final = ("float32", "sparse float")


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer. `noise` is the error that it adds itself, as a share of its output's energy; None: not measured."""

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
    suspect: bool = False

    @property
    def title(self) -> str:
        """The user's own name for it, where known."""
        return self.module or self.name

    @property
    def word(self) -> str:
        """What became of it."""
        return STATES[self.state][0]

    @property
    def is_fault(self) -> bool:
        """Whether that is not what was asked."""
        return STATES[self.state][1]

    @property
    def noise_key(self) -> str:
        """The error as the page's script reads it; empty where it was not measured."""
        return "" if self.noise is None else "Infinity" if math.isinf(self.noise) else repr(self.noise)

    @property
    def sqnr(self) -> str:
        """The error as people write it."""
        if self.noise is None:
            return "-"
        if not math.isfinite(self.noise):
            return "not finite"
        return f"{-10 * math.log10(self.noise):.1f} dB" if self.noise > 0 else "exact"


def layer_views(variant: Json, portrait: Json, suspect: str | None) -> tuple[LayerView, ...]:
    """The layers of a variant, those of most bytes first."""
    losses = {one["name"]: one for one in portrait.get("accuracy", {}).get("losses", ())}
    found = [_layer(layer, losses.get(layer["name"]), suspect) for layer in variant.get("layers", ())]
    return tuple(sorted(found, key=lambda layer: -layer.bytes))


def _layer(layer: Json, loss: Json | None, suspect: str | None) -> LayerView:
    clipped = None if loss is None else max(loss["clipped_in"], loss["clipped_out"])
    return LayerView(
        name=layer["name"],
        module=layer.get("module") or "",
        op=layer["op"],
        storage=layer["storage"] or "-",
        state=_state(layer),
        weights=layer["weights"],
        float_bytes=layer["float_bytes"],
        bytes=layer["bytes"],
        noise=None if loss is None else noise_of(loss["own_sqnr_db"]),
        clipped=clipped,
        suspect=layer["name"] == suspect,
    )


def noise_of(decibels: float | None) -> float | None:
    """The share of energy that an SQNR in dB stands for."""
    if decibels is None:
        return None
    return math.inf if decibels == -math.inf else 10 ** (-decibels / 10)


def _state(layer: Json) -> str:
    if layer["skipped"]:
        return "kept" if layer["storage"] in (*_FLOATS, None) else "unwanted"
    if layer["quantized"]:
        return "asked"
    if layer["storage"] is None:
        return "missing"
    return "float" if layer["storage"] in _FLOATS else "other"
