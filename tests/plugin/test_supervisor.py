"""pytest runs in a child process: an end that is not pytest's never has exit status 0, and signals reach it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TEST = """
import ctypes, os, signal, sys, threading, time, weakref
from os import _exit, execv

class Object: pass

held = Object()

def test_first():
    pass

def test_ends():
    {ending}

def test_last():
    time.sleep({seconds})
"""
PLUGINS = ("cacheprovider", "benchmark", "cov", "hypothesispytest", "xdist")
# One option of the plugin is enough: models may be judged.
OPTIONS = ("-q", *(word for name in PLUGINS for word in ("-p", f"no:{name}")), "--mnn-timeout=60")
ENDED = "pytest ended with exit status 0 during test_ends.py::test_ends"


def start(pytester: pytest.Pytester, ending: str, seconds: int = 0) -> subprocess.Popen[str]:
    pytester.makepyfile(test_ends=TEST.format(ending=ending, seconds=seconds))
    words = [sys.executable, "-m", "pytest", *OPTIONS]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=pytester.path,
        preexec_fn=_hear_signals,
    )


def _hear_signals() -> None:
    """A shell starts its background jobs, and all that these start, deaf to these two."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def wait_for_test(pytester: pytest.Pytester) -> None:
    deadline = time.monotonic() + 30
    while not (pytester.path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize(
    "ending",
    [
        "threading.Thread(target=_exit, args=(0,)).start(); time.sleep(9)",
        "execv('/bin/true', ['true'])",
    ],
)
def test_a_process_that_the_code_under_test_ends_has_not_passed(pytester: pytest.Pytester, ending: str) -> None:
    process = start(pytester, ending)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert ENDED in output


def test_a_handler_at_exit_does_not_change_the_status(pytester: pytest.Pytester) -> None:
    process = start(pytester, "weakref.finalize(held, _exit, 0); 1 / 0")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "1 failed, 2 passed" in output


def test_a_crash_is_reported_with_its_test(pytester: pytest.Pytester) -> None:
    process = start(pytester, "os.abort()")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGABRT
    assert ENDED.replace("exit status 0", "signal 6") in output


def children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, pytest.ExitCode.INTERRUPTED)]
)
def test_signals_end_both(pytester: pytest.Pytester, number: signal.Signals, status: int) -> None:
    process = start(pytester, "open('begun', 'w').close()", seconds=50)
    wait_for_test(pytester)
    deadline = time.monotonic() + 30
    (child,) = children(process.pid)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "not judged" not in output
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, pytest.ExitCode.INTERRUPTED),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGQUIT, -signal.SIGQUIT),
    ],
)
def test_a_signal_to_the_process_group_counts_once(
    pytester: pytest.Pytester, number: signal.Signals, status: int
) -> None:
    pytester.makeconftest(
        "import time\ndef pytest_terminal_summary(terminalreporter):\n    time.sleep(1)\n"
        "    terminalreporter.write_line('summary written')"
    )
    process = start(pytester, "open('begun', 'w').close()", seconds=50)
    wait_for_test(pytester)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "not judged" not in output
    assert ("summary written" in output) == (number == signal.SIGINT)


def test_the_terminal_may_be_closed(pytester: pytest.Pytester) -> None:
    process = start(pytester, "open('begun', 'w').close(); time.sleep(0.5); os.abort()")
    wait_for_test(pytester)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == -signal.SIGABRT


FIXTURE_TEST = """
import os, threading, time
import pytest

@pytest.mark.mnn(model="missing.py:build", recipes=["int8"])
def test_ends(mnn_recipe):
    threading.Thread(target=os._exit, args=(0,)).start()
    time.sleep(9)
"""


def test_an_option_in_the_ini_file_protects_tests_that_use_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_fixture=FIXTURE_TEST)
    pytester.makeini("[pytest]\nmnn_timeout = 300\n")
    output = pytester.run(sys.executable, "-m", "pytest", *OPTIONS[:-1])
    assert output.ret == 1
    output.stderr.fnmatch_lines(["*exit status 0 during test_fixture.py::test_ends*"])
