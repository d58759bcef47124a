"""Why a layer is not stored as requested, if the evidence shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.convert_again import CONVERT_AGAIN, calibrate_again, convert_again
from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.fix_command import ConvertCommand, skip_option
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.storage import Storage, Weights
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

_FLOATS: Final = (Storage.FLOAT32, Storage.SPARSE_FLOAT)
# Bytes of a float weight, and by how much the bytes per weight of a buffer with a header may differ from that.
_FLOAT_BYTES: Final = 4.0
_BYTES_OFF: Final = 0.25


@dataclass(frozen=True, slots=True)
class LayerEvidence:
    """What is known about the layers of a variant.

    `rows` are all layers of the float model, `params` is the params file (None: none was given), `model` the variant,
    and `command` what a command that makes it again has to name.
    """

    recipe: Recipe
    rows: tuple[LayerRow, ...]
    params: ParamsEvidence | None
    model: Model
    command: ConvertCommand


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that is not stored as requested, with what is known about it."""

    layer: Op
    stored: Op
    evidence: LayerEvidence

    @property
    def recipe(self) -> Recipe:
        """What was requested."""
        return self.evidence.recipe

    @property
    def params(self) -> ParamsEvidence | None:
        """The params file; None if none was given."""
        return self.evidence.params

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
        return f"to keep it float on purpose, add {skip_option(self.layer.name)}"

    def convert_again(self, say: str = CONVERT_AGAIN) -> str:
        """How to make the variant again; `say` says what the command does, and what else has to be done."""
        return convert_again(self.evidence.command, self.recipe, say)


def explain_layer(row: LayerRow, evidence: LayerEvidence) -> Explanation:
    """Why a layer is not stored as requested: the first reason that the evidence shows, with no cause if it shows none.

    The fix is complete: it names the files of this variant.
    """
    if row.stored is None:
        return Explanation(fix="see the conversion check: it reports the layers that are missing")
    layer = _Layer(row.layer, row.stored, evidence)
    for explain in (*_ANY, *(_INT8 if evidence.recipe.activations else _WEIGHT_ONLY), _nothing_quantized):
        if (explanation := explain(layer)) is not None:
            return explanation
    return Explanation(fix=layer.convert_again())


# Whatever the recipe --------------------------------------------------------------------------------------------------


def _float_under_header(this: _Layer) -> Explanation | None:
    if this.weights.intact:
        return None
    if abs(this.weights.size / max(1, this.weights.count) - _FLOAT_BYTES) > _BYTES_OFF:
        text = "the header and the buffer do not belong together: the file is damaged, or a tool emptied the layer"
        return Explanation(Cause("buffer-of-other-size", text), this.convert_again())
    cause = Cause(
        "float-weights-under-int-header",
        "MNN's converter writes float weights under an int8 header for Linear layers of 65,536 weights or more if "
        "--compressionParamsFile is used while it converts from ONNX",
    )
    first, command = this.evidence.command.through_float()
    say = "convert in two steps, to float and then to int8"
    return Explanation(cause, convert_again(command, this.recipe, say, first))


def _kept_in_float(this: _Layer) -> Explanation | None:
    if this.layer.is_convolution:
        return None
    text = f"MNN quantizes convolutions and Linear layers only: tables and matrices in a {this.stored.kind} stay float"
    return Explanation(Cause("operator-stays-float", text), this.skip)


def _no_convolution(this: _Layer) -> Explanation | None:
    if this.stored.is_convolution:
        return None
    cause = Cause(
        "converted-to-float-operator",
        f"the model holds its weights in a float {this.stored.kind}, which MNN can't quantize: it was converted with "
        "--convertMatmulToConv 0 or --useOriginRNNImpl",
    )
    say = "convert again without these flags, from the source if the float .mnn was made with them"
    return Explanation(cause, this.convert_again(say))


