"""Why a machine behind ssh can't be reached, by what ssh and the shell there said, and what to do about it."""

from __future__ import annotations

import re
import shlex
from typing import Final

from pytest_mnnquant.runtime.jobs import NativeFailure

#: The exit status by which a Python that is too old is known.
TOO_OLD: Final = 98
_LOG_LINES: Final = 12
_TRY: Final = "see whether `ssh {host} true` works from here without being asked anything"
_PYTHON: Final = 'say where it is: python = "..." in [tool.mnnquant.targets.NAME]'
_NEWER: Final = 'name a newer one of that machine: python = "..." in [tool.mnnquant.targets.NAME]'
_SLOW: Final = "raise --mnn-timeout, give fewer samples, or see why the network is slow"
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


class Unreachable(NativeFailure):
    """The machine could not be reached, or the connection broke off; `remedy` says what to do about it."""

    def __init__(self, what: str, log: str = "", fix: str = "") -> None:
        super().__init__(what, log)
        self.fix = fix


def unconnected(status: int, said: str, python: str, host: str) -> Unreachable:
    """There was no connection: ssh ended with `status`; `host` is what one types to get there by hand."""
    log = _log(said)
    if status == TOO_OLD:
        return Unreachable(f"{python} there is older than Python 3.8", log, _NEWER)
    if status in (126, 127) or "Command not found." in said:  # csh has no status of its own for that.
        return Unreachable(f"{python} can't be run there", log, _PYTHON)
    for sign, told, fix in _REASONS:
        if sign in said:
            known = re.search(r"Host key for (\S+) has changed", said)
            machine = shlex.quote(known[1]) if known else host
            return Unreachable(told, log, fix.format(host=host, machine=machine))
    return Unreachable(f"there is no connection (ssh ended with {status})", log, _TRY.format(host=host))


def silent(seconds: float, python: str, host: str) -> Unreachable:
    """Somebody is there, who says nothing of ours."""
    return Unreachable(f"nothing was heard of {python} there in {seconds:.0f} s", fix=_TRY.format(host=host))


def broken(status: int, said: str) -> Unreachable:
    """There was a connection."""
    return Unreachable(f"the connection broke off (ssh ended with {status})", _log(said), _AGAIN)


def slow(sent: int, whole: int, timeout: float) -> Unreachable:
    """Only so many bytes of the job came through in time."""
    told = f"{sent / 1e6:.1f} of {whole / 1e6:.1f} MB were sent in {timeout:g} s (limit: --mnn-timeout)"
    return Unreachable(told, fix=_SLOW)


def full(why: str) -> Unreachable:
    """There is no room there for the job."""
    fix = 'make room there, or name another place: folder = "..." in [tool.mnnquant.targets.NAME]'
    return Unreachable(why, fix=fix)


def _log(said: str) -> str:
    return "\n".join([line for line in said.splitlines() if line.strip(" @")][-_LOG_LINES:])
