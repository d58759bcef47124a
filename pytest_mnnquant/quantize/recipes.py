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
    `block` weights share a scale, where MNN can do that; None: a whole channel does.
    """

    name: str
    storage: Storage
    bits: int
    activations: bool = False
    flags: tuple[str, ...] = ()
    block: int | None = None

    @property
    def weight_kind(self) -> str:
        """What is asked, for messages: `8-bit weights and int8 activations`."""
        if self.storage is Storage.FLOAT16:
            return "16-bit float weights"
        block = f" in blocks of {self.block}" if self.block else ""
        return f"{self.bits}-bit weights{block}" + (" and int8 activations" if self.activations else "")

    def label(self, mode: str | None) -> str:
        """The name of a variant of this recipe, as ids and tables have it: `int8[train]`, `w8`, ..."""
        return f"{self.name}[{mode}]" if mode else self.name

    def stores(self, weights: Weights) -> bool:
        """Whether stored weights have the precision that was asked."""
        if weights.storage is not self.storage or weights.bits != self.bits or not weights.intact:
            return False
        return weights.full_int8 or not self.activations

    def modes(self, source_is_python: bool, wanted: tuple[str, ...]) -> tuple[str | None, ...]:
        """The modes this recipe has: those wanted where it calibrates in PyTorch, else a single None."""
        return wanted if self.activations and source_is_python else (None,)


def _weight_only(bits: int, block: int | None = None) -> Recipe:
    name = f"w{bits}" + (f"b{block}" if block else "")
    flags = ("--weightQuantBits", str(bits), *(("--weightQuantBlock", str(block)) if block else ()))
    return Recipe(name, Storage.INTEGER, bits, flags=flags, block=block)


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe("int8", Storage.INTEGER, 8, activations=True),
        *(_weight_only(bits, block) for block in (None, 32, 64, 128) for bits in (8, 4)),
        Recipe("fp16", Storage.FLOAT16, 16, flags=("--fp16",)),
    )
}


def can_block(shape: tuple[int, ...], group: int, block: int) -> bool:
    """Whether MNN can give each `block` weights of a convolution a scale of their own.

    It does so for 1x1 kernels (Linear layers) whose input channels the block divides, in multiples of 16
    (tools/converter/source/common/WeightQuantAndCoding.cpp); elsewhere it takes one scale a channel and says nothing.
    """
    if len(shape) != 4 or shape[2:] != (1, 1) or group != 1:
        return False
    return shape[1] % block == 0 and shape[1] > block and block % 16 == 0
