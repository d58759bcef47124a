"""Why a machine behind ssh can't be reached, from the output of ssh and of the remote shell, and how to fix it."""

from __future__ import annotations

import re
import shlex
from typing import Final

from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure

#: The exit status that means: Python is too old.
TOO_OLD: Final = 98
_LOG_LINES: Final = 12
_TRY: Final = "check that this command works on this host and asks no question: ssh {host} true"
_PYTHON: Final = 'give the path of Python on that machine: python = "..." in [tool.mnnquant.targets.NAME]'
_NEWER: Final = 'give the path of a newer Python on that machine: python = "..." in [tool.mnnquant.targets.NAME]'
_SLOW: Final = "raise --mnn-timeout, use fewer samples, or use a faster network"
_ROOM: Final = (
    'free disk space on that machine, or choose another folder: folder = "..." in [tool.mnnquant.targets.NAME]'
)
_AGAIN: Final = "check that the machine is up and its network is stable, then run again"
_REASONS: Final = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key differs from the known one; nothing was sent",
        "if the machine was reinstalled, remove the old key (ssh-keygen -R {machine}) and verify the new one; "
        "otherwise this may be a man-in-the-middle attack",
    ),
    (
        "Host key verification failed",
        "its host key is unknown on this host; nothing was sent",
        "add it to known_hosts: connect once manually (ssh {host}), or in CI write it from a secret",
    ),
    (
        "Permission denied",
        "authentication failed with the available keys",
        "copy your key to the machine (ssh-copy-id {host}; passwords are not supported), or choose a key: options = "
        '["-i", "FILE"] in [tool.mnnquant.targets.NAME]',
    ),
)


def no_connection(status: int, output: str, python: str, host: str) -> NativeFailure:
    """No connection: ssh ended with `status`; `host` is what a user types after `ssh` to reach the machine."""
    log = _log(output)
    if status == TOO_OLD:
        reason = f"{python} on the machine is older than Python 3.8"
        return NativeFailure(FailureKind.WRONG_VERSION, reason, log, fix=_NEWER)
    if status in (126, 127) or "Command not found." in output:  # csh has no exit status for that.
        return NativeFailure(FailureKind.NOT_STARTED, f"{python} can't be run on the machine", log, fix=_PYTHON)
    for sign, reason, fix in _REASONS:
        if sign in output:
            known = re.search(r"Host key for (\S+) has changed", output)
            machine = shlex.quote(known[1]) if known else host
            return NativeFailure(FailureKind.NO_CONNECTION, reason, log, fix=fix.format(host=host, machine=machine))
    reason = f"no connection (ssh ended with {status})"
    return NativeFailure(FailureKind.NO_CONNECTION, reason, log, fix=_TRY.format(host=host))


def no_greeting(seconds: float, python: str, host: str) -> NativeFailure:
    """The failure if ssh connected, but the remote agent does not answer."""
    reason = f"{python} on the machine did not answer within {seconds:.0f} s"
    return NativeFailure(FailureKind.NO_CONNECTION, reason, fix=_TRY.format(host=host))


def lost_connection(status: int, output: str) -> NativeFailure:
    """An established connection broke."""
    reason = f"the connection was lost (ssh ended with {status})"
    return NativeFailure(FailureKind.LOST_CONNECTION, reason, _log(output), fix=_AGAIN)


def too_slow(sent: int, whole: int, timeout: float) -> NativeFailure:
    """Only `sent` of the job's `whole` bytes were sent in `timeout` seconds."""
    reason = f"{sent / 1e6:.1f} of {whole / 1e6:.1f} MB were sent in {timeout:g} s (limit: --mnn-timeout)"
    return NativeFailure(FailureKind.TIMED_OUT, reason, fix=_SLOW)


def no_space(reason: str) -> NativeFailure:
    """The machine has no disk space for the job."""
    return NativeFailure(FailureKind.NO_SPACE, reason, fix=_ROOM)


def _log(output: str) -> str:
    return "\n".join([line for line in output.splitlines() if line.strip(" @")][-_LOG_LINES:])
