"""The ways to quantize, and their names.

int8[-OBSERVER][+wBITS]      ours: calibrated ranges, 8-bit weights a channel, int8 activations
                             OBSERVER: minmax (as without), average, percentile, histogram, kl; average and
                             percentile take a number: average0.9, percentile99.9
                             +wBITS: layers that MNN can't run in int8 keep BITS-bit weights only
wBITS[bBLOCK][-sym][-hqq][-scale16]   weight-only by MNN's converter, 2 to 8 bits
fp16                         weights as 16-bit floats
mnnquant-FEATURE[-admm]      MNN's offline tool; FEATURE: kl, admm, ema; -admm: weights by ADMM too
mnncompress[-repaired]       the original PyTorch quantizer; -repaired: its params file with names bound to the model
[NAME=]file.py:callable[@RECIPE]      a pipeline of one's own; @RECIPE says what its model is meant to be (int8)
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.storage import Storage, Weights

MODES: Final = ("train", "eval")
_HALF_SCALES: Final = "--weightQuantScaleBit"


class Quantizer(enum.Enum):
    """Who quantizes."""

    CONVERTER = "MNN's converter"
    BUILTIN = "calibrated by pytest-mnnquant"
    MNNQUANT = "MNN's mnnquant"
    MNNCOMPRESS = "mnncompress"
    PIPELINE = "a pipeline of one's own"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named way to quantize: what each layer's weights must be stored as, and how to make it so.

    `activations` tells whether layers compute in int8, which needs calibration data. `flags` are MNN's converter's.
    `block` weights share a scale, where MNN can do that; None: a whole channel does. `observer` and its `number` say
    how ranges are taken; `fill` gives the bits of weights of layers that can't compute in int8 (None: they stay
    float). `feature` and `weight` are the methods of mnnquant. `pipeline` is the specification of a callable.
    """

    name: str
    storage: Storage
    bits: int
    activations: bool = False
    flags: tuple[str, ...] = ()
    block: int | None = None
    maker: Quantizer = Quantizer.CONVERTER
    symmetric: bool = False
    observer: str = ""
    number: float | None = None
    fill: int | None = None
    feature: str = ""
    weight: str = ""
    repaired: bool = False
    pipeline: str = ""

    @property
    def weight_kind(self) -> str:
        """What is asked, for messages: `8-bit weights and int8 activations`."""
        if self.storage is Storage.FLOAT16:
            return "16-bit float weights"
        block = f" in blocks of {self.block}" if self.block else ""
        symmetric = "symmetric " if self.symmetric else ""
        return f"{symmetric}{self.bits}-bit weights{block}" + (" and int8 activations" if self.activations else "")

    @property
    def scale_bytes(self) -> int:
        """Bytes of scale and offset that a group of weights takes; symmetric ones have no offset."""
        size = 4 if self.activations or self.symmetric else 8
        return size // 2 if self.half_scales else size

    @property
    def half_scales(self) -> bool:
        """Whether scales are stored as 16-bit floats."""
        return _HALF_SCALES in self.flags

    @property
    def hqq(self) -> bool:
        """Whether scales and offsets are optimized (half-quadratic quantization) instead of spanning min to max."""
        return "--hqq" in self.flags

    @property
    def symmetrical(self) -> str:
        """The recipe that differs in symmetric weights only; empty where these are, or can't be."""
        parts = _WEIGHTS.fullmatch(self.name)
        if parts is None or parts["sym"]:
            return ""
        block = f"b{parts['block']}" if parts["block"] else ""
        return f"w{parts['bits']}{block}-sym{parts['half'] or ''}"  # MNN drops HQQ from symmetric weights.

    @property
    def in_torch(self) -> bool:
        """Whether a PyTorch model is calibrated, so that the mode matters."""
        return self.maker in (Quantizer.BUILTIN, Quantizer.MNNCOMPRESS, Quantizer.PIPELINE) and self.activations

    def label(self, mode: str | None) -> str:
        """The name of a variant of this recipe, as ids and tables have it: `int8[train]`, `w8`, ..."""
        return f"{self.name}[{mode}]" if mode else self.name

    def stores(self, weights: Weights, computes: bool = True) -> bool:
        """Whether stored weights have the precision that was asked.

        `computes` tells whether MNN can run their layer in int8; where it can't, `fill` says what is asked of it.
        """
        if self.fill is not None and not computes:
            return weights.storage is Storage.INTEGER and weights.bits == self.fill and weights.intact
        # What MNN stores as a list of the weights that are not zero has the same bits.
        storage = Storage.INTEGER if weights.storage is Storage.SPARSE_INTEGER else weights.storage
        if storage is not self.storage or weights.bits != self.bits or not weights.intact:
            return False
        if self.symmetric and weights.asymmetric:
            return False
        return weights.full_int8 or not self.activations

    def modes(self, source_is_python: bool, wanted: tuple[str, ...]) -> tuple[str | None, ...]:
        """The modes this recipe has: those wanted where it calibrates in PyTorch, else a single None."""
        return wanted if self.in_torch and source_is_python else (None,)


