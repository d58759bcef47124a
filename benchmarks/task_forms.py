"""Outputs of other forms than in the other task files: offsets from anchors, maps of centres, bins, exits, layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_detection as detection
import task_pictures as pictures
import task_scores as scores
import task_sequences as sequences
import torch
from task_detection import Backbone, conv
from task_kinds import Arrays, Line, Samples, Task
from torch import Tensor, nn
from torch.nn import functional

Array = npt.NDArray[Any]
_SIZE: Final = detection.SIZE
_BINS: Final = 2 * _SIZE
_ANSWERS: Final = Line("more than 0.02 of the answers", 0.02)
_PLACES: Final = Line("more than 0.03 of the answers", 0.03)
_PLACED: Final = Line("more than 0.03 of AP at an overlap of 0.7", 0.03)
_SHAPES: Final = Line("more than 0.03 of AP at an overlap of 0.5", 0.03)
_OVERLAP: Final = Line("more than 0.02 of mean IoU", 0.02)
_CHARACTERS: Final = Line("more than 0.02 of the characters", 0.02)
_DECIBELS: Final = Line("more than 0.5 dB", 0.5)
# The largest blurred error of pictures without defects, by the float network.
_GOOD: Final = 0.206
_TWENTIETH: Final = Line("an error that rises by more than 5 %", 0.05, is_share_of_error=True)
# Offsets of anchors are divided by these, as in SSD (Liu et al., 2016).
_VARIANCES: Final = (0.1, 0.2)


# Pictures ------------------------------------------------------------------------------------------------------------


class OffsetDetector(nn.Module):
    """SSD: offsets from anchors, and softmax over background and classes; the app decodes them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.ReLU)
        self.offsets, self.classes = nn.Conv2d(48, 8, 3, padding=1), nn.Conv2d(48, 2 * (1 + detection.CLASSES), 3, 1, 1)

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [n, anchors, 4] and logits [n, anchors, 4]."""
        features = self.body(image)
        rows = (layer(features).permute(0, 2, 3, 1).flatten(1) for layer in (self.offsets, self.classes))
        offsets, logits = (row.view(len(image), -1, 4) for row in rows)
        return offsets, logits

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets and probabilities."""
        offsets, logits = self.parts(image)
        return offsets, logits.softmax(2)


def _anchors() -> Array:
    """[anchors, 4]: centre and size in pixels; two sizes per cell."""
    line = (np.arange(6) + 0.5) * 8
    y, x = np.meshgrid(line, line, indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()], 1).repeat(2, 0)
    return np.concatenate([centres, np.tile([[10.0, 10.0], [18.0, 18.0]], (36, 1))], 1).astype(np.float32)


