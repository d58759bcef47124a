"""The accuracy of each way to int8, on networks whose accuracy int8 may lose.

    python benchmarks/best_int8.py FOLDER [--networks NAME ...] [--recipes NAME ...] [--again] [--seconds S] [--write]

Each cell is what the gate's accuracy check measures on the evaluation data (on a copy whose MaxPools are exact, as on
ARM), and the seconds to make the variant, calibration included. FOLDER keeps weights, data and the result of each cell:
a run continues where the last one ended. `--again` measures the selected cells again, `--seconds` ends the run after
the cell that exceeds them. `--write` writes docs/best-int8.md from all cells. Networks of wheels are downloaded into
FOLDER; their text is drawn with Pillow. Other architectures (`architectures.py`) can be selected by name.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from best_int8_page import RECIPES, write_page
from int8_cells import Cell, Cells
from int8_networks import CASES, with_architectures

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.recipes.names import recipe_named


def measure(source: SourceUnderTest, recipe: str) -> Cell:
    """Make a variant without the results of other variants, and judge its accuracy."""
    assert source.prepared.calibration is not None  # The float model is made, or found in its store.
    with tempfile.TemporaryDirectory() as folder:
        source.store = Store(Path(folder))
        in_torch = recipe_named(recipe).in_torch and source.prepared.network is not None
        variant = variant_under_test(source, recipe, "eval" if in_torch else None)
        start = time.perf_counter()
        if variant.is_unusable:
            (finding, *_) = run_check(variant, "conversion").findings
            return Cell(reason=finding.code)
        return _judged(variant, time.perf_counter() - start)


def _judged(variant: VariantUnderTest, seconds: float) -> Cell:
    result = run_check(variant, "accuracy")
    metrics = metrics_of(AccuracyMetrics, [result])
    if metrics is None or not metrics.outputs:
        return Cell(reason=result.findings[0].code if result.findings else "no result")
    provenance = variant.variant.provenance
    cell = Cell(
        passes=result.outcome == "passed",
        seconds=seconds,
        size=variant.model.size,
        sqnr_db=min(output.sqnr_db for output in metrics.outputs.values()),
        chosen=provenance.get("best", {}).get("recipe", ""),
        left_float=variant.variant.left_float,
        unused=tuple(item["suffix"] for item in provenance.get("transformations", ()) if item["is_refused"]),
    )
    if (task := metrics.task) is not None:
        return dataclasses.replace(
            cell,
            label=task.label,
            value=task.quantized,
            reference=task.reference,
            drop=task.drop,
            low=task.drop_low,
            high=task.drop_high,
        )
    cosine = metrics.cosine if metrics.cosine is not None else 0.0
    return dataclasses.replace(
        cell, label="cosine", value=cosine, reference=1.0, drop=1 - cosine, low=1 - cosine, high=1 - cosine
    )


def _commit() -> str:
    """The commit that is checked out, with a `+` if files differ from it."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(CASES))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells, cases, end = Cells(options.folder), with_architectures(), time.monotonic() + options.seconds
    commit = _commit()
    missing = (
        (name, recipe)
        for name in options.networks
        for recipe in options.recipes
        if options.again or cells.get(name, recipe) is None
    )
    for name, recipe in missing:
        if time.monotonic() >= end:
            break
        cell = dataclasses.replace(measure(cases[name].open(name, options.folder), recipe), commit=commit)
        cells.keep(name, recipe, cell)
        print(f"{name} | {recipe} | {cell}", flush=True)
    if options.write:
        write_page(cells)


if __name__ == "__main__":
    main()
