"""Every planted fault is found, by the right rule, in the right layer, as one cause; every healthy twin passes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.faults.corpus.every import FAULTS, Fault
from tests.faults.factory import Factory
from tests.plugin.outcomes import Outcome

MOST_LINES = 25
#: What is told of any model with so few samples, or with a MaxPool on x86.
USUAL = {"MNQ710", "MNQ730"}


def failures(verdict: Outcome) -> list[list[str]]:
    """What is printed for each failed check."""
    found: list[list[str]] = []
    for line in verdict.lines:
        if re.match(r"_{3,} .* _{3,}$|={3,} ", line):
            found.append([])
        elif found:
            found[-1].append(line)
    return [lines for lines in found if lines and ": " in lines[0] and "failed" in lines[0]]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_planted(fault: Fault, factory: Factory, gate: Callable[..., Outcome]) -> None:
    if fault.lacks():
        pytest.skip(fault.lacks())
    verdict = gate(*fault.build(factory).fault.arguments())
    assert verdict.status == 1, verdict.text
    assert verdict.roots() == [(fault.code, fault.layer)], verdict.text
    longest = max(len(section) for section in failures(verdict))
    assert longest <= MOST_LINES, verdict.text


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_twin(fault: Fault, factory: Factory, gate: Callable[..., Outcome]) -> None:
    if fault.lacks():
        pytest.skip(fault.lacks())
    verdict = gate(*fault.build(factory).twin.arguments())
    assert verdict.status == 0, verdict.text
    told = {one["code"] for check in verdict.checks for one in check["findings"]}
    assert told <= {*USUAL, *fault.warnings}, verdict.text
