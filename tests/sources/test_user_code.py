"""The user's code can't end a test or this process; the keyboard can."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_mnnquant.sources.spec import SourceError, call, describe, parse_spec
from pytest_mnnquant.sources.user_code import UserCodeExit, contained
from pytest_mnnquant.sources.user_modules import import_file, load_module

ENDINGS = (
    "import pytest; pytest.skip('x', allow_module_level=True)",
    "import pytest; pytest.importorskip('not_installed_anywhere')",
    "import pytest; pytest.xfail('x')",
    "import pytest; pytest.exit('x', returncode=0)",
    "import sys; sys.exit(0)",
    "raise SystemExit",
    "raise KeyboardInterrupt",
    "import asyncio; raise asyncio.CancelledError",
    "import unittest; raise unittest.SkipTest('x')",
    "exit(0)",
    "import os; os._exit(0)",
    "import os, sys; sys.modules[os.name]._exit(0)",
    "import os, sys; sys.modules[os.name].execv(sys.executable, ['python', '-c', ''])",
    "import os; os.execlp('true', 'true')",
    "import os, sys; os.execve(sys.executable, ['python', '-c', ''], {})",
)


@pytest.mark.parametrize("ending", ENDINGS)
def test_code_that_ends_the_run_is_an_error_with_its_place(tmp_path: Path, ending: str) -> None:
    (tmp_path / "net.py").write_text(f"def build():\n    {ending}\n\n\nclass Fine: ...\n")
    (tmp_path / "ends.py").write_text(f"{ending}\n")
    with pytest.raises(SourceError, match=r"\(net\.py:2\)"):
        call("net.py:build", import_file(tmp_path / "net.py"), "build")
    with pytest.raises(SourceError, match=r"\(ends\.py:1\)"):
        load_module(parse_spec("ends.py:build", tmp_path))


def test_ordinary_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="x"), contained():
        raise ValueError("x")


def test_a_failed_test_stays_one() -> None:
    """pytest-timeout ends a test like this."""
    with pytest.raises(pytest.fail.Exception), contained():
        pytest.fail("x")


def test_the_keyboard_interrupts() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Workers of xdist ignore the signal.
    try:
        with pytest.raises(KeyboardInterrupt), contained(), contained():
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1.0)  # The handler runs before this returns.
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_all_calls_are_back_afterwards() -> None:
    system = sys.modules[os.name]
    calls = (os._exit, os.execv, os.execve, system._exit, system.execv, atexit.register)
    with pytest.raises(UserCodeExit), contained():
        os._exit(0)
    assert (os._exit, os.execv, os.execve, system._exit, system.execv, atexit.register) == calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "handler", ["os._exit, 0", "lambda: os._exit(0)", "lambda: sys.modules[os.name]._exit(0)", "sys.exit, 0"]
)
def test_exit_handlers_of_contained_code_do_not_change_the_status(handler: str) -> None:
    code = (
        "import atexit, os, sys\nfrom pytest_mnnquant.sources.user_code import contained\n"
        f"atexit.register(print, 'last')\nwith contained():\n    atexit.register({handler})\nsys.exit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (3, "last\n")


@pytest.mark.slow
def test_exit_handlers_of_contained_code_can_be_unregistered() -> None:
    code = (
        "import atexit\nfrom pytest_mnnquant.sources.user_code import contained\ndef handler(text): print(text)\n"
        "with contained():\n    assert atexit.register(handler, 'never') is handler\natexit.unregister(handler)\n"
        "with contained():\n    atexit.register(handler, 'runs')"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout == "runs\n"


@pytest.mark.slow
def test_forked_children_end_as_they_like() -> None:
    """Workers of a DataLoader do so with `os._exit`."""
    with contained():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert subprocess.run([sys.executable, "-c", "raise SystemExit(3)"], check=False).returncode == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_may_end_the_process(number: signal.Signals) -> None:
    """A run in CI is stopped by SIGTERM, often with a handler that calls `sys.exit`."""

    def end(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(number, end)
    try:
        with pytest.raises(SystemExit), contained():
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1.0)
    finally:
        signal.signal(number, before)


def test_other_threads_may_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit may be held by a thread that ends the process."""
    calls: list[int] = []
    monkeypatch.setattr(os, "_exit", calls.append)
    with contained():
        thread = threading.Thread(target=lambda: os._exit(1))
        thread.start()
        thread.join()
    assert calls == [1]


def test_threads_that_overlap_leave_all_calls_as_they_were() -> None:
    real, entered, leave = os._exit, threading.Event(), threading.Event()

    def stay() -> None:
        with contained():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    with contained():
        thread.start()
        entered.wait(10)
    assert os._exit is not real
    leave.set()
    thread.join()
    assert os._exit is real


def test_a_reference_to_a_refused_call_works_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "_exit", calls.append)
    with contained():
        refused = vars(os)["_exit"]
    refused(3)
    assert calls == [3]


def test_it_works_in_other_threads() -> None:
    texts: list[str] = []

    def skip() -> None:
        try:
            with contained():
                pytest.skip("x")
        except UserCodeExit as error:
            texts.append(describe(error))

    in_thread: Callable[[], None] = skip
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert len(texts) == 1


class PanicException(BaseException):
    """As libraries written in Rust raise it (pyo3_runtime.PanicException)."""


def test_a_panic_is_not_an_exit() -> None:
    with pytest.raises(UserCodeExit, match="PanicException: index out of bounds") as panic, contained():
        raise PanicException("index out of bounds")
    assert not panic.value.is_exit
    with pytest.raises(UserCodeExit) as ended, contained():
        raise SystemExit(0)
    assert ended.value.is_exit


@pytest.mark.slow
def test_a_forked_process_does_not_run_the_tests_again() -> None:
    with contained():
        child = os.fork()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
