"""The remote end of a connection: takes jobs from stdin, runs them, and returns their results on stdout.

Requires only Python 3.8. Its text is sent through the connection, so nothing is installed on the machine. It writes
only to one folder, which is removed when the connection ends for any reason; running jobs end too.

Both directions send lines of JSON, each followed by the bytes of the files that it announces. The agent sends a
greeting, then for each job some `progress` and one `done` (the exit status; null after the time limit) or `failed` (the
reason). The host sends jobs, and `{}` as a keep-alive message. Files of the last job and those listed in `keep` are
stored by their SHA-256 and are not sent again.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, cast

PROTOCOL = 1
GREETING = b"mnnquant-agent "
# Seconds without a keep-alive message until the connection counts as lost: during a job, and between jobs.
PATIENCE, IDLE = 60.0, 3600.0
# Seconds between two checks of the running job; more checks would disturb timing on a small board.
LOOK = 0.25
# If a job fails with less free disk space than this (bytes), the disk is the reason.
ROOM = 1 << 16
PART = 1 << 20
# The file with the id of the running process.
RUNNING = "running"
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class RemoteAgent:
    """The agent, in its own folder: one thread receives, one watches the connection, the main thread works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = folder / "held"
        self.held.mkdir()
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.last_heard = time.monotonic()
        self.is_receiving = self.is_working = False
        self.process: subprocess.Popen[bytes] | None = None

    def end(self, *_: object) -> NoReturn:
        """Stop immediately, with all running processes."""
        if self.process is not None:
            kill(self.process.pid)
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)

    def receive(self) -> None:
        """Receive jobs until the connection ends."""
        try:
            while line := sys.stdin.buffer.readline():
                self.last_heard = time.monotonic()
                if job := json.loads(line):
                    self.is_receiving = True
                    self.receive_files(job)
                    self.jobs.put(job)
                    self.is_receiving = False
        finally:
            self.end()

    def watch(self) -> None:
        """End the agent if the host has been silent for too long."""
        while time.monotonic() - self.last_heard < (PATIENCE if self.is_receiving or self.is_working else IDLE):
            time.sleep(1.0)
        self.end()

    def receive_files(self, job: dict[str, Any]) -> None:
        """Receive a job's new files, after deleting unneeded ones; if one can't be stored, set the job's `failed`."""
        needed = {*job["files"].values(), *job["keep"]}
        for path in self.held.iterdir():
            if path.name not in needed:
                path.unlink()
        for name, digest, size in job["new"]:
            if reason := self.store(self.held / digest, size):
                job.setdefault("failed", f"{name} can't be stored: {reason}")

    def store(self, path: Path, left: int) -> str:
        """Read the next bytes and store them; returns the reason if they can't be stored, else an empty text."""
        try:
            with path.open("wb") as file:
                while left:
                    part = self.read(left)
                    left -= len(part)
                    file.write(part)
        except OSError as error:
            while left:
                left -= len(self.read(left))
            path.unlink(missing_ok=True)
            return error.strerror or str(error)
        return ""

    def read(self, most: int) -> bytes:
        """The next bytes of the connection."""
        part = cast(BufferedReader, sys.stdin.buffer).read1(min(most, PART))
        if not part:
            self.end()
        self.last_heard = time.monotonic()
        return part

    def work(self) -> NoReturn:
        """Run the jobs in the order of arrival."""
        while True:
            job, folder = self.jobs.get(), self.folder / "job"
            self.is_working = True
            try:
                if "failed" not in job:
                    self.do(job, folder)
            except OSError as error:
                job["failed"] = str(error)
            if "failed" in job:
                self.send({"failed": job["failed"]})
            shutil.rmtree(folder, ignore_errors=True)
            self.is_working = False

    def do(self, job: dict[str, Any], folder: Path) -> None:
        """Run a job and send its results."""
        folder.mkdir()
        for name, digest in job["files"].items():
            link(self.held / digest, folder / name)
        status = self.run(job, folder)
        if status and shutil.disk_usage(folder).free < ROOM:
            job["failed"] = f"the disk of {self.folder.parent} is full"
            return
        new = [path for path in sorted(folder.iterdir()) if path.name not in job["files"] and path.is_file()]
        sizes = [(path, path.stat().st_size) for path in new]
        self.send({"done": status, "files": [[path.name, size] for path, size in sizes]})
        for path, left in sizes:
            with path.open("rb") as file:
                while left:
                    part = file.read(min(left, PART))
                    self.write(part)
                    left -= len(part)

    def run(self, job: dict[str, Any], folder: Path) -> int | None:
        """Run the programs; returns the exit status, None after the limit of seconds without progress."""
        # -B: compiled files would be deleted with the job's folder.
        words = [sys.executable, "-B", job["program"], str(folder / "job.json")]
        with (folder / "log.txt").open("wb") as log:
            process = self.process = subprocess.Popen(
                words,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = self.folder / RUNNING
        try:
            running.write_text(str(process.pid), encoding="ascii")
            return self.wait(process, folder / "progress", job["limit"])
        finally:
            kill(process.pid)  # Also processes that it has left running.
            process.wait()
            self.process = None
            running.unlink(missing_ok=True)

    def wait(self, process: subprocess.Popen[bytes], progress: Path, limit: float) -> int | None:
        """Wait for the exit status; meanwhile pass on the progress. None after `limit` seconds without progress."""
        before, end = "", time.monotonic() + limit
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK)
            now = progress.read_text(encoding="ascii", errors="replace") if progress.exists() else ""
            if now != before:
                self.send({"progress": now})
                before, end = now, time.monotonic() + limit
        return None

    def send(self, message: dict[str, Any]) -> None:
        """Send a line."""
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send bytes; end the agent if the host no longer accepts them."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            self.end()


def kill(process: int) -> None:
    """Kill the leader of a process session, with all processes of the session."""
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)


def link(held: Path, path: Path) -> None:
    """Put a file that was sent into a job's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(held, path)
    except OSError:  # Not all file systems support hard links.
        shutil.copyfile(held, path)


def greet(**facts: Any) -> None:
    """Send the greeting, which marks the start: the machine's shell may have printed text before."""
    sys.stdout.buffer.write(GREETING + json.dumps({"protocol": PROTOCOL, **facts}).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    """Work in a child process, so that the folder is removed even if the child is killed."""
    request = json.loads(sys.stdin.buffer.readline())
    try:
        room = str(Path(request["folder"]).expanduser()) if request["folder"] else None
        folder = Path(tempfile.mkdtemp(prefix="mnnquant-", dir=room))
        child = os.fork()
        if child == 0:
            agent = RemoteAgent(folder)
    except OSError as error:
        greet(failed=str(error))
        os._exit(1)
    if child == 0:
        for number in ENDING:
            signal.signal(number, agent.end)
        for task in (agent.receive, agent.watch):
            threading.Thread(target=task, daemon=True).start()
        greet(free=shutil.disk_usage(folder).free)
        agent.work()
    for number in ENDING:
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    for stream in (0, 1):
        os.close(stream)
    os.waitpid(child, 0)
    with contextlib.suppress(OSError, ValueError):
        kill(int((folder / RUNNING).read_text(encoding="ascii")))
    for _ in range(20):  # Processes of the child may still be ending.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)
    os._exit(0)


if __name__ == "__main__":
    main()
