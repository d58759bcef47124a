"""What healthy and spoilt models leave of their outputs' variation: the source of the default limits of accuracy.

    python benchmarks/output_variation.py FOLDER [--task NAME ...] [--architecture NAME ...] [--jobs N] [--write]

Measures the outputs of quantized models as the accuracy check does without labels, by the kind of their values: see
`checks.accuracy.output_measures`. Models: the tasks of task_truth.py, spoilt or
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
from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence
from pytest_mnnquant.checks.accuracy.limits import COARSE_LIMITS, FEW_ELEMENTS, UsualLimits
from pytest_mnnquant.checks.accuracy.output_demands import Pair
from pytest_mnnquant.checks.accuracy.output_measures import measure_outputs
from pytest_mnnquant.checks.accuracy.sequences import judged_steps
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.output_parts import part_evidence
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.metrics.agreement import accuracy
from pytest_mnnquant.sources.spec import Spec

RECIPES: Final = ("w8", "int8", "int8-kl", "mnnquant-kl", "w4", "w4-hqq", "w3")
MEASURES: Final = {
    "cosine": "mean cosine of the whole output",
    "variation": "SQNR of the differences between samples, dB: outputs and parts of maps and rows",
    "few_numbers": "the same, of up to 64 numbers per sample, probabilities left out",
    "part_numbers": "the same, of their parts",
    "channel": "the same, of the worst channel of probabilities at many places",
    "detail": "mean SQNR of what is added to an input, dB",
    "maps": "PSNR of maps of quantities, dB",
    "beyond": "SQNR of a forecast beyond the last value, dB",
    "unit_cosine": "mean cosine of vectors of length 1",
    "peaks": "share of peaks of heat maps that stay",
    "characters": "share of the characters of texts of CTC",
    "iou": "intersection over union of identifiers, and of decisions",
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
    source, outputs = variant.source, variant.runs.exact_run[0].outputs
    reference, inputs, sequences = source.float_run.outputs, source.inputs, source.prepared.sequences
    parts = part_evidence(source.prepared.model, source.output_parts, variant.model)
    evidence = AccuracyEvidence(reference, outputs, inputs=inputs, parts=parts)
    return lowest(evidence if sequences is None else judged_steps(evidence, sequences, per_sequence=False))


def lowest(evidence: AccuracyEvidence) -> dict[str, float]:
    """The lowest value of each measure over all outputs that are judged."""
    found: dict[str, list[float]] = {}
    for name, measures in measure_outputs(
        evidence.reference, evidence.outputs, evidence.inputs, evidence.parts
    ).items():
        for key, value in _of_output(Pair(name, evidence.reference[name], evidence.outputs[name], measures)):
            found.setdefault(key, []).append(min(value, 99.0))
    return {key: min(found[key]) for key in MEASURES if key in found}


def _of_output(pair: Pair) -> Iterator[tuple[str, float]]:
    measures = pair.measures
    if measures.texts is not None:
        yield "characters", measures.texts.share()
    elif measures.identifiers is not None and (measures.decisions is None or pair.has_many_decisions):
        yield "iou", measures.identifiers.iou
    if measures.peaks is not None:
        yield "peaks", measures.peaks.share
    elif measures.identifiers is None or measures.decisions is not None:
        yield from _of_numbers(pair)
        yield from _of_quantities(pair)


def _of_numbers(pair: Pair) -> Iterator[tuple[str, float]]:
    measures, cosine = pair.measures, pair.measures.agreement.cosine
    if cosine is not None and not pair.has_many_decisions:
        yield "unit_cosine" if pair.is_unit else "cosine", cosine
    is_few = pair.reference[0].size <= FEW_ELEMENTS
    for part in measures.parts:
        yield "part_numbers" if is_few and not part.part.is_probability else "variation", part.variation.sqnr_db
        if part.answers is not None:
            yield "iou", part.answers.iou
    if measures.variation is not None and not measures.parts and not pair.is_unit:
        yield "few_numbers" if is_few else "variation", measures.variation.sqnr_db


def _of_quantities(pair: Pair) -> Iterator[tuple[str, float]]:
    measures = pair.measures
    if measures.channel is not None:
        yield "channel", measures.channel.variation.sqnr_db
    if measures.detail is not None:
        yield "detail", float(measures.detail.sqnr_db.mean())
    if measures.maps is not None:
        yield "maps", measures.maps.psnr_db()
    if (beyond := measures.beyond) is not None:
        yield "beyond", 10 * math.log10(beyond.signal.sum() / max(float(beyond.noise.sum()), 1e-300))


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
    """A trained architecture in the recipes; none without labels, which show the truth."""
    architecture = ARCHITECTURES[name]
    network, evaluation = architecture.trained(folder / "weights"), architecture.evaluation()
    if "labels" not in evaluation:
        return []
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
