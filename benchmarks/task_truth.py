"""Whether the gate fails what a user would reject, judged by the score of each task.

    python benchmarks/task_truth.py FOLDER [--task NAME ...] [--jobs N] [--what TEXT] [--write] [--kept]

Detection, segmentation, depth, matting, super-resolution, text, sound, ranking and more (task_detection.py,
task_pictures.py, task_sequences.py): networks trained on generated data, quantized well and badly with real tools. The
truth is the task's own score on held-out data, computed from MNN's Module API without the gate; the loss that a user
rejects is stated per task in those files. The gate sees no labels. A model is spoilt if it loses more than that line,
else healthy; within 30 % of the line it counts as borderline. A spoilt model is missed if neither `accuracy` nor
`calibration` fails; a false alarm is a healthy model that `accuracy` fails. Each model is judged again with labels: the
task's score and that line are its metric and limit. Weights, models, truths and rows are kept in FOLDER.
--write puts the rows of all tasks into docs/tasks.md. The exit status is 1 after a miss or a false alarm.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import json
import math
import multiprocessing
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_detection
import task_forms
import task_pictures
import task_scores
import task_sequences
import torch
from spoilers import with_tensor
from task_kinds import Arrays, Task
from task_page import write_page
from task_run import outputs_of
from torch import nn

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, check_accuracy
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence import accuracy_check
from pytest_mnnquant.evidence.check_inputs import CheckInputs
from pytest_mnnquant.evidence.check_runner import attempt_check, run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import UNUSABLE
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import FAILED, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.metrics.task import TaskMetric
from pytest_mnnquant.mnnfile.params import ActivationParams, read_params, write_params
from pytest_mnnquant.quantize.job import MODEL_NAME, PARAMS_NAME
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import Spec

_FILES: Final = (task_detection, task_pictures, task_sequences, task_forms)
TASKS: Final = {task.name: task for file in _FILES for task in file.TASKS}
RECIPES: Final = ("w8", "w8-sym", "w6", "int8", "int8-kl", "mnnquant-kl", "mnnquant-ema", "w4", "w3")
BORDER: Final = 0.3
_HELD_OUT, _CALIBRATION = 9, 7
_TIMEOUT: Final = 300.0
_HERE: Final = Path(__file__).resolve().parent
_ONE, _NOISE, _WRONG = "int8 of one sample", "int8 of noise", "int8 of wrong preprocessing"
_CLIPPED, _ZEROS = "int8, upper three quarters clipped", "int8, states never fed back"


@dataclass(frozen=True)
class Row:
    """One model: the task's score `before` and `after`, what is lost in units of the user's line, and the verdict."""

    task: str
    what: str
    before: float
    after: float
    lost: float
    failed: bool
    outcome: str
    codes: tuple[str, ...]
    messages: tuple[str, ...]
    seconds: float
    by_calibration: bool = False
    failed_with_labels: bool | None = None
    error: str = ""

    @property
    def kind(self) -> str:
        """What the model is, by the truth."""
        if self.error:
            return "not made"
        if abs(self.lost - 1) <= BORDER:
            return "borderline"
        return "spoilt" if self.lost > 1 else "healthy"

    @property
    def problem(self) -> str:
        """What is wrong with the verdict; empty if it is right or borderline."""
        wrong = {"spoilt": not (self.failed or self.by_calibration), "healthy": self.failed}.get(self.kind, False)
        return ("MISS" if self.kind == "spoilt" else "FALSE ALARM") if wrong else ""

    def __str__(self) -> str:
        verdict = f"{self.outcome} {' '.join(self.codes)}{', calibration failed' * self.by_calibration}"
        verdict += ", failed with labels" * bool(self.failed_with_labels)
        values = f"{self.before:.4g} to {self.after:.4g} | {self.lost:.2f}"
        return f"| {self.task} | {self.what} | {values} | {self.kind} | {self.error or verdict} | {self.problem} |"


@dataclass(frozen=True)
class Case:
    """One task in one process, with the folder that keeps what is made."""

    task: Task
    folder: Path
    network: nn.Module

    @property
    def scratch(self) -> Path:
        """The folder of the task."""
        return self.folder / "".join(letter if letter.isalnum() else "-" for letter in self.task.name)

    def gate(self, calibration: Arrays, evaluation: Arrays, *made: Path, rolls: bool = True) -> SourceUnderTest:
        """The gate on the network; `made`: a finished model, and its params file. `rolls`: samples are sequences."""
        options = dict(zip(("quantized", "params"), map(str, made), strict=False))
        states = {name: f"output{number or ''}" for name, number in self.task.states.items()} if rolls else {}
        given = {"timeout": _TIMEOUT, **({"state": states} if states else {}), **options}
        settings = model_settings(self.task.name, self.task.name, _HERE, given)
        values = FixtureValues(self.network, calibration=calibration, evaluation=evaluation)
        store = Store(self.scratch / "store")
        return SourceUnderTest(settings, Spec(self.task.name, self.task.name), store, lambda _: None, values)

    def variants(self) -> Iterator[tuple[str, VariantUnderTest]]:
        """The models that are judged, well made and not."""
        task = self.task
        calibration, evaluation = task.samples(task.calibration, _CALIBRATION), task.samples(task.evaluation, _HELD_OUT)
        gate = self.gate(calibration, evaluation)
        for recipe in RECIPES:
            yield recipe, variant_under_test(gate, recipe, "eval" if recipe.startswith("int8") else None)
        for what, other in _other_calibrations(calibration, task.states):
            yield what, variant_under_test(self.gate(other, evaluation), "int8", "eval")
        healthy = variant_under_test(gate, "int8", "eval")
        if not healthy.is_unusable and healthy.variant.params is not None:
            model, params = self._clipped(healthy)
            yield _CLIPPED, variant_under_test(self.gate(calibration, evaluation, model, params), "int8", None)
        if task.states:
            calibration = task.steps_without_states(task.calibration, _CALIBRATION)
            evaluation = task.steps_without_states(task.evaluation, _HELD_OUT)
            yield _ZEROS, variant_under_test(self.gate(calibration, evaluation, rolls=False), "int8", "eval")

    def _clipped(self, healthy: VariantUnderTest) -> tuple[Path, Path]:
        """The int8 variant with the upper three quarters of a middle layer's output range cut off."""
        path = healthy.variant.params
        assert path is not None
        params = read_params(path)
        names = list(dict.fromkeys(layer.output.name for layer in params.layers if layer.output))
        folder = self.scratch / "clipped"
        folder.mkdir(parents=True, exist_ok=True)
        write_params(with_tensor(params, names[len(names) // 2], _upper_part_cut), folder / PARAMS_NAME)
        flags = ("--compressionParamsFile", str(folder / PARAMS_NAME))
        convert(healthy.variant.base.path, folder / MODEL_NAME, flags, timeout=_TIMEOUT)
        return folder / MODEL_NAME, folder / PARAMS_NAME

    def score(self, model: Path, names: tuple[str, ...]) -> float:
        """The task's score of a model on the held-out samples; minus infinity if MNN can't run it."""
        path = self.scratch / "truths.json"
        known: dict[str, float] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        scored = "".join(inspect.getsource(item) for item in (task_scores, self.task.draw))
        key = hashlib.sha256(f"{file_digest(model)}{scored}".encode()).hexdigest()
        if key not in known:
            known[key] = self._score(model, names)
            path.write_text(json.dumps(known), encoding="utf-8")
        return known[key]

    def _score(self, model: Path, names: tuple[str, ...]) -> float:
        task, samples = self.task, self.task.draw(self.task.evaluation, _HELD_OUT)
        try:
            outputs = outputs_of(model, names, samples.inputs, task.states, task.state_sizes)
        except RuntimeError:
            return -math.inf
        # Each sample was a batch of one.
        outputs = [array[:, 0] if array.ndim > 2 and array.shape[1] == 1 else array for array in outputs]
        return task.score(outputs, samples.truth)

    def row(self, what: str, variant: VariantUnderTest) -> Row:
        """The truth and the verdict on one model."""
        start = time.perf_counter()
        if variant.is_unusable:
            (finding, *_) = run_check(variant, "conversion").findings
            return Row(self.task.name, what, 0, 0, 0, False, "", (finding.code,), (), 0, error=finding.message)
        base = variant.source.prepared.model
        before = self.score(base.path, base.output_names)
        try:
            with variant.runs.arm_equivalent() as (model, _):
                after = self.score(model.path, tuple(model.output_names) or base.output_names)
        except UNUSABLE:  # The gate can't run it. An app that names the outputs may.
            after = self.score(variant.model.path, base.output_names)
        lost = self.task.line.loss(before, after)
        result = judged(variant)
        errors = [item for item in result.findings if item.severity is not Severity.WARNING]
        by_calibration = False
        if result.outcome != FAILED and lost > 1:
            by_calibration = run_check(variant, "calibration").outcome == FAILED
        return Row(
            *(self.task.name, what, before, after, lost if math.isfinite(lost) else 1e9, result.outcome == FAILED),
            *(result.outcome, tuple(sorted({item.code for item in errors})), tuple(item.message for item in errors)),
            *(time.perf_counter() - start, by_calibration, self.fails_with_labels(variant, before)),
        )

    def fails_with_labels(self, variant: VariantUnderTest, before: float) -> bool | None:
        """Whether the check fails a model by the score of the task; the labels are numbers of samples, or of steps.

        None for single steps of a model with states, which have no truth.
        """
        task, sequences = self.task, variant.source.prepared.sequences
        if task.states and sequences is None:
            return None
        truth = task.draw(task.evaluation, _HELD_OUT).truth
        if sequences is not None:
            truth = {
                name: array.reshape(-1, 1, *array.shape[2:]) for name, array in truth.items()
            }  # Sequences of one step.

        def score(outputs: Arrays, labels: npt.NDArray[Any] | None) -> float:
            assert labels is not None
            if len(np.unique(labels)) < len(next(iter(truth.values()))):  # No bounds: some scores take seconds.
                raise ValueError("the score is one of all samples")
            return task.score(list(outputs.values()), {name: array[labels] for name, array in truth.items()})

        metric = TaskMetric("score", task.unit, is_share=False, call=score)
        allowed = task.line.allowed * (-before if task.line.is_share_of_error else 1.0)
        try:
            outputs, reference = variant.runs.exact_run[0].outputs, variant.source.float_run.outputs
        except UNUSABLE:
            return True
        labels = np.arange(len(next(iter(reference.values()))))
        evidence = AccuracyEvidence(reference, outputs, labels, lengths=sequences.lengths if sequences else ())
        return check_accuracy(evidence, Criteria(metric, max_drop=allowed)).outcome == FAILED


def judged(variant: VariantUnderTest) -> Result:
    """The accuracy check's verdict, without the search for the layer at fault, which changes no verdict."""
    inputs = CheckInputs(variant, variant.source.settings.limits, False, lambda other: run_check(variant, other))
    return attempt_check("accuracy", variant, lambda: accuracy_check._judge_outputs(inputs))


def _other_calibrations(calibration: Arrays, states: Collection[str]) -> Iterator[tuple[str, Arrays]]:
    random = np.random.default_rng(0)
    fed = {name: array for name, array in calibration.items() if name not in states}
    first = {name: array for name, array in calibration.items() if name in states}
    yield _ONE, {name: array[:1] for name, array in calibration.items()}
    yield (
        _NOISE,
        {**{name: random.normal(0, 0.2, item.shape).astype(np.float32) for name, item in fed.items()}, **first},
    )
    yield _WRONG, {**{name: ((item - 0.5) / 0.25).astype(np.float32) for name, item in fed.items()}, **first}


def _upper_part_cut(tensor: ActivationParams) -> ActivationParams:
    """A quarter of the range: the lower end stays, as far as codes allow."""
    zero = min(127, -127 + 4 * (127 + tensor.zero_point))
    return dataclasses.replace(tensor, scale=tensor.scale / 4, zero_point=zero)


def rows_of(name: str, folder: Path, what: str) -> list[Row]:
    """All rows of one task; they are kept in the folder."""
    torch.set_num_threads(1)
    case = Case(TASKS[name], folder, TASKS[name].trained(folder / "weights"))
    case.scratch.mkdir(parents=True, exist_ok=True)
    rows = []
    for text, variant in case.variants():
        if what in text:
            rows.append(case.row(text, variant))
            print(rows[-1], flush=True)
    path = case.scratch / "rows.json"
    if not what:
        path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1), encoding="utf-8")
    return rows


def kept_rows(folder: Path) -> list[Row]:
    """The rows that earlier runs kept, in the order of the tasks."""
    rows = [Row(**values) for path in folder.glob("*/rows.json") for values in json.loads(path.read_text("utf-8"))]
    return sorted(rows, key=lambda row: list(TASKS).index(row.task))


def summary(rows: list[Row]) -> str:
    """The counts."""
    counts = {kind: sum(row.kind == kind for row in rows) for kind in ("spoilt", "healthy", "borderline", "not made")}
    problems = {text: sum(row.problem == text for row in rows) for text in ("MISS", "FALSE ALARM")}
    failed = sum(row.failed for row in rows if row.kind == "borderline")
    labelled = [row for row in rows if row.kind in ("spoilt", "healthy") and row.failed_with_labels is not None]
    right = sum(row.failed_with_labels == (row.kind == "spoilt") for row in labelled)
    return (
        f"{len(TASKS)} tasks; {counts['spoilt']} spoilt models, {problems['MISS']} missed; {counts['healthy']} healthy "
        f"models, {problems['FALSE ALARM']} false alarms; {counts['borderline']} borderline, of which {failed} fail; "
        f"{counts['not made']} could not be made. With labels, {right} of "
        f"{len(labelled)} verdicts are right"
    )


def main() -> None:
    """Judge the models, print the rows, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where weights, models and rows are kept")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only these")
    parser.add_argument("--what", default="", help="only models whose name contains this text")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    parser.add_argument("--write", action="store_true", help="write docs/tasks.md")
    parser.add_argument("--kept", action="store_true", help="judge nothing: take the rows that are kept in FOLDER")
    options = parser.parse_args()
    folder, rows = options.folder.resolve(), []
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        names = () if options.kept else options.task or TASKS
        jobs = [pool.submit(rows_of, name, folder, options.what) for name in names]
        for future in as_completed(jobs):
            rows += future.result()
    if options.write:
        rows = kept_rows(folder)
        write_page(TASKS, rows, summary(rows))
    print(summary(rows))
    raise SystemExit(1 if any(row.problem for row in rows) else 0)


if __name__ == "__main__":
    main()
