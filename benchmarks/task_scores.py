"""Scores of tasks, from outputs and truth: higher is better, errors are negative. Samples are on the first axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
#: How many times larger than the network's picture the camera's is, in whose pixels detectors answer.
CAMERA: Final = 8
_SCORE: Final = 0.01
_OVERLAP: Final = 0.5


@dataclass
class _Answers:
    """The answers of one class in all pictures: their scores, whether each is right, and how many objects there are."""

    scores: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    expected: int = 0

    def add(self, scores: Array, cells: Sequence[int], fits: Array) -> None:
        """The answers of one picture, the best first; `fits` [objects, cells]: each object is found once."""
        left = np.ones(len(fits), bool)
        self.expected += len(fits)
        for cell in cells:
            matching = np.flatnonzero(fits[:, cell] & left)
            left[matching[:1]] = False
            self.scores.append(float(scores[cell]))
            self.right.append(bool(matching.size))

    @property
    def average_precision(self) -> float:
        """The area under the curve of precision over recall, with precision made to fall (Everingham et al., 2010)."""
        if not self.right:
            return 0.0
        right = np.array(self.right)[np.argsort(-np.array(self.scores), kind="stable")]
        found = np.cumsum(right)
        precision = np.maximum.accumulate((found / np.arange(1, len(right) + 1))[::-1])[::-1]
        return float(precision[right].sum() / max(1, self.expected))


def ap_of_boxes(boxes: Array, scores: Array, truth: Arrays, overlap: float = _OVERLAP) -> float:
    """Mean over the classes of the average precision at an overlap, after suppression of those above 0.5.

    `boxes` is [n, 4, cells] (centre and size), `scores` [n, classes, cells]; truth: `boxes` [n, k, 4], `classes`
    [n, k], -1 for none.
    """
    answers = [_Answers() for _ in range(scores.shape[1])]
    for box, score, real, classes in zip(boxes, scores, truth["boxes"], truth["classes"], strict=True):
        overlaps = _ious(box.T, box.T)
        for number, of_class in enumerate(answers):
            cells = _suppressed(score[number], overlaps >= _OVERLAP)
            of_class.add(score[number], cells, _ious(real[classes == number], box.T) > overlap)
    return float(np.mean([of_class.average_precision for of_class in answers]))


def _suppressed(scores: Array, near: Array) -> list[int]:
    """The cells with a score that have no better one near them, the best first."""
    chosen: list[int] = []
    for cell in np.argsort(-scores, kind="stable"):
        if scores[cell] <= _SCORE:
            break
        if not near[cell, chosen].any():
            chosen.append(int(cell))
    return chosen


def _ious(first: Array, second: Array) -> Array:
    """[n, m] overlaps of boxes [n, 4] and [m, 4], centre and size."""
    one, other = first[:, None].astype(np.float64), second[None].astype(np.float64)
    low = np.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)
    high = np.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    inside = (high - low).clip(0).prod(2)
    return np.asarray(inside / np.maximum(one[..., 2:].prod(2) + other[..., 2:].prod(2) - inside, 1e-9))


def ap_of_joined(outputs: Sequence[Array], truth: Arrays) -> float:
    """Boxes and scores joined on the channels: [n, 4 + classes, cells]."""
    (joined,) = outputs
    rows = joined.reshape(len(joined), 7, -1)
    return ap_of_boxes(rows[:, :4] / CAMERA, rows[:, 4:], truth)


def ap_of_separate(outputs: Sequence[Array], truth: Arrays) -> float:
    """Boxes and scores as two outputs."""
    boxes, scores = (array.reshape(len(array), channels, -1) for array, channels in zip(outputs, (4, 3), strict=True))
    return ap_of_boxes(boxes / CAMERA, scores, truth)


def ap_of_anchors(outputs: Sequence[Array], truth: Arrays) -> float:
    """Rows of box, objectness and classes: [n, anchors, 8]."""
    rows = outputs[0].reshape(len(outputs[0]), -1, 8).transpose(0, 2, 1)
    return ap_of_boxes(rows[:, :4] / CAMERA, rows[:, 4:5] * rows[:, 5:], truth)


def ap_of_oriented(outputs: Sequence[Array], truth: Arrays) -> float:
    """Rows of centre, size, angle and score: right within 2.5 pixels, 10 degrees and 25 % of the length."""
    answers = _Answers()
    for joined, real in zip(outputs[0].reshape(len(outputs[0]), 6, -1), truth["oriented"], strict=True):
        rows = np.concatenate([joined[:4] / CAMERA, joined[4:]]).astype(np.float64)
        x, y, long, _, angle = real[real[:, 2] > 0].T[..., None]
        fits = np.hypot(rows[0] - x, rows[1] - y) < 2.5
        fits &= np.abs((rows[4] - angle + np.pi / 2) % np.pi - np.pi / 2) < np.pi / 18
        fits &= np.abs(rows[2] / long - 1) < 0.25
        near = np.hypot(rows[0] - rows[0][:, None], rows[1] - rows[1][:, None]) < 6
        answers.add(rows[5], _suppressed(rows[5], near), fits)
    return answers.average_precision


def right_landmarks(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of pictures with a right answer: no face, or a face with a mean point error below 1.5 pixels."""
    rows = outputs[0].reshape(len(outputs[0]), -1)
    points, real = rows[:, 1:].reshape(len(rows), -1, 2) / CAMERA, truth["points"]
    near = np.linalg.norm(points - real, axis=2).mean(1) < 1.5
    says, is_there = rows[:, 0] > 0.5, truth["face"] > 0.5
    return float(np.where(is_there, says & near, ~says).mean())


