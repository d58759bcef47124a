"""A second process of a job, on a core that would be idle: it runs the later half of the samples."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .batches import sample_count
from .output_files import OutputFiles
from .process import die_with_parent

FOLDER, OUTPUTS = Path("second"), "outputs.json"
PROGRESS = "progress"
# Seconds between two looks at the process.
LOOK = 0.02


class SecondProcess:
    """A fork that runs the `later` samples of a job, while the process that made it runs the `first`.

    Both run whole batches by `run`, which gets the numbers of samples and the files for their outputs. The fork is made
    before MNN has a model, so that both have MNN at the same addresses.
    """

    def __init__(self, job: dict[str, Any], run: Callable[[Any, OutputFiles], object]) -> None:
        size, count = job["batch"], sample_count(job)
        middle = (count // size + 1) // 2 * size
        self.first, self.later = range(middle), range(middle, count)
        shutil.rmtree(FOLDER, ignore_errors=True)  # Of an earlier run of the job.
        FOLDER.mkdir()
        sys.stdout.flush()
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            self._work(job, run, parent)

    def _work(self, job: dict[str, Any], run: Callable[[Any, OutputFiles], object], parent: int) -> None:
        """Run the later samples, write their outputs and what they are, and end the process."""
        try:
            die_with_parent(parent)
            os.chdir(FOLDER)
            files = OutputFiles(job)
            run(self.later, files)
            Path(OUTPUTS).write_text(json.dumps(files.described()), encoding="utf-8")
            os._exit(0)  # As in `runner.work`: MNN's destructors may crash.
        finally:
            os._exit(1)

    def add_to(self, files: OutputFiles) -> bool:
        """Wait for the process, and add its outputs; False if it failed: then nothing is added."""
        status, seen = None, b""
        while status is None:
            ended, number = os.waitpid(self._process, os.WNOHANG)
            if ended:
                status = number
            else:
                time.sleep(LOOK)
                seen = _passed_on(seen)
        described = FOLDER / OUTPUTS
        if status != 0 or not described.exists():
            return False
        files.join(FOLDER, json.loads(described.read_text(encoding="utf-8")))
        return True


def _passed_on(seen: bytes) -> bytes:
    """Report the progress of the process as the job's, if it is another than was `seen`; returns it."""
    try:
        now = (FOLDER / PROGRESS).read_bytes()
    except OSError:
        return seen
    if now != seen:
        Path(PROGRESS).write_bytes(now)
    return now
