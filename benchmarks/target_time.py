"""What judging on emulated ARM adds to a run of the suite on the fixture models, side by side with one without.

    python benchmarks/target_time.py [ROUNDS]

`int8` in both modes, latency left out; what is quantized is cached by a run before. Needs `target add aarch64`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from common import MODELS

ROOT: Final = Path(__file__).resolve().parent.parent
TARGETS: Final = ("--mnn-target=host", "--mnn-target=aarch64:cortex-a76")


def seconds(cache: str, targets: tuple[str, ...]) -> float:
    """Wall time of one run; raises when a check fails."""
    models = [f"--mnn-model=fixtures/{name}.py:build" for name in MODELS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--mnn-cache-dir={cache}"]
    start = time.perf_counter()
    subprocess.run([*command, "-k", "not latency", *models, *targets], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    """Print the times of each round, and the median of what was added."""
    added = []
    with tempfile.TemporaryDirectory() as cache:
        seconds(cache, TARGETS[:1])
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
            alone, both = seconds(cache, TARGETS[:1]), seconds(cache, TARGETS)
            added.append(both - alone)
            print(f"host {alone:.1f} s, host and aarch64:cortex-a76 {both:.1f} s, added {added[-1]:.1f} s", flush=True)
    print(f"added to {len(MODELS)} models: {statistics.median(added):.1f} s (median of {len(added)})")


if __name__ == "__main__":
    main()
