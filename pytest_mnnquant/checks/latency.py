"""Latency: the variant compared with the float model, timed in pairs of runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import LatencyMetrics
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.measurements.timing import OpTime, PairedTimes
from pytest_mnnquant.mnnfile.structure import CASTS
from pytest_mnnquant.statistics.paired_ratio import FEWEST_TO_JUDGE, PairedRatio, paired_ratio

_NAMED: Final = 3
#: Why int8 is slow on a host without instructions for it; measured on x86 with MNN's wheels up to 3.6.1.
SLOW_HOST: Final = (
    "MNN has no int8 instructions on this host ({machine}): int8 is often slower than float; on phones it is faster"
)


def limit_on(limit: float | Mapping[str, float] | None, host: Host | None) -> float | None:
    """The limit for a host: by its name, else by its instructions, else by its architecture, else "*"."""
    if not isinstance(limit, Mapping):
        return limit
    keys = (*(host.keys if host else ()), "*")
    return next((limit[key] for key in keys if key in limit), None)


def check_latency(
    times: PairedTimes,
    max_latency_ratio: float | Mapping[str, float] | None,
    activations: bool = False,
    op_times: Callable[[], Sequence[OpTime]] = tuple,
) -> Result:
    """Record the ratio; fail if all of its 95 % interval is above the limit for this host, if there is a limit.

    If the limit lies inside the interval, the result is inconclusive. `activations`: the variant is intended to run in
    int8. `op_times` gives the times of its operators; it is called only if int8 is not faster on a host that has
    instructions for it.
    """
    if len(times.reference) < FEWEST_TO_JUDGE:
        too_few = Finding(
            "MNQ003",
            f"{len(times.reference)} pairs of runs fit into the time budget, required {FEWEST_TO_JUDGE}",
            fix="increase --mnn-latency-time, or measure on a faster host",
        )
        return Result.from_findings("latency", [too_few], LatencyMetrics(pairs=len(times.reference)))
    ratio, host = paired_ratio(times.reference, times.candidate), times.host
    metrics = _metrics(times, ratio)
    allowed = limit_on(max_latency_ratio, host)
    findings = [] if allowed is None else _against(ratio, allowed, host, activations)
    notes = []
    if isinstance(max_latency_ratio, Mapping) and allowed is None:
        notes.append(_unlimited(max_latency_ratio, host))
    if activations and host is not None and not host.is_fast_in_int8 and ratio.median > 1:
        notes.append(SLOW_HOST.format(machine=host.machine))
    if notes:
        metrics = dataclasses.replace(metrics, note="; ".join(notes))
    if activations and host is not None and host.is_fast_in_int8 and ratio.low > 1:
        findings.append(_not_faster(ratio, op_times(), host))
    return Result.from_findings("latency", findings, metrics)


def _unlimited(limit: Mapping[str, float], host: Host | None) -> str:
    """The note that no limit applies to this host: its key may be misspelled."""
    keys = ", ".join(host.keys) if host else "unknown"
    return f"not judged: no limit for this host ({keys}), only for {', '.join(limit)}"


def _metrics(times: PairedTimes, ratio: PairedRatio) -> LatencyMetrics:
    ratios = times.candidate / times.reference
    low, high = np.quantile(ratios, (0.25, 0.75))
    outliers = (ratios < low - 1.5 * (high - low)) | (ratios > high + 1.5 * (high - low))
    half = len(ratios) // 2
    return LatencyMetrics(
        latency_ratio=ratio.median,
        latency_ratio_low=ratio.low,
        latency_ratio_high=ratio.high,
        pairs=ratio.pairs,
        float_seconds=float(np.median(times.reference)),
        quantized_seconds=float(np.median(times.candidate)),
        ratio_quantiles={f"{share:g}": float(np.quantile(ratios, share)) for share in (0.05, 0.25, 0.75, 0.95)},
        outliers=int(outliers.sum()),
        drift=float(np.median(ratios[half:]) / np.median(ratios[:half]) - 1),
        slowest_over_median=_spread(times.reference),
        settings=times.settings.conditions,
        host=times.host.facts if times.host else None,
    )


def _spread(times: npt.NDArray[np.float64]) -> float:
    """How noisy the host was: the 95th percentile of the float model's times over their median."""
    return float(np.quantile(times, 0.95) / np.median(times))


def _against(ratio: PairedRatio, allowed: float, host: Host | None, activations: bool) -> list[Finding]:
    measured_text = (
        f"{ratio.median:.3f} times the float model's latency (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{ratio.pairs} pairs), allowed {allowed:g}"
    )
    if ratio.low > allowed:
        is_slow = activations and host is not None and not host.is_fast_in_int8
        cause = Cause("slow-host", SLOW_HOST.format(machine=host.machine)) if is_slow and host else None
        fix = "measure on the target (--mnn-target)"
        if host:
            limit = math.ceil(ratio.high * 20) / 20
            fix += f", or set a limit for this host: --mnn-max-latency-ratio {host.machine}={limit:g}"
        return [Finding("MNQ901", measured_text, cause=cause, fix=fix)]
    if ratio.high > allowed:
        fix = "increase --mnn-latency-time, or measure on a quieter host"
        message = f"{measured_text}: the limit lies inside the confidence interval; inconclusive"
        return [Finding("MNQ003", message, fix=fix)]
    return []


def _not_faster(ratio: PairedRatio, ops: Sequence[OpTime], host: Host) -> Finding:
    total = sum(op.seconds for op in ops) or 1.0
    casts = [op for op in ops if op.kind in CASTS]
    floats = sorted((op for op in ops if op not in casts and not op.is_int8), key=lambda op: -op.seconds)
    in_float = in_casts = None
    if floats:
        share = sum(op.seconds for op in floats) / total
        names = ", ".join(f"{op.name} ({op.kind}, {op.seconds / total:.0%})" for op in floats[:_NAMED])
        text = f"{len(floats)} operators run in float and take {share:.0%} of the time: {names}"
        in_float = Cause("operators-run-in-float", text)
    if casts:
        share = sum(op.seconds for op in casts) / total
        in_casts = Cause("casts-take-time", f"{len(casts)} casts between float and int8 take {share:.0%}")
    return Finding(
        "MNQ902",
        f"int8 takes {ratio.median:.3f} times the float model's time, although this host has {', '.join(host.used)}",
        floats[0].name if floats else "",
        cause=joined(in_float, in_casts),
        fix="quantize the operators that run in float, or leave their neighbors float too: both save casts",
    )
