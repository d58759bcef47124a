"""What was tried to mend a failing accuracy, and how it is told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, TriedMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.finding import FAILED, Result

_TOLD: Final = 3
_LISTED: Final = 5
NOTHING_TO_TRY: Final = (
    "--mnn-suggest had nothing to try: a finished file can't be made anew without its params file (--mnn-params); let "
    "the gate quantize the source itself (--mnn-recipe without --mnn-quantized)"
)
_MENDED: Final = ("MNQ701", "MNQ702", "MNQ703", "MNQ704", "MNQ706")


@dataclass(frozen=True)
class Proposal(TriedMetrics):
    """One other way to quantize that was tried."""

    @property
    def text(self) -> str:
        """The proposal in a line, costs included."""
        cost = f"{self.float_share:.1%} of the weights stay float, {size_text(self.size_ratio)} than float"
        options = list(self.options)
        if not self.passes and len(options) > _LISTED:  # Nobody will type it.
            options = [*options[:_TOLD], f"and {len(options) - _TOLD} more layers"]
        return f"{' '.join(options)} ({self.figure}; {cost})"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All that was tried within `seconds`; `is_complete` is False where the time ran out. `note` says what was seen."""

    proposals: tuple[Proposal, ...]
    seconds: float
    is_complete: bool
    note: str = ""

    def _best(self) -> list[Proposal]:
        """Of those that pass the one of each recipe that leaves least float, the best first."""
        by_recipe: dict[tuple[str, ...], Proposal] = {}
        passing = (proposal for proposal in self.proposals if proposal.passes)
        for proposal in sorted(passing, key=lambda proposal: (proposal.float_share, -proposal.size_ratio)):
            by_recipe.setdefault(tuple(option for option in proposal.options if "skip-layer" not in option), proposal)
        return list(by_recipe.values())

    @property
    def text(self) -> str:
        """What to do, by what was tried."""
        without_loss = [proposal for proposal in self._best() if not proposal.trade_off]
        if without_loss:
            rest = (
                f"; also: {'; '.join(proposal.text for proposal in without_loss[1:_TOLD])}"
                if len(without_loss) > 1
                else ""
            )
            return f"tried, and it passes: {without_loss[0].text}{rest}"
        if not self.proposals:
            return NOTHING_TO_TRY
        ended = "" if self.is_complete else ", then the time was over (--mnn-suggest-time)"
        proposals = [proposal for proposal in self.proposals if not proposal.trade_off]
        text = f"--mnn-suggest tried {len(proposals)} other ways in {self.seconds:.0f} s{ended}: none passes"
        if proposals:
            text += f"; the best was {max(proposals, key=lambda proposal: proposal.quality).text}"
        if other := next((proposal for proposal in self._best() if proposal.trade_off), None):
            text += f"; giving up {other.trade_off}, this passes: {other.text}"
        return text + (f"; {self.note}" if self.note else "")


def with_search(result: Result, search: SearchResult) -> Result:
    """A failed accuracy whose remedy is what was tried and found."""
    if result.outcome != FAILED:
        return result
    findings = tuple(
        dataclasses.replace(finding, fix=search.text) if finding.code in _MENDED else finding
        for finding in result.findings
    )
    metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
    metrics = dataclasses.replace(metrics, tried=search.proposals)
    return dataclasses.replace(result, findings=findings, metrics=metrics)
