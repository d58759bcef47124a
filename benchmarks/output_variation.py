"""What healthy and spoilt models leave of their outputs' variation: the source of the default limits of accuracy.

    python benchmarks/output_variation.py FOLDER [--task NAME ...] [--architecture NAME ...] [--jobs N] [--write]

Measures the outputs of quantized models as the accuracy check does without labels: the cosine, what differs between
samples (`metrics.variation`), the worst part of an output, what is added to an input (`metrics.details`), and
identifiers (`metrics.identifiers`; of scores of classes, their arg max). Models: the tasks of task_truth.py, spoilt or
healthy by the tasks' own scores, and the trained architectures, healthy if they lose at most a point of top-1. Weights,
models and rows are kept in FOLDER. --write puts the table into docs/accuracy.md, from all rows in FOLDER.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from architectures import ARCHITECTURES
from task_truth import TASKS, Case

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.accuracy.limits import COARSE_LIMITS, FEW_ELEMENTS, UsualLimits
from pytest_mnnquant.checks.accuracy.part_variation import measure_parts
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.metrics.agreement import accuracy, agreement
from pytest_mnnquant.metrics.details import compare_detail
from pytest_mnnquant.metrics.identifiers import are_identifiers, compare_identifiers
from pytest_mnnquant.metrics.variation import variation
from pytest_mnnquant.sources.spec import Spec

RECIPES: Final = ("w8", "int8", "int8-kl", "mnnquant-kl", "w4", "w4-hqq", "w3")
MEASURES: Final = {
    "cosine": "mean cosine of the whole output",
    "variation": "SQNR of the differences between samples, dB: outputs and parts of maps and rows",
    "few_numbers": "the same, of up to 64 numbers per sample, probabilities left out",
    "detail": "mean SQNR of what is added to an input, dB",
    "iou": "intersection over union of identifiers",
}
#: The loss of top-1 that a user rejects.
_TOP1: Final = 0.01
_BORDER: Final = 0.3
_HERE: Final = Path(__file__).resolve().parent
_PAGE: Final = _HERE.parent / "docs" / "accuracy.md"
_BEGIN, _END = "<!-- measured: output_variation.py -->", "<!-- end of measured -->"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One model. `lost`: what is lost, in units of what a user rejects; `measures`: the worst output's, by name."""

    net: str
    what: str
    bits: int
    lost: float
    measures: dict[str, float]

    @property
    def kind(self) -> str:
        """What the model is, by the truth."""
        if abs(self.lost - 1) <= _BORDER:
            return "borderline"
        return "spoilt" if self.lost > 1 else "healthy"

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.measures.items())
        return f"{self.net} | {self.what} | lost {self.lost:.2f} | {self.kind} | {values}"


def measured(variant: VariantUnderTest) -> dict[str, float]:
    """The lowest value of each measure over the outputs of a variant."""
    source = variant.source
    outputs = variant.runs.exact_run[0].outputs
    found: dict[str, list[float]] = {}
    for name, reference in source.float_run.outputs.items():
        for key, value in _of_output(source, name, reference, outputs[name]):
            found.setdefault(key, []).append(min(value, 99.0))
    return {key: min(found[key]) for key in MEASURES if key in found}


def _of_output(source: SourceUnderTest, name: str, reference: Array, output: Array) -> Iterator[tuple[str, float]]:
    if are_identifiers(reference, output):
        yield "iou", compare_identifiers(reference, output).iou
        return
    if (cosine := agreement(reference, output).cosine) is None:
        return
    yield "cosine", cosine
    is_few = reference[0].size <= FEW_ELEMENTS
    if name in source.output_parts:
        for part in measure_parts(reference, output, source.output_parts[name]):
            yield "few_numbers" if is_few and not part.part.is_probability else "variation", part.variation.sqnr_db
    elif not (whole := variation(reference, output)).is_constant:
        yield "few_numbers" if is_few else "variation", whole.sqnr_db
    if (detail := compare_detail(reference, output, source.inputs)) is not None:
        yield "detail", float(detail.sqnr_db.mean())
    elif reference.ndim == 4 and reference.shape[1] > 1:
        yield "iou", compare_identifiers(reference.argmax(1), output.argmax(1)).iou


