"""Whether a target computes what this machine does: in steps, and by which operator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.checks.elsewhere import ElsewhereEvidence, OpDifference, check_elsewhere, differences
from pytest_mnnquant.mnnfile.model import Op
from pytest_mnnquant.runtime.operators import Operators

STEP = 0.5
CODES = STEP * np.arange(-128, 128, dtype=np.float32).reshape(8, 32)
Array = npt.NDArray[Any]


def moved(values: Array, steps: float, count: int = 1) -> Array:
    """The values with the last ones moved by so many steps."""
    values = values.copy()
    values.reshape(-1)[-count:] += steps * STEP
    return values


def evidence(there: Array, operators: list[OpDifference] | None = None, **more: Any) -> ElsewhereEvidence:
    return ElsewhereEvidence("board", {"y": CODES}, {"y": there}, {"y": STEP}, operators, **more)


def off(name: str, steps: float) -> OpDifference:
    return OpDifference(name, "Pooling", steps, int(steps > 0) * 10, 1000)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_step_is_rounding(steps: int) -> None:
    findings, metrics = check_elsewhere(evidence(moved(CODES, steps)))
    assert (findings, metrics["difference"]["steps"]) == ([], pytest.approx(steps))
    assert "note" not in metrics


def test_the_operator_that_is_further_off_is_named() -> None:
    operators = [off("conv", 1.0), off("pool", 200.0), off("pool2", 3.0)]
    (finding,), metrics = check_elsewhere(evidence(moved(CODES, 40), operators))
    assert (finding.code, finding.layer, finding.severity.value) == ("MNQ740", "pool", "warning")
    assert "pool (Pooling) on board is up to 200 steps from here (10 of 1,000 values)" in finding.message
    assert "output y differs by 40 steps" in finding.message
    assert finding.message.endswith("so is pool2")
    assert [one["name"] for one in metrics["difference"]["operators"]] == ["conv", "pool", "pool2"]


def test_rounding_that_layers_carry_on_is_a_note() -> None:
    findings, metrics = check_elsewhere(
        evidence(moved(CODES, 6), [off("conv", 0.0), off("pool", 1.0)], uncompared=["x"])
    )
    assert findings == []
    assert "output y is 6 steps from this machine's by rounding" in metrics["note"]
    assert "2 operators are a step off at most, pool for 1.0% of its values; 1 could not be compared" in metrics["note"]


def test_what_could_not_be_looked_for_is_told_all_the_same() -> None:
    (finding,), _ = check_elsewhere(evidence(moved(CODES, 6), unlooked="no end after 3 s"))
    assert (finding.code, finding.layer) == ("MNQ740", "")
    assert "no end after 3 s" in finding.cause


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
    found = ElsewhereEvidence("board", here, {"y": here["y"] + np.float32(0.001)}, {})
    assert found.steps["y"] == pytest.approx(0.001, rel=0.05)
    integers = ElsewhereEvidence("board", {"y": np.arange(4)}, {"y": np.array([0, 1, 2, 9])}, {})
    assert integers.steps == {"y": 1.0}
    both_infinite = {"y": np.array([np.inf, np.nan, 1.0], np.float32)}
    assert ElsewhereEvidence("board", both_infinite, both_infinite, {}).steps == {"y": 0.0}


POOL = Op("pool", "Pooling", (1,), (2,), ("a",), ("b",))


def ran(made: Array, own: Array, given: Array = CODES, *, faithful: bool = True) -> Operators:
    return Operators({"pool": made}, frozenset({"pool"} if faithful else ()), {1: given, 2: own})


def compare(here: Operators, there: Operators, scales: dict[str, float] | None = None) -> list[OpDifference]:
    return differences([POOL], here, there, {"pool": STEP} if scales is None else scales, frozenset({"pool"}))


def test_operators_are_compared_by_themselves() -> None:
    (found,) = compare(ran(CODES, CODES), ran(moved(CODES, 3, 5), CODES + 7))
    assert found.steps == pytest.approx(3.0)
    assert (found.unlike, found.values) == (5, 256)


def test_a_scale_that_is_another_tensors_is_seen_in_the_codes() -> None:
    (found,) = compare(ran(CODES, CODES), ran(moved(CODES, 1, 5), CODES), scales={})
    assert found.steps == pytest.approx(1.0)


@pytest.mark.parametrize("unfaithful", [0, 1])
def test_an_operator_that_does_other_things_alone_is_compared_in_its_network(unfaithful: int) -> None:
    """Where its inputs differ, on all samples but one here, its output says nothing."""
    given = CODES.copy()
    given[1:] += STEP
    sides = [ran(CODES, CODES), ran(CODES + 90, moved(moved(CODES, 50, 100), 0), given)]
    sides[unfaithful] = dataclasses.replace(sides[unfaithful], faithful=frozenset())
    (found,) = compare(sides[0], sides[1])
    assert (found.steps, found.values) == (0.0, 32)
    own = CODES.copy()
    own[0, 3] += 2 * STEP
    sides[1] = dataclasses.replace(sides[1], own={1: given, 2: own})
    (found,) = compare(sides[0], sides[1])
    assert found.steps == pytest.approx(2.0)
    assert found.unlike == 1


def test_an_operator_that_was_never_given_the_same_is_not_compared() -> None:
    assert compare(ran(CODES, CODES, faithful=False), ran(CODES, CODES, CODES + STEP)) == []
