"""Keeps the user's code from ending pytest: a model that was never judged must not look like one that passed.

Models, data, metrics and pipelines are Python that runs in this process. `pytest.skip()`, `sys.exit(0)` and
`os._exit(0)` in such code would end a test or the whole run with exit status 0. An end that can't be refused here, such
as one in another thread or in a C library, is noticed by the process that waits for pytest (`plugin/supervisor.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

# Calls that end or replace this process; all other functions of `os` with that effect call one of them. `os` takes them
# from the module `posix` or `nt`.
_ENDINGS: Final = ("_exit", "execv", "execve")
_MODULES: Final = (os, importlib.import_module(os.name))
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class UserCodeExit(Exception):
    """The user's code raised what ends a test or a run, or tried to end the process; the message names it.

    `is_exit` is False for other exceptions that are not an `Exception`, such as a panic in a library written in Rust.
    """

    def __init__(self, message: str, is_exit: bool = True) -> None:
        super().__init__(message)
        self.is_exit = is_exit


class _Here(threading.local):
    """How deep this thread is in `contained()`, and whether a signal to end arrived meanwhile."""

    depth = 0
    is_signalled = False


_here: Final = _Here()
_lock: Final = threading.Lock()
_threads = 0  # How many threads are in `contained()`.


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Raise `UserCodeExit` when code inside tries to end the test or this process, or when its `atexit` handlers do.

    Interrupts from the keyboard, SIGTERM, and `pytest.fail()`, which also ends a test that takes too long, pass
    unchanged. Other threads may end as before, and forked processes end here at the latest.
    """
    process = os.getpid()
    with contextlib.ExitStack() as stack:
        if _here.depth == 0:
            stack.enter_context(_refused_endings())
            stack.enter_context(_noticed_signals())
        _here.depth += 1
        try:
            yield
        except BaseException as error:
            if _may_pass(error):
                raise
            raise UserCodeExit(_as_text(error), _is_exit(error)) from error
        finally:
            _here.depth -= 1
            if os.getpid() != process:  # It would run the tests a second time.
                os._exit(1)


@contextlib.contextmanager
def _refused_endings() -> Iterator[None]:
    """Replace the calls that end this process, until no thread needs that any more."""
    global _threads
    with _lock:
        if _threads == 0:
            for module in _MODULES:
                for name in _ENDINGS:
                    setattr(module, name, _guard(name, getattr(module, name)))
            setattr(atexit, "register", _guarded_register(atexit.register))  # noqa: B010
        _threads += 1
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if _threads == 0:
                for module in _MODULES:
                    for name in _ENDINGS:
                        setattr(module, name, getattr(module, name).real)
                setattr(atexit, "register", getattr(atexit.register, "real", atexit.register))  # noqa: B010


def _guard(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    process = os.getpid()

    def guard(*arguments: Any) -> Any:
        # A forked child, such as a worker of a DataLoader, and a handler of signals may end their process.
        if os.getpid() != process or _here.depth == 0 or _here.is_signalled:
            return real(*arguments)
        return _refuse(name)

    guard.real = real  # type: ignore[attr-defined]
    return guard


def _refuse(name: str) -> NoReturn:
    raise UserCodeExit(f"os.{name}() would end this process")


class _ExitHandler:
    """A handler of `atexit` that can't change the exit status; `atexit.unregister` takes it for its function."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function, self._process = function, os.getpid()

    def __call__(self, *arguments: Any, **named: Any) -> None:
        with contained() if os.getpid() == self._process else contextlib.nullcontext():
            self._function(*arguments, **named)

    def __eq__(self, other: object) -> bool:
        return other is self or bool(self._function == other)

    def __hash__(self) -> int:
        return hash(self._function)


def _guarded_register(real: Callable[..., Any]) -> Callable[..., Any]:
    """`atexit.register` that guards the handlers of contained code."""

    def register(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Callable[..., Any]:
        real(_ExitHandler(function) if _here.depth and callable(function) else function, *arguments, **named)
        return function

    register.real = real  # type: ignore[attr-defined]
    return register


@contextlib.contextmanager
def _noticed_signals() -> Iterator[None]:
    """Notice the signals that ask this process to end. Only the main thread receives them."""
    _here.is_signalled = False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    guards = {number: _noticing(handler) for number, handler in handlers.items() if callable(handler)}
    for number, guard in guards.items():
        signal.signal(number, guard)
    try:
        yield
    finally:
        for number, guard in guards.items():
            if signal.getsignal(number) is guard:
                signal.signal(number, handlers[number])


def _noticing(handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
    def handle(number: int, frame: Any) -> Any:
        _here.is_signalled = True
        return handler(number, frame)

    return handle


def _may_pass(error: BaseException) -> bool:
    """Whether it is an ordinary error, or follows from a signal or from a time limit of pytest."""
    import unittest

    import pytest

    if _here.is_signalled:
        return True
    if isinstance(error, pytest.fail.Exception):
        return not isinstance(error, pytest.xfail.Exception)
    return isinstance(error, Exception) and not isinstance(error, pytest.exit.Exception | unittest.SkipTest)


def _is_exit(error: BaseException) -> bool:
    """Whether an error is meant to end a test or a run."""
    import unittest

    import pytest

    # Skips and failures of pytest are not an `Exception`; their base class is not public.
    outcomes = (pytest.skip.Exception, pytest.fail.Exception, pytest.exit.Exception, unittest.SkipTest)
    return isinstance(error, (*outcomes, UserCodeExit, SystemExit, KeyboardInterrupt, GeneratorExit))


def is_exit_call(file: str) -> bool:
    """Whether a frame of this file is part of a call that ends a test or a process, and not the user's."""
    files = {__file__, os.__file__, contextlib.__file__, "<frozen os>", "<frozen _sitebuiltins>"}
    return file in files or "_pytest" in Path(file).parts


def _as_text(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
