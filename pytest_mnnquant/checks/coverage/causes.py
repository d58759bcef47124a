"""Why a layer is not stored as asked, where the evidence shows it."""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.checks.params import ParamsEvidence
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.params import Params
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.mnn_support import can_compute
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

_SKIP: Final = "if it shall stay as it is: --mnn-skip-layer '{name}'"


def _ask(recipe: Recipe) -> str:
    """How MNN's converter is asked for this recipe."""
    if recipe.maker is Quantizer.MNNQUANT:
        sizes = "width, height and format of the model's own input"
        return f"pytest-mnnquant calibrate FLOAT.mnn OUT.mnn CONFIG.json, with {sizes}"
    if not recipe.activations:
        return f"pytest-mnnquant convert ... {' '.join(recipe.flags)}"
    return "pytest-mnnquant convert ... --compressionParamsFile PARAMS"


def explain_layer(
    row: LayerRow, recipe: Recipe, rows: tuple[LayerRow, ...], params: ParamsEvidence | None, model: Model
) -> tuple[str, str]:
    """(cause, remedy) for a layer that is not stored as asked; the cause is empty where the evidence shows none."""
    if row.stored is None:
        return "", "see the conversion check"
    weights = row.stored.weights[0]
    if not row.layer.is_convolution:
        return f"MNN keeps tables and matrices that are {row.stored.kind} in float", _SKIP.format(name=row.layer.name)
    if row.layer.is_convolution and not row.stored.is_convolution:
        return (
            f"the model holds its weights in a float {row.stored.kind}, which MNN can't quantize: converted with "
            "--convertMatmulToConv 0 or --useOriginRNNImpl",
            "convert without that flag",
        )
    if weights.storage is Storage.FLOAT16 and recipe.storage is Storage.INTEGER:
        return (
            "the model was converted with --fp16: MNN casts first, and then --weightQuantBits and the params file find "
            "no float weights to quantize",
            f"convert without --fp16: {_ask(recipe)}",
        )
    if recipe.activations:
        return _int8(row, recipe, rows, params, model)
    if params is not None and params.params is not None and params.params.is_blank:
        return (
            "the params file is the guide that MNN's converter made at an earlier run: it says 0 bits for every layer, "
            "which overrides --weightQuantBits",
            f"delete the file and convert without --compressionParamsFile: {_ask(recipe)}",
        )
    if params is not None and params.params is not None and _has_no_bits(row, params.params):
        return (
            "the params file, a guide of MNN's converter that was filled in, gives this layer 0 bits, which overrides "
            "--weightQuantBits",
            f"set its bits to {recipe.bits} there, and convert again",
        )
    if weights.storage is Storage.INTEGER and weights.bits != recipe.bits:
        return (
            f"the model was converted with --weightQuantBits {weights.bits} (MNN clamps the number to 2..8)",
            _ask(recipe),
        )
    return _nothing_quantized(rows, recipe) or ("", _ask(recipe))


def _has_no_bits(row: LayerRow, params: Params) -> bool:
    name = row.stored.name if row.stored else row.layer.name
    return params.is_guide and any(entry.op_name == name and entry.weight.bits == 0 for entry in params.layers)


def _int8(
    row: LayerRow, recipe: Recipe, rows: tuple[LayerRow, ...], params: ParamsEvidence | None, model: Model
) -> tuple[str, str]:
    if not can_compute(row.layer):
        return (
            "it is inside a While or If body, of which MNN gives no trace, so its ranges can't be "
            "measured (those of an LSTM of one layer can, from PyTorch)"
            if row.layer.subgraph
            else f"MNN has no int8 form of it ({row.layer.kind})",
            "--mnn-recipe=int8+w8 (for mnnconvert: add --weightQuantBits 8) stores it in 8 bits; "
            + _SKIP.format(name=row.layer.name),
        )
    if params is not None and params.params is not None:
        if (lost := params.misnamed_of(row.layer)) is not None:
            tensor = row.layer.output_names[0]
            if lost.groups:
                many = len(lost.groups)
                return f"MNN splits this grouped convolution into {many} layers", params.fix_for(lost.entry.name)
            return (
                f"name does not match: the params file lists it as {lost.entry.name!r}, in MNN it is {tensor!r}; "
                "both carry the same weights",
                params.fix_for(lost.entry.name),
            )
        if params.params.is_blank:
            return (
                "the path given as --compressionParamsFile did not exist: the converter created a file there and "
                "quantized nothing",
                "give the path of the calibrated params file, and convert again",
            )
        if any(op is row.layer for op in params.unlisted):
            known = (
                " (mnncompress knows Conv2d and Linear, called once)" if recipe.maker is Quantizer.MNNCOMPRESS else ""
            )
            skip = _SKIP.format(name=row.layer.name)
            return f"the params file has no entry for it{known}", f"calibrate with this layer, or {skip}"
        if model.uuid != params.params.uuid:
            return (
                "the converter never read the params file, whose uuid the model does not carry: mistyped flag or none",
                _ask(recipe),
            )
    if params is not None and params.missing:
        return f"the params file {params.missing} is not there", _ask(recipe)
    if params is not None and params.unreadable:
        return f"MNN ignores a params file that it can't parse ({params.unreadable})", "calibrate again, convert again"
    if row.stored is not None and row.stored.weights[0].full_int8:
        bits = row.stored.weights[0].bits
        return (
            f"it was quantized with {bits} bits (quant_bits of mnnquant, or of the params file): MNN computes the "
            "scales for 8 bits, and clips the codes",
            f"quantize with 8 bits; for {bits}-bit weights take --mnn-recipe=w{bits}, by the converter",
        )
    if row.stored is not None and row.stored.weights[0].storage is Storage.INTEGER:
        return "it is weight-only: --weightQuantBits was given, and no params were applied to it", _ask(recipe)
    return _nothing_quantized(rows, recipe) or ("", _ask(recipe))


def _nothing_quantized(rows: tuple[LayerRow, ...], recipe: Recipe) -> tuple[str, str] | None:
    floats = (Storage.FLOAT32, Storage.SPARSE_FLOAT)
    if any(row.stored and row.stored.weights[0].storage not in floats for row in rows):
        return None
    if recipe.maker is Quantizer.MNNQUANT:
        return (
            "no layer of the file is quantized at all: mnnquant could not compute one sample (its log says 'Compute "
            "Shape Error'), and wrote float weights with 'Quantize model done!'",
            _ask(recipe),
        )
    return (
        "no layer of the file is quantized at all: the converter was given no option for it, or a mistyped one",
        _ask(recipe),
    )
