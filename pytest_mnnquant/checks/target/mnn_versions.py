"""The MNN version on a target, and the findings for models that are worse with it than on this host."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_mnnquant.findings.accuracy_metrics import OperatorDifference
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.rule import Severity


@dataclass(frozen=True, slots=True)
class Runtimes:
    """MNN's version on a target, on this host, and of the converter that made the model.

    `symmetric` names the same recipe with symmetric weights, if the variant's weights are not symmetric.
    """

    on_target: str = ""
    on_host: str = ""
    converter: str = ""
    symmetric: str = ""

    @property
    def differ(self) -> bool:
        """Whether the target runs another MNN version than this host."""
        return self.on_target != self.on_host

    @property
    def cause(self) -> Cause | None:
        """Which MNN versions made and run the model; None if the target has the version of this host."""
        if not self.differ:
            return None
        text = f"the target runs the model with MNN {self.on_target}, this host with MNN {self.on_host}"
        if self.converter:
            text += f"; MNN {self.converter} made it"
        return Cause("target-has-other-runtime", text)

    @property
    def fix(self) -> str:
        """The fix for a difference between MNN versions."""
        symmetric = f"--mnn-recipe={self.symmetric} (symmetric weights) or " if self.symmetric else ""
        return (
            f"ship MNN {self.on_host} with the app; for apps with MNN {self.on_target}, use {symmetric}another recipe "
            "that passes on this target"
        )


def explained(
    findings: Sequence[Finding],
    differing: Sequence[Finding],
    runtimes: Runtimes,
    rounding: OperatorDifference | None = None,
) -> list[Finding]:
    """The errors of a target's accuracy that this host does not have, with their cause: operator and MNN version.

    `rounding` is an operator that rounds otherwise on the target, if no operator differs by more than rounding.
    """
    layer = next((finding.layer for finding in differing if finding.code == "MNQ740"), "")
    text = f"{layer} computes other values on the target (MNQ740)"
    operator = Cause("operator-differs-on-target", text) if layer else None
    if operator is None and rounding is not None:
        layer, operator = rounding.name, _rounding(rounding)
    causes = (Cause("on-target-only", "this host does not show this error"), runtimes.cause, operator)
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


def _rounding(difference: OperatorDifference) -> Cause:
    share = difference.unlike / max(difference.values, 1)
    text = (
        f"operator {difference.name} ({difference.op}) rounds {share:.1%} of its values to another code on the target, "
        "given the same input"
    )
    if difference.moves:
        text += f"; this alone moves an output by {difference.moves:.3g} quantization steps"
    return Cause("operator-rounds-otherwise", text)


def crashed(finding: Finding, runtimes: Runtimes, runs_float: bool, stored: str) -> Finding:
    """The finding of a model that crashes on a target, with the cause if the float model runs there."""
    if not runs_float:
        return finding
    text = f"the float model runs on the target: the crash comes from how this model is stored ({stored})"
    cause = joined(Cause("storage-crashes-runtime", text), runtimes.cause, finding.cause)
    fix = dataclasses.replace(runtimes, symmetric="").fix if runtimes.differ else finding.fix
    return dataclasses.replace(finding, cause=cause, fix=fix)
