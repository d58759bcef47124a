"""The metrics of a variant that are stored: those of one run, and the accepted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final


@dataclass(frozen=True)
class Figures:
    """One variant in one run; None: not measured.

    `size` and `float_size` are bytes. `accuracy` is the task metric named by `metric`, or, without a task, the lowest
    mean cosine of an output ("cosine"). `ratio` is quantized / float latency, with its 95 % interval. `memory` and
    `float_memory` are bytes of MNN's session, in the memory mode that the app uses. `layers` gives each layer's storage
    ("int8", "w8", "float32"). `failed` names the checks that failed. `sha256` and `float_sha256` are hashes of the
    files: of the whole file in the history, without MNN's random uuid in a baseline, where a model that is made again
    must have the same hash.
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


#: The fields that are whole numbers, and those that are real numbers.
WHOLE: Final = tuple(field.name for field in fields(Figures) if field.type == "int | None")
REAL: Final = tuple(field.name for field in fields(Figures) if field.type == "float | None")


def variant_label(recipe: str, mode: str | None, target: str = "") -> str:
    """A variant's name in ids and tables: recipe, mode, and the target that it ran on."""
    label = f"{recipe}-{mode}" if mode else recipe
    return f"{label}@{target}" if target else label


def size_text(ratio: float | None) -> str:
    """By what factor a file got smaller, or larger. `ratio` is bytes before / bytes after."""
    if not ratio:
        return "-"
    return f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x LARGER"