def _cast_first(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.FLOAT16 or this.recipe.storage is not Storage.INTEGER:
        return None
    cause = Cause(
        "cast-to-half-first",
        "the model was converted with --fp16: MNN casts the weights to 16-bit floats first, so --weightQuantBits and "
        "the params file find no float32 weights to quantize",
    )
    return Explanation(cause, this.convert_again("convert again without --fp16"))


# Weights only ---------------------------------------------------------------------------------------------------------


def _guide_overrides(this: _Layer) -> Explanation | None:
    if this.content is None or not this.content.is_blank:
        return None
    cause = Cause(
        "guide-overrides-option",
        "the params file is a guide that MNN's converter wrote in an earlier run: it gives 0 bits for every layer, "
        "which overrides --weightQuantBits",
    )
    return Explanation(cause, this.convert_again("delete that file and convert again without --compressionParamsFile"))


def _guide_says_float(this: _Layer) -> Explanation | None:
    if this.content is None or not _has_no_bits(this.stored, this.content):
        return None
    cause = Cause(
        "guide-says-float",
        "the params file is a guide of MNN's converter that was filled in by hand: it gives 0 bits for this layer, "
        "which overrides --weightQuantBits",
    )
    fix = f"set its bits to {this.recipe.bits} in that file, or convert again without the file"
    return Explanation(cause, this.convert_again(fix))


def _has_no_bits(stored: Op, params: Params) -> bool:
    return params.is_guide and any(entry.op_name == stored.name and entry.weight.bits == 0 for entry in params.layers)


def _other_bits(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.INTEGER or this.weights.bits == this.recipe.bits:
        return None
    text = f"the model was converted with --weightQuantBits {this.weights.bits} (MNN clamps the number to 2..8)"
    return Explanation(Cause("converted-with-other-bits", text), this.convert_again())


# Weights and activations ----------------------------------------------------------------------------------------------


def _no_int8_form(this: _Layer) -> Explanation | None:
    if can_compute(this.layer):
        return None
    in_body = Cause(
        "inside-loop-body",
        "it is inside a While or If body. MNN gives no trace of such bodies, so their ranges can't be measured (those "
        "of a one-layer LSTM can, in PyTorch)",
    )
    unsupported = Cause("operator-not-supported", f"MNN has no int8 form of a {this.layer.kind}")
    fix = f"{this.skip}; or store it in 8 bits: --mnn-recipe=int8+w8 (for mnnconvert: add --weightQuantBits 8)"
    return Explanation(in_body if this.layer.subgraph else unsupported, fix)


def _misnamed(this: _Layer) -> Explanation | None:
    lost = this.params.misnamed_of(this.layer) if this.params is not None and this.content is not None else None
    if this.params is None or lost is None:
        return None
    fix = this.params.fix_for(lost.entry.name, this.evidence.command, this.recipe)
    if lost.groups:
        text = f"MNN splits this grouped convolution into {len(lost.groups)} layers, and each needs its own entry"
        return Explanation(Cause("grouped-convolution-split", text), fix)
    cause = Cause(
        "name-mismatch",
        f"the names differ: the params file has {lost.entry.name!r}, MNN has {this.layer.output_names[0]!r}; both "
        "carry the same weights",
    )
    return Explanation(cause, fix)


def _path_was_wrong(this: _Layer) -> Explanation | None:
    if this.content is None or not this.content.is_blank:
        return None
    cause = Cause(
        "params-path-wrong",
        "when the model was converted, the path given as --compressionParamsFile did not exist: MNN's converter "
        "writes a placeholder there, in which all layers have 0 bits, and quantizes nothing",
    )
    return Explanation(cause, calibrate_again(this.evidence.command, this.recipe))


def _known_ahead(this: _Layer) -> Explanation | None:
    is_ahead = any(row.is_known_ahead and row.layer is this.layer for row in this.evidence.rows)
    if not is_ahead or this.params is None or not any(op is this.layer for op in this.params.unlisted):
        return None
    text = "MNN computes it before a run, since it reads constants only: no calibration sees it, and it needs no scales"
    say = "convert again with the params file and --weightQuantBits 8, which stores the weights of such layers"
    return Explanation(Cause("reads-constants-only", text), f"{this.convert_again(say)}; {this.skip}")


def _unlisted(this: _Layer) -> Explanation | None:
    if this.params is None or this.content is None or not any(op is this.layer for op in this.params.unlisted):
        return None
    is_mnncompress = this.recipe.quantizer is Quantizer.MNNCOMPRESS
    known = " (mnncompress quantizes Conv2d and Linear modules that are called once)" if is_mnncompress else ""
    cause = Cause("layer-unknown-to-calibration", f"the params file has no entry for it{known}")
    other = "use --mnn-recipe=int8, which calibrates it" if is_mnncompress else "calibrate again with this layer"
    return Explanation(cause, f"{other}; {this.skip}")


def _never_read(this: _Layer) -> Explanation | None:
    if this.content is None or this.evidence.model.uuid == this.content.uuid:
        return None
    cause = Cause(
        "params-never-read",
        "the converter never read the params file (the model does not carry its uuid): --compressionParamsFile was "
        "mistyped or left out",
    )
    return Explanation(cause, this.convert_again("convert again with the params file"))


def _params_missing(this: _Layer) -> Explanation | None:
    if this.params is None or not this.params.missing:
        return None
    cause = Cause("params-missing", f"the params file {this.params.missing} does not exist")
    return Explanation(cause, calibrate_again(this.evidence.command, this.recipe))


def _params_unreadable(this: _Layer) -> Explanation | None:
    if this.params is None or not this.params.unreadable:
        return None
    cause = Cause("params-ignored", f"MNN ignores a params file that it can't parse ({this.params.unreadable})")
    return Explanation(cause, calibrate_again(this.evidence.command, this.recipe))


def _codes_of_other_bits(this: _Layer) -> Explanation | None:
    if not this.weights.full_int8:
        return None
    bits = this.weights.bits
    cause = Cause(
        "codes-clipped-to-bits",
        f"it was quantized with {bits} bits (quant_bits of mnnquant or of the params file): MNN computes the "
        "scales for 8 bits and clips the codes",
    )
    fix = f"quantize with 8 bits; for {bits}-bit weights without int8 activations use --mnn-recipe=w{bits}"
    return Explanation(cause, fix)


def _weights_only(this: _Layer) -> Explanation | None:
    if this.weights.storage is not Storage.INTEGER:
        return None
    text = "it is weight-only: --weightQuantBits was given, and no params file was applied"
    return Explanation(Cause("weights-only", text), this.convert_again("convert again with the params file"))


# Nothing at all -------------------------------------------------------------------------------------------------------


def _nothing_quantized(this: _Layer) -> Explanation | None:
    rows = this.evidence.rows
    if any(row.stored and row.stored.weights[0].storage not in _FLOATS for row in rows):
        return None
    if this.recipe.quantizer is Quantizer.MNNQUANT:
        cause = Cause(
            "tool-computed-no-sample",
            "no layer of the file is quantized: mnnquant could not compute one sample (its log says 'Compute Shape "
            "Error') and wrote float weights, with 'Quantize model done!'",
        )
        return Explanation(cause, calibrate_again(this.evidence.command, this.recipe))
    cause = Cause(
        "converter-got-no-option",
        "no layer of the file is quantized: the converter got no option to quantize, or a mistyped one, which it "
        "ignores",
    )
    return Explanation(cause, this.convert_again())


_Explainer = Callable[[_Layer], Explanation | None]
#: In this order: the first that the evidence shows explains the layer.
_ANY: Final[tuple[_Explainer, ...]] = (_float_under_header, _kept_in_float, _no_convolution, _cast_first)
_WEIGHT_ONLY: Final[tuple[_Explainer, ...]] = (_guide_overrides, _guide_says_float, _other_bits)
_INT8: Final[tuple[_Explainer, ...]] = (
    _no_int8_form,
    _misnamed,
    _path_was_wrong,
    _known_ahead,
    _unlisted,
    _never_read,
    _params_missing,
    _params_unreadable,
    _codes_of_other_bits,
    _weights_only,
)
