"""The latency check: judged by the interval of the paired ratio, on the host that it was measured on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_mnnquant.checks.latency import check_latency, limit_on
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED
from pytest_mnnquant.findings.run_metrics import HostFacts, LatencyMetrics, TimingConditions
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.measurements.timing import OpTime, PairedTimes
from tests.golden_text import check_golden
from tests.results import known, measured
from tests.synthetic_evidence import codes

X86 = Host("ci", "x86_64", "a processor", ("avx2", "vnni"), ())
PHONE = Host("phone", "aarch64", "0xd41", ("dotprod",), ("dotprod",))


def times(ratio: float, pairs: int = 100, spread: float = 0.1, host: Host | None = X86) -> PairedTimes:
    """Pairs whose ratios scatter about `ratio`, evenly and reproducibly, in an order without drift."""
    reference = np.full(pairs, 1e-3)
    scattered = np.random.default_rng(0).permutation(np.linspace(1 - spread, 1 + spread, pairs))
    return PairedTimes(reference, reference * ratio * scattered, host=host)


def test_without_a_limit_it_is_recorded_and_passes() -> None:
    result = check_latency(times(5.0), None)
    assert result.outcome == PASSED
    figures = measured(LatencyMetrics, result)
    assert figures.latency_ratio == pytest.approx(5.0)
    assert known(figures.latency_ratio_low) < 5.0 < known(figures.latency_ratio_high)
    assert (figures.pairs, figures.float_seconds) == (100, 1e-3)
    assert figures.quantized_seconds == pytest.approx(5e-3, rel=0.01)
    assert figures.settings == TimingConditions(threads=1, precision="normal", memory_mode=0, batch=1)
    assert figures.host == HostFacts("x86_64", "a processor", features=("avx2", "vnni"), int8=())


@pytest.mark.parametrize(
    ("ratio", "outcome"), [(0.8, PASSED), (0.99, INCONCLUSIVE), (1.01, INCONCLUSIVE), (1.2, FAILED), (2.0, FAILED)]
)
def test_the_interval_decides_or_leaves_it_open(ratio: float, outcome: str) -> None:
    result = check_latency(times(ratio), 1.0)
    assert result.outcome == outcome
    assert codes(result) == {PASSED: [], INCONCLUSIVE: ["MNQ003"], FAILED: ["MNQ901"]}[outcome]


@pytest.mark.parametrize("limit", [None, 100.0])
@pytest.mark.parametrize("pairs", [0, 5, 29])
def test_few_pairs_leave_it_open_whatever_they_say(pairs: int, limit: float | None) -> None:
    result = check_latency(times(0.5, pairs), limit)
    assert result.outcome == INCONCLUSIVE
    assert codes(result) == ["MNQ003"]
    assert result.metrics == LatencyMetrics(pairs=pairs)


def test_thirty_pairs_are_enough() -> None:
    assert check_latency(times(0.5, 30), 1.0).outcome == PASSED


def test_outliers_and_drift_are_kept() -> None:
    calm = times(1.0)
    assert measured(LatencyMetrics, check_latency(calm, None)).outliers == 0
    candidate = calm.candidate.copy()
    candidate[[3, 50]] *= 9
    candidate[60:] *= 1.2
    figures = measured(LatencyMetrics, check_latency(PairedTimes(calm.reference, candidate), None))
    assert figures.outliers == 2
    assert figures.drift == pytest.approx(0.2, abs=0.05)
    assert known(figures.ratio_quantiles)["0.95"] > known(figures.latency_ratio)


@pytest.mark.parametrize(
    ("limit", "host", "allowed"),
    [
        (None, X86, None),
        (1.5, PHONE, 1.5),
        ({"*": 1.5}, None, 1.5),
        ({"aarch64": 0.8}, X86, None),
        ({"aarch64": 0.8, "x86_64": 2.0, "*": 3.0}, X86, 2.0),
        ({"aarch64": 0.8, "dotprod": 0.6}, PHONE, 0.6),
        ({"vnni": 0.7, "x86_64": 2.0}, X86, 0.7),
        ({"phone": 0.5, "dotprod": 0.6}, PHONE, 0.5),
    ],
)
def test_the_limit_of_the_host_holds(limit: Any, host: Host | None, allowed: float | None) -> None:
    assert limit_on(limit, host) == allowed


def test_a_limit_for_another_host_is_not_judged() -> None:
    assert check_latency(times(2.0), {"aarch64": 0.8}).outcome == PASSED


def test_slow_int8_is_said_and_not_failed_where_there_are_no_instructions_for_it() -> None:
    result = check_latency(times(2.0), None, activations=True)
    assert result.findings == ()
    check_golden(
        "latency-memory/slow-int8-is-said-and-not-failed-where-there", known(measured(LatencyMetrics, result).note)
    )
    assert measured(LatencyMetrics, check_latency(times(2.0), None)).note is None
    assert measured(LatencyMetrics, check_latency(times(0.8), None, activations=True)).note is None
    assert check_latency(times(2.0), 1.0, activations=True).findings[0].cause_id == "slow-host"


def test_where_int8_should_be_faster_the_operators_that_take_the_time_are_named() -> None:
    ops = (
        OpTime("conv", "ConvInt8", 2e-3, is_int8=True),
        OpTime("softmax", "Softmax", 5e-3),
        OpTime("cast", "FloatToInt8", 3e-3),
    )
    result = check_latency(times(1.4, host=PHONE), None, activations=True, op_times=lambda: ops)
    assert result.outcome == PASSED
    (finding,) = result.findings
    assert (finding.code, finding.layer) == ("MNQ902", "softmax")
    check_golden("latency-memory/where-int8-should-be-faster-the-operators", finding.cause_text)
    assert finding.cause_id == "operators-run-in-float+casts-take-time"
    assert check_latency(times(0.6, host=PHONE), None, activations=True, op_times=lambda: ops).findings == ()
