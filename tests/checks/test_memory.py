"""The memory check: what MNN holds in its two memory modes."""

from __future__ import annotations

from pytest_mnnquant.checks.memory import check_memory
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED
from pytest_mnnquant.findings.run_metrics import MemoryMetrics
from pytest_mnnquant.measurements.timing import MemoryUse
from tests.golden_text import check_golden
from tests.results import measured
from tests.synthetic_evidence import codes

MB = 1 << 20
FLOAT = {0: MemoryUse(10 * MB, 12 * MB), 2: MemoryUse(10 * MB, 12 * MB)}


def test_int8_that_is_smaller_passes_without_a_word() -> None:
    result = check_memory(FLOAT, {0: MemoryUse(2 * MB, 3 * MB), 2: MemoryUse(2 * MB, 3 * MB)}, activations=True)
    assert result.outcome == PASSED
    assert result.metrics == MemoryMetrics(
        memory_mode=0,
        session_bytes=2 * MB,
        session_bytes_low=2 * MB,
        float_session_bytes=10 * MB,
        float_session_bytes_low=10 * MB,
        peak_bytes=3 * MB,
        peak_bytes_low=3 * MB,
        float_peak_bytes=12 * MB,
        float_peak_bytes_low=12 * MB,
        memory_ratio=0.2,
    )


def test_weights_that_are_held_as_float_are_told() -> None:
    use = {0: MemoryUse(10 * MB, 14 * MB), 2: MemoryUse(2 * MB, 3 * MB)}
    result = check_memory(FLOAT, use, activations=False)
    assert result.outcome == PASSED
    check_golden("latency-memory/weights-that-are-held-as-float-are-told", str(measured(MemoryMetrics, result).note))


def test_a_mode_in_which_it_can_not_run_is_told() -> None:
    good, bad = MemoryUse(2 * MB, None), MemoryUse(error="RuntimeError: status 3")
    low = check_memory(FLOAT, {0: good, 2: bad}, activations=True)
    assert (low.outcome, codes(low)) == (PASSED, ["MNQ903"])
    normal = check_memory(FLOAT, {0: bad, 2: good}, activations=True)
    assert (normal.outcome, codes(normal)) == (FAILED, ["MNQ201"])
    chosen = check_memory(FLOAT, {0: good, 2: bad}, activations=True, memory_mode=2)
    assert (chosen.outcome, codes(chosen)) == (FAILED, ["MNQ201"])
    unknown = check_memory({0: bad, 2: bad}, {0: good, 2: good}, activations=True)
    assert (unknown.outcome, codes(unknown)) == (INCONCLUSIVE, ["MNQ003"])
