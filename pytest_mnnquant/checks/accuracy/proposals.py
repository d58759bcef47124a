"""The alternatives that --mnn-suggest tried for a failing accuracy, and how they are reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, TriedMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.finding import FAILED, Result

_REPORTED: Final = 3
_LISTED: Final = 5
NOTHING_TO_TRY: Final = (
    "--mnn-suggest had nothing to try: a finished file can't be quantized again without its params file "
    "(--mnn-params); give it, or let the gate quantize the source (--mnn-recipe without --mnn-quantized)"
)
_FIXED: Final = ("MNQ701", "MNQ702", "MNQ703", "MNQ704", "MNQ706", "MNQ712")


@dataclass(frozen=True)
class Proposal(TriedMetrics):
    """One alternative that was tried. Its options are those of pytest, after the command that makes the model, if any.

    The command is missing if pytest makes the model by these options.
    """

    @property
    def command(self) -> str:
        """The command that makes the model; empty if the options of pytest do."""
        return next((option for option in self.options if not option.startswith("-")), "")

    @property
    def recipe(self) -> str:
        """The option that names another recipe; empty if the recipe stays."""
        return next((option for option in self.options if option.startswith("--mnn-recipe=")), "")

    @property
    def text(self) -> str:
        """The options of the proposal in one line, with its costs."""
        cost = f"{self.float_share:.1%} of the weights stay float, {size_text(self.size_ratio)} than float"
        # The command shows the params file.
        options = [item for item in self.options if item != self.command and not item.startswith("--mnn-params=")]
        if not self.passes and len(options) > _LISTED:  # Too long for a failure that does not pass.
            options = [*options[:_REPORTED], f"and {len(options) - _REPORTED} more layers"]
        return f"{' '.join(options)} ({self.figure}; {cost})"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All that was tried within `seconds`; `is_complete` is False if the time ran out. `note` adds an observation."""

    proposals: tuple[Proposal, ...]
    seconds: float
    is_complete: bool
    note: str = ""

    def _best(self) -> list[Proposal]:
        """For each recipe, the passing proposal that leaves the least weights float; the best first."""
        by_recipe: dict[str, Proposal] = {}
        passing = (proposal for proposal in self.proposals if proposal.passes)
        for proposal in sorted(passing, key=lambda proposal: (proposal.float_share, -proposal.size_ratio)):
            by_recipe.setdefault(proposal.recipe, proposal)
        return list(by_recipe.values())

    @property
    def text(self) -> str:
        """The fix line: what passed, or the best that was tried."""
        without_loss = [proposal for proposal in self._best() if not proposal.trade_off]
        if without_loss:
            rest = (
                f"; also: {'; '.join(proposal.text for proposal in without_loss[1:_REPORTED])}"
                if len(without_loss) > 1
                else ""
            )
            text = f"verified, this passes: {without_loss[0].text}{rest}"
            command = without_loss[0].command
            return f"{text}; make the model, and give its params file to --mnn-params:\n{command}" if command else text
        if not self.proposals:
            return NOTHING_TO_TRY
        ended = "" if self.is_complete else " until --mnn-suggest-time was over"
        proposals = [proposal for proposal in self.proposals if not proposal.trade_off]
        count = f"{len(proposals)} alternative{'s' if len(proposals) != 1 else ''}"
        text = f"--mnn-suggest tried {count} in {self.seconds:.0f} s{ended}: none passes"
        if proposals:
            text += f"; best: {max(proposals, key=lambda proposal: proposal.quality).text}"
        if other := next((proposal for proposal in self._best() if proposal.trade_off), None):
            text += f"; without {other.trade_off}, this passes: {other.text}"
        return text + (f"; {self.note}" if self.note else "")


def with_search(result: Result, search: SearchResult) -> Result:
    """A failed accuracy result whose fix is the outcome of the search."""
    if result.outcome != FAILED:
        return result
    findings = tuple(
        dataclasses.replace(finding, fix=search.text) if finding.code in _FIXED else finding
        for finding in result.findings
    )
    metrics = metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics()
    metrics = dataclasses.replace(metrics, tried=search.proposals)
    return dataclasses.replace(result, findings=findings, metrics=metrics)