OBSERVERS: Final = ("minmax", "average", "percentile", "histogram", "kl")
FEATURES: Final = ("kl", "admm", "ema")
_WEIGHTS: Final = re.compile(r"w(?P<bits>[2-8])(?:b(?P<block>\d+))?(?P<sym>-sym)?(?P<hqq>-hqq)?(?P<half>-scale16)?")
_INT8: Final = re.compile(
    rf"int8(?:-(?P<observer>{'|'.join(OBSERVERS)})(?P<number>\d+(?:\.\d+)?)?)?(?:\+w(?P<fill>[2-8]))?"
)
_MNNQUANT: Final = re.compile(rf"mnnquant-(?P<feature>{'|'.join(FEATURES)})(?P<weight>-admm)?")
_MNNCOMPRESS: Final = re.compile(r"mnncompress(?P<repaired>-repaired)?")
_PIPELINE: Final = re.compile(r"(?:(?P<name>[\w.\-]+)=)?(?P<target>[^@]+\.py:[A-Za-z_]\w*)(?:@(?P<meant>[^@]+))?")
_FORMS: Final = (
    "int8, int8-kl+w8, w8, w4b32-hqq, fp16, mnnquant-kl, mnncompress, mnncompress-repaired or file.py:callable"
)
# What a number after an observer's name means: percent of values kept, and how much of a moving average is kept.
_NUMBERS: Final = {"percentile": (50.0, 100.0), "average": (0.0, 1.0)}


@functools.cache
def recipe_named(name: str) -> Recipe:
    """The recipe of this name. Raises `ValueError` saying what names there are."""
    if match := _WEIGHTS.fullmatch(name):
        return _weight_only(name, match)
    if match := _INT8.fullmatch(name):
        return _int8(name, match)
    if match := _MNNQUANT.fullmatch(name):
        weight = "ADMM" if match["weight"] else "MAX_ABS"
        feature = match["feature"].upper()
        return Recipe(name, Storage.INTEGER, 8, True, maker=Quantizer.MNNQUANT, feature=feature, weight=weight)
    if match := _MNNCOMPRESS.fullmatch(name):
        return Recipe(name, Storage.INTEGER, 8, True, maker=Quantizer.MNNCOMPRESS, repaired=bool(match["repaired"]))
    if match := _PIPELINE.fullmatch(name):
        meant = recipe_named(match["meant"] or "int8")
        if meant.maker is Quantizer.PIPELINE:
            raise ValueError(f"{name!r}: after @ comes a recipe of ours, such as int8 or w8")
        label = match["name"] or name
        if _is_ours(label):
            raise ValueError(f"{name!r}: {label!r} is a recipe already; give the pipeline another name")
        return dataclasses.replace(meant, name=label, maker=Quantizer.PIPELINE, pipeline=match["target"])
    if name == "fp16":
        return Recipe(name, Storage.FLOAT16, 16, flags=("--fp16",))
    raise ValueError(f"{name!r} is no recipe; they read like: {_FORMS}")


def _is_ours(name: str) -> bool:
    return name == "fp16" or any(form.fullmatch(name) for form in (_WEIGHTS, _INT8, _MNNQUANT, _MNNCOMPRESS))


def _weight_only(name: str, match: re.Match[str]) -> Recipe:
    bits, block = int(match["bits"]), int(match["block"]) if match["block"] else None
    if match["sym"] and match["hqq"]:
        raise ValueError(f"{name!r}: MNN drops HQQ from symmetric weights; leave out -sym or -hqq")
    flags = ["--weightQuantBits", str(bits)]
    if block is not None:
        flags += ["--weightQuantBlock", str(block)]
    if match["sym"]:
        # Asymmetric is what MNN does unasked; only `=1` counts as true, so the bare flag would make them symmetric too.
        flags += ["--weightQuantAsymmetric=0"]
    if match["hqq"]:
        flags += ["--hqq"]
    if match["half"]:
        flags += [_HALF_SCALES, "16"]
    return Recipe(name, Storage.INTEGER, bits, flags=tuple(flags), block=block, symmetric=bool(match["sym"]))


def _int8(name: str, match: re.Match[str]) -> Recipe:
    observer, number = match["observer"] or "minmax", float(match["number"]) if match["number"] else None
    if number is not None:
        low, high = _NUMBERS.get(observer, (0.0, 0.0))
        if not low < number <= high or number == high == 1.0:
            allowed = f"a number above {low:g} and up to {high:g}" if high else "no number"
            raise ValueError(f"{name!r}: {observer} takes {allowed}")
    fill = int(match["fill"]) if match["fill"] else None
    return Recipe(name, Storage.INTEGER, 8, True, maker=Quantizer.BUILTIN, observer=observer, number=number, fill=fill)


#: Recipes by the names that users meet first; `recipe_named` knows them all.
RECIPES: Final = {
    name: recipe_named(name)
    for name in ("int8", "w8", "w4", "w8b32", "w4b32", "w8b64", "w4b64", "w8b128", "w4b128", "fp16")
}
