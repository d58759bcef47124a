"""Recipes: how each requires a model's weights to be stored, and which tool quantizes how."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pytest_mnnquant.findings.figures import variant_label
from pytest_mnnquant.mnnfile.storage import Storage, Weights

MODES: Final = ("train", "eval")


class Quantizer(enum.Enum):
    """Which tool quantizes."""

    CONVERTER = "MNN's converter"
    BUILTIN = "calibrated by pytest-mnnquant"
    MNNQUANT = "MNN's mnnquant"
    MNNCOMPRESS = "mnncompress"
    PIPELINE = "a custom pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named way to quantize. These fields define how each layer's weights must be stored; subclasses define how.

    `activations`: layers compute in int8, which needs calibration data. `block` weights share a scale, if MNN supports
    that for the layer; None: one scale per channel. `hqq`: scales and offsets are optimized (half-quadratic
    quantization) instead of spanning min to max. `half_scales`: scales are 16-bit floats. `fill`: bits of the weights
    of layers that can't compute in int8; None: they stay float.
    """

    #: Which tool quantizes.
    quantizer: ClassVar[Quantizer]

    name: str
    storage: Storage = Storage.INTEGER
    bits: int = 8
    activations: bool = False
    block: int | None = None
    symmetric: bool = False
    hqq: bool = False
    half_scales: bool = False
    fill: int | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of MNN's converter for such weights; none if layers compute in int8."""
        if self.activations:
            return ()
        if self.storage is Storage.FLOAT16:
            return ("--fp16",)
        flags = ["--weightQuantBits", str(self.bits)]
        if self.block is not None:
            flags += ["--weightQuantBlock", str(self.block)]
        if self.symmetric:
            # MNN's default is asymmetric, and only `=1` counts as true: the bare flag also selects symmetric.
            flags += ["--weightQuantAsymmetric=0"]
        if self.hqq:
            flags += ["--hqq"]
        if self.half_scales:
            flags += ["--weightQuantScaleBit", "16"]
        return tuple(flags)

    @property
    def weight_kind(self) -> str:
        """The required precision, for messages: `8-bit weights and int8 activations`."""
        if self.storage is Storage.FLOAT16:
            return "16-bit float weights"
        block = f" in blocks of {self.block}" if self.block else ""
        symmetric = "symmetric " if self.symmetric else ""
        return f"{symmetric}{self.bits}-bit weights{block}" + (" and int8 activations" if self.activations else "")

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scale and offset of a group of weights; symmetric groups have no offset."""
        size = 4 if self.activations or self.symmetric else 8
        return size // 2 if self.half_scales else size

    @property
    def without_scales(self) -> Recipe:
        """What is required of a layer whose activations are never computed: the same weights."""
        return dataclasses.replace(self, activations=False) if self.activations else self

    @property
    def symmetric_name(self) -> str:
        """The same recipe with symmetric weights; empty if the weights are symmetric, or can't be."""
        return ""

    @property
    def trains_vectors(self) -> bool:
        """Whether the tool changes biases and normalizations too."""
        return False

    @property
    def in_torch(self) -> bool:
        """Whether a PyTorch model is calibrated, so that the mode matters."""
        in_torch = (Quantizer.BUILTIN, Quantizer.MNNCOMPRESS, Quantizer.PIPELINE)
        return self.quantizer in in_torch and self.activations

    def label(self, mode: str | None) -> str:
        """The name of a variant of this recipe in ids and tables: `int8-train`, `w8`, ..."""
        return variant_label(self.name, mode)

    def stores(self, weights: Weights, computes: bool = True) -> bool:
        """Whether stored weights have the required precision.

        `computes`: whether MNN can run their layer in int8; if it can't, `fill` gives the required bits.
        """
        if self.fill is not None and not computes:
            return weights.storage is Storage.INTEGER and weights.bits == self.fill and weights.intact
        # MNN may store only the weights that are not zero, with the same bits.
        storage = Storage.INTEGER if weights.storage is Storage.SPARSE_INTEGER else weights.storage
        if storage is not self.storage or weights.bits != self.bits or not weights.intact:
            return False
        if self.symmetric and weights.asymmetric:
            return False
        return weights.full_int8 or not self.activations

    def modes(self, source_is_python: bool, requested: tuple[str, ...]) -> tuple[str | None, ...]:
        """The modes of this recipe: the requested ones if it calibrates in PyTorch, else a single None."""
        return requested if self.in_torch and source_is_python else (None,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConverterRecipe(Recipe):
    """Weights only, by MNN's converter: `w8`, `w4b32-hqq`, `fp16`."""

    quantizer: ClassVar[Quantizer] = Quantizer.CONVERTER

    @property
    def symmetric_name(self) -> str:
        """`w4b32-sym` of `w4b32-hqq`: MNN drops HQQ from symmetric weights."""
        if self.symmetric or self.storage is not Storage.INTEGER:
            return ""
        block = f"b{self.block}" if self.block else ""
        return f"w{self.bits}{block}-sym" + ("-scale16" if self.half_scales else "")


@dataclass(frozen=True, slots=True)
class Observer:
    """How calibration takes the range of a tensor: one of `OBSERVERS`, and its number (None: its default)."""

    name: str = "minmax"
    number: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Recipe(Recipe):
    """Calibrated by this package; `observer` says how ranges are taken.

    `equalized`: the channels of a tensor get similar ranges, by factors that cancel in the float model. `scaled`: also
    where that takes added multiplications. `corrected`: biases make up for the mean error of each layer. `rounded`:
    weights are rounded by their effect on outputs.
    """

    quantizer: ClassVar[Quantizer] = Quantizer.BUILTIN

    activations: bool = True
    observer: Observer = Observer()
    equalized: bool = False
    scaled: bool = False
    corrected: bool = False
    rounded: bool = False

    @property
    def trains_vectors(self) -> bool:
        """True if biases are corrected."""
        return self.corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRecipe(Int8Recipe):
    """`int8-best`: the first of several int8 recipes that meets the limits of the accuracy, else the best of them."""

    @property
    def trains_vectors(self) -> bool:
        """True: the chosen recipe may correct biases."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class MnnquantRecipe(Recipe):
    """MNN's offline tool: its methods for activations (KL, ADMM, EMA) and for weights (MAX_ABS, ADMM)."""

    quantizer: ClassVar[Quantizer] = Quantizer.MNNQUANT

    activations: bool = True
    feature: str
    weight: str = "MAX_ABS"

    @property
    def trains_vectors(self) -> bool:
        """True for EMA."""
        return self.feature == "EMA"


@dataclass(frozen=True, slots=True, kw_only=True)
class MnncompressRecipe(Recipe):
    """The original PyTorch quantizer; `repaired`: its params file with names bound to the model."""

    quantizer: ClassVar[Quantizer] = Quantizer.MNNCOMPRESS

    activations: bool = True
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRecipe(Recipe):
    """A custom pipeline: the specification of a callable, and the recipe (`like`) that its model must match.

    `is_export`: the callable exports a language model into a folder.
    """

    quantizer: ClassVar[Quantizer] = Quantizer.PIPELINE

    pipeline: str
    like: Recipe
    is_export: bool = False

    @classmethod
    def of(cls, name: str, pipeline: str, like: Recipe, *, is_export: bool = False) -> PipelineRecipe:
        """A pipeline whose model must be stored as the recipe `like` says."""
        required: dict[str, Any] = {field: getattr(like, field) for field in Recipe.__slots__ if field != "name"}
        return cls(name=name, pipeline=pipeline, like=like, is_export=is_export, **required)

    @property
    def trains_vectors(self) -> bool:
        """True if it is for the recipe that the model must match."""
        return self.like.trains_vectors


def is_exporter(recipe: Recipe) -> bool:
    """Whether a recipe is a custom pipeline that exports a language model."""
    return isinstance(recipe, PipelineRecipe) and recipe.is_export
