"""One function per metric of the baseline: is it worse than accepted, or so much better that the file is outdated?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

from pytest_mnnquant.baseline.entry import Entry, value_text
from pytest_mnnquant.baseline.fixes import Commands, Intent, update_fix
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.metric import ACCURACY, COVERAGE, LATENCY, MEMORY, SIZE
from pytest_mnnquant.statistics.paired_ratio import FEWEST_TO_JUDGE, PairedRatio

# The largest error from rounding to six digits and subtracting such numbers.
_ROUNDING: Final = 2e-6
# A metric better by this many tolerances is reported, so that the user tightens the file; less is normal variation.
_FAR: Final = 5
_FAR_COVERAGE: Final = 0.01
#: Facts of the host that must be equal for memory to be comparable.
_MEMORY_FACTS: Final = ("machine", "threads", "memory_mode")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence that is compared with an entry.

    `unmeasured` gives the reason why a metric was not measured, by its key. `paired` is the variant's time / the
    accepted model's time, timed in turn; None if that model is not kept, or could not be timed: then `unpaired` says
    why. `is_kept`: the variant is bit for bit the kept model, and therefore not slower.
    """

    figures: Figures
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unmeasured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paired: PairedRatio | None = None
    unpaired: Finding | None = None
    is_kept: bool = False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The evidence, the entry that it is compared with, and the common parts of the findings.

    `cause` is what else changed since the entry was accepted; `commands` are for the fixes.
    """

    evidence: Evidence
    entry: Entry
    cause: Cause | None
    commands: Commands

    @property
    def accepted(self) -> Figures:
        """The accepted metrics."""
        return self.entry.figures

    @property
    def current(self) -> Figures:
        """The current metrics."""
        return self.evidence.figures

    def worse(self, code: str, message: str, layer: str = "") -> Finding:
        """A finding for a metric worse than accepted, or for a changed storage."""
        return Finding(code, message, layer, self.cause, update_fix(Intent.CHANGED, self.commands.accept))

    def better(self, message: str) -> Finding:
        """A finding for a metric far better than accepted."""
        return Finding("MNQ916", message, fix=update_fix(Intent.BETTER, self.commands.accept))

    def gap(self, key: str, accepted: float, *, title: str = "", why: str = "") -> Finding:
        """A finding for an accepted metric that can't be compared; `title` names the metric if its key does not."""
        why = why or self.evidence.unmeasured.get(key) or "its check measured no value"
        message = f"{title or key}: accepted {value_text(accepted)} can't be compared: {why}"
        return Finding("MNQ003", message, fix=f"run this variant alone: {self.commands.rerun}")

    def other_host(self, facts: tuple[str, ...]) -> str:
        """Why a metric that depends on the machine can't be compared (other machine or settings); empty if it can."""
        for fact in facts:
            accepted, current = self.entry.host.get(fact), self.evidence.host.get(fact)
            if accepted and current and accepted != current:
                return f"accepted with {fact} {accepted!r}, measured with {current!r}"
        return ""


def judge_size(this: Comparison) -> list[Finding]:
    """The file's size in bytes."""
    return _judge_bytes(this, SIZE.key, this.accepted.size, this.current.size, this.entry.tolerances.size)


def judge_memory(this: Comparison) -> list[Finding]:
    """The bytes of MNN's session."""
    accepted, current, allowed = this.accepted.memory, this.current.memory, this.entry.tolerances.memory
    is_comparable = accepted is not None and current is not None and allowed is not None
    if accepted is not None and is_comparable and (why := this.other_host(_MEMORY_FACTS)):
        return [this.gap(MEMORY.key, accepted, why=why)]
    return _judge_bytes(this, MEMORY.key, accepted, current, allowed)


def _judge_bytes(
    this: Comparison, key: str, accepted: int | None, current: int | None, allowed: float | None
) -> list[Finding]:
    """A number of bytes, where more is worse; `allowed` is a share of the accepted bytes."""
    if accepted is None or allowed is None:
        return []
    if current is None:
        return [this.gap(key, accepted)]
    change = (current - accepted) / accepted if accepted else float(current > accepted)
    message = f"{key} {current:,} bytes, accepted {accepted:,} ({change:+.1%}, allowed {allowed:+.1%})"
    if change > allowed + _ROUNDING:
        return [this.worse("MNQ913", message)]
    return [this.better(message)] if change < -max(_FAR * allowed, 0.01) else []


