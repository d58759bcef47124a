"""Why a layer is not stored as asked, where the evidence shows it."""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.checks.coverage import LayerRow
from pytest_mnnquant.checks.params import ParamsEvidence
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.quantize.calibration import INT8_KINDS
from pytest_mnnquant.quantize.recipes import Recipe

_SKIP: Final = "if it shall stay as it is: --mnn-skip-layer '{name}'"
_ASK: Final = {
    "int8": "mnnconvert ... --compressionParamsFile PARAMS (spelled exactly so: MNN ignores flags it does not know)",
    "w8": "mnnconvert ... --weightQuantBits 8",
    "w4": "mnnconvert ... --weightQuantBits 4",
    "fp16": "mnnconvert ... --fp16",
}


def explain_layer(
    row: LayerRow, recipe: Recipe, rows: tuple[LayerRow, ...], params: ParamsEvidence | None, model: Model
) -> tuple[str, str]:
    """(cause, remedy) for a layer that is not stored as asked; the cause is empty where the evidence shows none."""
    if row.stored is None:
        return "", "see the conversion check"
    weights = row.stored.weights[0]
    if not row.stored.is_convolution:
        return f"MNN keeps {row.stored.kind} tables in float", _SKIP.format(name=row.layer.name)
    if weights.storage is Storage.FLOAT16 and recipe.storage is Storage.INTEGER:
        return (
            "the model was converted with --fp16: MNN casts first, and then --weightQuantBits and the params file find "
            "no float weights to quantize",
            f"convert without --fp16: {_ASK[recipe.name]}",
        )
    if recipe.activations:
        return _int8(row, recipe, rows, params, model)
    if params is not None and params.params is not None and params.params.is_guide:
        return (
            "the params file is the guide that MNN's converter made at an earlier run: it says 0 bits for every layer, "
            "which overrides --weightQuantBits",
            f"delete the file and convert without --compressionParamsFile: {_ASK[recipe.name]}",
        )
    if weights.storage is Storage.INTEGER and weights.bits != recipe.bits:
        return (
            f"the model was converted with --weightQuantBits {weights.bits} (MNN clamps the number to 2..8)",
            _ASK[recipe.name],
        )
    return _nothing_quantized(rows, recipe) or ("", _ASK[recipe.name])


def _int8(
    row: LayerRow, recipe: Recipe, rows: tuple[LayerRow, ...], params: ParamsEvidence | None, model: Model
) -> tuple[str, str]:
    if row.layer.kind not in INT8_KINDS or row.layer.subgraph:
        place = "inside a While or If body" if row.layer.subgraph else row.layer.kind
        return (
            f"MNN has no int8 form of it ({place})",
            "add --weightQuantBits 8, which stores it in 8 bits; " + _SKIP.format(name=row.layer.name),
        )
    if params is not None and params.params is not None:
        if (lost := params.misnamed_of(row.layer)) is not None:
            tensor = row.layer.output_names[0]
            return (
                f"name does not match: the params file lists it as {lost.entry.name!r}, in MNN it is {tensor!r}; "
                "both carry the same weights",
                params.mend(lost.entry.name),
            )
        if params.params.is_guide:
            return (
                "the path given as --compressionParamsFile did not exist: the converter created a file there and "
                "quantized nothing",
                "give the path of the calibrated params file, and convert again",
            )
        if any(op is row.layer for op in params.unlisted):
            return "the params file has no entry for it", "calibrate with this layer, or " + _SKIP.format(
                name=row.layer.name
            )
        if model.uuid != params.params.uuid:
            return (
                "the converter never read the params file, whose uuid the model does not carry: mistyped flag or none",
                _ASK["int8"],
            )
    if params is not None and params.missing:
        return f"the params file {params.missing} is not there", _ASK["int8"]
    if params is not None and params.unreadable:
        return f"MNN ignores a params file that it can't parse ({params.unreadable})", "calibrate again, convert again"
    if row.stored is not None and row.stored.weights[0].storage is Storage.INTEGER:
        return "it is weight-only: --weightQuantBits was given, and no params were applied to it", _ASK["int8"]
    return _nothing_quantized(rows, recipe) or ("", _ASK["int8"])


def _nothing_quantized(rows: tuple[LayerRow, ...], recipe: Recipe) -> tuple[str, str] | None:
    if any(row.stored and row.stored.weights[0].storage is not Storage.FLOAT32 for row in rows):
        return None
    return (
        "no layer of the file is quantized at all: the converter was given no option for it, or a mistyped one",
        _ASK[recipe.name],
    )
