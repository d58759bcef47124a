"""The task metric: how much worse the variant is than the float model, with confidence bounds."""

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

#: A metric in the unit of the labels has no default limit.
NO_LIMIT: Final = (
    "--mnn-metric={metric} has its own unit and no default limit: set the allowed change (--mnn-max-accuracy-drop) or "
    "the required ratio to the float model's value (--mnn-min-accuracy-ratio)"
)


@dataclass(frozen=True)
class Compared:
    """A metric of the float model (`before`) and of the variant (`after`) on the same samples."""

    metric: TaskMetric
    before: Scores
    after: Scores

    @property
    def flips(self) -> tuple[int, int] | None:
        """How many samples became wrong, and how many became right; None if samples are not right or wrong."""
        before, after = self.before.each, self.after.each
        if self.metric.lower_is_better:
            before, after = after, before
        if before is None or after is None or not (np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()):
            return None
        return int((before > after).sum()), int((after > before).sum())

    @property
    def label(self) -> str:
        """The metric's label, with what was found out about the data."""
        return f"{self.metric.label} ({self.before.detail})" if self.before.detail else self.metric.label

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
        """The ratio to the float model's value (for an error: float / variant). Raises `ValueError` for x / 0."""
        first, second = (self.before, self.after) if self.metric.lower_is_better else (self.after, self.before)
        if self.metric.lower_is_better and second.value == 0:  # No error is left.
            best = math.inf if first.value else 1.0
            return Estimate(best, best, best, first.samples, 0.0)
        if first.each is not None and second.each is not None:
            return intervals.ratio(first.each, second.each, CONFIDENCE)
        if second.value == 0:
            raise ValueError("the value to divide by is 0")
        value = first.value / second.value
        return _resampled(lambda chosen: first.of(chosen) / (second.of(chosen) or 1e-300), value, first.samples)

    @property
    def at_chance(self) -> bool:
        """Whether a constant answer scores as high as the float model: a constant variant would lose nothing."""
        return self.before.baseline is not None and self.before.value <= self.before.baseline

    @property
    def below_chance(self) -> bool:
        """Whether a constant answer scores higher than the float model, so that a drop means nothing."""
        return self.before.baseline is not None and self.before.value < self.before.baseline


def _resampled(statistic: Callable[[Indices], float], value: float, samples: int) -> Estimate:
    """An estimate with bounds; without bounds if a custom metric is too slow or fails on some of the samples."""
    try:
        return intervals.resampled(statistic, samples, confidence=CONFIDENCE)
    except ValueError:
        return unbounded(value, samples)


def judge_task(compared: Compared, criteria: Criteria) -> tuple[list[Finding], TaskMetrics]:
    """Findings on the drop, the ratio and the float model's required value; and the metrics for the report."""
    metric, before, after = compared.metric, compared.before.value, compared.after.value
    drop, flips = compared.drop, compared.flips
    task = TaskMetrics(
        metric=metric.name,
        label=compared.label,
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
            message = f"{compared.label}: the ratio to the float model's can't be computed: {error}"
            findings.append(Finding("MNQ723", message))
        else:
            task = dataclasses.replace(task, ratio=ratio.value, ratio_low=ratio.low, ratio_high=ratio.high)
            decision = verdict(ratio, criteria.min_ratio, at_least=True, strict=criteria.strict)
            text = f"{compared.label} {after:.4f} is {ratio.value:.4f} of the float model's {before:.4f}"
            demands.append((f"{text}, required {criteria.min_ratio:g}", decision))
    for text, decision in demands:
        if decision.fails:
            findings.append(Finding("MNQ701", f"{text} ({_on(compared)}{_doubt(decision)})"))
        elif decision.is_unsure:
            findings.append(doubt_finding(text, decision, criteria.strict))
    needed = max((decision.needed or 0 for _, decision in demands), default=0) or None
    return findings, dataclasses.replace(task, samples_needed=needed)


def allowed_drop(metric: TaskMetric, criteria: Criteria) -> float | None:
    """The allowed drop: the given one; else the metric's default, unless another criterion was given instead."""
    if criteria.max_drop is not None or criteria.min_ratio is not None:
        return criteria.max_drop
    return DROP if metric.is_share else metric.default_drop


def below_floor(compared: Compared, criteria: Criteria) -> list[Finding]:
    """A finding if the float model itself misses `min_float`."""
    metric, before, floor = compared.metric, compared.before.value, criteria.min_float
    if floor is None or (before <= floor if metric.lower_is_better else before >= floor):
        return []
    bound = "at most" if metric.lower_is_better else "at least"
    return [
        Finding(
            "MNQ708",
            f"{compared.label} of the float model is {before:.4f}, required {bound} {floor:g}",
            cause=Cause(
                "float-model-at-fault",
                "the float model, its labels or its preprocessing is wrong, before anything is quantized",
            ),
            fix="check the float model, the labels and the preprocessing of the evaluation data",
        )
    ]


def _change(compared: Compared, drop: Estimate) -> str:
    metric, before, after = compared.metric, compared.before.value, compared.after.value
    kind = "rise" if metric.lower_is_better else "drop"
    if before == after:
        return f"{compared.label} stays at {before:.4f}: a {kind} of {drop.value:.4f}"
    verb = "rises" if after > before else "falls"
    return f"{compared.label} {verb} from {before:.4f} (float) to {after:.4f}: a {kind} of {drop.value:.4f}"


def _on(compared: Compared) -> str:
    samples = f"{compared.before.samples} samples"
    if (flips := compared.flips) is None:
        return samples
    return f"{samples}: {flips[0]} became wrong, {flips[1]} became right"


def _doubt(decision: Verdict) -> str:
    return f"; {decision.doubt}" if decision.is_unsure else ""
