"""Groups findings by cause, so that one cause gives one error: which findings of a variant follow from which.

Each rule lists the rules that are broken as its consequences, and has a stage between the source and the outputs
(`Rule.effects`). A finding follows from one of an earlier stage if both are about the same layer, or if one of them is
about the whole model. A finding that nothing explains is a root cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.cause import AND
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.findings.rule import Severity

#: The check whose errors all have one cause, although they may name different layers.
_ACCURACY: Final = "accuracy"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Error:
    """One error of a variant. `next_suspects`: in an accuracy error, the layers with the next largest losses."""

    finding: Finding
    next_suspects: tuple[str, ...] = ()

    def explains(self, effect: _Error) -> bool:
        """Whether another error, of the same or a later stage, follows from this one."""
        this, other = self.finding, effect.finding
        is_same_layer = bool(this.layer) and this.layer == other.layer
        if this.check == other.check and (this.check == _ACCURACY or is_same_layer):
            return True
        if this.code == other.code:
            # Each check names the first layer that it saw, or the step in which the model crashed.
            return is_same_layer or (this.check != other.check and this.rule.is_global)
        if this.rule.explains(other.code, in_any_layer=True):
            return True
        is_near = is_same_layer or "" in (this.layer, other.layer) or this.layer in effect.next_suspects
        return is_near and this.rule.explains(other.code)

    def restates(self, other: _Error) -> bool:
        """Whether this says less than another error of the same mechanism."""
        is_restatement = other.finding.code in self.finding.rule.effects.restates
        return is_restatement and not self._mechanisms.isdisjoint(other._mechanisms)

    @property
    def _mechanisms(self) -> frozenset[str]:
        return frozenset(self.finding.cause_id.split(AND)) - {""}


#: What the errors of a group have in common: check, code, check and code of the root cause above them, mechanism.
_GroupKey = tuple[str, str, str, str, str]


def with_root_causes(check: str, results: Mapping[str, Result]) -> Result:
    """The result of a check with one finding per cause, which lists its root cause and its consequences.

    `results` holds its result and those of the checks that are reported with it, in the order of the report.
    """
    result = results[check]
    errors = [
        _Error(finding, _next_suspects(reported))
        for reported in results.values()
        for finding in reported.findings
        if finding.severity is Severity.ERROR
    ]
    if not any(error.finding.check == check for error in errors):
        return result
    roots = _roots(errors)
    groups: dict[_GroupKey, list[_Error]] = {}
    for error in errors:
        groups.setdefault(_group_key(error, roots[error]), []).append(error)
    heads = {error: group[0] for group in groups.values() for error in group}
    merged = []
    for group in groups.values():
        if group[0].finding.check == check:
            root = heads[roots[group[0]]]
            effects = [error for error in errors if roots[error] in group and error not in group]
            merged.append(_merged(group, None if root is group[0] else root, effects))
    others = [finding for finding in result.findings if finding.severity is not Severity.ERROR]
    return dataclasses.replace(result, findings=(*merged, *others))


def _next_suspects(result: Result) -> tuple[str, ...]:
    metrics = metrics_of(AccuracyMetrics, [result])
    return (metrics.next_suspects or ()) if metrics else ()


def _roots(errors: Sequence[_Error]) -> dict[_Error, _Error]:
    """The root cause of each error; the error itself if nothing explains it."""
    roots: dict[_Error, _Error] = {}
    earlier: list[_Error] = []
    restated = {error: other for error in errors for other in errors if error.restates(other)}
    for error in sorted(errors, key=lambda error: error.finding.rule.stage):
        if error in restated:
            continue
        causes = [cause for cause in earlier if cause.explains(error)]
        causes.sort(key=lambda cause: cause.finding.layer != error.finding.layer)
        roots[error] = roots[causes[0]] if causes else error
        earlier.append(error)
    return roots | {error: roots[other] for error, other in restated.items()}


def _group_key(error: _Error, root: _Error) -> _GroupKey:
    """Errors with the same key are merged: the same mechanism broke the same rule in several layers."""
    this, above = error.finding, FindingId("", "") if root is error else root.finding.id
    return this.check, this.code, above.check, above.code, this.cause_id


def _merged(group: Sequence[_Error], root: _Error | None, effects: Sequence[_Error]) -> Finding:
    """The first finding of a group, with the others and the effects as its consequences."""
    head = dataclasses.replace(group[0].finding, consequences=tuple(error.finding for error in (*group[1:], *effects)))
    if root is None:
        return head
    return dataclasses.replace(head, follows=root.finding.id, fix=head.fix or root.finding.fix)
