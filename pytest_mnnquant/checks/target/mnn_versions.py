"""The MNN on a target: which one runs there, and what to say where a model fares worse with it than here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.rule import Severity


@dataclass(frozen=True, slots=True)
class Runtimes:
    """MNN's version on a target, on this machine, and of the converter that made the model.

    `symmetric` names the recipe that stores weights symmetrically, where the variant's does not.
    """

    there: str = ""
    here: str = ""
    converter: str = ""
    symmetric: str = ""

    @property
    def differ(self) -> bool:
        """Whether another MNN runs there."""
        return self.there != self.here

    @property
    def cause(self) -> Cause | None:
        """Which MNN runs and which made the model; None if the target has the MNN of this host."""
        if not self.differ:
            return None
        if self.converter == self.here:
            text = f"MNN {self.there} runs the model there, and MNN {self.here} made it and runs it here"
        else:
            made = f"; MNN {self.converter} made it" if self.converter else ""
            text = f"MNN {self.there} runs the model there, and MNN {self.here} here{made}"
        return Cause("target-has-other-runtime", text)

    @property
    def fix(self) -> str:
        """What to do about what another MNN computes."""
        symmetric = f"symmetric weights (--mnn-recipe={self.symmetric}), or " if self.symmetric else ""
        return (
            f"ship MNN {self.here} with the app; or, for apps that have MNN {self.there}, take {symmetric}another "
            "recipe: one that passes on this target is right for them"
        )


def explained(findings: Sequence[Finding], differing: Sequence[Finding], runtimes: Runtimes) -> list[Finding]:
    """Errors of a target's accuracy that this machine does not find: with the operator that makes them, and why."""
    layer = next((finding.layer for finding in differing if finding.code == "MNQ740"), "")
    computes = Cause("operator-differs-on-target", f"{layer} computes otherwise there (MNQ740)") if layer else None
    causes = (Cause("on-target-only", "here the check finds no such fault"), runtimes.cause, computes)
    return [
        dataclasses.replace(
            finding,
            layer=finding.layer or layer,
            cause=joined(*causes, finding.cause),
            fix=runtimes.fix if runtimes.differ else finding.fix,
        )
        if finding.severity is Severity.ERROR
        else finding
        for finding in findings
    ]


def crashed(finding: Finding, runtimes: Runtimes, runs_float: bool, stored: str) -> Finding:
    """The failure of a target on whose MNN a model crashes: whether that is how the model is stored, and what to do."""
    if not runs_float:
        return finding
    text = f"the float model runs there: what crashes is how this one is stored ({stored})"
    cause = joined(Cause("storage-crashes-runtime", text), runtimes.cause, finding.cause)
    fix = dataclasses.replace(runtimes, symmetric="").fix if runtimes.differ else finding.fix
    return dataclasses.replace(finding, cause=cause, fix=fix)
