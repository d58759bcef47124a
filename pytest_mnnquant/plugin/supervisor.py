"""Runs pytest in a child process, so that a run that ends before its checks are judged never has exit status 0.

Models, data and metrics are the user's code, and share pytest's process. Python can't refuse each call that ends a
process: a function that was bound earlier, another thread, a C library, `exec`, a handler at exit. The process that
was started therefore only waits. It takes over the exit status of the child, passes signals on, and reports an end
that was not pytest's.
"""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import resource
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import pytest

from pytest_mnnquant.report.width import shown

_PR_SET_PDEATHSIG: Final = 1
# Those that a process can send to end pytest, or to talk to a handler of it.
_PASSED_ON: Final = frozenset(
    (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
)
_WAITED_FOR: Final = _PASSED_ON | {signal.SIGCHLD}
# Packages with threads of their own that a forked process may wait for.
_THREADED: Final = frozenset(("torch", "tensorflow", "jax"))
_PROGRAMS: Final = frozenset(("pytest", "py.test", "pytest-3", "py.test-3"))  # Debian adds the 3.
_LOOK: Final = 1.0  # seconds
_INTERRUPT_WAIT: Final = 0.5  # seconds
# The bytes of the shared memory: whether Python ended as usual, pytest's exit status + 1, whether an interrupt has
# reached pytest, the id of a test.
_ENDED, _STATUS, _INTERRUPTED, _TEST, _SIZE = 0, 1, 2, 3, 4096


class Supervised:
    """What the child, which runs pytest, notes for the process that waits for it. A plugin of pytest."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._process = os.getpid()
        atexit.register(self._note_end)  # First of all, so that it runs after the handlers of others.

    def _note_end(self) -> None:
        if os.getpid() == self._process:
            self._memory[_ENDED] = 1

    def note_status(self, status: int) -> None:
        """Note the exit status of pytest."""
        if os.getpid() == self._process:
            self._memory[_STATUS] = (status + 1) % 256

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note that SIGINT has reached pytest, which reports from now on. Other types are ends that pytest requests."""
        if excinfo.type is KeyboardInterrupt and os.getpid() == self._process:
            self._memory[_INTERRUPTED] = 1

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note the id of the test that runs."""
        text = nodeid.encode("utf-8", "backslashreplace")[: _SIZE - _TEST]
        self._memory[_TEST:] = text.ljust(_SIZE - _TEST, b"\0")


def start(config: pytest.Config) -> Supervised | None:
    """Go on in a child process, while this process waits for it. None if pytest is not this process's program.

    Before that, no thread may run: a forked process has only one of them. numpy's threads are started again by numpy.
    """
    if not _is_program(config) or threading.active_count() != 1 or not _THREADED.isdisjoint(sys.modules):
        return None
    memory = mmap.mmap(-1, _SIZE)
    sys.stdout.flush()
    sys.stderr.flush()
    parent, mask = os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns if there are threads of numpy.
        child = os.fork()
    if child:
        _wait(child, memory)
    _end_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Supervised(memory)


def _is_program(config: pytest.Config) -> bool:
    """Whether this process is `pytest` or `python -m pytest`, on Linux, and this the run that it was started for."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_pytest = spec.name == "pytest.__main__" if spec else Path(sys.argv[0]).name in _PROGRAMS
    return is_pytest and sys.platform == "linux" and [*config.invocation_params.args] == sys.argv[1:]


def _end_with(parent: int) -> None:
    """End this process when its parent is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _wait(child: int, memory: mmap.mmap) -> NoReturn:
    """Wait for the child, and end like it, or with exit status 1 if its 0 is not pytest's."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signals: set[int] = set()
    while True:
        received = signal.sigtimedwait(_WAITED_FOR, _LOOK)
        if received is not None:
            signals.add(received.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            # A signal to the process group is pending here before the end of the child is.
            if memory[_ENDED] == 0 and -code not in signals | signal.sigpending():
                _report_end(code, bytes(memory[_TEST:]).rstrip(b"\0").decode("utf-8", "replace"))
            _end_like(code, memory)
        # The terminal sends its signals, whose code is positive, to both.
        if received is not None and received.si_signo in _PASSED_ON and received.si_code <= 0:
            _pass_on(received.si_signo, child, memory)


def _pass_on(number: int, child: int, memory: mmap.mmap) -> None:
    """Send a signal to the child, except an interrupt of the process group: a second one would end pytest's report."""
    deadline = time.monotonic() + _INTERRUPT_WAIT
    while number == signal.SIGINT and time.monotonic() < deadline:
        if memory[_INTERRUPTED]:
            memory[_INTERRUPTED] = 0  # The next interrupt is another one.
            return
        time.sleep(0.02)
    os.kill(child, number)


def _report_end(code: int, test: str) -> None:
    """Write a line about a child that ended without Python's end."""
    end = f"exit status {code}" if code >= 0 else f"signal {-code}"
    place = f"during {test}" if test else "before the first test"
    line = (
        f"pytest ended with {end} {place}, by code of the model, its data or a library; tests without a result were "
        "not judged"
    )
    with suppress(OSError):  # The terminal may be closed.
        os.write(2, f"\nERROR: {shown(line)}\n".encode("utf-8", "replace"))


def _end_like(code: int, memory: mmap.mmap) -> NoReturn:
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = -code
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    of_pytest = memory[_STATUS] - 1 if memory[_STATUS] else int(memory[_ENDED] == 0)
    os._exit(code if code > 0 else of_pytest)
