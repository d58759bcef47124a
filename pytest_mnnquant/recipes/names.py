"""The names of recipes.

int8[-OBSERVER][+equalized|+scaled][+corrected][+rounded][+wBITS]
                             built in: calibrated ranges, 8-bit weights per channel, int8 activations
                             OBSERVER: minmax (the default), average, percentile, histogram, kl; average and
                             percentile take a number: average0.9, percentile99.9
                             +equalized: channels of a tensor are scaled to similar ranges, in the float model
                             +scaled: the same, with added multiplications around operators that are not proportional
                             +corrected: biases make up for the mean error of each layer's int8 weights and inputs
                             +rounded: weights take the code above or below that keeps their layer's output closest
                             +wBITS: layers that MNN can't run in int8 get BITS-bit weights
int8-best                    the first of these that meets the accuracy limits, else the best of them
wBITS[bBLOCK][-sym][-hqq][-scale16]   weight-only by MNN's converter, 2 to 8 bits
fp16                         weights as 16-bit floats
mnnquant-FEATURE[-admm]      MNN's offline tool; FEATURE: kl, admm, ema; -admm: weights by ADMM too
mnncompress[-repaired]       the original PyTorch quantizer; -repaired: its params file with names bound to the model
[NAME=]file.py:callable[@RECIPE]      your own pipeline; its model must be stored as RECIPE says (default: int8)
[NAME=]file.py:callable@llm-FORM      your own exporter of a language model, whose folder must be stored as FORM says:
                             wBITS[bBLOCK][-sym][-hqq][-scale16] or fp16
"""

from __future__ import annotations

import functools
import re
from typing import Final

from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.recipe import (
    MODES,
    BestRecipe,
    ConverterRecipe,
    Int8Recipe,
    MnncompressRecipe,
    MnnquantRecipe,
    Observer,
    PipelineRecipe,
    Recipe,
)

#: The recipe that tries the others that compute in int8.
BEST: Final = "int8-best"
OBSERVERS: Final = ("minmax", "average", "percentile", "histogram", "kl")
FEATURES: Final = ("kl", "admm", "ema")
_WEIGHTS: Final = re.compile(r"w(?P<bits>[2-8])(?:b(?P<block>\d+))?(?P<sym>-sym)?(?P<hqq>-hqq)?(?P<half>-scale16)?")
_INT8: Final = re.compile(
    rf"int8(?:-(?P<observer>{'|'.join(OBSERVERS)})(?P<number>\d+(?:\.\d+)?)?)?"
    r"(?:(?P<equalized>\+equalized)|(?P<scaled>\+scaled))?(?P<corrected>\+corrected)?(?P<rounded>\+rounded)?(?:\+w(?P<fill>[2-8]))?"
)
_MNNQUANT: Final = re.compile(rf"mnnquant-(?P<feature>{'|'.join(FEATURES)})(?P<weight>-admm)?")
_MNNCOMPRESS: Final = re.compile(r"mnncompress(?P<repaired>-repaired)?")
_PIPELINE: Final = re.compile(r"(?:(?P<name>[\w.\-]+)=)?(?P<target>[^@]+\.py:[A-Za-z_]\w*)(?:@(?P<like>[^@]+))?")
#: Before the form of the weights in a pipeline that exports a language model.
_EXPORT: Final = "llm-"
_FORMS: Final = (
    "int8, int8-kl+w8, w8, w4b32-hqq, fp16, mnnquant-kl, mnncompress, mnncompress-repaired or file.py:callable"
)
# The range of the number after an observer's name: percent of values kept, and momentum of a moving average.
_NUMBERS: Final = {"percentile": (50.0, 100.0), "average": (0.0, 1.0)}


@functools.cache
def recipe_named(name: str) -> Recipe:
    """The recipe of this name. Raises `ValueError` with examples for an unknown name."""
    if match := _WEIGHTS.fullmatch(name):
        return _weight_only(name, match)
    if match := _INT8.fullmatch(name):
        return _int8(name, match)
    if match := _MNNQUANT.fullmatch(name):
        return MnnquantRecipe(
            name=name, feature=match["feature"].upper(), weight="ADMM" if match["weight"] else "MAX_ABS"
        )
    if match := _MNNCOMPRESS.fullmatch(name):
        return MnncompressRecipe(name=name, repaired=bool(match["repaired"]))
    if match := _PIPELINE.fullmatch(name):
        return _pipeline(name, match)
    if name == BEST:
        return BestRecipe(name=name)
    if name == "fp16":
        return ConverterRecipe(name=name, storage=Storage.FLOAT16, bits=16)
    raise ValueError(f"unknown recipe {name!r}; examples: {_FORMS}")


