"""The figures of a variant that are kept: what one run measured, and what was accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final


@dataclass(frozen=True)
class Figures:
    """One variant in one run; None is what was not measured.

    `size` and `float_size` are bytes. `accuracy` is the task metric named by `metric`, or, where there is none, the
    lowest mean cosine of an output ("cosine"). `ratio` is quantized / float latency, with its 95 % interval. `memory`
    and `float_memory` are bytes of MNN's session, in the memory mode that was asked for. `layers` gives each layer's
    storage ("int8", "w8", "float32"). `failed` names the checks that failed. `sha256` and `float_sha256` are of the
    files: in history as they are, in a baseline without MNN's random uuid, so that what was made anew is the same.
    """

    model: str
    variant: str
    source: str = ""
    size: int | None = None
    float_size: int | None = None
    coverage: float | None = None
    accuracy: float | None = None
    metric: str = ""
    lower_is_better: bool = False
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    memory: int | None = None
    float_memory: int | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    sha256: str = ""
    float_sha256: str = ""
    path: str = ""


#: The fields that are whole numbers, and those that are any.
WHOLE: Final = tuple(field.name for field in fields(Figures) if field.type == "int | None")
REAL: Final = tuple(field.name for field in fields(Figures) if field.type == "float | None")


def variant_label(recipe: str, mode: str | None, target: str = "") -> str:
    """A variant's name in ids and tables, from its recipe, its mode, and the target that it ran on."""
    label = f"{recipe}[{mode}]" if mode else recipe
    return f"{label}@{target}" if target else label


def size_text(ratio: float | None) -> str:
    """How much smaller a file got, or larger. `ratio` is the bytes before by those after."""
    if not ratio:
        return "-"
    return f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x LARGER"
