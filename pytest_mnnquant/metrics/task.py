"""Task metrics: how well outputs match their labels, as one value and sample by sample.

top1, top5, ...   share of samples whose label is the largest (among the five largest) of [samples, classes]
miou              mean intersection over union of the labels' classes: [samples, classes, ...], labels [samples, ...]
mae, rmse         mean absolute, root mean square difference to labels of the same size
words             share of label sequences read correctly from [samples, steps, classes] (CTC, greedy, blank 0)
characters        1 - edits / length of the labels, likewise
psnr, ssim        mean over pictures; labels are the target pictures (metrics/pictures.py)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.metrics import pictures
from pytest_mnnquant.metrics.blocks import blocks, is_true_of_all, mapped, sample_blocks
from pytest_mnnquant.metrics.label_forms import (
    IGNORED,
    are_counted_from_one,
    are_grey_levels_of,
    class_map,
    class_numbers,
    is_text,
    problem_of_classes,
    problem_of_map,
    whole_numbers,
)

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Outputs = Mapping[str, Array]
#: The value that pads label sequences to equal length.
PADDING: Final = -1
_BLANK: Final = 0
# In dB. Compared side by side, people begin to see a difference of PSNR at about half a decibel.
_DECIBELS: Final = 0.5


@dataclass(frozen=True)
class Scores:
    """A metric on `samples` samples. `of` gives its value on chosen samples, which may repeat.

    `each` has shape [samples] if the value is a mean of one number per sample, else it is None. `baseline` is the value
    of the best constant answer, if known. `detail` is what was found out about the data, for the metric's label.
    """

    samples: int
    of: Callable[[Indices], float]
    each: npt.NDArray[np.float64] | None = None
    baseline: float | None = None
    detail: str = ""

    @cached_property
    def value(self) -> float:
        """The value on all samples."""
        return self.of(np.arange(self.samples))


@dataclass(frozen=True)
class TaskMetric:
    """A named metric. `is_share`: it lies in [0, 1]. `lower_is_better`: it is an error. `output` names the output.

    `default_drop` is the allowed drop of a metric with a unit, if it has a default.

    `fits`: whether an output and labels have the form of the metric; `score` compares them. A custom metric has `call`
    instead: it maps all outputs and labels to one number, or to one per sample.
    """

    name: str
    label: str
    is_share: bool = True
    lower_is_better: bool = False
    output: str = ""
    fits: Callable[[Array, Array], bool] | None = None
    score: Callable[[Array, Array], Scores] | None = None
    call: Callable[[dict[str, Array], Array | None], Any] | None = None
    default_drop: float | None = None


class MetricError(ValueError):
    """A metric can't be computed on these outputs and labels: one line with the reason; `fix` is empty if unknown."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def metric_named(name: str) -> TaskMetric | None:
    """The metric of this name (`top5`, `miou@masks`); None if it is unknown. Raises `MetricError` for top0."""
    stem, _, output = name.partition("@")
    if match := re.fullmatch(r"top(\d+)", stem):
        count = int(match[1])
        if count < 1:
            raise MetricError(f"{name!r}: the number of classes must be at least 1")
        of_top: Any = {"fits": partial(_is_classes, count=count), "score": partial(_top, count=count)}
        return TaskMetric(stem, f"top-{count}", output=output, **of_top)
    known: dict[str, tuple[str, bool, Callable[[Array, Array], bool], Callable[[Array, Array], Scores]]] = {
        "miou": ("mean IoU", False, _is_map, _overlap),
        "mae": ("mean absolute error", True, _is_same_size, _absolute),
        "rmse": ("root mean square error", True, _is_same_size, _square),
        "words": ("words read correctly", False, _is_sequence, _words),
        "characters": ("characters read correctly", False, _is_sequence, _characters),
        "ssim": ("SSIM", False, _is_picture, partial(_pictures, figure=pictures.ssim)),
    }
    if stem == "psnr":
        of_pictures: Any = {"fits": _is_picture, "score": partial(_pictures, figure=pictures.psnr)}
        return TaskMetric(stem, "PSNR in dB", is_share=False, output=output, default_drop=_DECIBELS, **of_pictures)
    if stem not in known:
        return None
    label, is_error, fits, score = known[stem]
    return TaskMetric(stem, label, not is_error, is_error, output, fits, score)


