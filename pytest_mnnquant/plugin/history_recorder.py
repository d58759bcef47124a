"""Writes a run to the history while it goes on: early, and again as metrics arrive.

Once the file holds timings, it gets a number as pytest-benchmark's runs have: `--benchmark-compare` takes the run with
the highest number, and could not compare one without timings. If pytest-benchmark saves the run itself, its file has
the timings, and this file has the metrics only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_mnnquant.findings.figures import Figures, variant_label
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.history.storage import (
    DETACHED,
    KEY,
    figures_part,
    file_name,
    machine_of,
    numbered,
    part_of,
    write_run,
)
from pytest_mnnquant.plugin.benchmark import benchmark_session

#: Seconds between two writes during the run.
_PAUSE: Final = 2.0
#: Variables with the branch in CI, which checks out a commit: GitHub, GitLab, Jenkins (multibranch and single).
_BRANCHES: Final = ("GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME", "GIT_BRANCH")


class Recorder:
    """The file of one run."""

    def __init__(self, config: pytest.Config, folder: Path, mnn: str) -> None:
        """`mnn` is MNN's version. Calls pytest-benchmark's hooks once for the machine and the commit."""
        from pytest_benchmark.utils import get_machine_id

        hook = config.hook
        self._config = config
        self._time = datetime.now(timezone.utc)
        self._machine_info: dict[str, Any] = hook.pytest_benchmark_generate_machine_info(config=config)
        hook.pytest_benchmark_update_machine_info(config=config, machine_info=self._machine_info)
        self._commit_info: dict[str, Any] = hook.pytest_benchmark_generate_commit_info(config=config)
        hook.pytest_benchmark_update_commit_info(config=config, commit_info=self._commit_info)
        if self._commit_info.get("branch") == DETACHED:
            named = (os.environ.get(name) for name in _BRANCHES)
            self._commit_info["branch"] = next(filter(None, named), DETACHED)
        self._machine = machine_of(self._machine_info, mnn)
        name = file_name(str(self._commit_info.get("id") or ""), self._time)
        # The folder where pytest was started: a test may have changed the current folder.
        self.path = config.invocation_params.dir / folder / get_machine_id() / name
        self._written = -_PAUSE
        self.problem = ""

    @property
    def is_due(self) -> bool:
        """Whether the interval since the last write is over, and writing works."""
        return not self.problem and time.monotonic() - self._written >= _PAUSE

    def write(self, figures: Sequence[Figures], *, finished: bool = False, complete: bool = False) -> None:
        """Write the metrics so far; sets `problem` to a line if that fails. `finished`: this is the last write."""
        measured = tuple(item for item in figures if any(metric.value(item) is not None for metric in METRICS))
        if not measured or self.problem:
            return
        try:
            self._write(measured, self._timings(finished), complete)
        except OSError as error:
            self.problem = f"history: {self.path} can't be written: {error.strerror}"
        self._written = time.monotonic()

    def _write(self, figures: tuple[Figures, ...], timings: Sequence[Any], complete: bool) -> None:
        from pytest_benchmark.utils import safe_dumps

        content: dict[str, Any] = self._config.hook.pytest_benchmark_generate_json(
            config=self._config,
            benchmarks=timings,
            include_data=False,
            machine_info=self._machine_info,
            commit_info=self._commit_info,
        )
        content["datetime"] = self._time.isoformat()  # the start of the run: the same in every write
        content[KEY] = part_of(figures, self._machine, complete=complete)
        known = {(item.model, item.variant): figures_part(item) for item in figures}
        for entry in content["benchmarks"]:
            info = entry["extra_info"]
            if part := known.get((info["model"], _label(info))):
                entry["extra_info"] = {**info, KEY: part}
        write_run(self.path, content, safe_dumps)
        if timings and not self._is_saved_elsewhere and self.path.name.startswith(KEY):
            self.path = self.path.rename(self.path.with_name(numbered(self.path.parent, self.path.name)))

    @property
    def _is_saved_elsewhere(self) -> bool:
        options = self._config.option
        return bool(options.benchmark_save or options.benchmark_autosave)

    def _timings(self, finished: bool) -> list[Any]:
        """pytest-benchmark's results of variants, without those of the user's own benchmarks."""
        session = benchmark_session(self._config)
        if session is None or (finished and self._is_saved_elsewhere):
            return []
        return [timed for timed in session.benchmarks if {"model", "recipe", "bytes"} <= timed.extra_info.keys()]


def _label(info: Mapping[str, Any]) -> str:
    """The variant of a timed benchmark, from its extra info."""
    return variant_label(info["recipe"], info.get("mode"), info.get("target") or "")
