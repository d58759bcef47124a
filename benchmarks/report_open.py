"""How long the HTML report of 1,000 layers takes to open, and how large it is.

    python benchmarks/report_open.py [--layers N] [--times N]

Needs Chromium and its driver. Two variants of N layers are written with all their distributions, and opened as by a
double click in a new browser each time. Opened: the browser has loaded the page and painted it. The first chart: from
the moment at which it is scrolled to until it is drawn, which unpacks and runs plotly.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import write_report
from tests.browser import Page, browse
from tests.report.made import finding, layer, records

_PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
_DRAWN = "return document.querySelector('.plot .main-svg') !== null"


def write_large(path: Path, layers: int) -> float:
    """Write the report of a run that failed in every tenth layer; returns the seconds it took."""
    rows = [layer(f"/blocks/blocks.{n}/conv/Conv_output_0", n, quantized=n % 10 > 0) for n in range(layers)]
    found = records(rows, [finding("MNQ401", row.name) for row in rows if not row.quantized])
    start = time.perf_counter()
    write_report(build_report(found, {"pytest-mnnquant": "0.1.0"}), path)
    return time.perf_counter() - start


def opened(page: Page, path: Path) -> tuple[float, float]:
    """Seconds until the page is loaded and painted, and until its first chart is drawn once it is scrolled to."""
    page.open(path)
    while (painted := page.js(_PAINTED)) is None:
        time.sleep(0.01)
    loaded = max(painted, page.js(_LOADED)) / 1000
    start = time.perf_counter()
    page.js("return document.querySelector('figure.chart').scrollIntoView()")
    while not page.js(_DRAWN):
        time.sleep(0.01)
    return loaded, time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        seconds = write_large(path, given.layers)
        times = [opened(page, path) for _ in range(given.times) for page in browse()]
        size = path.stat().st_size
    whole, chart = zip(*times, strict=True)
    print(f"2 variants of {given.layers} layers: {size / 1e6:.2f} MB, written in {seconds:.2f} s")
    print(f"opened in {statistics.median(whole):.2f} s ({min(whole):.2f} to {max(whole):.2f}, {given.times} times)")
    print(
        f"first chart {statistics.median(chart):.2f} s after it is scrolled to ({min(chart):.2f} to {max(chart):.2f})"
    )


if __name__ == "__main__":
    main()
