"""The far end of a connection: takes jobs from stdin, runs them with the programs, returns on stdout what they left.

Needs nothing but Python 3.8 and is sent as text with the connection, so nothing is installed there. All that it writes
lies in one folder, which is removed when the connection ends, however that happens; what it runs ends too.

Both directions speak lines of JSON, each followed by the bytes of the files that it announces. From here: a greeting,
then for each job a few `progress` and one `done` (the exit status; null after the time limit) or `failed` (why it could
not be done). From there: jobs, and `{}` now and then as a sign of life. Files that are held, those of the last job and
those that it listed to `keep`, are not sent again: they are known by their SHA-256.
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
# Seconds without a sign of life: while a job comes or runs, and between jobs. A cable that is cut says nothing.
PATIENCE, IDLE = 60.0, 3600.0
# Seconds between two looks at what runs; more often would take time from what is timed on a small board.
LOOK = 0.25
# With fewer bytes left on its disk, a job that failed has failed for that.
ROOM = 1 << 16
PART = 1 << 20
# The file that holds the number of the process that runs.
RUNNING = "running"
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class RemoteAgent:
    """The far end, in a folder of its own: one thread receives, one watches, the main one works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = folder / "held"
        self.held.mkdir()
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.last_heard = time.monotonic()
        self.is_receiving = self.is_working = False
        self.process: subprocess.Popen[bytes] | None = None

    def end(self, *_: object) -> NoReturn:
        """Stop at once, with what runs."""
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
        """End when the other end has been silent for long, whatever the other threads wait for."""
        while time.monotonic() - self.last_heard < (PATIENCE if self.is_receiving or self.is_working else IDLE):
            time.sleep(1.0)
        self.end()

    def receive_files(self, job: dict[str, Any]) -> None:
        """Receive a job's new files; if one can't be stored, `failed` says so. Files that are not needed go first."""
        needed = {*job["files"].values(), *job["keep"]}
        for path in self.held.iterdir():
            if path.name not in needed:
                path.unlink()
        for name, digest, size in job["new"]:
            if reason := self.store(self.held / digest, size):
                job.setdefault("failed", f"{name} can't be kept: {reason}")

    def store(self, path: Path, left: int) -> str:
        """Store the next bytes; returns why they can't be stored, empty if they are. They are read in any case."""
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
        """Some bytes of what comes."""
        part = cast(BufferedReader, sys.stdin.buffer).read1(min(most, PART))
        if not part:
            self.end()
        self.last_heard = time.monotonic()
        return part

    def work(self) -> NoReturn:
        """Do jobs as they come."""
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
        """Run a job and return all that it left."""
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
        """Run the programs; returns the exit status, None if there was none in time."""
        # -B: compiled programs would go with the job's folder.
        words, end = [sys.executable, "-B", job["program"], str(folder / "job.json")], time.monotonic() + job["limit"]
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
            return self.wait(process, folder / "progress", end)
        finally:
            kill(process.pid)  # Also what it has left running.
            process.wait()
            self.process = None
            running.unlink(missing_ok=True)

    def wait(self, process: subprocess.Popen[bytes], progress: Path, end: float) -> int | None:
        """The exit status, once there is one; until then the progress that is reported is passed on."""
        before = ""
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK)
            now = progress.read_text(encoding="ascii", errors="replace") if progress.exists() else ""
            if now != before:
                self.send({"progress": now})
                before = now
        return None

    def send(self, message: dict[str, Any]) -> None:
        """Send a line."""
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send bytes; end if the other end does not take them any more."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            self.end()


def kill(process: int) -> None:
    """Kill a process that leads a session, with all that it has started."""
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)


def link(held: Path, path: Path) -> None:
    """Put a file that was sent into a job's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(held, path)
    except OSError:  # Not on every file system.
        shutil.copyfile(held, path)


def greet(**facts: Any) -> None:
    """Say who speaks: a shell there may have printed something before."""
    sys.stdout.buffer.write(GREETING + json.dumps({"protocol": PROTOCOL, **facts}).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    """Work in a child process, so that the folder is removed even if that one is killed."""
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
    for _ in range(20):  # What it ran may still be about to end.
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)
    os._exit(0)


if __name__ == "__main__":
    main()
