"""Scales that MNN takes from memory addresses: the same file computes differently from one process to another."""

from __future__ import annotations

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.scale_ambiguity import Ambiguity, ambiguities

BY_ADDRESS = Cause(
    "address-dependent-scale",
    "MNN gives a tensor that the file does not describe the scale of a neighbour, and visits neighbours in the order "
    "of their addresses",
)
BY_ADDRESS_FIX = (
    "quantize with --mnn-recipe=int8 or --mnn-recipe=mnnquant-kl, which describe such tensors, or leave the layers "
    "beside it float (--mnn-skip-layer)"
)


def scale_order(model: Model) -> list[Finding]:
    """A finding for all tensors whose scale depends on addresses; named is the first."""
    ambiguous = ambiguities(model)
    return [_finding(ambiguous)] if ambiguous else []


def _finding(found: list[Ambiguity]) -> Finding:
    first, others = found[0], len(found) - 1
    scales = " or ".join(
        f"{one.scale:.6g} (zero point {one.zero:g}, of {one.tensor}"
        + (f" for {one.operator})" if one.operator not in ("", one.tensor) else ")")
        for one in first.reaching
    )
    message = f"its scale is {scales}, by the process and the API; {first.differs} computes otherwise then"
    if others:
        message += f"; {others} other tensor{'s are' if others > 1 else ' is'} affected too"
    return Finding("MNQ418", message, first.tensor, cause=BY_ADDRESS, fix=BY_ADDRESS_FIX)
