"""What is told where another MNN runs on the target: which, who made the model, and what to do."""

from __future__ import annotations

import re

import pytest

from pytest_mnnquant.checks.target.mnn_versions import Runtimes, crashed, explained
from pytest_mnnquant.findings.accuracy_metrics import OperatorDifference
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from tests.golden_text import check_golden

OLD = Runtimes("3.0.0", "3.6.1", "3.6.1", "w8-sym")
SAME = Runtimes("3.6.1", "3.6.1", "3.2.0")
LOST = Finding("MNQ701", "top-1 falls", cause=Cause("too-coarse", "too coarse"), fix="--mnn-suggest")
FEW = Finding("MNQ730", "few samples", cause=Cause("few", "few"))
OTHERWISE = Finding("MNQ740", "conv is off", "conv")
LOG = Cause("target-log", "last lines of its log:\nboom")
CRASH = Finding("MNQ620", "the runner crashed with SIGFPE", cause=LOG, fix="target check")


@pytest.mark.parametrize(
    ("runtimes", "versions"),
    [
        (OLD, ["3.0.0", "3.6.1", "3.6.1"]),
        (Runtimes("3.0.0", "3.6.1", "3.2.0"), ["3.0.0", "3.6.1", "3.2.0"]),
        (Runtimes("3.0.0", "3.6.1"), ["3.0.0", "3.6.1"]),
        (SAME, []),
    ],
)
def test_the_cause_names_the_versions_that_run_and_made_the_model(runtimes: Runtimes, versions: list[str]) -> None:
    text = runtimes.cause.text if runtimes.cause else ""
    assert (re.findall(r"MNN (\d+\.\d+\.\d+)", text), runtimes.differ) == (versions, bool(versions))


def test_what_is_lost_there_alone_names_the_operator_the_runtime_and_what_to_do() -> None:
    lost, few = explained([LOST, FEW], [OTHERWISE], OLD)
    assert lost.layer == "conv"
    check_golden("target/what-is-lost-there-alone-names-the-operator", lost.cause_text)
    check_golden("target/what-is-lost-there-alone-names-the-operator-2", lost.fix)
    assert lost.cause_id == "on-target-only+target-has-other-runtime+operator-differs-on-target+too-coarse"
    assert few == FEW


def test_the_same_mnn_has_no_part_in_it() -> None:
    (lost,) = explained([LOST], [], SAME)
    check_golden("target/the-same-mnn-has-no-part-in-it", lost.cause_text)
    assert (lost.layer, lost.cause_id, lost.fix) == ("", "on-target-only+too-coarse", "--mnn-suggest")


def test_an_operator_that_rounds_otherwise_is_the_cause_of_what_is_lost_on_the_target_only() -> None:
    rounding = OperatorDifference("up", "Interp", 1.0, 331, 1000, 6.0)
    (lost,) = explained([LOST], [], SAME, rounding)
    assert (lost.layer, lost.cause_id) == ("up", "on-target-only+operator-rounds-otherwise+too-coarse")
    check_golden("target/an-operator-that-rounds-otherwise", lost.cause_text)
    (named,) = explained([LOST], [OTHERWISE], SAME, rounding)
    assert named.layer == "conv"


def test_a_crash_of_what_is_stored_otherwise() -> None:
    assert crashed(CRASH, OLD, False, "w8") == CRASH
    found = crashed(CRASH, OLD, True, "w8 with 16-bit scales")
    check_golden("target/a-crash-of-what-is-stored-otherwise", found.cause_text)
    check_golden("target/a-crash-of-what-is-stored-otherwise-2", found.fix)
    assert found.cause_id == "storage-crashes-runtime+target-has-other-runtime+target-log"
    assert crashed(CRASH, SAME, True, "w8").fix == CRASH.fix
