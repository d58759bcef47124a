"""The known causes of worse outputs that the evidence shows, and their fixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.checks.operator_faults import (
    ADD_RELU,
    ADD_RELU_REMEDY,
    INT8_INTERP,
    INT8_INTERP_REMEDY,
    INT8_RESIZE,
    INT8_RESIZE_REMEDY,
    INT8_SCALE,
    INT8_SCALE_REMEDY,
)
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.mnnfile.int8_faults import NO_FAULTS, Int8Faults
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.recipes.recipe import Quantizer, Recipe

# Calibration that moves a BatchNorm mean by this many standard deviations changes the model itself.
_MUCH_DRIFT: Final = 0.5


@dataclass(frozen=True)
class KnownCauses:
    """What is known to degrade outputs. `drift`: see `Variant`; `faults`: see `ExecutionEvidence`.

    `recipe` is None if no recipe was requested. `on_arm`: see `ExecutionEvidence`.
    """

    drift: float = 0.0
    faults: Int8Faults = NO_FAULTS
    recipe: Recipe | None = None
    on_arm: bool = False


def cause(suspects: KnownCauses) -> Cause | None:
    """Why outputs are worse; None if none of the known reasons applies."""
    if suspects.drift >= _MUCH_DRIFT:
        return Cause(
            "calibration-moved-batchnorm",
            f"calibration in train mode moved BatchNorm statistics by up to {suspects.drift:.2f} standard deviations, "
            "which changes the model itself",
        )
    if suspects.on_arm and suspects.faults.resizes:
        names = ", ".join(operator.name for operator in suspects.faults.resizes[:3])
        return Cause(INT8_RESIZE.id, f"{INT8_RESIZE.text} ({names})")
    if suspects.faults.scales:
        return Cause(INT8_SCALE.id, f"{INT8_SCALE.text} ({', '.join(suspects.faults.scales[:3])})")
    if suspects.faults.clamping:
        return Cause(ADD_RELU.id, f"{ADD_RELU.text} ({', '.join(suspects.faults.clamping)})")
    if suspects.faults.interps:
        names = ", ".join(operator.name for operator in suspects.faults.interps[:3])
        return Cause(INT8_INTERP.id, f"{INT8_INTERP.text} ({names})")
    return None


def fix(suspects: KnownCauses) -> str:
    """The edit or option that fixes worse outputs."""
    if suspects.drift >= _MUCH_DRIFT:
        return "calibrate in eval mode (model.eval() before the calibration loop), or calibrate on representative data"
    recipe = suspects.recipe
    if suspects.on_arm and suspects.faults.resizes:
        return INT8_RESIZE_REMEDY
    if suspects.faults.operators:
        if recipe is not None and recipe.quantizer not in (Quantizer.BUILTIN, Quantizer.CONVERTER):
            return "use --mnn-recipe=int8 on the PyTorch source: it avoids this operator"
        if suspects.faults.scales:
            return INT8_SCALE_REMEDY
        return ADD_RELU_REMEDY if suspects.faults.clamping else INT8_INTERP_REMEDY
    suggest = "--mnn-suggest searches for a fix and verifies it"
    if recipe is not None and recipe.storage is Storage.FLOAT16:
        return "use --mnn-recipe=w8 or int8: 16-bit floats can't hold values above 65,504"
    if recipe is not None and not recipe.activations:
        ways = f"symmetric weights (w{recipe.bits}-sym), smaller blocks (w{recipe.bits}b32) or HQQ (w{recipe.bits}-hqq)"
        more = "more bits, " if recipe.bits < 8 else ""
        return f"try {more}{ways}; {suggest}"
    return f"calibrate on more representative data, or use --mnn-recipe=w8; {suggest}"