def right_joints(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of joints with a right answer, of rows (x, y, visibility): hidden, or seen within 2 pixels."""
    rows = outputs[0].reshape(len(outputs[0]), -1, 3)
    near = np.linalg.norm(rows[..., :2] / CAMERA - truth["joints"], axis=2) < 2
    says, is_there = rows[..., 2] > 0.5, truth["visible"] > 0.5
    return float(np.where(is_there, says & near, ~says).mean())


def right_peaks(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of the visible joints whose heat map has its peak within 2 pixels; maps have half the picture's size."""
    maps = outputs[0]
    flat = maps.reshape(*maps.shape[:2], -1).argmax(2)
    peaks = np.stack([flat % maps.shape[3], flat // maps.shape[3]], 2) * 2 + 0.5
    near = np.linalg.norm(peaks - truth["joints"], axis=2) < 2
    return float(near[truth["visible"] > 0.5].mean())


def mean_iou(predicted: Array, labels: Array) -> float:
    """Mean over the classes of the intersection over union, on all samples together."""
    classes = [
        ((predicted == number) & (labels == number)).sum() / max(1, ((predicted == number) | (labels == number)).sum())
        for number in np.unique(labels)
    ]
    return float(np.mean(classes))


def iou_of_logits(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of logits [n, classes, ...]."""
    return mean_iou(outputs[0].argmax(1), truth["mask"])


def iou_of_classes(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of class numbers."""
    return mean_iou(outputs[0].reshape(truth["mask"].shape), truth["mask"])


def psnr(outputs: Sequence[Array], truth: Arrays) -> float:
    """Mean over pictures of the PSNR in dB, for values in 0..1."""
    real = truth["picture"]
    errors = np.square(outputs[0].reshape(real.shape).clip(0, 1) - real).reshape(len(real), -1).mean(1)
    return float((10 * np.log10(1 / np.maximum(errors, 1e-9))).mean())


def psnr_of_colours(outputs: Sequence[Array], truth: Arrays) -> float:
    """Mean over pictures of the PSNR in dB of two colour channels in -1..1."""
    real = truth["colours"]
    errors = np.square(outputs[0].reshape(real.shape).clip(-1, 1) - real).reshape(len(real), -1).mean(1)
    return float((10 * np.log10(4 / np.maximum(errors, 1e-9))).mean())


def relative_depth(outputs: Sequence[Array], truth: Arrays) -> float:
    """Minus the mean of |depth - truth| / truth."""
    real = truth["depth"]
    return -float((np.abs(outputs[0].reshape(real.shape) - real) / real).mean())


def alpha_error(outputs: Sequence[Array], truth: Arrays) -> float:
    """Minus the mean absolute error of alpha, in thousandths, where alpha is between 0.02 and 0.98."""
    real = truth["alpha"]
    unknown = truth["unknown"] > 0.5
    return -1000 * float(np.abs(outputs[0].reshape(real.shape).clip(0, 1) - real)[unknown].mean())


def characters_of_steps(best: Array, truth: Arrays) -> float:
    """1 - edits / length of the texts, of the best class of each step [n, steps]; 0 is the blank."""
    wrong = length = 0
    for row, text in zip(best, truth["text"], strict=True):
        new = np.concatenate([[True], row[1:] != row[:-1]])
        wrong += edits(row[new & (row != 0)].tolist(), text[text > 0].tolist())
        length += int((text > 0).sum())
    return 1 - wrong / length


def edits(first: list[int], second: list[int]) -> int:
    """The least number of insertions, deletions and replacements."""
    row = list(range(len(second) + 1))
    for number, item in enumerate(first, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (item != other))
    return row[-1]


def characters_batch_first(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of CTC logits [n, steps, 11]."""
    return characters_of_steps(outputs[0].reshape(len(truth["text"]), -1, 11).argmax(2), truth)


def characters_of_ids(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of class numbers [n, steps]."""
    return characters_of_steps(outputs[0].reshape(len(truth["text"]), -1), truth)


def top1(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of samples whose class has the highest score."""
    rows = outputs[0].reshape(len(truth["label"]), -1)
    return float((rows.argmax(1) == truth["label"]).mean())


def balanced_frames(outputs: Sequence[Array], truth: Arrays) -> float:
    """Mean of the shares of speech and of other frames that are recognised, of probabilities per frame."""
    says, real = outputs[0].reshape(truth["speech"].shape) > 0.5, truth["speech"] > 0.5
    return float((says[real].mean() + (~says[~real]).mean()) / 2)


def right_steps(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of steps with the right one of two classes; scores [n, steps, 2]."""
    real = truth["rising"]
    return float((outputs[0].reshape(*real.shape, 2).argmax(2) == real).mean())


def clean_snr(outputs: Sequence[Array], truth: Arrays) -> float:
    """SNR in dB of the masked noisy spectrogram, against the clean one, over all samples."""
    clean, noisy = truth["clean"], truth["noisy"]
    made = outputs[0].reshape(clean.shape) * noisy
    return float(10 * np.log10(np.square(clean).sum() / np.square(made - clean).sum()))


def right_neighbours(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of samples whose nearest other sample, by cosine, has the same label."""
    vectors = outputs[0].reshape(len(truth["label"]), -1).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    near = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return float((truth["label"][near.argmax(1)] == truth["label"]).mean())


def rank_correlation(outputs: Sequence[Array], truth: Arrays) -> float:
    """Spearman's correlation of the scores with the real relevance; equal scores share their mean rank."""
    ranks = [_ranks(array.reshape(-1)) for array in (outputs[0], truth["relevance"])]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Array) -> Array:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def forecast_error(outputs: Sequence[Array], truth: Arrays) -> float:
    """Minus the root mean square error."""
    real = truth["future"]
    return -float(np.sqrt(np.square(outputs[0].reshape(real.shape) - real).mean()))
