"""Size: the quantized model has the size that its layers and the recipe give."""

from __future__ import annotations

import math
from typing import Final

from pytest_mnnquant.checks.coverage.check import LayerRow
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.file_metrics import SizeMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.mnn_support import can_block, can_compute
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import Recipe

TOLERANCE: Final = 0.03
# Bytes of flatbuffer tables that a quantized layer adds, measured on MNN 3.6.1 (benchmarks/size_prediction.py):
# parameters of the weights; of the activations, with the descriptions of two tensors.
_WEIGHT_TABLES: Final = 76
_ACTIVATION_TABLES: Final = 140
# Bytes per layer that padding to 4 and 8 bytes and shared vtables may add.
_SLACK: Final = 96
# Bits of w4, the recipe that shrinks most.
_FEWEST: Final = 4
# Bytes that a tool adds per file: vtables of tables that the float model does not have.
_FILE_SLACK: Final = 160
# Bytes that it adds per described tensor beyond two per layer, per operator, and per operator that it inserts. Without
# them, networks of few weights and many operators (a GRU or LSTM written out in steps) would be larger than expected.
_DESCRIPTION: Final = 41
_REWRITTEN_OPERATOR: Final = 13
_ADDED_OPERATOR: Final = 110
# The slot of a UnaryOp's table of int8 results, and the bytes of a table of 255 results.
_TABLE: Final = 2
_TABLE_BYTES: Final = 300


def expected_layer_bytes(layer: Op, recipe: Recipe, *, is_known_ahead: bool = False) -> int:
    """Bytes a float layer takes when stored by a recipe: codes, header with code book, scales, tables.

    A layer that MNN computes before a run has no scales of activations.
    """
    if recipe.fill is not None and (is_known_ahead or not can_compute(layer)):
        recipe = recipe_named(f"w{recipe.fill}")
    elif recipe.activations and is_known_ahead:
        recipe = recipe_named(f"w{recipe.bits}")
    if recipe.storage is Storage.FLOAT16:
        return 2 * layer.weight_count + (_WEIGHT_TABLES - 20 if layer.is_convolution else 0)
    if not layer.is_convolution:
        return layer.weight_bytes
    header = 1 + 2 * 2 + 1 + (1 << recipe.bits)
    codes = math.ceil(layer.weight_count * recipe.bits / 8)
    channels = layer.shape[0] if layer.shape else 0
    groups = channels
    if recipe.block and can_block(layer.shape, layer.group, recipe.block):
        groups *= layer.shape[1] // recipe.block
    scales = groups * recipe.scale_bytes
    return header + codes + scales + _WEIGHT_TABLES + (_ACTIVATION_TABLES if recipe.activations else 0)


def expected_bytes(float_bytes: int, rows: tuple[LayerRow, ...], recipe: Recipe) -> int:
    """The size of the float model's file if every layer that is not skipped is stored by the recipe.

    Winograd scales count with the size that they have: the tool chooses them, and they do not depend on the precision.
    """
    wanted = [row for row in rows if row.wanted]
    extra = sum(row.stored.winograd_bytes for row in rows if row.stored)
    sparse = {row.layer.name: row.stored for row in rows if row.stored and _is_sparse(row.stored)}
    sizes = (
        sparse[row.layer.name].weight_bytes + _WEIGHT_TABLES
        if row.layer.name in sparse
        else expected_layer_bytes(row.layer, recipe, is_known_ahead=row.is_known_ahead)
        for row in wanted
    )
    return extra + float_bytes + sum(sizes) - sum(row.layer.weight_bytes for row in wanted)


def _is_sparse(op: Op) -> bool:
    """Whether its size depends on the number of weights that are zero."""
    return any(weights.storage is Storage.SPARSE_INTEGER for weights in op.weights)


def graph_growth(base: Model, model: Model) -> int:
    """The bytes that a tool adds to the graph: of operators that it inserts, such as casts around a resize.

    mnnquant also describes all tensors, and stores a table for each UnaryOp; others describe two tensors per layer.
    """
    layers = sum(weights.full_int8 for op in model.layers for weights in op.weights)
    described = len(model.tensor_quants) - 2 * layers
    added = max(0, len(model.ops) - len(base.ops))
    if described <= 0:
        return added * _ADDED_OPERATOR
    tables = sum(op.kind == "UnaryOp" and op.parameters is not None and op.parameters.has(_TABLE) for op in model.ops)
    operators = len(base.ops) * _REWRITTEN_OPERATOR + added * _ADDED_OPERATOR + tables * _TABLE_BYTES
    return described * _DESCRIPTION + operators


def check_size(
    float_bytes: int,
    quantized_bytes: int,
    rows: tuple[LayerRow, ...],
    recipe: Recipe,
    min_size_ratio: float | None,
    *,
    growth: int = 0,
) -> Result:
    """Fail if the size differs from the expected one by more than 3 %, or, if a ratio is required, is too large.

    `growth` are the bytes that the tool may have added to the graph.
    """
    ratio = float_bytes / quantized_bytes if quantized_bytes else 0.0
    expected = expected_bytes(float_bytes, rows, recipe)
    metrics = SizeMetrics(float_bytes, quantized_bytes, ratio, expected)
    if min_size_ratio is not None:
        if ratio >= min_size_ratio:
            return Result.from_findings("size", (), metrics)
        message = f"{size_text(ratio)}, required {min_size_ratio:g}x ({float_bytes:,} to {quantized_bytes:,} bytes)"
        cause = _why(quantized_bytes, expected)
        return Result.from_findings(
            "size", [Finding("MNQ802", message, cause=cause, fix=_remedy(ratio, recipe))], metrics
        )
    allowed = TOLERANCE * expected + _FILE_SLACK + _SLACK * sum(row.wanted for row in rows)
    if expected - allowed <= quantized_bytes <= expected + growth + allowed:
        return Result.from_findings("size", (), metrics)
    message = (
        f"{quantized_bytes:,} bytes, expected {expected:,} from the layers, 3 % allowed ({size_text(ratio)} than "
        f"float, expected {float_bytes / expected:.2f}x)"
    )
    return Result.from_findings("size", [Finding("MNQ801", message, cause=_why(quantized_bytes, expected))], metrics)


def _remedy(ratio: float, recipe: Recipe) -> str:
    """The fix for a ratio that is not met; its limit is one that this model meets."""
    limit = math.floor(ratio * 100) / 100
    fewer = (
        "" if recipe.storage is Storage.INTEGER and recipe.bits <= _FEWEST else ", or use fewer bits: --mnn-recipe=w4"
    )
    return f"lower the limit (--mnn-min-size-ratio={limit:g}), or leave out the option{fewer}"


def _why(quantized_bytes: int, expected: int) -> Cause:
    if quantized_bytes > expected * (1 + TOLERANCE):
        return Cause(
            "layers-larger-than-requested",
            "layers are stored in more bytes than requested: the coverage check names them",
        )
    if quantized_bytes < expected * (1 - TOLERANCE):
        return Cause(
            "layers-smaller-than-requested",
            "layers are stored in fewer bytes than requested: fewer bits, sparse storage, or missing parts of the "
            "network",
        )
    return Cause(
        "network-allows-no-more",
        "the layers of this network do not allow more: quantization does not shrink biases, tables and the graph",
    )
