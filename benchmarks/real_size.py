"""The whole gate on networks of real size, against a bare script of the same tools, side by side in one run.

    python benchmarks/real_size.py [--only NAME ...] [--recipe RECIPE ...] [--size PIXELS] [--samples CALIBRATION
        EVALUATION] [--repeat N] [--write]

Of each network and recipe (`int8` in eval mode, `w8`): seconds of `real_size_bare.py`, of the gate with an empty cache
and with a full one, in turn; the ratios are medians. The peak memory is the largest of the pytest process and of each
child. --write puts the table into docs/real-size.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from real_size_nets import NETWORKS

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parent / "docs" / "real-size.md"
_HEAD: Final = (
    "| network | recipe | bare script | gate, cold | gate, warm | cold / bare | warm / bare | pytest | children |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass
class Times:
    """Seconds of each run of one network and recipe, and the peaks of memory in MiB."""

    bare: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    pytest_mb: float = 0.0
    child_mb: float = 0.0
    failed: str = ""

    def row(self, name: str, recipe: str) -> str:
        """The row of the table."""
        bare, cold, warm = (statistics.median(part) for part in (self.bare, self.cold, self.warm))
        ratios = [
            statistics.median(a / b for a, b in zip(part, self.bare, strict=True)) for part in (self.cold, self.warm)
        ]
        return (
            f"| {name} | `{recipe}`{self.failed} | {bare:.1f} s | {cold:.1f} s | {warm:.1f} s | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} | {self.pytest_mb:,.0f} MB | {self.child_mb:,.0f} MB |\n"
        )


def gate(recipe: str, cache: Path, environment: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Seconds of one run of the gate, and its JSON report."""
    report = cache / "report.json"
    words = ["-q", "-p", "no:cacheprovider", f"--mnn-cache-dir={cache}", f"--mnn-report={report}", "--mnn-mode=eval"]
    model = f"--mnn-model={HERE / 'real_size_nets.py'}:build"
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", *words, model, f"--mnn-recipe={recipe}"]
    done = subprocess.run(command, cwd=cache, env=environment, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if not report.exists():
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(report.read_bytes())
    return seconds, found


def bare(variant: str, environment: dict[str, str]) -> float:
    """Seconds of one run of the bare script."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "real_size_bare.py"), folder, variant]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measured(recipe: str, environment: dict[str, str], repeat: int) -> Times:
    """The runs of one recipe on the network that the environment names."""
    times = Times()
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as name:
            for part in (times.cold, times.warm):
                seconds, report = gate(recipe, Path(name), environment)
                part.append(seconds)
                note_report(times, report)
            (variant,) = report["models"][0]["variants"]
            times.bare.append(bare(variant["quantized"]["path"], environment))
    return times


def note_report(times: Times, report: dict[str, Any]) -> None:
    """Note the peaks of memory, and the checks that failed."""
    checks = [check for variant in report["models"][0]["variants"] for check in variant["checks"]]
    for step in (step for check in checks for step in check["steps"]):
        times.pytest_mb = max(times.pytest_mb, step["pytest_mb"] or 0.0)
        times.child_mb = max(times.child_mb, step["child_mb"] or 0.0)
    failed = sorted(check["check"] for check in checks if check["outcome"] == "failed")
    times.failed = f" (failed: {', '.join(failed)})" if failed else ""


def rows(options: argparse.Namespace) -> Iterator[str]:
    """The rows of all networks, in the order of measurement."""
    for name in options.only or NETWORKS:
        environment = {**os.environ, "REAL_SIZE_NET": name, "REAL_SIZE": str(options.size or 0)}
        environment["REAL_SIZE_CALIBRATION"], environment["REAL_SIZE_EVALUATION"] = map(str, options.samples)
        environment.pop("CI", None)
        for recipe in options.recipe:
            yield measured(recipe, environment, options.repeat).row(name, recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(NETWORKS))
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--size", type=int)
    parser.add_argument("--samples", type=int, nargs=2, default=[128, 200])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    options.recipe = options.recipe or ["int8", "w8"]
    print(_HEAD, end="", flush=True)
    table = ""
    for row in rows(options):
        print(row, end="", flush=True)
        table += row
    if options.write:
        size = f" at {options.size} pixels" if options.size else ""
        intro = (
            "# Models of real size\n\nThe whole gate against a bare script of the same tools (`benchmarks/real_size.py`"
            f"{size}, {options.samples[0]} calibration and {options.samples[1]} evaluation samples, median of "
            f"{options.repeat}, {os.cpu_count()} cores). Weights are random.\n\n"
        )
        PAGE.write_text(intro + _HEAD + table, encoding="utf-8")


if __name__ == "__main__":
    main()
