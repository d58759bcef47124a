"""Where pytest-benchmark's own comparison (5.3.1) passes, or ends in a traceback, ours is an ordinary item.

A first run there is a traceback and exit status 4; a regression leaves its test passed, and JUnit's failures at 0; a
renamed test is compared with nothing; -n 2 compares nothing; a limit must be a whole percentage.
"""

from __future__ import annotations

import xml.etree.ElementTree as Tree

import pytest

from tests.plugin.conftest import NET, Run
from tests.plugin.outcomes import Outcome
from tests.plugin.test_baseline import ENTRIES, MODEL, NAME, UPDATE, W8, File

QUICK = "-k=latency or baseline or entries"
OTHER = NET.replace("manual_seed(0)", "manual_seed(5)")


@pytest.fixture(autouse=True)
def _without_settings(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]")


@pytest.fixture
def accepted(run: Run, pytester: pytest.Pytester) -> File:
    """The accepted figures, with the model that has them kept beside them."""
    pytester.mkdir("mnnquant-baseline")
    found = run(MODEL, W8, UPDATE)
    assert found.status == 0, found.text
    return File(pytester.path / NAME)


@pytest.fixture
def in_ci(run: Run, pytester: pytest.Pytester) -> Run:
    """Runs what is compared, with JUnit's report."""

    def judged(*args: object, alone: bool = False) -> Outcome:
        found = run(W8, QUICK, "--junitxml=junit.xml", *args, alone=alone)
        assert "Traceback" not in found.text
        assert "INTERNALERROR" not in found.text
        return found

    return judged


def junit(pytester: pytest.Pytester) -> list[str]:
    """What JUnit's report says of items that did not pass: "w8::latency failure: ..." or "skipped: ..."."""
    cases = Tree.parse(pytester.path / "junit.xml").iter("testcase")
    return [
        f"{case.get('classname')}::{case.get('name')} {part.tag}: {part.get('message')} {part.text}"
        for case in cases
        for part in case
        if part.tag in ("failure", "skipped", "error")
    ]


def test_first_run(in_ci: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / NAME).write_text('{"schema": 1, "models": {}}')
    found = in_ci(MODEL)
    assert (found.status, found.failed) == (1, {"w8::baseline"}), found.text
    found.tells("MNQ911", fix=UPDATE)
    (text,) = junit(pytester)
    assert "w8::baseline failure: " in text
    assert "MNQ911" in text


def test_real_regression(in_ci: Run, accepted: File, pytester: pytest.Pytester) -> None:
    wide = NET.replace("nn.Conv2d(1, 16, 3)", "nn.Conv2d(1, 256, 3)").replace("(16", "(256")
    (pytester.path / "net.py").write_text(wide)
    found = in_ci(MODEL)
    assert (found.status, found.failed) == (1, {"w8::baseline"}), found.text
    assert "MNQ915" in found.codes("baseline")
    (text,) = junit(pytester)
    assert "MNQ915" in text


def test_renamed_test(in_ci: Run, accepted: File, pytester: pytest.Pytester) -> None:
    found = in_ci("--mnn-model=renamed=net.py:build")
    assert found.failed >= {"w8::baseline"}, found.text
    found.tells("MNQ911", fix=UPDATE)
    (pytester.path / "pyproject.toml").write_text('[tool.mnnquant.models.renamed]\nsource = "net.py:build"')
    found = in_ci("--mnn-config=pyproject.toml")
    assert (found.status, found.failed) == (1, {"w8::baseline", ENTRIES}), found.text
    assert len(junit(pytester)) == 2


def test_two_workers(in_ci: Run, accepted: File, pytester: pytest.Pytester) -> None:
    """What was accepted must be timed, and workers time nothing: this is no pass, and with --mnn-strict a failure."""
    usual = (MODEL, "-n2", "--mnn-max-latency-ratio=1000")
    (pytester.path / "net.py").write_text(OTHER)
    found = in_ci(*usual, alone=True)
    assert found.status == 0, found.text
    told = junit(pytester)
    assert len(told) == 2
    for text, check in zip(sorted(told), ("baseline", "latency"), strict=True):  # Workers end in any order.
        assert f"w8::{check} skipped: inconclusive: " in text
        assert "workers (-n)" in text
    assert in_ci(*usual, "--mnn-strict", alone=True).failed == {"w8::latency", "w8::baseline"}


def test_fractional_limit(in_ci: Run, accepted: File, pytester: pytest.Pytester) -> None:
    accepted.edit(lambda entry: entry["tolerances"].update(ratio_paired=0.055))
    # Other weights, and as fast: they are timed beside the accepted ones.
    (pytester.path / "net.py").write_text(OTHER)
    found = in_ci(MODEL, "--mnn-max-latency-ratio=0.0125")
    assert "w8::latency" in found.failed, found.text
    assert any("w8::latency failure: " in text and "0.0125" in text for text in junit(pytester))
    # It passes, or this machine is too noisy to tell, which is said.
    assert "paired_ratio" in found.metrics("baseline")
    assert "w8::baseline" not in found.failed, found.text
