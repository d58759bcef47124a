"""`--mnn-target` of a machine behind ssh: outputs, time and memory are judged there, and what fails there is told."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.evidence.target_runs import TargetRuns
from tests.golden_text import check_golden
from tests.hosts import SshHost, needs_hosts, ssh_host
from tests.plugin.conftest import Run

pytestmark = needs_hosts
MODEL, W8, HOST = "--mnn-model=net.py:build", "--mnn-recipe=w8", "--mnn-target=host"
CHECKS = ("execution", "accuracy", "latency", "memory")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with ssh_host(tmp_path_factory.mktemp("host")) as found:
        yield found


@pytest.fixture(autouse=True)
def boards(pytester: pytest.Pytester, host: SshHost) -> None:
    """`board` works, `other` has no Python of that name."""
    how = {"ssh": f"root@{host.address}", "options": [*host.options]}
    tables = {"board": {**how, "python": shlex.quote(sys.executable)}, "other": {**how, "python": "no-such-python"}}
    lines = [
        line
        for name, table in tables.items()
        for line in (f"[tool.mnnquant.targets.{name}]", *(f"{key} = {json.dumps(it)}" for key, it in table.items()))
    ]
    pytester.makepyprojecttoml("\n".join(lines))


def report(pytester: pytest.Pytester) -> Any:
    return json.loads((pytester.path / "r.json").read_text(encoding="utf-8"))["models"][0]


def test_a_device_is_judged_for_time_and_memory_too(run: Run, pytester: pytest.Pytester) -> None:
    how = ("--mnn-latency-time=3", "--mnn-report=r.json", "--mnn-max-latency-ratio=50", "--benchmark-json=b.json")
    found = run(MODEL, W8, HOST, "--mnn-target=board", *how)
    assert found.status == 0
    assert {f"w8@board::{check}" for check in CHECKS} <= found.passed
    variants = {one.get("target"): one for one in report(pytester)["variants"]}
    latency, memory = (
        next(check["metrics"] for check in variants["board"]["checks"] if check["check"] == name)
        for name in ("latency", "memory")
    )
    assert latency["host"]["machine"]
    assert latency["latency_ratio"] > 0
    assert memory["session_bytes"] > 0
    timed = json.loads((pytester.path / "b.json").read_text(encoding="utf-8"))["benchmarks"]
    assert {one["name"] for one in timed} == {"net::float", "net::w8", "net::w8@board"}
    assert {one["extra_info"]["target"] for one in timed} == {"", "board"}


def test_a_device_alone_is_timed_and_a_limit_holds_there(run: Run) -> None:
    found = run(
        MODEL, W8, "--mnn-target=board", "-k", "latency", "--mnn-latency-time=2", "--mnn-max-latency-ratio=1e-6"
    )
    assert (found.status, found.failed) == (1, {"w8@board::latency"})
    assert found.passed == set()


def test_time_alone_needs_no_other_run_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its data to be sent."""
    ran: list[object] = []
    monkeypatch.setattr(TargetRuns, "_run_model", lambda _, model: ran.append(model))
    found = run(MODEL, W8, "--mnn-target=board", "-k", "latency", "--mnn-latency-time=1")
    assert (found.passed, ran) == ({"w8@board::latency"}, [])


def test_an_address_needs_no_configuration_and_its_ids_can_be_pasted_back(
    run: Run, host: SshHost, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where ~/.ssh/config knows the machine: here a wrapper does."""
    words = shlex.join(["/usr/bin/ssh", *host.options])
    programs = pytester.mkdir("bin")
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    name = f"ssh://root@{host.address}"
    found = run(MODEL, W8, HOST, f"--mnn-target={name}", "-k", "execution", "--co", "-q")
    listed = [line for line in found.lines if "::" in line]
    assert listed == ["net.py:build::w8::execution", f"net.py:build::w8@{name}::execution"]
    again = run(listed[1])
    assert (again.status, set(again.items)) == (0, {listed[1]})


def test_what_fails_there_is_told_once_with_what_to_do(run: Run) -> None:
    found = run(MODEL, W8, HOST, "--mnn-target=other", "-k", "w8 and not conversion")
    assert found.failed == {"w8@other::execution"}
    assert {f"w8@other::{check}" for check in CHECKS[1:]} <= found.skipped
    found.tells("MNQ620", where="other: running ", fix='python = "..." in [tool.mnnquant.targets.other]')
    assert "no-such-python can't be run" in found.text


def test_what_is_written_wrong_is_refused(run: Run, pytester: pytest.Pytester) -> None:
    Path(pytester.path / "pyproject.toml").write_text('[tool.mnnquant.targets.x]\nssh = "a"\ncommand = "b"\n')
    found = run(MODEL, W8, "--mnn-target=x")
    assert found.status == 4
    check_golden("plugin-options/a-target-of-two-kinds", found.starting("ERROR: "))
