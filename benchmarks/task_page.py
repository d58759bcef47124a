"""The page `docs/tasks.md`: what task_truth.py found, written from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from task_kinds import Task

_PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "tasks.md"
_INTRO: Final = """\
# Verdicts against the task's own score

Does the gate, without labels, fail what a user would reject? `python benchmarks/task_truth.py FOLDER --write` writes
this page. It trains a small network for each task on generated data, and quantizes it well and badly with real tools:
weights of 8, 6, 4 and 3 bits, `int8` with good data, one sample, noise, and wrong preprocessing, a clipped range, and
MNN's `mnnquant`. The truth is the score of the task on held-out data, computed without the gate. The loss that a user
rejects was written down before judging.

A model is spoilt if it loses more than that, and healthy otherwise. Models within 30 % of that loss are borderline,
and are not counted. A spoilt model is missed if neither `accuracy` nor `calibration` fails. A false alarm is a
healthy model that `accuracy` fails.

The last column is the same with labels: the score of the task is given as the metric, and the loss that a user rejects
as its limit.
"""
_UNSEEN: Final = """\
## What can't be seen without labels

How much an error costs depends on the float model's own error, which only labels show. Each miss has a healthy model of
the same form with a larger error:

- **Mattes.** Masks of segmentation and mattes have the same form: values that are mostly 0 or 1, with edges of 4.9 and
  4.7 pixels. `w3` of "segmentation, Sigmoid" is healthy, though the values of its edges are wrong by 0.064 on average
  (PSNR 30.6 dB). The spoilt mattes are wrong by 0.024 to 0.033 (34.0 to 37.0 dB). Give target mattes and
  `--mnn-metric=mae`.
- **Boxes.** Most candidates are not objects, and only the best few count. Weighted by the float model's score, the
  spoilt oriented boxes have an SQNR of 13.6 dB in the angle ("one sample"), 16.8 dB in the sizes ("noise") and 17.3 dB
  in the places ("wrong preprocessing"). The boxes of "detection, anchor-based" have 7.8 dB with wrong preprocessing,
  and find what they found before. Calibration on one sample, on noise or with wrong preprocessing is a warning
  (`MNQ510`, `MNQ530`), which names the cause.
- **Points.** Spoilt landmarks have 17.2 dB and less, healthy poses 18.3 dB and more; the limit is 17.5 dB.
- **Texts.** `w4` of "OCR, log-probabilities" keeps 97.4 % of the characters and is spoilt; `w4` of "OCR, batch-first"
  keeps 97.2 % and is healthy, since some of the others were wrong before.

The one false alarm is mnnquant's EMA on the ranking network: it gives the highest 7 % of the scores the same value.
Spearman's correlation does not show that the order of the best is lost.

With labels and the task's own score all of these fail: see the last column, and
[labels and metrics](accuracy.md). `file.py:callable` takes any score.
"""


class Judged(Protocol):
    """A model, the truth about it and the verdict, as task_truth.py has them."""

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def what(self) -> str:
        """How the model was made."""

    @property
    def before(self) -> float:
        """The score of the float model."""

    @property
    def after(self) -> float:
        """The score of the model."""

    @property
    def lost(self) -> float:
        """What is lost, in units of the user's line."""

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the check's errors."""

    @property
    def failed(self) -> bool:
        """Whether the accuracy check fails."""

    @property
    def failed_with_labels(self) -> bool | None:
        """Whether the accuracy check fails it by the score of the task; None if it could not be judged so."""

    @property
    def kind(self) -> str:
        """Spoilt, healthy, borderline or not made."""

    @property
    def problem(self) -> str:
        """MISS, FALSE ALARM or nothing."""


def write_page(tasks: Mapping[str, Task], rows: Sequence[Judged], summary: str) -> None:
    """Write the page from the rows of all tasks."""
    lines = [_INTRO, f"{summary}.", "", *_table(tasks, rows), "", "## Wrong verdicts without labels", "", *_wrong(rows)]
    lines += ["", _UNSEEN.rstrip()]
    _PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(tasks: Mapping[str, Task], rows: Sequence[Judged]) -> Iterator[str]:
    yield (
        "| task | score of the float model | a user rejects | spoilt, missed | healthy, false alarms | borderline | "
        "with labels: missed, false alarms |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, task in tasks.items():
        judged = [row for row in rows if row.task == name]
        if not judged:
            continue
        counts = {kind: sum(row.kind == kind for row in judged) for kind in ("spoilt", "healthy", "borderline")}
        missed, alarms = (sum(row.problem == problem for row in judged) for problem in ("MISS", "FALSE ALARM"))
        unseen = sum(row.kind == "spoilt" and row.failed_with_labels is False for row in judged)
        wrongly = sum(row.kind == "healthy" and bool(row.failed_with_labels) for row in judged)
        score = next((row.before for row in judged if row.kind != "not made"), 0.0)
        yield (
            f"| {name} | {task.unit} {score:.4g} | {task.line.words} | {counts['spoilt']}, {missed} | "
            f"{counts['healthy']}, {alarms} | {counts['borderline']} | {unseen}, {wrongly} |"
        )


def _wrong(rows: Sequence[Judged]) -> Iterator[str]:
    wrong = [row for row in rows if row.problem]
    if not wrong:
        yield "None."
        return
    yield '"Lost" is in units of what a user rejects.'
    yield ""
    yield "| task | model | score | lost | verdict | wrong |"
    yield "|---|---|---|---|---|---|"
    for row in wrong:
        verdict = f"failed {' '.join(row.codes)}" if row.failed else "passed"
        score = f"{row.before:.4g} to {row.after:.4g}"
        yield f"| {row.task} | {row.what} | {score} | {row.lost:.2f} | {verdict} | {row.problem.lower()} |"
