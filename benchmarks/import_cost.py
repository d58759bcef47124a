"""What the plugin costs a pytest run that does not use it: CPU time, and modules imported.

    python benchmarks/import_cost.py [PAIRS]

Runs pytest on one empty test with and without the plugin, in turn, and compares the least CPU time of either.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HEAVY = ("numpy", "torch", "MNN", "onnx")
PROBE = f"""
import sys
def test_nothing():
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, loaded
"""
WITH: list[str] = ["-p", "pytest_mnnquant.plugin.hooks"]
WITHOUT: list[str] = []
# No other plugin: this script measures this plugin only.
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)  # What compiling costs is paid once.


def cpu_seconds(folder: Path, plugin: list[str]) -> float:
    """CPU time of one run; raises when the test fails, which it does if something heavy was imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(pairs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "test_nothing.py").write_text(PROBE, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        for plugin in (WITH, WITHOUT):
            cpu_seconds(folder, plugin)
        times: dict[str, list[float]] = {"with": [], "without": []}
        for number in range(pairs):
            order = (("with", WITH), ("without", WITHOUT))
            for name, plugin in order if number % 2 else reversed(order):
                times[name].append(1000 * cpu_seconds(folder, plugin))
    # What else the machine does only ever adds to a run's CPU time: the least of many runs is the run itself.
    alone, both = min(times["without"]), min(times["with"])
    medians = [statistics.median(times[name]) for name in ("without", "with")]
    print(f"pytest without the plugin: {alone:.1f} ms of CPU time (least of {pairs} runs; median {medians[0]:.1f})")
    print(f"with it:                   {both:.1f} ms (median {medians[1]:.1f}): it adds {both - alone:.1f} ms")
    print(f"of {', '.join(HEAVY)} it imports: none")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
