"""Scales that MNN chooses by memory addresses: one file computes different outputs in different processes."""

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
    "the file does not describe this tensor, so MNN gives it the scale of a neighbour, and it visits neighbours in the "
    "order of their memory addresses",
)
BY_ADDRESS_FIX = (
    "quantize with --mnn-recipe=int8 or --mnn-recipe=mnnquant-kl, which describe such tensors, or keep its neighbour "
    "layers float (--mnn-skip-layer)"
)
_KEEP_FLOAT = "keep its neighbour layers float (--mnn-skip-layer)"


@dataclass(frozen=True, slots=True)
class TriedRecipe:
    """A recipe that was built from the same source and run: SQNR (dB) and cosine of the worst output, by API.

    `apis_agree`: the APIs differ by rounding at most. `on_evaluation`: it was calibrated on the evaluation data.
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
        """The option, with what was measured."""
        data = ", calibrated on the evaluation data" if self.on_evaluation else ""
        return (
            f"--mnn-recipe={self.name} (SQNR {self.session_db:.1f} dB through the Session API, {self.module_db:.1f} dB "
            f"through the Module API, cosine {self.cosine:.4f}{data})"
        )


def with_tried(result: Result, tried: Sequence[TriedRecipe], untried: str) -> Result:
    """The result with fixes of address-dependent scales that name what was `tried`; `untried` says why nothing was."""
    fix = _tried_fix(tried, untried)
    findings = (
        dataclasses.replace(finding, fix=fix) if finding.code == "MNQ418" else finding for finding in result.findings
    )
    return dataclasses.replace(result, findings=tuple(findings))


def _tried_fix(tried: Sequence[TriedRecipe], untried: str) -> str:
    working = sorted((recipe for recipe in tried if recipe.works), key=lambda recipe: -recipe.session_db)
    if working:
        recipes = "; or with ".join(recipe.text for recipe in working)
        return f"quantize with a recipe that was built and does not depend on addresses: {recipes}"
    if tried:
        recipes = "; ".join(recipe.text for recipe in tried)
        return f"{_KEEP_FLOAT}; these recipes were built and depend on addresses too: {recipes}"
    return f"{BY_ADDRESS_FIX}; no recipe was built to check that: {untried}"


def scale_order(model: Model) -> list[Finding]:
    """One finding for all tensors whose scale depends on addresses; it names the first."""
    ambiguous = ambiguities(model)
    return [_finding(ambiguous)] if ambiguous else []


def _finding(ambiguous: list[Ambiguity]) -> Finding:
    first, others = ambiguous[0], len(ambiguous) - 1
    scales = " or ".join(
        f"{scale.scale:.6g} (zero point {scale.zero:g}, from {scale.tensor}"
        + (f" for {scale.operator})" if scale.operator not in ("", scale.tensor) else ")")
        for scale in first.reaching
    )
    message = (
        f"its scale is {scales}, depending on the process and the API, which changes the output of {first.differs}"
    )
    if others:
        message += f"; {others} other tensor{'s are' if others > 1 else ' is'} affected too"
    return Finding("MNQ418", message, first.tensor, cause=BY_ADDRESS, fix=BY_ADDRESS_FIX)
