"""Whether a target computes what this machine does: in steps, and by which operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.target.check import (
    OpDifference,
    Scales,
    TargetEvidence,
    compare_with_host,
    differences,
    main_difference,
)
from pytest_mnnquant.checks.target.mnn_versions import Runtimes
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.measurements.operators import OperatorKey, OperatorRun
from tests.golden_text import check_golden
from tests.results import known

STEP = 0.5
CODES = STEP * np.arange(-128, 128, dtype=np.float32).reshape(8, 32)
Array = npt.NDArray[Any]


def moved(values: Array, steps: float, count: int = 1) -> Array:
    """The values with the last ones moved by so many steps."""
    values = values.copy()
    values.reshape(-1)[-count:] += steps * STEP
    return values


def evidence(there: Array, operators: list[OpDifference] | None = None, **more: Any) -> TargetEvidence:
    return TargetEvidence("board", {"y": CODES}, {"y": there}, {"y": STEP}, operators, **more)


def off(name: str, steps: float, moves: float | None = None) -> OpDifference:
    return OpDifference(OperatorKey(name, "Pooling", 0), steps, int(steps > 0) * 10, 1000, moves)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_step_is_rounding(steps: int) -> None:
    findings, metrics = compare_with_host(evidence(moved(CODES, steps)), AccuracyMetrics())
    assert not findings
    assert known(metrics.difference).steps == pytest.approx(steps)
    assert metrics.note is None


def test_the_operator_that_is_further_off_is_named() -> None:
    operators = [off("conv", 1.0, 60.0), off("pool", 200.0, 39.0), off("pool2", 3.0)]
    (finding,), metrics = compare_with_host(evidence(moved(CODES, 40), operators), AccuracyMetrics())
    assert (finding.code, finding.layer, finding.severity.value) == ("MNQ740", "pool", "warning")
    check_golden("target/the-operator-that-is-further-off-is-named", finding.message)
    assert "pool2" in finding.message
    assert [one.name for one in known(known(metrics.difference).operators)] == ["conv", "pool", "pool2"]


def test_another_mnn_and_a_known_fault_are_told() -> None:
    runtimes = Runtimes("3.0.0", "3.6.1", "3.6.1")
    found = evidence(moved(CODES, 40), [off("pool", 200.0)], runtimes=runtimes, wrongly_pooled={"pool"})
    (finding,), _ = compare_with_host(found, AccuracyMetrics())
    assert finding.cause_id == "target-has-other-runtime+max-pool-compares-signed+more-than-rounding"
    (unknown,), _ = compare_with_host(
        evidence(moved(CODES, 40), unlooked="no end", runtimes=runtimes), AccuracyMetrics()
    )
    assert unknown.cause_id == "target-has-other-runtime+operator-not-found"
    check_golden("target/another-mnn-and-a-known-fault-are-told", finding.cause_text)
    check_golden("target/another-mnn-and-a-known-fault-are-told-2", unknown.cause_text)
    assert unknown.cause_text.endswith("no end")


def test_rounding_that_layers_carry_on_is_a_note() -> None:
    operators = [off("conv", 0.0), off("relu", 1.0), off("pool", 1.0, 5.0)]
    findings, metrics = compare_with_host(
        evidence(moved(CODES, 6), operators, uncompared=["x"], samples=8), AccuracyMetrics()
    )
    assert findings == []
    check_golden("target/rounding-that-layers-carry-on-is-a-note", known(metrics.note))


def test_what_only_sums_in_another_order_may_turn_a_rounding_after_it() -> None:
    softmax = OpDifference(OperatorKey("softmax", "Softmax", 0), 1e-4, 0, 1000, 2.0)
    findings, metrics = compare_with_host(evidence(moved(CODES, 2), [softmax]), AccuracyMetrics())
    assert findings == []
    check_golden("target/what-only-sums-in-another-order-may-turn", known(metrics.note))


def test_a_difference_that_no_operator_makes_is_told() -> None:
    (finding,), _ = compare_with_host(evidence(moved(CODES, 6), [off("conv", 0.0)], samples=8), AccuracyMetrics())
    assert (finding.code, finding.layer) == ("MNQ740", "")
    check_golden("target/a-difference-that-no-operator-makes-is-told", finding.cause_text)
    assert finding.cause_id == "operator-not-found"
    assert " 8 " in finding.cause_text
    (finding,), _ = compare_with_host(
        evidence(moved(CODES, 6), [off("conv", 0.0)], samples=8, uncompared=["fc"]), AccuracyMetrics()
    )
    check_golden("target/a-difference-that-no-operator-makes-is-told-2", finding.cause_text)


def test_what_could_not_be_looked_for_is_told_all_the_same() -> None:
    (finding,), _ = compare_with_host(evidence(moved(CODES, 6), unlooked="no end after 3 s"), AccuracyMetrics())
    assert (finding.code, finding.layer) == ("MNQ740", "")
    check_golden("target/what-could-not-be-looked-for-is-told", finding.cause_text)


@pytest.mark.parametrize(
    ("there", "steps"),
    [
        (CODES[:4], np.inf),
        (np.where(CODES.max() == CODES, np.nan, CODES), np.inf),
        (CODES.astype(np.float64), 0.0),
    ],
)
def test_shapes_and_numbers_that_are_none(there: Array, steps: float) -> None:
    assert evidence(there).steps == {"y": steps}


def test_float_outputs_are_counted_in_steps_of_8_bits() -> None:
    here = {"y": np.linspace(0, 255, 256, dtype=np.float32)}
    found = TargetEvidence("board", here, {"y": here["y"] + np.float32(0.001)}, {})
    assert found.steps["y"] == pytest.approx(0.001, rel=0.05)
    integers = TargetEvidence("board", {"y": np.arange(4)}, {"y": np.array([0, 1, 2, 9])}, {})
    assert integers.steps == {"y": 1.0}
    both_infinite = {"y": np.array([np.inf, np.nan, 1.0], np.float32)}
    assert TargetEvidence("board", both_infinite, both_infinite, {}).steps == {"y": 0.0}


POOL = OperatorKey("pool", "Pooling", 0)


def ran(made: Array, *, int8: bool = True, ignored_inputs: bool = False) -> dict[OperatorKey, OperatorRun]:
    return {POOL: OperatorRun((CODES,), (made,), int8, ignored_inputs)}


def compare(here: Array, there: Array, scales: tuple[float, ...] = (STEP,), **how: Any) -> OpDifference:
    (found,), missed = differences(ran(here, **how), ran(there, **how), {"pool": Scales(outputs=scales)})
    assert missed == []
    return found


def test_operators_are_compared_in_steps_of_their_codes() -> None:
    found = compare(CODES, moved(CODES, 3, 5))
    assert found.steps == pytest.approx(3.0)
    assert (found.unlike, found.values) == (5, 256)


@pytest.mark.parametrize("scales", [(), (3 * STEP, STEP), (0.7 * STEP,)])
def test_a_scale_is_one_that_the_values_are_multiples_of(scales: tuple[float, ...]) -> None:
    assert compare(CODES, moved(CODES, 1, 5), scales).steps == pytest.approx(1.0)


def test_float_operators_are_counted_in_steps_of_8_bits() -> None:
    assert compare(CODES, CODES + np.float32(0.004 * STEP), int8=False).unlike == 0
    assert compare(CODES, moved(CODES, 2), int8=False).steps == pytest.approx(2.0)


def test_float_here_and_codes_there_are_counted_in_the_steps_of_the_codes() -> None:
    """A runtime may round to codes what another leaves float until the next operator."""
    values = np.linspace(0, STEP, 256, dtype=np.float32)
    here, there = (
        {POOL: OperatorRun((CODES,), (made,), int8=False)} for made in (values, np.rint(values / STEP) * STEP)
    )
    (found,), _ = differences(here, there, {"pool": Scales(outputs=(STEP,))})
    assert found.steps == pytest.approx(0.5, abs=0.01)


def test_what_was_not_given_the_same_is_not_compared() -> None:
    assert differences(ran(CODES), ran(CODES, ignored_inputs=True), {}) == ([], ["pool"])
    assert differences(ran(CODES), {}, {}) == ([], ["pool"])
    assert differences(ran(CODES), ran(CODES.reshape(-1)), {}) == ([], ["pool"])  # Another MNN lays it out otherwise.
    cast = {OperatorKey("pool", "Int8ToFloat", 0): OperatorRun((CODES,), (CODES,), int8=False)}
    assert differences(cast, {}, {}) == ([], [])  # It stands in one place only, and is no operator of the file.


@pytest.mark.parametrize(("moves", "name"), [(30.0, "interp"), (10.0, None)])
def test_the_operator_that_makes_half_of_the_difference_is_the_main_one(moves: float, name: str | None) -> None:
    operators = [off("conv", 1.0, 2.0), off("interp", 1.0, moves)]
    _, metrics = compare_with_host(evidence(moved(CODES, 40), operators), AccuracyMetrics())
    main = main_difference(metrics)
    assert (main and main.name) == name


def test_rounding_at_the_outputs_has_no_main_operator() -> None:
    _, metrics = compare_with_host(evidence(moved(CODES, 1), [off("interp", 1.0, 1.0)]), AccuracyMetrics())
    assert main_difference(metrics) is None
