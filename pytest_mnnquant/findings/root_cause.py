"""One cause, one error: which findings of a variant follow from which.

The order is that of the evidence ladder: what is wrong with the source, the file or the params explains what is wrong
with what is stored, that explains size and execution, and those explain the outputs. A finding follows from an earlier
one where both speak of the same layer, or one of them of the whole model. What nothing explains stands for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_mnnquant.findings.check_metrics import AccuracyMetrics, metrics_of
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rules import Severity

# Of the baseline: what is stored otherwise, and figures that are worse.
_KEPT: Final = ("MNQ913", "MNQ914")
#: What a broken rule brings about, by the beginnings of codes; nearest to the root first.
_BRINGS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("MNQ101", "MNQ102", "MNQ104", "MNQ202", "MNQ203"), ("MNQ",)),
    **dict.fromkeys(("MNQ204",), ("MNQ001", "MNQ201", "MNQ5", "MNQ6", "MNQ7", "MNQ801")),
    "MNQ803": ("MNQ001", "MNQ201", "MNQ305", "MNQ40", "MNQ41", "MNQ5", "MNQ6", "MNQ7", "MNQ80"),
    **dict.fromkeys(("MNQ301", "MNQ303"), ("MNQ001", "MNQ305", "MNQ40", "MNQ5", "MNQ6", "MNQ80", *_KEPT)),
    "MNQ302": ("MNQ001", "MNQ305", "MNQ40", "MNQ41", "MNQ5", "MNQ6", "MNQ7", "MNQ80", *_KEPT),
    **dict.fromkeys(("MNQ304", "MNQ306"), ("MNQ401", "MNQ402", "MNQ6", "MNQ80", *_KEPT)),
    "MNQ403": ("MNQ001", "MNQ201", "MNQ305", "MNQ40", "MNQ41", "MNQ5", "MNQ6", "MNQ7", "MNQ80"),
    "MNQ201": ("MNQ001", "MNQ6", "MNQ7"),
    "MNQ402": ("MNQ305", "MNQ41", "MNQ6", "MNQ7", "MNQ80", *_KEPT),
    "MNQ410": ("MNQ305", "MNQ41", "MNQ5", "MNQ6", "MNQ7", "MNQ80"),
    "MNQ305": ("MNQ401", "MNQ412", "MNQ416", "MNQ5", "MNQ6", "MNQ7", "MNQ80", *_KEPT),
    "MNQ401": ("MNQ5", "MNQ6", "MNQ80", *_KEPT),
    "MNQ405": ("MNQ80",),
    "MNQ41": ("MNQ5", "MNQ6", "MNQ7", "MNQ80"),
    "MNQ5": ("MNQ6", "MNQ7"),
    "MNQ6": ("MNQ7",),
    "MNQ80": (),
    "MNQ7": (),
    "MNQ001": (),  # There is nothing to judge where nothing is left.
}
_RANK: Final = tuple(_BRINGS)
# Where these strike, there is no model of this network to judge.
_SPOILS_FILE: Final = ("MNQ10", "MNQ201", "MNQ202", "MNQ203", "MNQ803")
# A range that is wrong in one layer spoils all that follow: which layer loses most is another question.
_SPOILS_ALL: Final = ("MNQ204", "MNQ305", "MNQ416", "MNQ417", "MNQ5", "MNQ6")


@dataclasses.dataclass(frozen=True, slots=True)
class _Told:
    """A finding, the check that told it, and the layers that lose next most where it is about accuracy."""

    check: str
    finding: Finding
    suspects: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Its place from the root; what no entry speaks of is no root of anything."""
        code = self.finding.code
        fitting = [number for number, start in enumerate(_RANK) if code.startswith(start)]
        return fitting[0] if fitting else len(_RANK)

    def brings(self, other: _Told) -> bool:
        """Whether this is why the other is."""
        ours, theirs = self.finding, other.finding
        if (ours.code, ours.message, ours.layer) == (theirs.code, theirs.message, theirs.layer):
            return True  # What keeps one check from judging keeps all others.
        if ours.code == theirs.code and ours.layer and ours.layer == theirs.layer:
            return True
        if (
            ours.code == theirs.code
            and self.check != other.check
            and ours.code.startswith((*_SPOILS_ALL, *_SPOILS_FILE))
        ):
            return True  # Each check names the layer that it saw first, or the step in which the model crashed.
        if self.check == other.check and (self.check == "accuracy" or (ours.layer and ours.layer == theirs.layer)):
            return True
        if self.rank >= other.rank or not theirs.code.startswith(_BRINGS[_RANK[self.rank]]):
            return False
        if ours.code.startswith(_SPOILS_FILE):
            return True
        if theirs.code.startswith(("MNQ5", "MNQ7")) and ours.code.startswith(_SPOILS_ALL):
            return True
        return "" in (ours.layer, theirs.layer) or ours.layer in (theirs.layer, *other.suspects)


def with_root_causes(check: str, results: Mapping[str, Result]) -> Result:
    """The result of a check with one finding for each cause, which tells what it follows from and what follows from it.

    `results` holds the check's own and those of the checks told beside it, in the order in which they are told.
    """
    result = results[check]
    told = [_Told(name, one, _suspects(other)) for name, other in results.items() for one in other.findings]
    errors = [one for one in told if one.finding.severity is Severity.ERROR]
    if not any(one.check == check for one in errors):
        return result
    roots = _roots(errors)
    groups: dict[tuple[object, ...], list[_Told]] = {}
    for one in errors:
        root = roots[id(one)]
        above = () if root is one else (root.check, root.finding.code)
        groups.setdefault((one.check, one.finding.code, above, one.finding.cause_id), []).append(one)
    heads = {id(one): group[0] for group in groups.values() for one in group}
    merged = []
    for group in (group for group in groups.values() if group[0].check == check):
        root = heads[id(roots[id(group[0])])]
        members = {id(one) for one in group}
        effects = [one for one in errors if id(roots[id(one)]) in members and id(one) not in members]
        merged.append(_merged(group, None if root is group[0] else root, effects))
    rest = [one for one in result.findings if one.severity is not Severity.ERROR]
    return dataclasses.replace(result, findings=(*merged, *rest))


def _suspects(result: Result) -> tuple[str, ...]:
    metrics = metrics_of(AccuracyMetrics, [result])
    return (metrics.next_suspects or ()) if metrics else ()


def _roots(errors: Sequence[_Told]) -> dict[int, _Told]:
    """For each error, by its identity, the one it all comes from; itself where nothing explains it."""
    roots: dict[int, _Told] = {}
    done: list[_Told] = []
    for one in sorted(errors, key=lambda told: told.rank):
        causes = [before for before in done if before.brings(one)]
        causes.sort(key=lambda before: before.finding.layer != one.finding.layer)
        roots[id(one)] = roots[id(causes[0])] if causes else one
        done.append(one)
    return roots


def _merged(group: Sequence[_Told], root: _Told | None, effects: Sequence[_Told]) -> Finding:
    """The first finding of a group, with the others and the effects as its consequences."""
    first = group[0].finding
    below = [dataclasses.replace(one.finding, check=one.check) for one in (*group[1:], *effects)]
    head = dataclasses.replace(first, check=group[0].check, consequences=tuple(below))
    if root is None:
        return head
    return dataclasses.replace(head, follows=root.finding.id, fix=head.fix or root.finding.fix)
