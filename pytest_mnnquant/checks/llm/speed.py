"""The speed of an export compared with that of a reference export: a ratio per prompt, and one per generated token."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from pytest_mnnquant.checks.latency import limit_on
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.run_metrics import LatencyMetrics
from pytest_mnnquant.measurements.language_model import PairedSpeeds
from pytest_mnnquant.measurements.timing import PairedTimes
from pytest_mnnquant.statistics.paired_ratio import FEWEST, PairedRatio, paired_ratio

_FIX: Final = "increase --mnn-latency-time, or measure on a quieter host"


def judge_speeds(speeds: PairedSpeeds, limit: float | Mapping[str, float] | None) -> Iterator[Finding]:
    """Findings on ratios that are above the limit for the host, or that can't be decided.

    A pair is a whole prompt, or a token, so that fewer pairs are enough than for ordinary models.
    """
    allowed = limit_on(limit, speeds.token.host)
    if allowed is None:
        return
    ratios = {name: _ratio(times) for name, times in _phases(speeds).items()}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if len(known) < len(ratios):
        pairs = min(len(speeds.prompt.reference), len(speeds.token.reference))
        yield Finding("MNQ003", f"{pairs} pairs of runs fit into the time budget, required {FEWEST}", fix=_FIX)
        return
    measured = "; ".join(_text(name, ratio) for name, ratio in known.items())
    message = f"{measured}; allowed {allowed:g}"
    if any(ratio.low > allowed for ratio in known.values()):
        worst = max(ratio.high for ratio in known.values())
        limit = math.ceil(worst * 20) / 20
        fix = f"export with other bits or blocks, or allow it: --mnn-max-latency-ratio {limit:g}"
        yield Finding("MNQ901", message, fix=fix)
    elif any(ratio.high > allowed for ratio in known.values()):
        yield Finding("MNQ003", f"{message}: the limit lies inside the confidence interval; inconclusive", fix=_FIX)


def with_speeds(metrics: LatencyMetrics, speeds: PairedSpeeds) -> LatencyMetrics:
    """The metrics with what was measured in pairs, if there are enough."""
    token, prompt = _ratio(speeds.token), _ratio(speeds.prompt)
    if token is None or prompt is None:
        return dataclasses.replace(metrics, pairs=len(speeds.prompt.reference))
    return dataclasses.replace(
        metrics,
        latency_ratio=token.median,
        latency_ratio_low=token.low,
        latency_ratio_high=token.high,
        pairs=token.pairs,
        float_seconds=float(np.median(speeds.token.reference)),
        quantized_seconds=float(np.median(speeds.token.candidate)),
        host=speeds.token.host.facts if speeds.token.host else None,
        prompt_latency_ratio=prompt.median,
        prompt_latency_ratio_low=prompt.low,
        prompt_latency_ratio_high=prompt.high,
    )


def _phases(speeds: PairedSpeeds) -> dict[str, PairedTimes]:
    return {"a generated token": speeds.token, "a prompt": speeds.prompt}


def _ratio(times: PairedTimes) -> PairedRatio | None:
    return paired_ratio(times.reference, times.candidate) if len(times.reference) >= FEWEST else None


def _text(name: str, ratio: PairedRatio) -> str:
    return (
        f"{name} takes {ratio.median:.3f} times the reference export's time "
        f"(95 % interval {ratio.low:.3f} to {ratio.high:.3f}, {ratio.pairs} pairs)"
    )
