"""Every architecture quantized in every way: coverage, size, similarity to float, top-1, and the gate's verdict.

python benchmarks/recipe_matrix.py FOLDER [--arch NAME ...] [--recipe NAME ...] [--jobs N]

Trained weights are kept in FOLDER; all models are made again. Writes docs/recipes-matrix.md, unless --arch or --recipe
selects a part.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from architectures import ARCHITECTURES, Architecture
from matrix_page import Cell, Rows, optional_versions, render

from pytest_mnnquant.cache.store import Store, versions
from pytest_mnnquant.config.settings import Limits, ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.catalogue import CHECKS, RULES
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.file_metrics import CoverageMetrics, SizeMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, Finding, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import MODES
from pytest_mnnquant.sources.spec import Spec

RECIPES: Final = (
    *("int8", "int8-average", "int8-percentile", "int8-histogram", "int8-kl", "int8+w8"),
    *("w8", "w8-sym", "w8-scale16", "w4", "w4b32", "w4-hqq", "w4b32-hqq", "w3", "w2", "fp16"),
    *("mnnquant-kl", "mnnquant-admm", "mnnquant-ema", "mnncompress", "mnncompress-repaired"),
    "own=own_pipeline.py:quantize@w8",
)
HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parent / "docs" / "recipes-matrix.md"
_CHECKS: Final = tuple(check.name for check in CHECKS if not check.is_timed)
_ALL: Final = Limits(min_coverage=1.0)


def one_line(finding: Finding, most: int = 220) -> str:
    """A finding in a line: what, and the first line of why."""
    parts = [finding.message, *finding.cause_text.splitlines()[-1:]]
    text = " ".join("; ".join(parts).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def evaluate(case: VariantUnderTest, architecture: Architecture, cell: Cell) -> Cell:
    """The figures of one variant, and what the checks say."""
    if case.is_unusable:
        return replace(cell, reason=one_line(run_check(case, "conversion").findings[0]))
    results = {name: run_check(case, name) for name in _CHECKS}
    codes, open_codes = (_codes(results.values(), outcome) for outcome in (FAILED, INCONCLUSIVE))
    total = sum(row.layer.weight_bytes for row in case.files.rows)
    shares = {row.layer.name: row.layer.weight_bytes / total for row in case.files.rows}
    left = tuple(
        f"`{item.layer}`, {shares[item.layer]:.1%} of the weights: {item.cause_text}"
        for item in run_check(case, "coverage", _ALL).findings
    )
    covered, size = metrics_of(CoverageMetrics, results.values()), metrics_of(SizeMetrics, results.values())
    figures = replace(
        cell,
        coverage=covered.coverage if covered else None,
        ratio=size.size_ratio if size else None,
        codes=codes,
        open_codes=open_codes,
        left=left,
    )
    if not results["accuracy"].metrics:
        return replace(figures, reason=one_line(results["accuracy"].findings[0]))
    ((name, reference),) = case.source.float_run.outputs.items()
    output = case.runs.exact_run[0].outputs[name]
    flat = agreement(reference.reshape(len(reference), -1), output.reshape(len(output), -1))
    return replace(figures, cosine=flat.cosine, top1=architecture.top1(output))


def _codes(results: Iterable[Result], outcome: str) -> tuple[str, ...]:
    """The codes that decide the checks of this outcome."""
    found = {item.code for result in results if result.outcome == outcome for item in result.findings}
    return tuple(sorted(code for code in found if RULES[code].severity is not Severity.WARNING))


def rows_of(name: str, recipes: tuple[str, ...], folder: Path) -> Rows:
    """Quantize one architecture in every way."""
    with tempfile.TemporaryDirectory() as models:
        return _rows(name, recipes, folder, Store(Path(models)))


def _rows(name: str, recipes: tuple[str, ...], folder: Path, store: Store) -> Rows:
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[name]
    settings = ModelSettings(source=name, name=name, base=HERE, timeout=120.0)
    gate = SourceUnderTest(
        settings,
        Spec(name, name),
        store,
        lambda _: None,
        FixtureValues(
            model=architecture.trained(folder / "weights"),
            calibration=architecture.calibration(),
            evaluation=architecture.evaluation(),
        ),
    )
    cells = []
    for recipe in recipes:
        chosen = recipe_named(recipe)
        for mode in chosen.modes(True, MODES):
            start, cell = time.perf_counter(), Cell(name, chosen.name, mode)
            try:
                cell = evaluate(variant_under_test(gate, recipe, mode), architecture, cell)
            except Exception:  # A traceback here is a defect of the plugin, which the page must show.
                cell = replace(cell, crash=traceback.format_exc())
            cell = replace(cell, seconds=time.perf_counter() - start)
            cells.append(cell)
            outcome = cell.crash or cell.outcome
            print(f"{name:<16}{chosen.label(mode):<24}{cell.seconds:6.1f} s  {outcome}", flush=True)
    (output,) = gate.float_run.outputs.values()
    size = gate.prepared.model.size
    return Rows(name, architecture.about, size, architecture.top1(output), tuple(cells))


def environment() -> str:
    """The versions and the machine that the page was made with."""
    found = versions() | optional_versions()
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return f"{listed}; Python {platform.python_version()}, {platform.machine()}"


def main() -> None:
    """Fill the matrix and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("--arch", action="append", choices=list(ARCHITECTURES), help="only these")
    parser.add_argument("--recipe", action="append", help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="architectures at a time")
    parser.add_argument("--output", type=Path, help="the page to write")
    options = parser.parse_args()
    names: Iterable[str] = options.arch or ARCHITECTURES
    recipes = tuple(options.recipe or RECIPES)
    start = time.perf_counter()
    done: dict[str, Rows] = {}
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(rows_of, name, recipes, options.folder.resolve()): name for name in names}
        for future in as_completed(started):
            done[started[future]] = future.result()
    rows = [done[name] for name in names]
    cells = [cell for row in rows for cell in row.cells]
    crashes = [cell for cell in cells if cell.crash]
    print(f"{len(cells)} cells in {time.perf_counter() - start:.0f} s, {len(crashes)} tracebacks of the plugin")
    page = options.output or (None if options.arch or options.recipe else PAGE)
    if page is not None:
        page.write_text(render(rows, environment()), encoding="utf-8")
        print(f"wrote {page}")
    raise SystemExit(1 if crashes else 0)


if __name__ == "__main__":
    main()