def with_suffixes(
    recipe: Int8Recipe,
    observer: str | None = None,
    *,
    equalized: bool | None = None,
    scaled: bool | None = None,
    corrected: bool | None = None,
) -> Recipe:
    """The recipe with another observer or other suffixes; None: unchanged. A scaled recipe is equalized too."""
    start = recipe.name.split("+")[0] if observer is None else f"int8-{observer}"
    is_equalized = recipe.equalized if equalized is None else equalized
    is_scaled = recipe.scaled if scaled is None else scaled
    is_corrected = recipe.corrected if corrected is None else corrected
    factors = "+scaled" if is_scaled else "+equalized" * is_equalized
    suffixes = (factors, "+corrected" * is_corrected, "+rounded" * recipe.rounded)
    return recipe_named(start + "".join(suffixes) + (f"+w{recipe.fill}" if recipe.fill else ""))


def _pipeline(name: str, match: re.Match[str]) -> Recipe:
    required = match["like"] or "int8"
    form = required.removeprefix(_EXPORT)
    like, is_export = recipe_named(form), form != required
    if is_export and not isinstance(like, ConverterRecipe):
        raise ValueError(f"{name!r}: {form} is not a form of weights; after {_EXPORT} give e.g. w4b64")
    if isinstance(like, PipelineRecipe):
        raise ValueError(f"{name!r}: after @, give a built-in recipe such as int8 or w8")
    label = match["name"] or name
    if without_mode(label) != label:
        raise ValueError(f"{name!r}: names of variants end in the mode; give the pipeline a name without it")
    if _is_built_in(label):
        raise ValueError(f"{name!r}: {label!r} is a built-in recipe; give the pipeline another name")
    return PipelineRecipe.of(label, match["target"], like, is_export=is_export)


def without_mode(label: str) -> str:
    """The recipe of a variant's label: `int8` of `int8-train`."""
    return next((label.removesuffix(f"-{mode}") for mode in MODES if label.endswith(f"-{mode}")), label)


def _is_built_in(name: str) -> bool:
    return name in ("fp16", BEST) or any(form.fullmatch(name) for form in (_WEIGHTS, _INT8, _MNNQUANT, _MNNCOMPRESS))


def _weight_only(name: str, match: re.Match[str]) -> Recipe:
    if match["sym"] and match["hqq"]:
        raise ValueError(f"{name!r}: MNN ignores HQQ for symmetric weights; remove -sym or -hqq")
    return ConverterRecipe(
        name=name,
        bits=int(match["bits"]),
        block=int(match["block"]) if match["block"] else None,
        symmetric=bool(match["sym"]),
        hqq=bool(match["hqq"]),
        half_scales=bool(match["half"]),
    )


def _int8(name: str, match: re.Match[str]) -> Recipe:
    observer, number = match["observer"] or "minmax", float(match["number"]) if match["number"] else None
    if number is not None:
        low, high = _NUMBERS.get(observer, (0.0, 0.0))
        if not low < number <= high or number == high == 1.0:
            allowed = f"a number above {low:g} and up to {high:g}" if high else "no number"
            raise ValueError(f"{name!r}: {observer} takes {allowed}")
    return Int8Recipe(
        name=name,
        observer=Observer(observer, number),
        fill=int(match["fill"]) if match["fill"] else None,
        equalized=bool(match["equalized"] or match["scaled"]),
        scaled=bool(match["scaled"]),
        corrected=bool(match["corrected"]),
        rounded=bool(match["rounded"]),
    )


#: The most common recipes by name; `recipe_named` knows all.
RECIPES: Final = {
    name: recipe_named(name)
    for name in ("int8", "w8", "w4", "w8b32", "w4b32", "w8b64", "w4b64", "w8b128", "w4b128", "fp16")
}
