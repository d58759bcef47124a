"""A machine that is reached by ssh: one connection, with an agent at its other end, for all jobs of a run.

Jobs and files go through the connection itself, so neither sftp nor a daemon nor an open port is needed; small boards'
ssh servers have no sftp. Who is trusted, and with which key one gets in, is for ssh and its own configuration to say.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.programs.remote_agent import GREETING, PART, PROTOCOL
from pytest_mnnquant.runtime.programs.transfer import sha256
from pytest_mnnquant.runtime.progress import has_listener, report_child_progress
from pytest_mnnquant.targets.connection import Connection, Lost
from pytest_mnnquant.targets.ssh_errors import TOO_OLD, lost_connection, no_connection, no_greeting, no_space, too_slow

SCHEME: Final = "ssh://"
_AGENT: Final = PROGRAMS / "remote_agent.py"
# The other end may run any shell: this holds no quotes of its own, nor anything else that a shell would read.
_BOOT: Final = (
    f"import sys;sys.version_info<(3,8)and sys.exit({TOO_OLD});"
    "exec(compile(sys.stdin.buffer.read({length}),sys.argv[1],sys.argv[2]))"
)
# Seconds: until there is a connection; until Python there says that it is; for the answer that the time is over.
_CONNECTING: Final = 20
_STARTING: Final = 60.0
_GRACE: Final = 2.0


class Remote:
    """The runner on a machine behind ssh, connected when first needed and again after the connection has ended.

    `destination` is what ssh takes: user@host, ssh://user@host:port, or a name of its configuration. `python` is a
    command there, `folder` where jobs' folders are made (its usual place where empty), `options` are for ssh.
    """

    def __init__(
        self, destination: str, python: str = "python3", folder: str = "", options: Sequence[str] = ()
    ) -> None:
        self.destination = destination
        self.python = python
        self.folder = folder
        self.options = tuple(options)
        self._connection: Connection | None = None
        # The sizes of the files that are there, by their SHA-256; of the largest job; and of what was free there.
        self._held: dict[str, int] = {}
        self._largest = self._free = 0
        self._refusal: NativeFailure | None = None

    def run(self, job_file: Path, timeout: float) -> int:
        """Have a job run there, with all files of its folder; what it left comes back. Returns the exit status.

        Raises `NativeFailure`, and `subprocess.TimeoutExpired` after `timeout` seconds. Where there was no connection
        once, none is tried again.
        """
        if self._refusal is not None:
            raise self._refusal.reworded(self._refusal.what)
        end = time.monotonic() + timeout
        try:
            connection = self._connected(end, timeout)
            self._send(connection, job_file.parent, end, timeout)
            return self._answer(connection, job_file.parent, timeout, end + _GRACE)
        except Lost:
            raise self._why() from None
        except (ValueError, TypeError, KeyError) as error:
            self.close()
            told = f"what comes from there is no answer of ours ({error})"
            raise NativeFailure(FailureKind.BAD_ANSWER, told) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection; what runs there ends with it."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._held = None, {}

    def _connected(self, end: float, timeout: float) -> Connection:
        if self._connection is not None and self._connection.is_alive:
            return self._connection
        self.close()
        source = _AGENT.read_bytes()
        boot = f"{self.python} -c '{_BOOT.format(length=len(source))}' agent exec"
        how = {
            "BatchMode": "yes",
            "ConnectTimeout": max(1, min(_CONNECTING, int(timeout * 0.8))),
            "ServerAliveInterval": 10,
            # What ~/.ssh/config may say of this machine for other purposes.
            "RemoteCommand": "none",
            "ClearAllForwardings": "yes",
        }
        options = [word for key, value in how.items() for word in ("-o", f"{key}={value}")]
        words = ["ssh", "-T", *self.options, *options, "--", self.destination, boot]
        try:
            connection = self._connection = Connection(words)
        except OSError as error:
            told = f"ssh can't be run here: {error.strerror}"
            install = "install it: sudo apt-get install -y openssh-client"
            raise NativeFailure(FailureKind.NOT_STARTED, told, fix=install) from None
        begun = time.monotonic()
        end = min(end, begun + _STARTING)
        try:
            connection.send(source + json.dumps({"folder": self.folder}).encode() + b"\n", end)
            while not (line := connection.line(end)).startswith(GREETING):
                pass  # Some shells print something for everybody who comes in.
        except subprocess.TimeoutExpired:
            raise self._refused(no_greeting(end - begun, self._python, self._by_hand())) from None
        said = json.loads(line.removeprefix(GREETING))
        if said["protocol"] != PROTOCOL:
            told = f"the other end speaks protocol {said['protocol']}, not {PROTOCOL}"
            raise NativeFailure(FailureKind.BAD_ANSWER, told)
        if "failed" in said:
            raise no_space(said["failed"])
        self._free = said["free"]
        return connection

    def _send(self, connection: Connection, folder: Path, end: float, timeout: float) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
        own = {digest: (folder / name).stat().st_size for name, digest in files.items()}
        kept = self._kept(own)
        new = {digest: name for name, digest in files.items() if digest not in self._held}
        sizes = [(name, digest, own[digest]) for digest, name in new.items()]
        limit = max(0.0, end - time.monotonic())
        job = {"program": PROGRAMS.name, "files": files, "new": sizes, "keep": [*kept], "limit": limit}
        before = connection.sent
        try:
            connection.send(json.dumps(job).encode() + b"\n", end)
            for name, _, size in sizes:
                connection.send_file(folder / name, size, end)
        except subprocess.TimeoutExpired:
            raise too_slow(connection.sent - before, sum(size for *_, size in sizes), timeout) from None
        self._held = {**kept, **own}

    def _kept(self, own: Mapping[str, int]) -> dict[str, int]:
        """What stays there beside a job's own files, as later jobs may need it: the largest files of those before.

        They take no more room than the largest job, and a quarter of the disk at most.
        """
        self._largest = max(self._largest, sum(own.values()))
        kept, left = {}, min(self._largest, self._free // 4)
        for digest, size in sorted(self._held.items(), key=lambda one: -one[1]):
            if digest not in own and PART <= size <= left:
                kept[digest] = size
                left -= size
        return kept

    def _answer(self, connection: Connection, folder: Path, timeout: float, end: float) -> int:
        while "done" not in (said := json.loads(connection.line(end))):
            if "failed" in said:
                raise no_space(said["failed"])
            (folder / "progress").write_text(said["progress"], encoding="ascii")
            if has_listener():
                report_child_progress(folder / "progress")
        for name, size in said["files"]:
            connection.take_file(folder / Path(name).name, size, end)
        if said["done"] is None:
            raise subprocess.TimeoutExpired(self.destination, timeout)
        return int(said["done"])

    def _why(self) -> NativeFailure:
        """Why the connection has ended."""
        connection = self._connection
        assert connection is not None
        status, said = connection.ended()
        self.close()
        if connection.is_greeted:
            return lost_connection(status, said)
        return self._refused(no_connection(status, said, self._python, self._by_hand()))

    def _refused(self, why: NativeFailure) -> NativeFailure:
        """Why there was no connection, remembered: a run of many variants does not wait for each."""
        self._refusal = why
        return why

    @property
    def _python(self) -> str:
        return self.python.split()[0]

    def _by_hand(self) -> str:
        """What reaches the machine in a command that is typed: ssh-copy-id takes no ssh://."""
        address, port = self.destination, ""
        if address.startswith(SCHEME):
            address, _, port = address.removeprefix(SCHEME).partition(":")
        return shlex.join([*self.options, *(("-p", port) if port else ()), address])
