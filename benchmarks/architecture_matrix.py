"""Writes docs/architectures.md: networks that people quantize, by recipe, through both APIs and on ARM.

    python benchmarks/architecture_matrix.py [NET ...] [--jobs 2] [--keep FOLDER]

Each cell holds the SQNR (dB, of the worst output, against the float model) through MNN's Session API as judged on this
host, through its Module API, and on MNN's ARM kernels under emulation, and what the gate reports. Cells are kept in
FOLDER as JSON, so a run can be continued; with names of networks only these are measured, and the page has all that
are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from matrix_nets import NETS

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from pytest_mnnquant.targets.emulator import NAME, Emulator, cache_folder

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/architectures.md"
RECIPES: Final = ("int8", "int8-kl", "int8+w8", "mnnquant-kl", "w8")
CHECKS: Final = ("conversion", "params", "coverage", "weights", "execution", "accuracy")
CPU: Final = "cortex-a76"
TIMEOUT: Final = 900.0
SAMPLES: Final = 8


@dataclass(frozen=True)
class Cell:
    """What became of a network in a recipe: decibels, None where it could not run, and the errors with their layers."""

    session: float | None
    module: float | None
    arm: float | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    loops: bool = False


def cell(case: VariantUnderTest) -> Cell:
    """Measure and judge a variant."""
    errors: list[str] = []
    warnings: set[str] = set()
    for name in CHECKS:
        for finding in run_check(case, name, selected=CHECKS).findings:
            if finding.severity is Severity.ERROR:
                errors.append(f"{finding.code} {finding.layer}".strip())
            elif finding.severity in (Severity.WARNING, Severity.GAP):
                warnings.add(finding.code)
    if case.is_unusable:
        return Cell(None, None, None, tuple(errors), tuple(sorted(warnings)), case.source.prepared.model.has_subgraphs)
    few = {name: array[:SAMPLES] for name, array in case.source.inputs.items()}
    batched = case.source.prepared.batched
    exact = run(case.source.prepared.model, few, RunOptions(TIMEOUT, batched=batched)).outputs
    emulated = Emulator(folder=cache_folder() / NAME).target(CPU).send

    def quality(options: RunOptions, *, as_arm: bool = False) -> float | None:
        try:
            if as_arm:
                with case.runs.arm_equivalent() as (model, _):
                    return _worst(exact, run(model, few, options).outputs)
            return _worst(exact, run(case.model, few, options).outputs)
        except NativeFailure:
            return None

    with case.runs.arm_equivalent() as (model, changed):
        through_module = RunOptions(TIMEOUT, batched=batched, through_module=True)
        module = run(model if changed else case.model, few, through_module).outputs
    return Cell(
        quality(RunOptions(TIMEOUT, batched=batched), as_arm=True),
        _worst(exact, module),
        quality(RunOptions(TIMEOUT, batched=batched, send=emulated)),
        tuple(errors),
        tuple(sorted(warnings)),
        case.model.has_subgraphs,
    )


def _worst(exact: Arrays, made: Arrays) -> float:
    pairs = zip(exact.values(), made.values(), strict=True)
    return float(min(min(sqnr_db(first, second), 200.0) for first, second in pairs))


def measure(name: str, keep: Path) -> str:
    """Measure a network in all recipes, unless that is kept."""
    path = keep / f"{name}.json"
    if path.exists():
        return name
    net = NETS[name]
    settings = ModelSettings(name, name, keep, timeout=TIMEOUT)
    data = {"calibration": net.data(64, 1), "evaluation": net.data(32, 77)}
    gate = SourceUnderTest(
        settings, Spec(name, name), Store(keep / "store" / name), lambda _: None, FixtureValues(net.network(), **data)
    )
    cells = {}
    for recipe in RECIPES:
        case = variant_under_test(gate, recipe, "eval" if recipe.startswith("int8") else None)
        cells[recipe] = asdict(cell(case))
        if not case.is_unusable:
            shutil.copy(case.model.path, keep / "models" / f"{name}, {recipe}.mnn")
    path.write_text(json.dumps(cells, indent=1), encoding="utf-8")
    return name


def page(keep: Path) -> str:
    """The page with all networks that are kept."""
    rows, apart, failed, total = [], 0, 0, 0
    notes: list[str] = []
    independent = json.loads(path.read_text(encoding="utf-8")) if (path := keep / "independent.json").exists() else {}
    for name in NETS:
        path = keep / f"{name}.json"
        if not path.exists():
            continue
        cells = {recipe: Cell(**one) for recipe, one in json.loads(path.read_text(encoding="utf-8")).items()}
        rows.append([name, *(_told(one) for one in cells.values())])
        for recipe, one in cells.items():
            total += 1
            failed += bool(one.errors)
            if one.session is not None and one.module is not None and abs(one.session - one.module) > 0.5:
                apart += not one.errors
            if one.errors:
                notes.append(_failure(name, recipe, one, independent.get(f"{name}, {recipe}")))
    head = ["network", *(f"`{recipe}`" for recipe in RECIPES)]
    lines = [
        "# Architectures",
        "",
        f"{len(rows)} small networks of the kinds that people quantize, with seeded random weights, by recipe. Made by",
        "`benchmarks/architecture_matrix.py`.",
        "",
        "A cell holds the SQNR in dB of the worst output against the float model: through MNN's Session API as judged",
        f"on this host, through its Module API, and on MNN's ARM kernels (`{CPU}`, emulated). Then come the rules that",
        "fail it. `-` means that MNN gave no output there.",
        "",
        f"Of {total} cells {failed} fail. {apart} cells pass with APIs more than 0.5 dB apart.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "## What fails",
        "",
        "The rules name the operator or layer to blame. The last column is measured without the package",
        "(`benchmarks/independent_sqnr.py`): the file runs in plain MNN, and its outputs are compared with PyTorch's.",
        "It feeds one sample at a time. Two faults of MNN explain larger differences: an int8 Scale (a BatchNorm, in",
        "DenseNet) is right until a session is resized, and an int8 MaxPool is wrong on x86, where the column above",
        "holds an exact copy.",
        "",
        "| network | recipe | rules | SQNR above | SQNR measured independently |",
        "|---|---|---|---|---|",
        *notes,
    ]
    return "\n".join(lines) + "\n"


def _failure(name: str, recipe: str, one: Cell, independent: Mapping[str, float | None] | None) -> str:
    rules = "; ".join(dict.fromkeys(one.errors))
    again = "-" if independent is None else _numbers(independent[way] for way in ("session", "module", "arm"))
    return f"| {name} | `{recipe}` | {rules} | {_numbers((one.session, one.module, one.arm))} | {again} |"


def _numbers(values: Iterable[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


def _told(one: Cell) -> str:
    numbers = _numbers((one.session, one.module, one.arm))
    codes = list(dict.fromkeys(error.split()[0] for error in one.errors))
    return f"{numbers} {'**' + ' '.join(codes) + '**' if codes else 'ok'}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not kept, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("architecture-matrix"))
    chosen = parser.parse_args(arguments)
    (chosen.keep / "models").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for name in pool.map(partial(measure, keep=chosen.keep.resolve()), chosen.nets or NETS):
            print(name, flush=True)
    PAGE.write_text(page(chosen.keep), encoding="utf-8")


if __name__ == "__main__":
    main()
