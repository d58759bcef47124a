"""Scales that MNN takes from memory addresses: the same file computes differently from one process to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
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
_LEAVE_FLOAT = "leave the layers beside it float (--mnn-skip-layer)"


@dataclass(frozen=True, slots=True)
class TriedRecipe:
    """A recipe that was built of the same source and run: SQNR (dB) and cosine of the worst output, by API.

    `apis_agree`: they differ by rounding at most. `on_evaluation`: it was calibrated on the evaluation data.
    """

    name: str
    session_db: float
    module_db: float
    cosine: float
    is_ambiguous: bool
    apis_agree: bool
    on_evaluation: bool = False

    @property
    def works(self) -> bool:
        """Whether its result does not depend on addresses."""
        return self.apis_agree and not self.is_ambiguous

    @property
    def text(self) -> str:
        """The recipe with what was measured."""
        data = ", calibrated on the evaluation data" if self.on_evaluation else ""
        return (
            f"--mnn-recipe={self.name} (SQNR {self.session_db:.1f} dB through the Session API, {self.module_db:.1f} dB "
            f"through the Module API, cosine {self.cosine:.4f}{data})"
        )


def with_tried(result: Result, tried: Sequence[TriedRecipe], untried: str) -> Result:
    """The result of a check whose fix for scales by address is what was `tried`; `untried`: what was not, and why."""
    fix = _tried_fix(tried, untried)
    findings = (
        dataclasses.replace(finding, fix=fix) if finding.code == "MNQ418" else finding for finding in result.findings
    )
    return dataclasses.replace(result, findings=tuple(findings))


def _tried_fix(tried: Sequence[TriedRecipe], untried: str) -> str:
    working = sorted((recipe for recipe in tried if recipe.works), key=lambda recipe: -recipe.session_db)
    if working:
        return f"tried, and it does not depend on addresses: {'; also: '.join(recipe.text for recipe in working)}"
    if tried:
        return f"{_LEAVE_FLOAT}; tried without success: {'; '.join(recipe.text for recipe in tried)}"
    return f"{BY_ADDRESS_FIX}; not tried: {untried}"


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
