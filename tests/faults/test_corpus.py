"""Every planted fault is found, by the right rule, in the right layer, as one cause; every healthy twin passes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from tests.faults.corpus.every import FAULTS, Fault
from tests.faults.corpus.plan import JUDGED_ALWAYS
from tests.faults.factory import Factory
from tests.plugin.outcomes import Outcome

#: A failure fits on a terminal of this size, lines that it wraps counted.
MOST_LINES, WIDTH = 25, 80
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
    # The short summary repeats them, each line of it starting with the outcome.
    return [lines for lines in found if lines and " failed: " in lines[0] and not lines[0].startswith("FAILED ")]


def unless_left_out(fault: Fault, which: str) -> None:
    if fault.section not in JUDGED_ALWAYS[which] and "MNNQUANT_CORPUS" not in os.environ:
        pytest.skip("left to benchmarks/scoreboard.py (set MNNQUANT_CORPUS to judge it here)")
    if fault.code == "MNQ901" and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("latency is not judged beside other workers: run without -n")
    if fault.lacks():
        pytest.skip(fault.lacks())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_planted(fault: Fault, factory: Factory, gate: Callable[..., Outcome]) -> None:
    unless_left_out(fault, "planted")
    verdict = gate(*fault.build(factory).fault.arguments())
    assert verdict.status == 1, verdict.text
    assert sorted(verdict.roots()) == fault.expected(verdict.roots()), verdict.text
    longest = max(sum(max(1, -(-len(line) // WIDTH)) for line in section) for section in failures(verdict))
    assert longest <= MOST_LINES, verdict.text


#: Healthy twins that were judged already: many faults are planted in the same one.
CLEAN: set[tuple[str, ...]] = set()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_twin(fault: Fault, factory: Factory, gate: Callable[..., Outcome]) -> None:
    unless_left_out(fault, "twins")
    arguments = fault.build(factory).twin.arguments()
    if tuple(arguments) in CLEAN:
        return
    verdict = gate(*arguments)
    assert verdict.status == 0, verdict.text
    told = {one["code"] for check in verdict.checks for one in check["findings"]}
    assert told <= {*USUAL, *fault.warnings}, verdict.text
    CLEAN.add(tuple(arguments))
