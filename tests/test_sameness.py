"""Two reports are the same where nothing differs that could be alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sameness import differences, junit

LATENCY = {"check": "latency", "metrics": {"latency_ratio": 1.1}}
REPORT: dict[str, Any] = {
    "quantized": {"path": "/one/model.mnn", "bytes": 9, "sha256": "ab", "uuid": "cd"},
    "source": {"spec": "net.py:build", "sha256": "ef"},
    "checks": [
        LATENCY,
        {"check": "accuracy", "metrics": {"top1": 0.5}},
        {"check": "memory", "metrics": {"peak_bytes": 7}},
    ],
}
JUNIT = """<testsuites><testsuite><testcase classname="net" name="size" time="{time}"><properties>
<property name="mnn.size_ratio" value="{ratio}" /></properties>{ended}</testcase></testsuite></testsuites>"""


def test_what_no_two_runs_have_alike_is_left_out() -> None:
    other = {
        "quantized": {"path": "/two/model.mnn", "bytes": 9, "sha256": "12", "uuid": "34"},
        "source": REPORT["source"],
        "worker": "two",
        "checks": [
            {"check": "accuracy", "metrics": {"top1": 0.5000000001}},
            {"check": "memory", "metrics": {"peak_bytes": 8}},
        ],
    }
    assert [*differences(REPORT, other)] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quantized": {**REPORT["quantized"], "bytes": 8}}, "/quantized/bytes: 9, and 8"),
        ({"quantized": None}, "/quantized: {"),
        ({"source": {"spec": "net.py:build", "sha256": "00"}}, "/source/sha256: 'ef', and '00'"),
        ({"checks": REPORT["checks"][:2]}, "/checks: 2 entries, and 1"),
        (
            {"checks": [{"check": "accuracy", "metrics": {"top1": 0.50001}}, REPORT["checks"][2]]},
            "/top1: 0.5, and 0.50001",
        ),
        ({"more": 1}, "/more: None, and 1"),
    ],
)
def test_any_other_difference_is_told(change: dict[str, Any], told: str) -> None:
    (found,) = differences(REPORT, {**REPORT, **change})
    assert told in found


def test_tests_of_a_junit_file(tmp_path: Path) -> None:
    def read(**values: str) -> dict[str, Any]:
        (path := tmp_path / "r.xml").write_text(JUNIT.format(**{"time": "1", "ratio": "2", "ended": "", **values}))
        return junit(path)

    usual = read()
    assert [*differences(usual, read(time="2"))] == []
    assert len([*differences(usual, read(ratio="3"))]) == 1
    assert len([*differences(usual, read(ended='<failure message="too large" />'))]) == 1
