"""The attributes of an operator: stride, axis, kind of arithmetic, and all other parameters except weights and scales.

From MNN 3.6.1, `schema/default/*.fbs`, without fields that only repeat a data type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_mnnquant.mnnfile.flatbuffer import Table
from pytest_mnnquant.mnnfile.model import Op

# Parameter table -> "slot name type [default], ...".
_FIELDS: Final[Mapping[str, str]] = {
    "ArgMax": "0 outMaxVal i32, 1 topK i32, 2 axis i32, 3 softmaxThreshold i32",
    "Axis": "0 axis i32",
    "BinaryOp": "0 opType i32, 2 activationType i32",
    "CastParam": "0 srcT i32, 1 dstT i32",
    "Crop": "0 axis i32 2, 1 offset [i32]",
    "CropAndResize": "0 extrapolationValue f32, 1 method i8",
    "Eltwise": "0 type i8",
    "ExpandDims": "2 axis i32",
    "Flatten": "0 axis i32, 1 endAxis i32",
    "Gather": "2 validateIndices u8, 3 axis i32",
    "Interp": (
        "0 widthScale f32, 1 heightScale f32, 2 outputWidth i32, 3 outputHeight i32, 4 resizeType i32, 5 "
        "alignCorners u8, 6 halfPixelCenters u8, 7 widthOffset f32, 8 heightOffset f32, 9 cubicCoeffA f32 "
        "-0.75, 10 ctm i8, 11 depthScale f32, 12 outputDepth i32, 13 depthOffset f32"
    ),
    "LRN": "0 regionType i32, 1 localSize i32, 2 alpha f32, 3 beta f32, 4 bias f32 1",
    "MatMul": "1 transposeA u8, 2 transposeB u8",
    "PackParam": "1 axis i32",
    "Permute": "0 dims [i32]",
    "Pool": (
        "0 padX i32, 1 padY i32, 2 isGlobal u8, 3 kernelX i32, 4 kernelY i32, 5 strideX i32, 6 strideY i32, 7 "
        "type i8, 8 padType i8, 10 ceilModel u8 1, 11 pads [i32], 12 countType i8"
    ),
    "ReductionParam": "0 operation i8, 1 dim [i32], 2 coeff f32, 3 keepDims u8",
    "Relu": "0 slope f32",
    "Relu6": "0 minValue f32, 1 maxValue f32 6",
    "Reshape": "0 dims [i32]",
    "Resize": "0 xScale f32, 1 yScale f32",
    "RoiParameters": (
        "0 pooledWidth i32, 1 pooledHeight i32, 2 spatialScale f32, 3 samplingRatio i32 -1, 4 aligned u8, 5 "
        "poolType i8 1, 6 outputGrad u8"
    ),
    "Scale": "0 channels i32",
    "Selu": "0 scale f32, 1 alpha f32",
    "Slice": "0 axis i32, 1 slicePoints [i32], 2 sourceType i8",
    "SqueezeParam": "0 squeezeDims [i32]",
    "StridedSliceParam": (
        "2 beginMask i32, 3 endMask i32, 4 ellipsisMask i32, 5 newAxisMask i32, 6 shrinkAxisMask i32, 7 fromType i32"
    ),
    "TopKV2": "1 sorted u8, 2 largest u8 1",
    "UnaryOp": "0 opType i32",
    "BatchMatMulParam": "0 adjX u8, 1 adjY u8",
    "DepthSpaceParam": "0 blockSize i32, 1 mode i8",
    "ReverseSequenceParam": "0 batchDim i32, 1 seqDim i32",
    "Pool3D": "0 strides [i32], 1 kernels [i32], 2 pads [i32], 3 type i8, 4 padType i8, 5 isGlobal u8",
    "ELU": "0 alpha f32",
    "OneHotParam": "1 axis i32 -1",
    "PadParam": "0 mode i8",
    "LayerNorm": "0 axis [i32], 1 epsilon f32, 4 group i32 1, 6 useRMSNorm u8",
    "GridSample": "0 mode i8, 1 paddingMode i8, 2 alignCorners u8, 3 backward u8",
    "CumSum": "0 exclusive u8, 1 reverse u8",
    "GroupNorm": "0 axis i32, 1 epsilon f32, 4 group i32 1, 5 bSwish i32",
    "AttentionParam": (
        "0 kv_cache u8 1, 2 layer_index i32 -1, 3 kv_shared_layer_index i32 -1, 5 output_c4 u8, 6 attnScale f32"
    ),
    "ShapeParam": "0 hasStart u8, 1 start i32, 2 hasEnd u8, 3 end i32",
    "Convolution2DCommon": (
        "0 padX i32, 1 padY i32, 2 kernelX i32 1, 3 kernelY i32 1, 4 strideX i32 1, 5 strideY i32 1, 6 "
        "dilateX i32 1, 7 dilateY i32 1, 8 padMode i8, 9 group i32 1, 10 outputCount i32, 11 inputCount i32, "
        "12 relu u8, 13 relu6 u8, 14 pads [i32], 15 outPads [i32], 16 hasOutputShape u8"
    ),
}
# The weights check reports larger constants.
_SMALL: Final = 64
Settings = Mapping[str, object]
# MNN's PadMode of explicit pads.
_EXPLICIT: Final = 0


def settings(op: Op) -> Settings:
    """The attributes of an operator by their names in MNN's schema; empty for unknown operators.

    Pads are the four effective ones, from any of MNN's ways of writing them.
    """
    table, kind = op.parameters, op.parameter_kind
    if kind == "Convolution2D" and table is not None:
        table, kind = table.table(0), "Convolution2DCommon"
    if table is None:
        return {}
    if kind == "Blob":
        return _numbers(table)
    values = {name: _value(table, slot, form, default) for slot, name, form, default in _fields(kind)}
    if kind in ("Convolution2DCommon", "Pool"):
        values = _padded(values, "padMode" if kind != "Pool" else "padType")
    if values.get("isGlobal"):
        values = {"isGlobal": 1, "type": values["type"]}
    return values


def _fields(kind: str) -> list[tuple[int, str, str, float]]:
    rows = [field.split() for field in _FIELDS.get(kind, "").split(",") if field]
    return [(int(slot), name, form, float(rest[0]) if rest else 0.0) for slot, name, form, *rest in rows]


def _value(table: Table, slot: int, form: str, default: float) -> object:
    if form == "[i32]":
        return table.ints(slot)
    value = table.scalar(slot, form, default)
    return float(value) if form == "f32" else int(value)


def _padded(values: dict[str, Any], mode: str) -> dict[str, object]:
    """The pads in one form for all of MNN's ways of writing them: top, left, bottom, right."""
    across, down, pads = values.pop("padX"), values.pop("padY"), values.pop("pads")
    if values[mode] == _EXPLICIT:
        values["pads"] = pads if len(pads) == 4 else (down, across, down, across)
    return values


def _numbers(blob: Table) -> Settings:
    """The numbers of a small constant: axes, shapes, factors. 16-bit floats are not compared."""
    if values := blob.ints(5):
        return {"values": values}
    floats = blob.array(7, "<f4")
    return {"values": tuple(float(f"{value:.5g}") for value in floats)} if 0 < floats.size <= _SMALL else {}
