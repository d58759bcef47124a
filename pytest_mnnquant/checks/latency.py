"""Latency: the variant against the float model, timed in pairs."""

from __future__ import annotations

from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.metrics.ratio import paired_ratio
from pytest_mnnquant.runtime.execute import PairedTimes

_FEWEST_PAIRS = 30


def check_latency(times: PairedTimes, max_ratio: float | None, strict: bool) -> Result:
    """Record the ratio; fail when it is above `max_ratio`, where one is set.

    The point estimate decides, or with `strict` the upper bound of the 95 % interval.
    """
    if len(times.reference) < _FEWEST_PAIRS:
        gap = Finding(
            "MNQ003",
            f"{len(times.reference)} pairs of runs fitted into the time budget, {_FEWEST_PAIRS} needed",
            remedy="raise --mnn-timeout or measure on a faster machine",
        )
        return judge("latency", [gap], {"pairs": len(times.reference)})
    ratio = paired_ratio(times.reference, times.candidate)
    metrics = {
        "latency_ratio": ratio.median,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "pairs": ratio.pairs,
        "float_seconds": float(sorted(times.reference)[ratio.pairs // 2]),
        "quantized_seconds": float(sorted(times.candidate)[ratio.pairs // 2]),
    }
    if max_ratio is None or (ratio.high if strict else ratio.median) <= max_ratio:
        return judge("latency", (), metrics)
    message = (
        f"{ratio.median:.3f} times the float model's latency (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{ratio.pairs} pairs), {max_ratio:g} allowed"
    )
    cause = "x86 has few int8 instructions: int8 is often slower there than float, and faster on a phone"
    remedy = "measure on the target, or leave --mnn-max-latency-ratio unset on this host"
    return judge("latency", [Finding("MNQ901", message, cause=cause, remedy=remedy)], metrics)
