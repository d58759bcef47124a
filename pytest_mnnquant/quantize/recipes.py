"""The named ways to quantize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.storage import Storage, Weights

MODES: Final = ("train", "eval")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named way to quantize: what each layer's weights must be stored as, and how to make it so.

    `activations` tells whether layers compute in int8, which needs calibration data. `flags` are MNN's converter's.
    """

    name: str
    storage: Storage
    bits: int
    activations: bool = False
    flags: tuple[str, ...] = ()

    @property
    def weight_kind(self) -> str:
        """What is asked, for messages: `8-bit weights and int8 activations`."""
        if self.storage is Storage.FLOAT16:
            return "16-bit float weights"
        return f"{self.bits}-bit weights" + (" and int8 activations" if self.activations else "")

    def stores(self, weights: Weights) -> bool:
        """Whether stored weights have the precision that was asked."""
        if weights.storage is not self.storage or weights.bits != self.bits or not weights.intact:
            return False
        return weights.full_int8 or not self.activations

    def modes(self, source_is_python: bool, wanted: tuple[str, ...]) -> tuple[str | None, ...]:
        """The modes this recipe has: those wanted where it calibrates in PyTorch, else a single None."""
        return wanted if self.activations and source_is_python else (None,)


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe("int8", Storage.INTEGER, 8, activations=True),
        Recipe("w8", Storage.INTEGER, 8, flags=("--weightQuantBits", "8")),
        Recipe("w4", Storage.INTEGER, 4, flags=("--weightQuantBits", "4")),
        Recipe("fp16", Storage.FLOAT16, 16, flags=("--fp16",)),
    )
}
