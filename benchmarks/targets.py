"""The fixture models in every recipe on ARM's kernels and on older runtimes: how they differ from this host, and why.

python benchmarks/targets.py FOLDER [--model NAME ...] [--recipe NAME ...] [--write]

Needs the emulator with three versions of MNN (`pytest-mnnquant target add aarch64`, and `--mnn 3.0.0`, `--mnn 3.2.0`)
and MNN 3.0.0 and 3.2.0 for this machine (`python -m tests.faults.corpus.wheels build/wheels`). Models are kept in
FOLDER. `--write` puts the tables into docs/targets.md. All numbers and findings come from the plugin's report.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from common import MODELS, gate
from recipe_matrix import RECIPES as MATRIX
from targets_page import Cell, arm_table, older_table

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.target_variant import on_target
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.measurements.timing import LOW, TimingSettings
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.recipes.recipe import MODES
from pytest_mnnquant.targets.emulator import CPUS, NAME
from pytest_mnnquant.targets.parse import target_named
from pytest_mnnquant.targets.target import Target

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # For the older wheels, which the tests install.
from tests.faults.corpus.tools import wheels  # noqa: E402
from tests.faults.corpus.wheels import VERSIONS  # noqa: E402

PIPELINES: Final = "../benchmarks/own_pipeline.py"
RECIPES: Final = (*(name for name in MATRIX if not name.startswith("own=")), f"own={PIPELINES}:quantize@w8")
#: Weights that need not be unpacked: what an app may run in memory mode low.
STORED: Final = ("w8", "w8-sym", "w8-scale16", "w4", "w4b32", "w4-hqq", "w4b32-hqq", "w3", "w2")
FOUR_BITS: Final = f"mnnquant-4-bits={PIPELINES}:four_bits@mnnquant-kl"
PAGE: Final = ROOT / "docs" / "targets.md"


def arm() -> list[Target]:
    """This machine's MNN on ARM's three families of kernels."""
    return [_target(f"{NAME}:{cpu}") for cpu in CPUS]


def older() -> list[Target]:
    """Older runtimes: here, and on ARM."""
    found = []
    for version in VERSIONS:
        command = f"env PYTHONPATH={wheels() / version} {sys.executable}"
        table = {f"x86-{version}": {"command": command, "mnn": version}}
        found += [_target(f"x86-{version}", table), _target(f"{NAME}-{version}:cortex-a76")]
    return found


def _target(name: str, tables: dict[str, Any] | None = None) -> Target:
    target = target_named(name, tables or {})
    assert target is not None
    return target


def cells_of(model: str, folder: Path, recipes: Sequence[str]) -> tuple[list[Cell], list[Cell]]:
    """A model on ARM's kernels, and on older runtimes."""
    store, stored = Store(folder), [name for name in recipes if name in STORED]
    on_arm = _cells(gate(model, store), model, recipes, MODES, arm())
    on_older = _cells(gate(model, store), model, (*recipes, FOUR_BITS), ("eval",), older())
    in_low = gate(model, store)
    in_low.settings = dataclasses.replace(in_low.settings, timing=TimingSettings(memory_mode=LOW))
    return list(on_arm), [*on_older, *_cells(in_low, model, stored, ("eval",), older())]


def _cells(
    given: SourceUnderTest, model: str, recipes: Sequence[str], modes: tuple[str, ...], targets: Sequence[Target]
) -> Iterator[Cell]:
    """What the checks of each variant of a model say here and on each target."""
    low = given.settings.timing.memory_mode == LOW
    for recipe in recipes:
        chosen = recipe_named(recipe)
        for mode in chosen.modes(True, modes):
            home = variant_under_test(given, recipe, mode)
            cell = Cell(model, chosen.name.partition("=")[0], mode, "host", low)
            yield judged(home, cell)
            for target in targets:
                yield judged(on_target(home, target), dataclasses.replace(cell, place=target.name))


def judged(case: VariantUnderTest, cell: Cell) -> Cell:
    """The figures and findings of a variant in a place."""
    started = time.perf_counter()
    results = [run_check(case, name) for name in ("conversion" if case.is_unusable else "execution", "accuracy")]
    cell = dataclasses.replace(cell, findings=tuple(_findings(results)), seconds=time.perf_counter() - started)
    metrics = metrics_of(AccuracyMetrics, results) or AccuracyMetrics()
    told = {"difference": as_json(metrics.difference), "note": metrics.note or ""}
    cell = dataclasses.replace(cell, made=not case.is_unusable, **told)
    print(cell.line, flush=True)
    return cell


def _findings(results: Sequence[Result]) -> Iterator[tuple[str, str, str, str]]:
    for result in results:
        for one in result.findings:
            yield one.code, one.severity.value, one.message, one.cause_text


def main() -> None:
    """Run all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--jobs", type=int, default=2, help="models at a time")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder, recipes = options.folder.resolve(), tuple(options.recipe or RECIPES)
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        models = options.model or MODELS
        started = {model: pool.submit(cells_of, model, folder, recipes) for model in reversed(models)}
        done = [started[model].result() for model in models]
    on_arm, on_older = ([cell for pair in done for cell in pair[side]] for side in (0, 1))
    tables = {"arm": arm_table(on_arm), "older": older_table(on_older)}
    for name, table in tables.items():
        print(table)
        if options.write:
            _write(name, table)


def _write(name: str, table: str) -> None:
    text, (first, last) = PAGE.read_text(encoding="utf-8"), (f"<!-- {name} -->", f"<!-- /{name} -->")
    pattern = re.compile(f"{first}.*?{last}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{first}\n{table}{last}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
