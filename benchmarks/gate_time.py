"""How long the whole gate takes on the fixture models: a cold run and one with everything cached.

python benchmarks/gate_time.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import MODELS

ROOT = Path(__file__).resolve().parent.parent


def seconds(cache: str) -> float:
    """Wall time of one run of the suite for all fixture models; raises when a check fails."""
    models = [f"--mnn-model=fixtures/{name}.py:build" for name in MODELS]
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--mnn-cache-dir={cache}", *models]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    """Print both times."""
    with tempfile.TemporaryDirectory() as cache:
        print(f"int8 in both modes, {len(MODELS)} models, cold:   {seconds(cache):.1f} s")
        print(f"int8 in both modes, {len(MODELS)} models, cached: {seconds(cache):.1f} s")


if __name__ == "__main__":
    main()
