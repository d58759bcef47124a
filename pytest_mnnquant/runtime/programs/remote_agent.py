"""The far end of a connection: takes jobs from stdin, has the runner do them, hands back on stdout what it left.

Needs nothing but Python 3.8 and is sent as text with the connection, so nothing is installed there. All that it writes
lies in one folder, which goes with it: when the connection ends, however that happens, so does what it runs.

Both directions speak lines of JSON, each followed by the bytes of the files that it announces. From here: a greeting,
then for each job a few `progress` and one `done` (the exit status; null after the time limit) or `failed` (why it could
not be tried). From there: jobs, and `{}` now and then as a sign of life. Files that are held, those of the last job and
what it said to `keep`, are not sent again: they are known by their SHA-256.
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
GREETING = b"mnnquant-courier "
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
    """What happens at the far end, in a folder of its own: one thread listens, one watches, the main one works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = folder / "held"
        self.held.mkdir()
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.heard = time.monotonic()
        self.is_taking = self.is_working = False
        self.process: subprocess.Popen[bytes] | None = None

    def end(self, *_: object) -> NoReturn:
        """Stop at once, with what runs."""
        if self.process is not None:
            kill(self.process.pid)
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)

    def listen(self) -> None:
        """Take what comes, until nothing more can come."""
        try:
            while line := sys.stdin.buffer.readline():
                self.heard = time.monotonic()
                if job := json.loads(line):
                    self.is_taking = True
                    self.take(job)
                    self.jobs.put(job)
                    self.is_taking = False
        finally:
            self.end()

    def watch(self) -> None:
        """End where nobody has been heard for long; whatever the other threads wait for."""
        while time.monotonic() - self.heard < (PATIENCE if self.is_taking or self.is_working else IDLE):
            time.sleep(1.0)
        self.end()

    def take(self, job: dict[str, Any]) -> None:
        """Take a job's new files; where one can't be kept, `failed` says so. What nobody needs goes first."""
        needed = {*job["files"].values(), *job["keep"]}
        for path in self.held.iterdir():
            if path.name not in needed:
                path.unlink()
        for name, digest, size in job["new"]:
            if why := self.kept(self.held / digest, size):
                job.setdefault("failed", f"{name} can't be kept: {why}")

    def kept(self, path: Path, left: int) -> str:
        """Why a file that comes can't be kept; it is taken off the line all the same. Empty where it is."""
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
        self.heard = time.monotonic()
        return part

    def work(self) -> NoReturn:
        """Do jobs as they come."""
        while True:
            job, place = self.jobs.get(), self.folder / "job"
            self.is_working = True
            try:
                if "failed" not in job:
                    self.do(job, place)
            except OSError as error:
                job["failed"] = str(error)
            if "failed" in job:
                self.say({"failed": job["failed"]})
            shutil.rmtree(place, ignore_errors=True)
            self.is_working = False

    def do(self, job: dict[str, Any], place: Path) -> None:
        """Run a job and hand back all that it left."""
        place.mkdir()
        for name, digest in job["files"].items():
            put(self.held / digest, place / name)
        status = self.run(job, place)
        if status and shutil.disk_usage(place).free < ROOM:
            job["failed"] = f"the disk of {self.folder.parent} is full"
            return
        new = [path for path in sorted(place.iterdir()) if path.name not in job["files"] and path.is_file()]
        made = [(path, path.stat().st_size) for path in new]
        self.say({"done": status, "files": [[path.name, size] for path, size in made]})
        for path, left in made:
            with path.open("rb") as file:
                while left:
                    part = file.read(min(left, PART))
                    self.write(part)
                    left -= len(part)

    def run(self, job: dict[str, Any], place: Path) -> int | None:
        """The exit status of the runner; None where it did not end in time."""
        # -B: compiled programs would go with the job's folder.
        words, end = [sys.executable, "-B", job["program"], str(place / "job.json")], time.monotonic() + job["limit"]
        with (place / "log.txt").open("wb") as log:
            process = self.process = subprocess.Popen(
                words, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        running = self.folder / RUNNING
        try:
            running.write_text(str(process.pid), encoding="ascii")
            return self.ended(process, place / "progress", end)
        finally:
            kill(process.pid)  # Also what it has left running.
            process.wait()
            self.process = None
            running.unlink(missing_ok=True)

    def ended(self, process: subprocess.Popen[bytes], progress: Path, end: float) -> int | None:
        """The exit status, once there is one; until then what it says of its progress is passed on."""
        before = ""
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(LOOK)
            now = progress.read_text(encoding="ascii", errors="replace") if progress.exists() else ""
            if now != before:
                self.say({"progress": now})
                before = now
        return None

    def say(self, what: dict[str, Any]) -> None:
        """Send a line."""
        self.write(json.dumps(what).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Send bytes; where nobody takes them any more, that is the end."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            self.end()


def kill(process: int) -> None:
    """Kill a process that leads a session, with all that it has started."""
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)


def put(held: Path, place: Path) -> None:
    """Put a file that was sent into a job's folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(held, place)
    except OSError:  # Not on every file system.
        shutil.copyfile(held, place)


def greet(**what: Any) -> None:
    """Say who speaks: a shell there may have printed something before."""
    sys.stdout.buffer.write(GREETING + json.dumps({"protocol": PROTOCOL, **what}).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    """Work in a child process, so that the folder goes even when somebody kills that one."""
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        room = str(Path(asked["folder"]).expanduser()) if asked["folder"] else None
        folder = Path(tempfile.mkdtemp(prefix="mnnquant-", dir=room))
        child = os.fork()
        if child == 0:
            courier = RemoteAgent(folder)
    except OSError as error:
        greet(failed=str(error))
        os._exit(1)
    if child == 0:
        for number in ENDING:
            signal.signal(number, courier.end)
        for task in (courier.listen, courier.watch):
            threading.Thread(target=task, daemon=True).start()
        greet(free=shutil.disk_usage(folder).free)
        courier.work()
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
