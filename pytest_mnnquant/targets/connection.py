"""A pipe to the remote agent behind ssh. Sends and receives lines and files with time limits; says why it ended."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from pytest_mnnquant.runtime.programs.remote_agent import GREETING, PART
from pytest_mnnquant.runtime.worker import end_family

# Seconds: between two keep-alive messages; until a process must end after its pipes are closed.
_ALIVE: Final = 5.0
_ENDING: Final = 2.0
# The largest line in bytes, and the number of bytes read from stderr.
_LONGEST: Final = 1 << 20
_CHATTER: Final = 1 << 16


class ConnectionLost(Exception):
    """The connection has ended."""


class Connection:
    """An ssh process and its pipes; `words` are its command. Each method waits until `end`, a time of `time.monotonic`.

    After that it raises `subprocess.TimeoutExpired`. All but `wait_for_end` and `close` raise `ConnectionLost`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it.
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Once only: later, the process id may belong to another process.
        self._end = weakref.finalize(self, _end, self._process, self._errors)
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._left = b""
        self._alive_since = time.monotonic()
        #: The number of bytes sent.
        self.sent = 0
        self.is_greeted = False

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, data: bytes, end: float) -> None:
        """Send bytes."""
        rest = memoryview(data)
        while rest:
            self._wait([], [self._in], end)
            try:
                done = os.write(self._in, rest)
                rest, self.sent = rest[done:], self.sent + done
            except BlockingIOError:
                continue
            except OSError:
                raise ConnectionLost from None

    def send_file(self, path: Path, size: int, end: float) -> None:
        """Send the bytes of a file."""
        with path.open("rb") as file:
            while size:
                part = file.read(min(size, PART))
                self.send(part, end)
                size -= len(part)

    def read_line(self, end: float) -> bytes:
        """The next line, without its end."""
        while b"\n" not in self._left:
            self._read(end)
            if len(self._left) > _LONGEST:
                raise ValueError("a line without end")
        line, _, self._left = self._left.partition(b"\n")
        self.is_greeted = self.is_greeted or line.startswith(GREETING)
        return line

    def receive_file(self, path: Path, size: int, end: float) -> None:
        """Write the next bytes to a file."""
        with path.open("wb") as file:
            while size > 0:
                if not self._left:
                    self._read(end)
                part, self._left = self._left[:size], self._left[size:]
                file.write(part)
                size -= len(part)

    def _read(self, end: float) -> None:
        self._wait([self._out], [], end)
        part = os.read(self._out, PART)
        if not part:
            raise ConnectionLost
        self._left += part

    def _wait(self, reading: list[int], writing: list[int], end: float) -> None:
        """Wait until a read or a write is possible."""
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self._words, 0)
            readable, writable, _ = select.select(reading, writing, [], min(left, _ALIVE))
            if reading and self.is_greeted:
                self._report_alive()
            if readable or writable:
                return

    def _report_alive(self) -> None:
        """Send keep-alive messages to the other end."""
        if time.monotonic() - self._alive_since >= _ALIVE:
            self._alive_since = time.monotonic()
            with contextlib.suppress(OSError):  # The pipe is full or closed; the next read reports that.
                os.write(self._in, b"{}\n")

    def wait_for_end(self) -> tuple[int, str]:
        """Wait a moment for the process to end; returns its exit status and its stderr."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)
        self._errors.seek(0)
        text = self._errors.read(_CHATTER).decode("utf-8", "replace")
        self._end()
        return self._process.returncode, text

    def close(self) -> None:
        """End the process."""
        self._end()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    end_family(process)
    errors.close()
