"""Why a layer is not stored as asked, where the evidence shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

_SKIP: Final = "if it shall stay as it is: --mnn-skip-layer '{name}'"
_FLOATS: Final = (Storage.FLOAT32, Storage.SPARSE_FLOAT)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that is not stored as requested, with what is known about it. `params` is None if no file was given."""

    layer: Op
    stored: Op
    recipe: Recipe
    rows: tuple[LayerRow, ...]
    params: ParamsEvidence | None
    model: Model

    @property
    def weights(self) -> Weights:
        """How it is stored."""
        return self.stored.weights[0]

    @property
    def content(self) -> Params | None:
        """What the params file says, if it can be read."""
        return self.params.params if self.params is not None else None

    @property
    def skip(self) -> str:
        """How to keep the layer float on purpose."""
        return _SKIP.format(name=self.layer.name)


def explain_layer(
    row: LayerRow, recipe: Recipe, rows: tuple[LayerRow, ...], params: ParamsEvidence | None, model: Model
) -> Explanation:
    """Why a layer is not stored as requested: the first reason that the evidence shows, with no cause if it shows none.

    `rows` are all layers of the model, `params` its params file.
    """
    if row.stored is None:
        return Explanation(fix="see the conversion check")
    layer = _Layer(row.layer, row.stored, recipe, rows, params, model)
    for explain in (*_ANY, *(_INT8 if recipe.activations else _WEIGHT_ONLY), _nothing_quantized):
        if (explanation := explain(layer)) is not None:
            return explanation
    return Explanation(fix=_request(recipe))


def _request(recipe: Recipe) -> str:
    """The command that quantizes by this recipe."""
    if recipe.quantizer is Quantizer.MNNQUANT:
        sizes = "width, height and format of the model's own input"
        return f"pytest-mnnquant calibrate FLOAT.mnn OUT.mnn CONFIG.json, with {sizes}"
    if not recipe.activations:
        return f"pytest-mnnquant convert ... {' '.join(recipe.flags)}"
    return "pytest-mnnquant convert ... --compressionParamsFile PARAMS"


# Whatever the recipe --------------------------------------------------------------------------------------------------


def _kept_in_float(this: _Layer) -> Explanation | None:
    if this.layer.is_convolution:
        return None
    text = f"MNN keeps tables and matrices that are {this.stored.kind} in float"
    return Explanation(Cause("operator-stays-float", text), this.skip)


def _no_convolution(this: _Layer) -> Explanation | None:
    if this.stored.is_convolution:
        return None
    cause = Cause(
        "converted-to-float-operator",
        f"the model holds its weights in a float {this.stored.kind}, which MNN can't quantize: converted with "
        "--convertMatmulToConv 0 or --useOriginRNNImpl",
    )
    return Explanation(cause, "convert without that flag")


