"""The scores of tasks as metrics of the gate: labels are the numbers of samples, whose truth is drawn again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import task_detection
import task_sequences
from task_kinds import Arrays, Task

Array = npt.NDArray[Any]


def detection(outputs: Mapping[str, Array], labels: Array) -> float:
    """Average precision at an overlap of 0.5."""
    return _score("detection, anchor-free, joined", outputs, labels)


def keywords(outputs: Mapping[str, Array], labels: Array) -> float:
    """Share of the words that are recognized."""
    return _score("keyword spotting", outputs, labels)


def enhancement(outputs: Mapping[str, Array], labels: Array) -> float:
    """SNR in dB of the enhanced spectrograms."""
    return _score("speech enhancement, masks", outputs, labels)


def _score(name: str, outputs: Mapping[str, Array], labels: Array) -> float:
    task, truth = _truth(name)
    return task.score(list(outputs.values()), {key: array[labels] for key, array in truth.items()})


@functools.cache
def _truth(name: str) -> tuple[Task, Arrays]:
    task = next(item for item in (*task_detection.TASKS, *task_sequences.TASKS) if item.name == name)
    return task, task.draw(task.evaluation, 9).truth