def rows_of_task(name: str, folder: Path) -> list[Row]:
    """The models of a task that task_truth.py judges."""
    case = Case(TASKS[name], folder, TASKS[name].trained(folder / "weights"))
    case.scratch.mkdir(parents=True, exist_ok=True)
    rows = []
    for what, variant in case.variants():
        if variant.is_unusable:
            continue
        names = tuple(variant.source.prepared.model.output_names)
        before = case.score(variant.source.prepared.model.path, names)
        with variant.runs.arm_equivalent() as (model, _):
            after = case.score(model.path, tuple(model.output_names))
        lost = case.task.line.loss(before, after)
        lost = lost if math.isfinite(lost) else 1e9
        rows.append(Row(name, what, variant.recipe.bits, lost, measured(variant)))
    return rows


def rows_of_architecture(name: str, folder: Path) -> list[Row]:
    """A trained architecture in the recipes."""
    architecture = ARCHITECTURES[name]
    network, evaluation = architecture.trained(folder / "weights"), architecture.evaluation()
    values = FixtureValues(network, calibration=architecture.calibration(), evaluation=evaluation)
    store = Store(folder / "architectures")
    source = SourceUnderTest(model_settings(name, name, _HERE, {}), Spec(name, name), store, lambda _: None, values)
    rows = []
    for recipe in RECIPES:
        variant = variant_under_test(source, recipe, "eval" if recipe.startswith("int8") else None)
        if variant.is_unusable:
            continue
        (output,) = source.float_run.outputs
        pair = source.float_run.outputs[output], variant.runs.exact_run[0].outputs[output]
        before, after = (_top1(array, np.asarray(evaluation["labels"])) for array in pair)
        rows.append(Row(name, recipe, variant.recipe.bits, (before - after) / _TOP1, measured(variant)))
    return rows


def _top1(output: Array, labels: Array) -> float:
    if output.ndim > 2:
        return float((output.argmax(1) == labels).mean())
    return accuracy(output, labels)


def rows_of(kind: str, name: str, folder: Path) -> list[Row]:
    """The rows of a task or an architecture; they are kept in the folder."""
    torch.set_num_threads(1)
    rows = (rows_of_task if kind == "task" else rows_of_architecture)(name, folder)
    path = folder / "variation" / f"{kind}-{''.join(letter if letter.isalnum() else '-' for letter in name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1), encoding="utf-8")
    return rows


def table(rows: list[Row]) -> str:
    """The lowest values of healthy models, how many spoilt ones are below the limit, and the limit."""
    lines = [
        "| measure | healthy, 8 bits: models, lowest | healthy, 4 bits and fewer | spoilt, below the limit | limit |",
        "|---|---|---|---|---|",
    ]
    fine, coarse = UsualLimits(), COARSE_LIMITS
    for name, text in MEASURES.items():
        cells = []
        for few in (False, True):
            values = [
                row.measures[name]
                for row in rows
                if row.kind == "healthy" and (row.bits <= 4) == few and name in row.measures
            ]
            cells.append(f"{len(values)}, {min(values):.3g}" if values else "0")
        first, second = getattr(fine, name), getattr(coarse, name)
        limit = f"{first:g}" if first == second else f"{first:g}; 4 bits and fewer {second:g}"
        spoilt = [row for row in rows if row.kind == "spoilt" and name in row.measures]
        below = sum(row.measures[name] < (second if row.bits <= 4 else first) for row in spoilt)
        lines.append(f"| {text} | {cells[0]} | {cells[1]} | {len(spoilt)}, {below} | {limit} |")
    return "\n".join(lines)


def kept_rows(folder: Path) -> list[Row]:
    """The rows that earlier runs kept."""
    paths = sorted((folder / "variation").glob("*.json"))
    return [Row(**values) for path in paths for values in json.loads(path.read_text("utf-8"))]


def main() -> None:
    """Measure the models, print the rows and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where weights, models and rows are kept")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only these tasks")
    parser.add_argument("--architecture", action="append", choices=list(ARCHITECTURES), help="only these architectures")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--write", action="store_true", help="write the table into docs/accuracy.md")
    options = parser.parse_args()
    folder, is_chosen = options.folder.resolve(), bool(options.task or options.architecture)
    chosen = [("task", name) for name in options.task or ((), TASKS)[not is_chosen and not options.write]]
    chosen += [
        ("architecture", name)
        for name in options.architecture or ((), ARCHITECTURES)[not is_chosen and not options.write]
    ]
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(rows_of, kind, name, folder) for kind, name in chosen]):
            print("\n".join(map(str, future.result())), flush=True)
    rows = kept_rows(folder)
    print(table(rows))
    if options.write:
        page = _PAGE.read_text(encoding="utf-8")
        pattern = f"{re.escape(_BEGIN)}.*{re.escape(_END)}"
        _PAGE.write_text(
            re.sub(pattern, lambda _: f"{_BEGIN}\n{table(rows)}\n{_END}", page, flags=re.DOTALL), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