def _cast_first(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.FLOAT16 or this.recipe.storage is not Storage.INTEGER:
        return None
    cause = Cause(
        "cast-to-half-first",
        "the model was converted with --fp16: MNN casts first, and then --weightQuantBits and the params file find "
        "no float weights to quantize",
    )
    return Explanation(cause, f"convert without --fp16: {_request(this.recipe)}")


# Weights only ---------------------------------------------------------------------------------------------------------


def _guide_overrides(this: _Layer) -> Explanation | None:
    if this.content is None or not this.content.is_blank:
        return None
    cause = Cause(
        "guide-overrides-option",
        "the params file is the guide that MNN's converter made at an earlier run: it says 0 bits for every layer, "
        "which overrides --weightQuantBits",
    )
    return Explanation(cause, f"delete the file and convert without --compressionParamsFile: {_request(this.recipe)}")


def _guide_says_float(this: _Layer) -> Explanation | None:
    if this.content is None or not _has_no_bits(this.stored, this.content):
        return None
    cause = Cause(
        "guide-says-float",
        "the params file, a guide of MNN's converter that was filled in, gives this layer 0 bits, which overrides "
        "--weightQuantBits",
    )
    return Explanation(cause, f"set its bits to {this.recipe.bits} there, and convert again")


def _has_no_bits(stored: Op, params: Params) -> bool:
    return params.is_guide and any(entry.op_name == stored.name and entry.weight.bits == 0 for entry in params.layers)


def _other_bits(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.INTEGER or this.weights.bits == this.recipe.bits:
        return None
    text = f"the model was converted with --weightQuantBits {this.weights.bits} (MNN clamps the number to 2..8)"
    return Explanation(Cause("converted-with-other-bits", text), _request(this.recipe))


# Weights and activations ----------------------------------------------------------------------------------------------


def _no_int8_form(this: _Layer) -> Explanation | None:
    if can_compute(this.layer):
        return None
    in_body = Cause(
        "inside-loop-body",
        "it is inside a While or If body, of which MNN gives no trace, so its ranges can't be "
        "measured (those of an LSTM of one layer can, from PyTorch)",
    )
    unsupported = Cause("operator-not-supported", f"MNN has no int8 form of it ({this.layer.kind})")
    fix = f"--mnn-recipe=int8+w8 (for mnnconvert: add --weightQuantBits 8) stores it in 8 bits; {this.skip}"
    return Explanation(in_body if this.layer.subgraph else unsupported, fix)


def _misnamed(this: _Layer) -> Explanation | None:
    lost = this.params.misnamed_of(this.layer) if this.params is not None and this.content is not None else None
    if this.params is None or lost is None:
        return None
    fix = this.params.fix_for(lost.entry.name)
    if lost.groups:
        text = f"MNN splits this grouped convolution into {len(lost.groups)} layers"
        return Explanation(Cause("grouped-convolution-split", text), fix)
    cause = Cause(
        "name-mismatch",
        f"name does not match: the params file lists it as {lost.entry.name!r}, in MNN it is "
        f"{this.layer.output_names[0]!r}; both carry the same weights",
    )
    return Explanation(cause, fix)


def _path_was_wrong(this: _Layer) -> Explanation | None:
    if this.content is None or not this.content.is_blank:
        return None
    cause = Cause(
        "params-path-wrong",
        "the path given as --compressionParamsFile did not exist: the converter created a file there and "
        "quantized nothing",
    )
    return Explanation(cause, "give the path of the calibrated params file, and convert again")


def _unlisted(this: _Layer) -> Explanation | None:
    if this.params is None or this.content is None or not any(op is this.layer for op in this.params.unlisted):
        return None
    is_mnncompress = this.recipe.quantizer is Quantizer.MNNCOMPRESS
    known = " (mnncompress knows Conv2d and Linear, called once)" if is_mnncompress else ""
    cause = Cause("layer-unknown-to-calibration", f"the params file has no entry for it{known}")
    return Explanation(cause, f"calibrate with this layer, or {this.skip}")


def _never_read(this: _Layer) -> Explanation | None:
    if this.content is None or this.model.uuid == this.content.uuid:
        return None
    cause = Cause(
        "params-never-read",
        "the converter never read the params file, whose uuid the model does not carry: mistyped flag or none",
    )
    return Explanation(cause, _request(this.recipe))


def _params_missing(this: _Layer) -> Explanation | None:
    if this.params is None or not this.params.missing:
        return None
    cause = Cause("params-missing", f"the params file {this.params.missing} is not there")
    return Explanation(cause, _request(this.recipe))


def _params_unreadable(this: _Layer) -> Explanation | None:
    if this.params is None or not this.params.unreadable:
        return None
    cause = Cause("params-ignored", f"MNN ignores a params file that it can't parse ({this.params.unreadable})")
    return Explanation(cause, "calibrate again, convert again")


def _codes_of_other_bits(this: _Layer) -> Explanation | None:
    if not this.weights.full_int8:
        return None
    bits = this.weights.bits
    cause = Cause(
        "codes-clipped-to-bits",
        f"it was quantized with {bits} bits (quant_bits of mnnquant, or of the params file): MNN computes the "
        "scales for 8 bits, and clips the codes",
    )
    return Explanation(
        cause, f"quantize with 8 bits; for {bits}-bit weights take --mnn-recipe=w{bits}, by the converter"
    )


def _weights_only(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.INTEGER:
        return None
    text = "it is weight-only: --weightQuantBits was given, and no params were applied to it"
    return Explanation(Cause("weights-only", text), _request(this.recipe))


# Nothing at all -------------------------------------------------------------------------------------------------------


def _nothing_quantized(this: _Layer) -> Explanation | None:
    if any(row.stored and row.stored.weights[0].storage not in _FLOATS for row in this.rows):
        return None
    if this.recipe.quantizer is Quantizer.MNNQUANT:
        cause = Cause(
            "tool-computed-no-sample",
            "no layer of the file is quantized at all: mnnquant could not compute one sample (its log says 'Compute "
            "Shape Error'), and wrote float weights with 'Quantize model done!'",
        )
    else:
        cause = Cause(
            "converter-got-no-option",
            "no layer of the file is quantized at all: the converter was given no option for it, or a mistyped one",
        )
    return Explanation(cause, _request(this.recipe))


_Explainer = Callable[[_Layer], Explanation | None]
#: In this order: the first that the evidence shows explains the layer.
_ANY: Final[tuple[_Explainer, ...]] = (_kept_in_float, _no_convolution, _cast_first)
_WEIGHT_ONLY: Final[tuple[_Explainer, ...]] = (_guide_overrides, _guide_says_float, _other_bits)
_INT8: Final[tuple[_Explainer, ...]] = (
    _no_int8_form,
    _misnamed,
    _path_was_wrong,
    _unlisted,
    _never_read,
    _params_missing,
    _params_unreadable,
    _codes_of_other_bits,
    _weights_only,
)