def output_for(metric: TaskMetric, outputs: Outputs, labels: Array | None) -> str:
    """The output that the labels belong to. Raises `MetricError` if none or several match."""
    if metric.output:
        if metric.output not in outputs:
            raise MetricError(f"unknown output {metric.output!r}; known: {', '.join(outputs)}")
        names = [metric.output]
    else:
        names = list(outputs)
    if labels is None:
        raise MetricError("the metric needs labels, but the evaluation data have none")
    assert metric.fits is not None
    if is_text(labels):
        fix = "give numbers: labels = [names.index(text) for text in labels], in the order of the model's classes"
        raise MetricError(f"the labels are text ({labels.dtype}), not numbers", fix)
    if labels.ndim == 0:
        raise MetricError("the labels are a single number, not one per sample", "labels = labels.reshape(1)")
    if labels.size == 0:
        raise MetricError("the labels are an empty array")
    fitting = [name for name in names if metric.fits(outputs[name], labels)]
    # A model may return both scores and the class with the largest score.
    scored = [name for name in fitting if outputs[name].dtype.kind == "f"]
    fitting = scored or fitting
    if not fitting:
        _refuse_known_forms(metric, {name: outputs[name] for name in names}, labels)
    if len(fitting) != 1:
        shapes = ", ".join(f"{name!r} {outputs[name].dtype} {list(outputs[name].shape)}" for name in names)
        problem = "several outputs match" if fitting else "no output matches"
        choice = f"; name one of them: {metric.name}@{fitting[0]}" if fitting else ""
        raise MetricError(f"{problem} the labels ({labels.dtype} {list(labels.shape)}): {shapes}{choice}")
    return fitting[0]


def _refuse_known_forms(metric: TaskMetric, outputs: Outputs, labels: Array) -> None:
    """Raise `MetricError` if labels hold NaN, are counted from 1, hold -1, or several classes per sample."""
    assert metric.fits is not None
    if labels.dtype.kind == "f" and not is_true_of_all(np.isfinite, labels):
        raise MetricError("the labels hold NaN or infinity", "leave out the samples without a label")
    for name, output in outputs.items():
        classes = output.shape[1] if output.dtype.kind == "f" and output.ndim > 1 else 0
        if classes > 1 and are_counted_from_one(labels, classes) and metric.fits(output, labels.astype(np.int64) - 1):
            reason = f"the labels are 1 to {classes} and never 0; output {name!r} has the classes 0 to {classes - 1}"
            raise MetricError(reason, "if the labels are counted from 1: labels = labels - 1")
        reason, fix = problem_of_classes(labels, classes) if _classes(output) and _is_top(metric) else ("", "")
        if reason:
            raise MetricError(reason, fix)


def _is_top(metric: TaskMetric) -> bool:
    return metric.name.startswith("top")


def scores(metric: TaskMetric, outputs: Outputs, name: str, labels: Array | None) -> Scores:
    """The metric on these outputs; `name` is the output that `output_for` gave. Raises `MetricError`."""
    if metric.call is not None:
        return _custom(metric, outputs, labels)
    assert metric.score is not None
    assert labels is not None
    if len(outputs[name]) != len(labels):
        raise MetricError(f"output {name!r} has {len(outputs[name])} rows, the labels have {len(labels)}")
    return metric.score(outputs[name], labels)


