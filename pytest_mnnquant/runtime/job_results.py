"""Results of jobs, stored by content: a model runs once on the same data, in this run or in an earlier one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.cache.eviction import evict, mark_used
from pytest_mnnquant.cache.manifest import file_digest, file_names
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.host import host_facts
from pytest_mnnquant.runtime.jobs import Job, JobResult, run_job

#: The tasks whose results depend on their arguments, the machine and MNN only, not on time.
REPEATABLE: Final = frozenset({"run", "observe", "histograms", "losses", "memory", "onnx", "tflite"})
#: The largest size of all stored results, in bytes.
LIMIT: Final = 1 << 30
_KIND: Final = "runs"
_VALUES: Final = "values.json"
# A result of more than this share of the limit is not stored, since it would replace most others.
_LARGEST: Final = 0.25

# Owned by the plugin's session, which sets it when the run starts and removes it when the run ends.
_results: JobResults | None = None


def set_job_results(results: JobResults | None) -> None:
    """Reuse these results for all jobs of this process; None: run every job."""
    global _results
    _results = results


def are_stored() -> bool:
    """Whether results are stored, so that a job may run before its result is needed."""
    return _results is not None


def run_or_reuse(job: Job, folder: Path, send: Callable[[Job, Path], JobResult]) -> JobResult:
    """The result of a job in its folder, from the stored results if it is among them. Raises `NativeFailure`.

    Jobs on targets always run: what a device did earlier does not show what it does now.
    """
    if _results is None or send is not run_job or job.task not in REPEATABLE:
        return send(job, folder)
    return _results.get_or_run(job, folder)


class JobResults:
    """The stored results in a store, at most `limit` bytes; the least recently used are deleted first."""

    def __init__(self, store: Store, limit: int = LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._digests: dict[tuple[str, int, int, int], str] = {}

    def get_or_run(self, job: Job, folder: Path) -> JobResult:
        """The result of a job; it runs in `folder` if it is not stored. Raises `NativeFailure`."""
        finished: list[JobResult] = []

        def build(entry: Path) -> None:
            before = set(folder.iterdir())
            finished.append(run_job(job, folder))
            arrays = [path for path in folder.iterdir() if path not in before and path.suffix in (".npy", ".npz")]
            if sum(path.stat().st_size for path in arrays) > _LARGEST * self._limit or _has_failed(finished[0]):
                raise _NotStored
            for path in arrays:
                _link(path, entry / path.name)
            (entry / _VALUES).write_text(json.dumps(finished[0].values), encoding="utf-8")

        # The disk may be full, or another process may delete the entry. Then the job's own result is taken.
        with contextlib.suppress(_NotStored, OSError):
            entry = self._store.folder(_KIND, self._key(job), build)
            if not finished:
                return _read(entry, folder)
            evict(entry.parent, self._limit)
        return finished[0] if finished else run_job(job, folder)

    def _key(self, job: Job) -> dict[str, Any]:
        """What decides the result: files by their content, the programs that run, and the processor."""
        host = host_facts()
        machine = [host.machine, host.processor, *host.features]
        return {"task": job.task, "arguments": self._by_content(job.arguments), "machine": machine, "by": _programs()}

    def _by_content(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._by_content(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._by_content(item) for item in value]
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_file():
            return [self._digest(path) for path in _with_weights(Path(value))]
        return value

    def _digest(self, path: Path) -> str:
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_digest(path)
        return self._digests[key]


class _NotStored(Exception):
    """The result is too large to be stored, or another try may succeed."""


def _has_failed(result: JobResult) -> bool:
    """Whether a part of the job failed, for example because the memory of the machine was used up."""
    return any("error" in figures for figures in result.values.get("modes", {}).values())


def _with_weights(path: Path) -> Iterator[Path]:
    """A file, and the external weights of a model."""
    yield path
    weights = path.with_name(path.name + ".weight")
    if weights.is_file():
        yield weights


def _read(entry: Path, folder: Path) -> JobResult:
    """The result of an entry, whose arrays are put into `folder`. Raises `OSError` if the entry is being deleted."""
    mark_used(entry)
    values = json.loads((entry / _VALUES).read_bytes())
    linked: list[Path] = []
    try:
        for name in file_names(entry):
            if name != _VALUES:
                linked.append(folder / name)
                _link(entry / name, folder / name)
    except OSError:
        for path in linked:  # A job that writes them again must not write into the entry's files.
            path.unlink(missing_ok=True)
        raise
    return JobResult(values)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it to another file system."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


@cache
def _programs() -> str:
    """The digest of the programs that run jobs."""
    files = sorted(PROGRAMS.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
