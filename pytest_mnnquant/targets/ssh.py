"""A machine that is reached by ssh: one connection, with an agent at the remote end, for all jobs of a run.

Jobs and files go through the connection itself, so it needs no sftp, no daemon and no open port; the ssh servers of
small boards have no sftp. ssh and its configuration decide which machines and keys are trusted.
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
from pytest_mnnquant.targets.connection import Connection, ConnectionLost
from pytest_mnnquant.targets.ssh_errors import TOO_OLD, lost_connection, no_connection, no_greeting, no_space, too_slow

SCHEME: Final = "ssh://"
_AGENT: Final = PROGRAMS / "remote_agent.py"
# The remote end may run any shell, so this contains no quotes and no other characters that a shell interprets.
_BOOT: Final = (
    f"import sys;sys.version_info<(3,8)and sys.exit({TOO_OLD});"
    "exec(compile(sys.stdin.buffer.read({length}),sys.argv[1],sys.argv[2]))"
)
# Seconds: to connect; to start Python on the remote end; to receive the answer after the time limit of a job.
_CONNECTING: Final = 20
_STARTING: Final = 60.0
_GRACE: Final = 2.0


class SshLauncher:
    """Runs jobs on a machine behind ssh. Connects when first needed, and again after the connection has ended.

    `destination` is what ssh takes: user@host, ssh://user@host:port, or a name from its configuration. `python` is a
    command on the machine, `folder` the parent of the jobs' folders (empty: its temporary folder), `options` are for
    ssh.
    """

    def __init__(
        self, destination: str, python: str = "python3", folder: str = "", options: Sequence[str] = ()
    ) -> None:
        self.destination = destination
        self.python = python
        self.folder = folder
        self.options = tuple(options)
        self._connection: Connection | None = None
        # In bytes: the files that the machine holds, by their SHA-256; the largest job; the free space at the start.
        self._held: dict[str, int] = {}
        self._largest = self._free = 0
        self._refusal: NativeFailure | None = None

    def run(self, job_file: Path, timeout: float) -> int:
        """Run a job with all files of its folder on the machine, and copy its results back. Returns the exit status.

        Raises `NativeFailure`, and `subprocess.TimeoutExpired` after `timeout` seconds without progress. After a
        failed attempt to connect, no other attempt is made.
        """
        if self._refusal is not None:
            raise self._refusal.reworded(self._refusal.what)
        end = time.monotonic() + timeout
        try:
            connection = self._connect(end, timeout)
            self._send(connection, job_file.parent, end, timeout)
            return self._receive(connection, job_file.parent, timeout, end + _GRACE)
        except ConnectionLost:
            raise self._connection_failure() from None
        except (ValueError, TypeError, KeyError) as error:
            self.close()
            reason = f"unexpected reply from the remote agent ({error})"
            raise NativeFailure(FailureKind.BAD_ANSWER, reason) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection; running jobs on the machine end with it."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._held = None, {}

    def _connect(self, end: float, timeout: float) -> Connection:
        if self._connection is not None and self._connection.is_alive:
            return self._connection
        self.close()
        source = _AGENT.read_bytes()
        boot = f"{self.python} -c '{_BOOT.format(length=len(source))}' agent exec"
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": max(1, min(_CONNECTING, int(timeout * 0.8))),
            "ServerAliveInterval": 10,
            # Overrides settings of ~/.ssh/config that are meant for other purposes.
            "RemoteCommand": "none",
            "ClearAllForwardings": "yes",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        words = ["ssh", "-T", *self.options, *options, "--", self.destination, boot]
        try:
            connection = self._connection = Connection(words)
        except OSError as error:
            reason = f"ssh can't be run on this host: {error.strerror}"
            install = "install it: sudo apt-get install -y openssh-client"
            raise NativeFailure(FailureKind.NOT_STARTED, reason, fix=install) from None
        started = time.monotonic()
        end = min(end, started + _STARTING)
        try:
            connection.send(source + json.dumps({"folder": self.folder}).encode() + b"\n", end)
            while not (line := connection.read_line(end)).startswith(GREETING):
                pass  # Some shells print text at each login.
        except subprocess.TimeoutExpired:
            raise self._remember(no_greeting(end - started, self._python, self._typed_address())) from None
        greeting = json.loads(line.removeprefix(GREETING))
        if greeting["protocol"] != PROTOCOL:
            reason = f"protocol mismatch: the remote agent has {greeting['protocol']}, this host has {PROTOCOL}"
            raise NativeFailure(FailureKind.BAD_ANSWER, reason)
        if "failed" in greeting:
            raise no_space(greeting["failed"])
        self._free = greeting["free"]
        return connection

    def _send(self, connection: Connection, folder: Path, end: float, timeout: float) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
        sizes_of_job = {digest: (folder / name).stat().st_size for name, digest in files.items()}
        to_keep = self._files_to_keep(sizes_of_job)
        new = {digest: name for name, digest in files.items() if digest not in self._held}
        new_files = [(name, digest, sizes_of_job[digest]) for digest, name in new.items()]
        limit = max(0.0, end - time.monotonic())
        job = {"program": PROGRAMS.name, "files": files, "new": new_files, "keep": [*to_keep], "limit": limit}
        before = connection.sent
        try:
            connection.send(json.dumps(job).encode() + b"\n", end)
            for name, _, size in new_files:
                connection.send_file(folder / name, size, end)
        except subprocess.TimeoutExpired:
            raise too_slow(connection.sent - before, sum(size for *_, size in new_files), timeout) from None
        self._held = {**to_keep, **sizes_of_job}

    def _files_to_keep(self, sizes_of_job: Mapping[str, int]) -> dict[str, int]:
        """Files of earlier jobs to keep on the machine, the largest first, since later jobs may need them.

        They take at most as much space as the largest job, and at most a quarter of the disk.
        """
        self._largest = max(self._largest, sum(sizes_of_job.values()))
        to_keep, left = {}, min(self._largest, self._free // 4)
        for digest, size in sorted(self._held.items(), key=lambda item: -item[1]):
            if digest not in sizes_of_job and PART <= size <= left:
                to_keep[digest] = size
                left -= size
        return to_keep

    def _receive(self, connection: Connection, folder: Path, timeout: float, end: float) -> int:
        while "done" not in (answer := json.loads(connection.read_line(end))):
            if "failed" in answer:
                raise no_space(answer["failed"])
            (folder / "progress").write_text(answer["progress"], encoding="ascii")
            end = time.monotonic() + timeout + _GRACE
            if has_listener():
                report_child_progress(folder / "progress")
        for name, size in answer["files"]:
            connection.receive_file(folder / Path(name).name, size, end)
        if answer["done"] is None:
            raise subprocess.TimeoutExpired(self.destination, timeout)
        return int(answer["done"])

    def _connection_failure(self) -> NativeFailure:
        """The failure of a connection that has ended."""
        connection = self._connection
        assert connection is not None
        status, output = connection.wait_for_end()
        self.close()
        if connection.is_greeted:
            return lost_connection(status, output)
        return self._remember(no_connection(status, output, self._python, self._typed_address()))

    def _remember(self, failure: NativeFailure) -> NativeFailure:
        """Keep the reason for the missing connection, so that a run of many variants does not wait for each."""
        self._refusal = failure
        return failure

    @property
    def _python(self) -> str:
        return self.python.split()[0]

    def _typed_address(self) -> str:
        """The machine as users type it in a command: ssh-copy-id takes no ssh:// address."""
        address, port = self.destination, ""
        if address.startswith(SCHEME):
            address, _, port = address.removeprefix(SCHEME).partition(":")
        return shlex.join([*self.options, *(("-p", port) if port else ()), address])