def by_sequence(steps: Scores, lengths: tuple[int, ...]) -> Scores:
    """The metric of steps as one of sequences, since the steps of a sequence are not independent."""
    ends = np.cumsum(lengths)
    places = [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    def of(chosen: Indices) -> float:
        return steps.of(np.concatenate([places[number] for number in chosen]))

    if steps.each is None:
        return Scores(len(lengths), of, None, steps.baseline)
    parts = np.array([[steps.each[place].sum(), len(place)] for place in places])
    return Scores(len(lengths), lambda chosen: float(np.divide(*parts[chosen].sum(0))), None, steps.baseline)


def _mean(each: Array, baseline: float | None = None) -> Scores:
    values = np.asarray(each, np.float64)
    return Scores(len(values), lambda chosen: float(values[chosen].mean()), values, baseline)


def _summed(parts: Array, figure: Callable[[npt.NDArray[np.float64]], float], baseline: float | None = None) -> Scores:
    """A metric that is a function of sums over samples; `parts` has shape [samples, sums]."""
    parts = np.asarray(parts, np.float64)
    return Scores(len(parts), lambda chosen: figure(parts[chosen].sum(0)), None, baseline)


# Classes -------------------------------------------------------------------------------------------------------------


def _is_classes(output: Array, labels: Array, count: int) -> bool:
    expected = class_numbers(labels, _classes(output))
    if expected is None or expected.min() < 0:
        return False
    if output.dtype.kind in "iu":  # The classes themselves.
        return count == 1 and output.size == len(labels)
    return _classes(output) > max(count, int(expected.max()))


def _classes(output: Array) -> int:
    """The number of classes that an output has scores of; 0 if it holds the classes themselves."""
    is_row = output.ndim == 2 or (output.ndim == 4 and output.shape[2:] == (1, 1))  # Pooling keeps the axes of places.
    return output.shape[1] if output.dtype.kind == "f" and is_row else 0


def _top(output: Array, labels: Array, count: int) -> Scores:
    expected = class_numbers(labels, _classes(output))
    assert expected is not None
    output = output.reshape(output.shape[:2]) if _classes(output) else output
    if output.dtype.kind in "iu":
        hits = output.reshape(-1) == expected
    elif count == 1:
        hits = output.argmax(1) == expected
    else:
        hits = (np.argpartition(-output, count - 1, axis=1)[:, :count] == expected[:, None]).any(1)
    baseline = float(np.unique(expected, return_counts=True)[1].max() / len(expected))
    return _mean(hits, baseline if count == 1 else None)


# Maps and numbers ----------------------------------------------------------------------------------------------------


def _as_maps(output: Array, labels: Array) -> tuple[Array, npt.NDArray[np.int64] | None]:
    """The output as [samples, classes, ...], and the labels as a class map, None if they are none.

    The output of a TFLite model has its classes last.
    """
    expected = class_map(labels, output)
    if expected is None and output.dtype.kind == "f" and output.ndim > 2:
        moved = np.moveaxis(output, -1, 1)
        expected = class_map(np.moveaxis(labels, -1, 1) if labels.ndim == output.ndim else labels, moved)
        output = output if expected is None else moved
    return output, expected


def _is_map(output: Array, labels: Array) -> bool:
    output, expected = _as_maps(output, labels)
    # A single channel has no arg max.
    return expected is not None and (output.dtype.kind in "iu" or output.shape[1] > 1)


def _overlap(output: Array, labels: Array) -> Scores:
    """Mean IoU of the classes that occur in the labels; a wrong pixel also counts in the union of its true class.

    By convention, labels that are not a class of the output, and labels of 255, are ignored.
    """
    output, expected = _as_maps(output, labels)
    assert expected is not None
    labels = expected
    predicted = mapped(lambda block: block.argmax(1), output) if output.dtype.kind == "f" else output
    known = output.shape[1] if output.dtype.kind == "f" else math.inf
    found = {number for _, (block,) in sample_blocks(labels) for number in np.unique(block).tolist()}
    reason, fix = problem_of_map(found, known)
    if reason:
        raise MetricError(reason, fix)
    classes = sorted(number for number in found if 0 <= number < known and number != IGNORED)
    pairs = (pair for _, pair in sample_blocks(predicted, labels))
    parts = np.concatenate([_overlaps(made, expected, classes, known) for made, expected in pairs])

    def figure(sums: npt.NDArray[np.float64]) -> float:
        both, either, labelled = sums.reshape(3, -1)
        occurs = labelled > 0
        return float((both[occurs] / either[occurs]).mean()) if occurs.any() else 0.0

    # A constant answer has the share of its class as IoU, and 0 for the others.
    sizes = parts[:, 2].sum(0)
    return _summed(parts.reshape(len(labels), -1), figure, float(sizes.max() / sizes.sum() / len(sizes)))


def _overlaps(predicted: Array, labels: Array, classes: list[int], known: float) -> npt.NDArray[np.float64]:
    """For each sample and class, the elements that hold it in both, in either, and in the labels: [samples, 3, n]."""
    counted = (labels >= 0) & (labels != IGNORED) & (labels < known)
    axes = tuple(range(1, labels.ndim))
    parts = np.zeros((len(labels), 3, len(classes)))
    for place, number in enumerate(classes):
        predicted_here, labelled_here = (predicted == number) & counted, (labels == number) & counted
        parts[:, 0, place] = (predicted_here & labelled_here).sum(axes)
        parts[:, 1, place] = (predicted_here | labelled_here).sum(axes)
        parts[:, 2, place] = labelled_here.sum(axes)
    return parts


def _is_same_size(output: Array, labels: Array) -> bool:
    """Raises `MetricError` if the labels are grey levels and the float model's output is not."""
    if labels.dtype.kind not in "fiub" or output.size != labels.size or len(output) != len(labels):
        return False
    if are_grey_levels_of(labels, output):
        raise MetricError("the labels have values up to 255, the output stays from 0 to 1", "labels = labels / 255")
    return True


def _mean_difference(
    output: Array, labels: Array, form: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """The mean of a form of the differences in each sample, shape [samples]. Raises `MetricError`."""
    means = []
    for _, (made, expected) in blocks(output, labels):
        if not np.isfinite(expected).all():
            raise MetricError("the labels hold NaN or infinity")
        means.append(form(made - expected).mean(1))
    return np.concatenate(means)


def _absolute(output: Array, labels: Array) -> Scores:
    return _mean(_mean_difference(output, labels, np.abs))


def _square(output: Array, labels: Array) -> Scores:
    parts = _mean_difference(output, labels, np.square)[:, None]
    parts = np.concatenate([parts, np.ones_like(parts)], axis=1)
    return _summed(parts, lambda sums: float(np.sqrt(sums[0] / sums[1])))


# Pictures ------------------------------------------------------------------------------------------------------------


def _is_picture(output: Array, labels: Array) -> bool:
    """Raises `MetricError` if the float model's pictures have another range of values than the targets."""
    if not pictures.are_pictures(output, labels):
        return False
    try:
        problem = pictures.other_range(output, labels)
    except ValueError as error:
        raise MetricError(str(error)) from None
    if problem:
        raise MetricError(f"{problem}: give both in the same range")
    return True


def _pictures(
    output: Array, labels: Array, figure: Callable[[Array, Array, pictures.ValueRange], npt.NDArray[np.float64]]
) -> Scores:
    try:
        span = pictures.value_range(labels)
        made, real = pictures.aligned(output, labels)
        each = figure(made, real, span)
    except ValueError as error:
        raise MetricError(str(error)) from None
    return replace(_mean(each), detail=str(span))


# Sequences -----------------------------------------------------------------------------------------------------------


def _is_sequence(output: Array, labels: Array) -> bool:
    numbers = whole_numbers(labels)
    return (
        output.ndim == 3
        and output.dtype.kind == "f"
        and numbers is not None
        and numbers.ndim == 2
        and len(output) == len(numbers)
        and int(numbers.max(initial=0)) < output.shape[2]
    )


def read_sequences(output: Array) -> list[list[int]]:
    """The class sequence of each sample: the arg max of each step, without repetitions and blanks.

    Graves et al., Connectionist Temporal Classification, 2006. `output` has shape [samples, steps, classes].
    """
    best = output.argmax(2)
    new = np.ones_like(best, dtype=bool)
    new[:, 1:] = best[:, 1:] != best[:, :-1]
    return [row[keep].tolist() for row, keep in zip(best, new & (best != _BLANK), strict=True)]


def _expected(labels: Array) -> list[list[int]]:
    return [row[row != PADDING].tolist() for row in labels.astype(np.int64)]


def _words(output: Array, labels: Array) -> Scores:
    pairs = zip(read_sequences(output), _expected(labels), strict=True)
    return _mean(np.array([sequence == expected for sequence, expected in pairs]))


def _characters(output: Array, labels: Array) -> Scores:
    pairs = zip(read_sequences(output), _expected(labels), strict=True)
    parts = np.array([[edits(sequence, expected), len(expected)] for sequence, expected in pairs], np.float64)
    return _summed(parts, lambda sums: 1 - float(sums[0] / max(sums[1], 1.0)))


def edits(first: list[int], second: list[int]) -> int:
    """The least number of insertions, deletions and replacements between two sequences (Levenshtein, 1966)."""
    row = list(range(len(second) + 1))
    for number, item in enumerate(first, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (item != other))
    return row[-1]


# Custom metrics ------------------------------------------------------------------------------------------------------


def _custom(metric: TaskMetric, outputs: Outputs, labels: Array | None) -> Scores:
    values = _called(metric, dict(outputs), labels)
    samples = len(next(iter(outputs.values())))
    if values.ndim == 1 and len(values) == samples:
        return _mean(values)
    if values.size != 1:
        raise MetricError(f"returned an array of shape {list(values.shape)}, expected one number, or one per sample")

    def of(chosen: Indices) -> float:
        part = {name: array[chosen] for name, array in outputs.items()}
        return float(_called(metric, part, None if labels is None else labels[chosen]).reshape(()))

    return Scores(samples, of)


def _called(metric: TaskMetric, outputs: dict[str, Array], labels: Array | None) -> npt.NDArray[np.float64]:
    assert metric.call is not None
    try:
        values = np.asarray(metric.call(outputs, labels), np.float64)
    except MetricError:
        raise
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        raise MetricError(f"raised {type(error).__name__}: {text}") from error
    if not np.isfinite(values).all():
        raise MetricError("returned NaN or infinity")
    return values
