"""Keeps the user's code from ending pytest: a model that was never judged must not look like one that passed.

Models, data, metrics and pipelines are Python that runs in this process. `pytest.skip()`, `sys.exit(0)` and
`os._exit(0)` in such code would end a test or the whole run with exit status 0.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

# Calls that end or replace this process; all other functions of `os` with that effect call one of them.
_ENDINGS: Final = ("_exit", "execv", "execve")


class UserCodeExit(Exception):
    """The user's code tried to end the test or the process; the message says by what."""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Raise `UserCodeExit` when code inside tries to end the test or this process.

    An interrupt from the keyboard, and `pytest.fail()`, which also ends a test that takes too long, pass unchanged.
    """
    with contextlib.ExitStack() as stack:
        was_interrupted = stack.enter_context(_interrupts())
        for name in _ENDINGS:
            real = getattr(os, name)
            setattr(os, name, _refusal(name, real))
            stack.callback(setattr, os, name, real)
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if _ends_run_rightly(error, was_interrupted()):
                raise
            raise UserCodeExit(_as_text(error)) from error


def _refusal(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    process = os.getpid()

    def refuse(*arguments: Any) -> Any:
        if os.getpid() != process:  # A forked child, such as a worker of a DataLoader, ends as it likes.
            return real(*arguments)
        return _refuse(name)

    return refuse


def _refuse(name: str) -> NoReturn:
    raise UserCodeExit(f"os.{name}() would end this process")


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether an interrupt signal arrived meanwhile; outside of the main thread, which alone gets them, always true."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: True
        return
    arrived = []

    def handle(number: int, frame: Any) -> Any:
        arrived.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(arrived)
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)


def _ends_run_rightly(error: BaseException, is_interrupted: bool) -> bool:
    """Whether the keyboard, or a time limit of pytest, is behind it."""
    import pytest

    if isinstance(error, KeyboardInterrupt):
        return is_interrupted
    return isinstance(error, pytest.fail.Exception) and not isinstance(error, pytest.xfail.Exception)


def is_exit_call(file: str) -> bool:
    """Whether a frame of this file is part of a call that ends a test or a process, and not the user's."""
    return file in {__file__, os.__file__, "<frozen os>", contextlib.__file__} or "_pytest" in Path(file).parts


def _as_text(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