def judge_coverage(this: Comparison) -> list[Finding]:
    """The share of the weights that are stored as requested."""
    accepted, current, allowed = this.accepted.coverage, this.current.coverage, this.entry.tolerances.coverage
    if accepted is None or allowed is None:
        return []
    if current is None:
        return [this.gap(COVERAGE.key, accepted)]
    message = f"coverage {current:.4%}, accepted {accepted:.4%} (allowed drop {allowed:.4%})"
    if accepted - current > allowed + _ROUNDING:
        return [this.worse("MNQ913", message)]
    return [this.better(message)] if current - accepted > _FAR_COVERAGE else []


def judge_accuracy(this: Comparison) -> list[Finding]:
    """The task metric, or the cosine."""
    metric, lower_is_better = this.accepted.metric, this.accepted.lower_is_better
    accepted, current, allowed = this.accepted.accuracy, this.current.accuracy, _allowed_loss(this.entry)
    if accepted is None or allowed is None:
        return []
    if current is None:
        return [this.gap(ACCURACY.key, accepted, title=f"accuracy ({metric})")]
    if this.current.metric != metric:
        why = f"accepted as {metric}, measured as {this.current.metric}"
        return [this.gap(ACCURACY.key, accepted, why=why)]
    loss = current - accepted if lower_is_better else accepted - current
    direction = "rise" if lower_is_better else "drop"
    message = f"accuracy ({metric}) {current:.6g}, accepted {accepted:.6g} (allowed {direction} {allowed:.6g})"
    if loss > allowed + _ROUNDING * max(1.0, abs(accepted)):
        return [this.worse("MNQ913", message)]
    return [this.better(message)] if allowed and loss < -_FAR * allowed else []


def _allowed_loss(entry: Entry) -> float | None:
    """The allowed loss of accuracy, in the unit of the metric; None if accuracy is not compared."""
    if entry.figures.accuracy is None:
        return None
    absolute, relative = entry.tolerances.accuracy, entry.tolerances.accuracy_relative
    limits = [] if absolute is None else [absolute]
    limits += [] if relative is None else [relative * abs(entry.figures.accuracy)]
    return min(limits, default=None)


def judge_latency(this: Comparison) -> list[Finding]:
    """The latency, compared with the accepted model if it is kept, else with the accepted ratio to the float model."""
    evidence, allowed = this.evidence, this.entry.tolerances.ratio_paired
    if evidence.is_kept:
        return []
    if evidence.unpaired is not None:
        return [evidence.unpaired] if allowed is not None else []
    if evidence.paired is not None:
        return [] if allowed is None else _judge_paired(this, evidence.paired, allowed)
    return _judge_ratio(this)


def _judge_paired(this: Comparison, ratio: PairedRatio, allowed: float) -> list[Finding]:
    if ratio.pairs < FEWEST_TO_JUDGE:
        message = f"ratio: {ratio.pairs} pairs of runs with the accepted model, required {FEWEST_TO_JUDGE}"
        return [Finding("MNQ003", message, fix="measure on a quieter machine")]
    message = (
        f"{ratio.median:.3f} times the accepted model's latency (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{ratio.pairs} pairs timed in turn), allowed {1 + allowed:g}"
    )
    return _judge_interval(this, message, (ratio.low, ratio.high), 1 + allowed)


def _judge_ratio(this: Comparison) -> list[Finding]:
    accepted, current, allowed = this.accepted.ratio, this.current.ratio, this.entry.tolerances.ratio
    if accepted is None or allowed is None:
        return []
    if current is None:
        return [this.gap(LATENCY.key, accepted)]
    if why := this.other_host(tuple(this.entry.host)):
        return [this.gap(LATENCY.key, accepted, why=why)]
    low, high, limit = this.current.ratio_low, this.current.ratio_high, accepted * (1 + allowed)
    message = (
        f"ratio {current:.4g} to the float model's latency (95 % interval {_bound(low)} to {_bound(high)}), "
        f"accepted {accepted:.4g} (allowed {allowed:+.0%}: {limit:.4g})"
    )
    return _judge_interval(this, message, (current if low is None else low, current if high is None else high), limit)


def _judge_interval(this: Comparison, message: str, interval: tuple[float, float], limit: float) -> list[Finding]:
    """The findings of a ratio: it fails only if its whole interval lies above the limit."""
    low, high = interval
    if low > limit + _ROUNDING:
        return [this.worse("MNQ915", message)]
    if high > limit + _ROUNDING:
        again = f"run it again on a quieter machine: {this.commands.rerun}"
        return [Finding("MNQ003", f"{message}: the limit lies inside the confidence interval; inconclusive", fix=again)]
    return []


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


#: One function per metric, by the metric's key.
JUDGES: Final[Mapping[str, Callable[[Comparison], list[Finding]]]] = {
    SIZE.key: judge_size,
    COVERAGE.key: judge_coverage,
    ACCURACY.key: judge_accuracy,
    LATENCY.key: judge_latency,
    MEMORY.key: judge_memory,
}