def offset_loss(network: OffsetDetector, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of the classes with background, and the distance of the offsets of anchors with an object."""
    offsets, logits = network.parts(inputs[0])
    anchors = torch.from_numpy(_anchors())
    cells = truth["cells"].repeat_interleave(2, 1)
    boxes, kinds = (truth[name][torch.arange(len(cells))[:, None], cells.clamp(min=0)] for name in ("boxes", "classes"))
    chosen = (cells >= 0) & ((boxes[..., 2] > 14).long() == torch.arange(2).repeat(36))
    target = torch.where(chosen, kinds + 1, 0)
    weight = torch.where(chosen, 1.0, 0.3)
    loss = (functional.cross_entropy(logits.permute(0, 2, 1), target, reduction="none") * weight).sum() / chosen.sum()
    centre = (boxes[..., :2] - anchors[:, :2]) / anchors[:, 2:] / _VARIANCES[0]
    size = torch.log(boxes[..., 2:].clamp(min=1) / anchors[:, 2:]) / _VARIANCES[1]
    away = (offsets - torch.cat([centre, size], 2))[chosen]
    return loss + functional.smooth_l1_loss(away, torch.zeros_like(away)) * 2


def ap_of_offsets(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of offsets and probabilities [n, anchors, 4]."""
    offsets, classes = (array.reshape(len(array), -1, 4).astype(np.float64) for array in outputs)
    anchors = _anchors()
    centre = anchors[:, :2] + offsets[..., :2] * _VARIANCES[0] * anchors[:, 2:]
    size = anchors[:, 2:] * np.exp(np.clip(offsets[..., 2:] * _VARIANCES[1], -4, 4))
    boxes = np.concatenate([centre, size], 2).transpose(0, 2, 1)
    return scores.ap_of_boxes(boxes, classes[..., 1:].transpose(0, 2, 1), truth)


class CentreDetector(nn.Module):
    """CenterNet (Zhou et al., Objects as Points, 2019): maps of centres, sizes and offsets, a quarter in size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.ReLU)
        self.up = nn.Sequential(nn.ConvTranspose2d(48, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.heads = nn.ModuleList(
            nn.Sequential(conv(32, 32, act=nn.ReLU), nn.Conv2d(32, made, 1)) for made in (detection.CLASSES, 2, 2)
        )

    def maps(self, image: Tensor) -> list[Tensor]:
        """Logits of centres, sizes / 8, offsets in cells."""
        features = self.up(self.body(image))
        return [head(features) for head in self.heads]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of centres in 0..1, sizes in cells, offsets in cells."""
        centres, sizes, offsets = self.maps(image)
        return centres.sigmoid(), sizes * 2, offsets


def centre_loss(network: CentreDetector, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Penalty-reduced focal loss of the centres; distance of sizes and offsets at the centres."""
    logits, sizes, offsets = network.maps(inputs[0])
    boxes, kinds = truth["boxes"], truth["classes"]
    rows, numbers = torch.nonzero(kinds >= 0, as_tuple=True)
    places = boxes[rows, numbers, :2] / 4
    cells = places.long().clamp(0, 11)
    line = torch.arange(12.0)
    bumps = torch.exp(-((line - cells[:, :1]) ** 2)[:, None, :] / 2 - ((line - cells[:, 1:]) ** 2)[:, :, None] / 2)
    target = torch.zeros_like(logits)
    for row, kind, bump in zip(rows, kinds[rows, numbers], bumps, strict=True):
        target[row, kind] = torch.maximum(target[row, kind], bump)
    chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = ((1 - chance) ** 2 * chance.log())[target == 1].sum()
    miss = ((1 - target) ** 4 * chance**2 * (1 - chance).log())[target < 1].sum()
    at = (rows, slice(None), cells[:, 1], cells[:, 0])
    away = (sizes[at] - boxes[rows, numbers, 2:] / 8).abs().mean() + (offsets[at] - (places - cells)).abs().mean()
    return -(hit + miss) / len(rows) + away


def ap_of_centres(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of maps of centres, sizes and offsets [n, ..., 12, 12]."""
    centres, sizes, offsets = (array.reshape(len(array), -1, 12, 12) for array in outputs)
    y, x = np.mgrid[:12, :12]
    boxes = np.concatenate([(np.stack([x, y]) + offsets) * 4, sizes * 4], 1).reshape(len(sizes), 4, -1)
    padded = np.pad(centres, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    around = np.max([padded[:, :, i : i + 12, j : j + 12] for i in range(3) for j in range(3)], 0)
    peaks = np.where(centres >= around, centres, 0)
    return scores.ap_of_boxes(boxes, peaks.reshape(*peaks.shape[:2], -1), truth, overlap=0.7)


class Binary(pictures.UNet):
    """The probability of foreground."""

    def __init__(self) -> None:
        super().__init__(3, 1, nn.ReLU)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, height, width]."""
        return super().forward(image).sigmoid()


def foreground(count: int, seed: int) -> Samples:
    """Shapes on noise; what is a shape."""
    samples = pictures.masks(count, seed)
    return Samples(samples.inputs, {"mask": (samples.truth["mask"] > 0).astype(np.int64)})


def foreground_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy."""
    return functional.binary_cross_entropy(network(inputs[0])[:, 0], truth["mask"].float())


def iou_of_foreground(outputs: Sequence[Array], truth: Arrays) -> float:
    """Of probabilities above one half."""
    return scores.mean_iou(outputs[0].reshape(truth["mask"].shape) > 0.5, truth["mask"] > 0)


class BinnedPose(nn.Module):
    """SimCC (Li et al., 2022): for each joint, scores of bins along x, and along y."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.Hardswish)
        self.joints = nn.Conv2d(48, detection.JOINTS, 3, padding=1)
        self.across, self.down = nn.Linear(36, _BINS), nn.Linear(36, _BINS)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two arrays of logits [n, joints, 96]; a bin is half a pixel wide."""
        rows = self.joints(self.body(image)).flatten(2)
        return self.across(rows), self.down(rows)


def binned_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy with a Gaussian around the right bin, of visible joints."""
    bins = (torch.arange(_BINS) + 0.5) / 2
    total = torch.zeros(())
    for axis, logits in enumerate(network(inputs[0])):
        target = torch.exp(-((bins - truth["joints"][..., axis, None]) ** 2) / 2)
        target = target / target.sum(2, keepdim=True)
        total = total - ((target * logits.log_softmax(2)).sum(2) * truth["visible"]).sum() / truth["visible"].sum()
    return total


def right_bins(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of the visible joints whose best bins are within 2 pixels."""
    rows = [array.reshape(len(array), detection.JOINTS, -1) for array in outputs]
    places = np.stack([(row.argmax(2) + 0.5) / 2 for row in rows], 2)
    near = np.linalg.norm(places - truth["joints"], axis=2) < 2
    return float(near[truth["visible"] > 0.5].mean())


class Repairer(nn.Module):
    """An autoencoder of patches without defects: what it can't repeat is a defect."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv(1, 12, 3, 2, nn.ReLU), conv(12, 16, 3, 2, nn.ReLU), nn.Conv2d(16, 3, 3, 2, 1))
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(3, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ReLU()),
            *(nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, 32, 32]."""
        made: Tensor = self.up(self.down(image))
        return made


def textures(count: int, seed: int) -> Samples:
    """Waves of one direction; in the samples to judge, half have a small scratch."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    phase, wide, light = (random.uniform(low, high, (count, 1, 1)) for low, high in ((0, 6), (0.5, 0.7), (0.2, 0.4)))
    images = 0.5 + light * np.sin(x * wide + phase) + random.normal(0, 0.04, (count, 32, 32))
    defect = np.zeros(count, np.int64)
    for number in range(0, count if seed == 9 else 0, 2):
        left, top, turn = *random.uniform(6, 26, 2), random.uniform(0, np.pi)
        along = (x - left) * np.cos(turn) + (y - top) * np.sin(turn)
        across = (x - left) * np.sin(turn) - (y - top) * np.cos(turn)
        images[number][(abs(along) < 5) & (abs(across) < 1)] += random.choice([-0.15, 0.15])
        defect[number] = 1
    pictures_ = images[:, None].astype(np.float32)
    return Samples({"image": pictures_}, {"defect": defect, "picture": pictures_})


def right_defects(outputs: Sequence[Array], truth: Arrays) -> float:
    """Mean of the shares of good and of bad pictures that are recognised, by the largest blurred error."""
    errors = np.square(outputs[0].reshape(truth["picture"].shape) - truth["picture"])[:, 0]
    blurred = sum(errors[:, i : 28 + i, j : 28 + j] for i in range(5) for j in range(5))
    largest = np.asarray(blurred).reshape(len(errors), -1).max(1)
    says, is_bad = largest > _GOOD, truth["defect"] == 1
    return float((says[is_bad].mean() + (~says[~is_bad]).mean()) / 2)


# Text, sound and series ----------------------------------------------------------------------------------------------


class LogReader(nn.Module):
    """Time-major log-probabilities, as torch's CTC loss takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = sequences.Reader(False)

    def forward(self, image: Tensor) -> Tensor:
        """[steps, n, 11]."""
        steps: Tensor = self.reader(image).permute(1, 0, 2)
        return steps.log_softmax(2)


def log_text_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """CTC."""
    steps = network(inputs[0])
    lengths = torch.full((steps.shape[1],), steps.shape[0])
    return functional.ctc_loss(steps, truth["text"], lengths, (truth["text"] > 0).sum(1))


class LayeredMasker(nn.Module):
    """A frame and the states of two GRU layers [layers, n, 24] in, a mask and the next states out."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.cell, self.last = nn.Linear(24, 24), nn.GRU(24, 24, 2), nn.Linear(48, 24)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mask [n, bands], states [2, n, 24]."""
        features = torch.relu(self.given(torch.log(0.05 + frame)))
        first = torch.stack([features])
        made, state = self.cell(first, state)
        return self.last(torch.cat([features, made[0]], 1)).sigmoid(), state


def layered_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error of the masked spectrum over all steps."""
    state, made = torch.zeros(2, len(inputs[0]), 24), []
    for step in range(inputs[0].shape[1]):
        output, state = network(inputs[0][:, step], state)
        made.append(output)
    return 100 * functional.mse_loss(torch.stack(made, 1) * inputs[0], truth["clean"])


class Exits(nn.Module):
    """Classes of words after the first block, and at the end: an app stops at the first one that is sure."""

    def __init__(self) -> None:
        super().__init__()

        def block(given: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(given, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())

        self.first, self.second = block(1), nn.Sequential(block(24), block(24))
        self.early, self.late = (
            nn.Sequential(nn.AdaptiveAvgPool2d(sizes), nn.Flatten(), nn.Linear(24 * sizes[0] * sizes[1], 6))
            for sizes in ((4, 4), (2, 3))
        )

    def forward(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Two arrays of logits."""
        features = self.first(spectrum)
        return self.early(features), self.late(self.second(features))


def exit_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of both."""
    early, late = network(inputs[0])
    return functional.cross_entropy(early, truth["label"]) + functional.cross_entropy(late, truth["label"])


def right_exits(outputs: Sequence[Array], truth: Arrays) -> float:
    """Share of right answers, of the first exit with a probability above 0.9, else the last."""
    early, late = (array.reshape(len(truth["label"]), -1).astype(np.float64) for array in outputs)
    odds = np.exp(early - early.max(1, keepdims=True))
    is_sure = odds.max(1) / odds.sum(1) > 0.9
    return float((np.where(is_sure, early.argmax(1), late.argmax(1)) == truth["label"]).mean())


class SeriesForecaster(nn.Module):
    """The next 8 values of three series from 36, on top of the last values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv1d(24, 24, 5, 2, 2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(216, 64), nn.ReLU(), nn.Linear(64, 24)),
        )

    def forward(self, past: Tensor) -> Tensor:
        """[n, 8 steps, 3 series], as the input has them."""
        level = past[:, -1:]
        made = self.layers((past - level).transpose(1, 2) / 5).view(-1, 3, 8)
        future: Tensor = level + made.transpose(1, 2)
        return future


def rough_series(count: int, seed: int) -> Samples:
    """Random walks with a common period: most of the future can't be known."""
    random = np.random.default_rng(seed)
    time = np.arange(44)[:, None]
    walk = random.normal(0, 0.4, (count, 44, 3)).cumsum(1)
    waves = random.uniform(0.5, 2, (count, 1, 3)) * np.sin(time * np.pi / 6 + random.uniform(0, 6, (count, 1, 1)))
    values = (random.uniform(10, 20, (count, 1, 3)) + walk + waves + random.normal(0, 0.2, walk.shape)).astype(
        np.float32
    )
    return Samples({"past": values[:, :36]}, {"future": values[:, 36:]})


_LAYERED: Final[dict[str, Any]] = {
    "states": {"state": 1},
    "state_sizes": {"state": (2, 0, 24)},
    "evaluation": 24,
    "calibration": 24,
}
TASKS: Final = (
    Task(
        *("detection, offsets and Softmax", OffsetDetector, detection.shapes, offset_loss),
        *(ap_of_offsets, "AP50", _SHAPES),
        steps=700,
    ),
    Task(
        *("detection, maps of centres", CentreDetector, detection.shapes, centre_loss),
        *(ap_of_centres, "AP70", _PLACED),
        steps=700,
    ),
    Task("segmentation, Sigmoid", Binary, foreground, foreground_loss, iou_of_foreground, "mean IoU", _OVERLAP),
    Task("pose, bins", BinnedPose, detection.figures, binned_loss, right_bins, "PCK", _PLACES, steps=400),
    Task(
        *("defects by reconstruction", Repairer, textures, pictures.picture_loss, right_defects, "balanced", _ANSWERS),
        steps=500,
        evaluation=240,
    ),
    Task(
        *("OCR, log-probabilities", LogReader, sequences.lines, log_text_loss),
        *(scores.characters_batch_first, "characters", _CHARACTERS),
    ),
    Task(
        *("speech enhancement, layers of states", LayeredMasker, sequences.framewise_voice, layered_loss),
        *(scores.clean_snr, "SNR", _DECIBELS),
        **_LAYERED,
    ),
    Task(
        *("keyword spotting, two exits", Exits, sequences.words, exit_loss, right_exits, "top-1", _ANSWERS),
        evaluation=480,
    ),
    Task(
        *("forecasting, rough series", SeriesForecaster, rough_series, sequences.series_loss),
        *(scores.forecast_error, "-RMSE", _TWENTIETH),
        steps=600,
    ),
)
