"""One judge for each metric of the baseline: is it worse than accepted, or so much better that the file is outdated?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

from pytest_mnnquant.baseline.entry import Entry, value_text
from pytest_mnnquant.baseline.fixes import Intent, update_fix
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.metric import ACCURACY, COVERAGE, LATENCY, MEMORY, SIZE
from pytest_mnnquant.statistics.paired_ratio import FEWEST_TO_JUDGE, PairedRatio

# What rounding to six digits and the subtraction of such numbers may add.
_ROUNDING: Final = 2e-6
# A metric better by this many tolerances is reported, so that the file is tightened: less is the usual play.
_FAR: Final = 5
_FAR_COVERAGE: Final = 0.01
#: What must be the same on the host for memory to be comparable.
_MEMORY_FACTS: Final = ("machine", "threads", "memory_mode")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is compared with an entry.

    `unmeasured` says why a metric was not measured, by its key. `paired` is the time of the variant over that of the
    accepted model, timed in turn; None if that model is not kept, or could not be timed: then `unpaired` says why.
    `is_kept`: the variant is the kept model, bit for bit, and so not slower than that.
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
    """The evidence and the entry that it is compared with, and what the findings have in common.

    `cause` is what else changed since the entry was accepted; `command` accepts the numbers of now.
    """

    evidence: Evidence
    entry: Entry
    cause: Cause | None
    command: str

    @property
    def accepted(self) -> Figures:
        """What was accepted."""
        return self.entry.figures

    @property
    def current(self) -> Figures:
        """What was measured now."""
        return self.evidence.figures

    def worse(self, code: str, message: str, layer: str = "") -> Finding:
        """A number that is worse than accepted, or another storage."""
        return Finding(code, message, layer, self.cause, update_fix(Intent.CHANGED, self.command))

    def better(self, message: str) -> Finding:
        """A number that is far better than accepted."""
        return Finding("MNQ916", message, fix=update_fix(Intent.BETTER, self.command))

    def gap(self, key: str, accepted: float, *, title: str = "", why: str = "") -> Finding:
        """An accepted number of a metric that can't be compared; `title` names the metric if its key does not."""
        why = why or self.evidence.unmeasured.get(key) or "its check gave no figure"
        message = f"{title or key}: accepted {value_text(accepted)} can't be compared: {why}"
        return Finding("MNQ003", message, fix="run this variant alone, with all its checks: -k baseline -p no:xdist")

    def other_host(self, facts: tuple[str, ...]) -> str:
        """Why a number of the machine can't be compared: accepted on another one, or with other settings; or empty."""
        for fact in facts:
            accepted, current = self.entry.host.get(fact), self.evidence.host.get(fact)
            if accepted and current and accepted != current:
                return f"it was accepted with {fact} {accepted!r}, and this is {current!r}"
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
    """A number of bytes, of which more is worse; `allowed` is a share of the accepted ones."""
    if accepted is None or allowed is None:
        return []
    if current is None:
        return [this.gap(key, accepted)]
    change = (current - accepted) / accepted if accepted else float(current > accepted)
    message = f"{key} {current:,} bytes, accepted {accepted:,} ({change:+.1%}, at most {allowed:+.1%} allowed)"
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
    message = f"coverage {current:.4%}, accepted {accepted:.4%} (a drop of {allowed:.4%} allowed)"
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
        why = f"it was accepted as {metric}, and is now {this.current.metric}"
        return [this.gap(ACCURACY.key, accepted, why=why)]
    loss = current - accepted if lower_is_better else accepted - current
    direction = "rise" if lower_is_better else "drop"
    message = f"accuracy ({metric}) {current:.6g}, accepted {accepted:.6g} (a {direction} of {allowed:.6g} allowed)"
    if loss > allowed + _ROUNDING * max(1.0, abs(accepted)):
        return [this.worse("MNQ913", message)]
    return [this.better(message)] if allowed and loss < -_FAR * allowed else []


def _allowed_loss(entry: Entry) -> float | None:
    """How much accuracy may be lost, in the unit of the metric; None if it is not compared."""
    if entry.figures.accuracy is None:
        return None
    absolute, relative = entry.tolerances.accuracy, entry.tolerances.accuracy_relative
    limits = [] if absolute is None else [absolute]
    limits += [] if relative is None else [relative * abs(entry.figures.accuracy)]
    return min(limits, default=None)


def judge_latency(this: Comparison) -> list[Finding]:
    """The time: against the accepted model if that is kept, else against the accepted ratio to the float model."""
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
        message = f"ratio: {ratio.pairs} pairs of runs with the accepted model, {FEWEST_TO_JUDGE} needed"
        return [Finding("MNQ003", message, fix="measure on a quieter machine")]
    message = (
        f"{ratio.median:.3f} times the accepted model's latency (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{ratio.pairs} pairs timed in turn), {1 + allowed:g} allowed"
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
        f"ratio {current:.4g} of the float model's latency (95 % interval {_bound(low)} to {_bound(high)}), "
        f"accepted {accepted:.4g} ({allowed:+.0%} allowed: {limit:.4g})"
    )
    return _judge_interval(this, message, (current if low is None else low, current if high is None else high), limit)


def _judge_interval(this: Comparison, message: str, interval: tuple[float, float], limit: float) -> list[Finding]:
    """A ratio by its interval: all of it must be above the limit to fail."""
    low, high = interval
    if low > limit + _ROUNDING:
        return [this.worse("MNQ915", message)]
    if high > limit + _ROUNDING:
        again = "run it again on a quieter machine: -k baseline -p no:xdist"
        return [Finding("MNQ003", f"{message}: the interval holds the limit, so this can't tell", fix=again)]
    return []


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


#: By the keys of the metrics.
JUDGES: Final[Mapping[str, Callable[[Comparison], list[Finding]]]] = {
    SIZE.key: judge_size,
    COVERAGE.key: judge_coverage,
    ACCURACY.key: judge_accuracy,
    LATENCY.key: judge_latency,
    MEMORY.key: judge_memory,
}
