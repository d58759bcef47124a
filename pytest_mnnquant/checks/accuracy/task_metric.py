"""The task metric: how much worse the variant answers its labels than the float model, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.checks.accuracy.limits import (
    CONFIDENCE,
    Criteria,
    Verdict,
    doubt_finding,
    unbounded,
    verdict,
)
from pytest_mnnquant.findings.accuracy_metrics import TaskMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.defaults import DROP
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.task import Indices, Scores, TaskMetric
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

#: What a metric needs that has the unit of the user's own labels.
NO_LIMIT: Final = (
    "--mnn-metric={metric} has a unit of its own: say by how much it may change (--mnn-max-accuracy-drop), or what "
    "share of the float model's figure must be left (--mnn-min-accuracy-ratio)"
)


@dataclass(frozen=True)
class Compared:
    """A metric of the float model (`before`) and of the variant (`after`) on the same samples."""

    metric: TaskMetric
    before: Scores
    after: Scores

    @property
    def flips(self) -> tuple[int, int] | None:
        """How many samples were right before and are wrong now, and the reverse; None where it is not yes or no."""
        before, after = self.before.each, self.after.each
        if self.metric.lower_is_better:
            before, after = after, before
        if before is None or after is None or not (np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()):
            return None
        return int((before > after).sum()), int((after > before).sum())

    @property
    def drop(self) -> Estimate:
        """By how much the variant is worse, in the metric's unit."""
        sign = -1 if self.metric.lower_is_better else 1
        before, after = self.before, self.after
        if (flips := self.flips) is not None:
            return intervals.paired_drop(*flips, before.samples, CONFIDENCE)
        if before.each is not None and after.each is not None:
            return intervals.mean(sign * (before.each - after.each), CONFIDENCE)
        value = sign * (before.value - after.value)
        return _resampled(lambda chosen: sign * (before.of(chosen) - after.of(chosen)), value, before.samples)

    @property
    def ratio(self) -> Estimate:
        """What is left of the float model's figure (of an error: float / variant). Raises `ValueError` for 0 / 0."""
        first, second = (self.before, self.after) if self.metric.lower_is_better else (self.after, self.before)
        if self.metric.lower_is_better and second.value == 0:  # No error is left.
            best = math.inf if first.value else 1.0
            return Estimate(best, best, best, first.samples, 0.0)
        if first.each is not None and second.each is not None:
            return intervals.ratio(first.each, second.each, CONFIDENCE)
        if second.value == 0:
            raise ValueError("the figure that it is compared with is 0")
        value = first.value / second.value
        return _resampled(lambda chosen: first.of(chosen) / (second.of(chosen) or 1e-300), value, first.samples)

    @property
    def at_chance(self) -> bool:
        """Whether one constant answer would do as well as the float model: a model that gives it would lose nothing."""
        return self.before.baseline is not None and self.before.value <= self.before.baseline

    @property
    def below_chance(self) -> bool:
        """Whether one constant answer would do better than the float model, so that a drop says nothing at all."""
        return self.before.baseline is not None and self.before.value < self.before.baseline


def _resampled(statistic: Callable[[Indices], float], value: float, samples: int) -> Estimate:
    """Bounds of a figure, or none where a metric of the user's own is too slow or fails on some of the samples."""
    try:
        return intervals.resampled(statistic, samples, confidence=CONFIDENCE)
    except ValueError:
        return unbounded(value, samples)


def judge_task(compared: Compared, criteria: Criteria) -> tuple[list[Finding], TaskMetrics]:
    """Findings on the drop, the ratio and the float model's own floor; and the metrics for the report."""
    metric, before, after = compared.metric, compared.before.value, compared.after.value
    drop, flips = compared.drop, compared.flips
    task = TaskMetrics(
        metric=metric.name,
        label=metric.label,
        reference=before,
        quantized=after,
        drop=drop.value,
        drop_low=drop.low,
        drop_high=drop.high,
        lower_is_better=metric.lower_is_better,
    )
    if flips is not None:
        task = dataclasses.replace(task, lost=flips[0], won=flips[1], p_value=intervals.mcnemar(*flips))
    findings = below_floor(compared, criteria)
    if allowed_drop(metric, criteria) is None and criteria.min_ratio is None:
        findings.append(Finding("MNQ721", NO_LIMIT.format(metric=metric.name)))
    demands = []
    if (allowed := allowed_drop(metric, criteria)) is not None:
        decision = verdict(drop, allowed, at_least=False, strict=criteria.strict)
        demands.append((f"{_change(compared, drop)}, {allowed:g} allowed", decision))
    if criteria.min_ratio is not None:
        try:
            ratio = compared.ratio
        except ValueError as error:
            findings.append(Finding("MNQ003", f"{metric.label}: no ratio to the float model's: {error}"))
        else:
            task = dataclasses.replace(task, ratio=ratio.value, ratio_low=ratio.low, ratio_high=ratio.high)
            decision = verdict(ratio, criteria.min_ratio, at_least=True, strict=criteria.strict)
            text = f"{metric.label} {after:.4f} is {ratio.value:.4f} of the float model's {before:.4f}"
            demands.append((f"{text}, at least {criteria.min_ratio:g} wanted", decision))
    for text, decision in demands:
        if decision.fails:
            findings.append(Finding("MNQ701", f"{text} ({_on(compared)}{_doubt(decision)})"))
        elif decision.is_unsure:
            findings.append(doubt_finding(text, decision, criteria.strict))
    needed = max((decision.needed or 0 for _, decision in demands), default=0) or None
    return findings, dataclasses.replace(task, samples_needed=needed)


def allowed_drop(metric: TaskMetric, criteria: Criteria) -> float | None:
    """The drop that is allowed: as asked; else 0.01 of a share, unless another criterion was asked instead."""
    if criteria.max_drop is not None or criteria.min_ratio is not None or not metric.is_share:
        return criteria.max_drop
    return DROP


def below_floor(compared: Compared, criteria: Criteria) -> list[Finding]:
    """That the float model itself is not as good as was asked."""
    metric, before, floor = compared.metric, compared.before.value, criteria.min_float
    if floor is None or (before <= floor if metric.lower_is_better else before >= floor):
        return []
    wanted = "at most" if metric.lower_is_better else "at least"
    return [
        Finding(
            "MNQ708",
            f"{metric.label} of the float model is {before:.4f}, {wanted} {floor:g} wanted",
            cause=Cause(
                "float-model-at-fault",
                "the model (or its labels, or its preprocessing) is at fault before anything is quantized",
            ),
            fix="look at the float model, the labels and the preprocessing of the evaluation data",
        )
    ]


def _change(compared: Compared, drop: Estimate) -> str:
    metric, before, after = compared.metric, compared.before.value, compared.after.value
    verb = "rises" if (after > before) else "falls" if after < before else "stays"
    what = "rise" if metric.lower_is_better else "drop"
    return f"{metric.label} {verb} from {before:.4f} (float) to {after:.4f}: a {what} of {drop.value:.4f}"


def _on(compared: Compared) -> str:
    samples = f"{compared.before.samples} samples"
    if (flips := compared.flips) is None:
        return samples
    return f"{samples}: {flips[0]} were right and are wrong now, {flips[1]} the reverse"


def _doubt(held: Verdict) -> str:
    return f"; {held.doubt}" if held.is_unsure else ""
