"""The gate on one host and spread over two: the fixture models in three recipes, by one process, `-n 2`, and two hosts.

    python benchmarks/two_hosts.py [OPTION OF PYTEST ...]

The hosts are network namespaces of this machine with a real sshd each, reached by xdist's remote workers. Each has a
core, a copy of the models, a home and caches of its own, and sees neither the files of the other nor those of the run
that starts them. The one host has one core too. `tests/sameness.py` says what is left out when reports are compared.
Nothing is timed (`-k "not latency"`); caches are empty at the start. Needs root and two cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from common import FIXTURES, MODELS

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.hosts import lacks, ssh_host  # noqa: E402
from tests.sameness import differences, junit  # noqa: E402

CORES: Final = sorted(os.sched_getaffinity(0))
RECIPES: Final = ("int8", "w8", "w4")
REPORTS: Final = ("--mnn-report=r.json", "--junit-xml=r.xml")


def project(folder: Path) -> Path:
    """A copy of the models in a folder of its own."""
    shutil.copytree(FIXTURES, folder / "net" / "fixtures", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "net" / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return folder / "net"


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started here has this core alone, always."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def judged(where: Path, *options: str) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Wall time of one run that starts in a folder, its JSON report and its JUnit file."""
    models = [f"--mnn-model=fixtures/{name}.py:build" for name in MODELS]
    recipes = [f"--mnn-recipe={name}" for name in RECIPES]
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not latency", *models, *recipes, *REPORTS, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(where.parent)}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return seconds, json.loads((where / "r.json").read_text(encoding="utf-8")), junit(where / "r.xml")


def spread(folder: Path, *options: str) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """The same over two hosts."""
    folders = [project(folder / name) for name in ("controller", "host1", "host2")]
    with ExitStack() as using:
        workers: list[str] = []
        for number, own in enumerate(folders[1:]):
            hidden = tuple(other.parent for other in folders if other != own)
            with on_core(CORES[number]):
                host = using.enter_context(ssh_host(folder / f"keys{number}", hidden))
            workers += ["--tx", host.worker(own)]
        return judged(folders[0], "-d", *workers, *options)


def main() -> None:
    """Print the table."""
    if lacks or len(CORES) < 2:
        sys.exit(lacks or "there is one core only")
    with tempfile.TemporaryDirectory(prefix="hosts-") as name:
        base, options = Path(name), sys.argv[1:]
        with on_core(CORES[0]):
            runs = {"one host, one process": judged(project(base / "alone"), *options)}
            runs["one host, `-n 2`"] = judged(project(base / "workers"), "-n2", *options)
        runs["two hosts, a worker each"] = spread(base, *options)
    usual = runs["one host, one process"]
    print("| | wall time | checks | failed | variants by host | report and JUnit file |\n|---|---|---|---|---|---|")
    told: list[str] = []
    for what, (seconds, report, tests) in runs.items():
        variants = [variant for model in report["models"] for variant in model["variants"]]
        outcomes = [check["outcome"] for variant in variants for check in variant["checks"]]
        hosts = [variant.get("worker", "here") for variant in variants]
        by_host = " + ".join(str(hosts.count(host)) for host in dict.fromkeys(hosts))
        found = [*differences(usual[1], report), *differences(usual[2], tests)]
        same = "the same" if not found else f"{len(found)} differences"
        row = f"{seconds:.0f} s | {len(outcomes)} | {outcomes.count('failed')} | {by_host}"
        print(f"| {what} | {row} | {'' if report is usual[1] else same} |")
        told += [f"{what}: {one}" for one in found]
    print("\n".join(["", *told[:40]]))


if __name__ == "__main__":
    main()
