"""Why a machine behind ssh can't be reached, by what ssh and the shell there printed, and what to do about it."""

from __future__ import annotations

import re
import shlex
from typing import Final

from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure

#: The exit status by which a Python that is too old is known.
TOO_OLD: Final = 98
_LOG_LINES: Final = 12
_TRY: Final = "see whether `ssh {host} true` works from here without being asked anything"
_PYTHON: Final = 'say where it is: python = "..." in [tool.mnnquant.targets.NAME]'
_NEWER: Final = 'name a newer one of that machine: python = "..." in [tool.mnnquant.targets.NAME]'
_SLOW: Final = "raise --mnn-timeout, give fewer samples, or see why the network is slow"
_ROOM: Final = 'make room there, or name another place: folder = "..." in [tool.mnnquant.targets.NAME]'
_AGAIN: Final = "see whether the machine is up and its network steady, and run again"
_REASONS: Final = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known: nothing was sent",
        "where the machine was set up anew, forget the old key (ssh-keygen -R {machine}) and look at the new one; else "
        "somebody may stand between",
    ),
    (
        "Host key verification failed",
        "its host key is not known here: nothing was sent",
        "put it into known_hosts: connect once by hand (ssh {host}), or in CI from a secret of yours",
    ),
    (
        "Permission denied",
        "it lets nobody in with the keys that are here",
        "passwords are never asked for: put a key of yours there (ssh-copy-id {host}), or name one: options = "
        '["-i", "FILE"] in [tool.mnnquant.targets.NAME]',
    ),
)


def no_connection(status: int, output: str, python: str, host: str) -> NativeFailure:
    """There was no connection: ssh ended with `status`; `host` is what a user types after `ssh` to get there."""
    log = _log(output)
    if status == TOO_OLD:
        reason = f"{python} there is older than Python 3.8"
        return NativeFailure(FailureKind.WRONG_VERSION, reason, log, fix=_NEWER)
    if status in (126, 127) or "Command not found." in output:  # csh has no status of its own for that.
        return NativeFailure(FailureKind.NOT_STARTED, f"{python} can't be run there", log, fix=_PYTHON)
    for sign, reason, fix in _REASONS:
        if sign in output:
            known = re.search(r"Host key for (\S+) has changed", output)
            machine = shlex.quote(known[1]) if known else host
            return NativeFailure(FailureKind.NO_CONNECTION, reason, log, fix=fix.format(host=host, machine=machine))
    reason = f"there is no connection (ssh ended with {status})"
    return NativeFailure(FailureKind.NO_CONNECTION, reason, log, fix=_TRY.format(host=host))


def no_greeting(seconds: float, python: str, host: str) -> NativeFailure:
    """Connected by ssh, and the program there does not greet."""
    reason = f"nothing was heard of {python} there in {seconds:.0f} s"
    return NativeFailure(FailureKind.NO_CONNECTION, reason, fix=_TRY.format(host=host))


def lost_connection(status: int, output: str) -> NativeFailure:
    """There was a connection, and it broke off."""
    reason = f"the connection broke off (ssh ended with {status})"
    return NativeFailure(FailureKind.LOST_CONNECTION, reason, _log(output), fix=_AGAIN)


def too_slow(sent: int, whole: int, timeout: float) -> NativeFailure:
    """Of `whole` bytes of the job `sent` came through in `timeout` seconds."""
    reason = f"{sent / 1e6:.1f} of {whole / 1e6:.1f} MB were sent in {timeout:g} s (limit: --mnn-timeout)"
    return NativeFailure(FailureKind.TIMED_OUT, reason, fix=_SLOW)


def no_space(reason: str) -> NativeFailure:
    """The machine has no room for the job."""
    return NativeFailure(FailureKind.NO_SPACE, reason, fix=_ROOM)


def _log(output: str) -> str:
    return "\n".join([line for line in output.splitlines() if line.strip(" @")][-_LOG_LINES:])
