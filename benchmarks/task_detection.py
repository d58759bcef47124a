"""Detectors of drawn shapes, faces and figures, with their parts joined in one output as people ship them.

Boxes and points are in pixels of the camera's picture, which is larger than the network's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_scores as scores
import torch
from task_kinds import Line, Samples, Task
from torch import Tensor, nn
from torch.nn import functional

SIZE: Final = 48
CLASSES: Final = 3
JOINTS: Final = 5
_STRIDE: Final = 8
_CELLS: Final = SIZE // _STRIDE
_MOST: Final = 3
_LONG: Final = 700
_SHAPES: Final = Line("more than 0.03 of AP at an overlap of 0.5", 0.03)
_PLACES: Final = Line("more than 0.03 of the answers", 0.03)
Array = npt.NDArray[Any]


def conv(given: int, made: int, kernel: int = 3, stride: int = 1, act: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    return nn.Sequential(nn.Conv2d(given, made, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(made), act())


class Backbone(nn.Module):
    """Eighth of the picture's size, with a split and a concatenation in the middle."""

    def __init__(self, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2, act), conv(16, 24, 3, 2, act))
        self.branch = conv(24, 24, act=act)
        self.down = nn.Sequential(conv(48, 48, 3, 2, act), conv(48, 48, act=act))

    def forward(self, x: Tensor) -> Tensor:
        """Features [n, 48, 6, 6]."""
        x = self.stem(x)
        features: Tensor = self.down(torch.cat([x, self.branch(x)], 1))
        return features


def _centres() -> Tensor:
    line = (torch.arange(_CELLS) + 0.5) * _STRIDE
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])


class Detector(nn.Module):
    """A box and scores per cell. `rows` is what a cell has besides its classes: 4, or 5 with an angle."""

    centres: Tensor

    def __init__(self, rows: int = 4, classes: int = CLASSES, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.body = Backbone(act)
        self.box = nn.Sequential(conv(48, 32, act=act), nn.Conv2d(32, rows, 1))
        self.scores = nn.Sequential(conv(48, 32, act=act), nn.Conv2d(32, classes, 1))
        self.register_buffer("centres", _centres())

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes in pixels [n, 4, cells], what is left of the rows, and logits [n, classes, cells]."""
        features = self.body(image)
        raw, logits = self.box(features).flatten(2), self.scores(features).flatten(2)
        centre = self.centres + torch.tanh(raw[:, :2]) * _STRIDE
        return torch.cat([centre, torch.exp(raw[:, 2:4].clamp(-2, 2)) * 14], 1), raw[:, 4:], logits

    def forward(self, image: Tensor) -> Tensor:
        """Boxes, angles if there are any, and probabilities, joined on the channels."""
        boxes, angle, logits = self.parts(image)
        turned = [angle.sigmoid() * torch.pi] if angle.shape[1] else []
        return torch.cat([boxes * scores.CAMERA, *turned, logits.sigmoid()], 1)


class Separate(nn.Module):
    """The same detector with two outputs."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes, and probabilities."""
        boxes, _, logits = self.detector.parts(image)
        return boxes * scores.CAMERA, logits.sigmoid()


class AnchorDetector(nn.Module):
    """Two anchors per cell, each with a box, an objectness and classes, decoded inside."""

    centres: Tensor
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone()
        self.head = nn.Conv2d(48, 2 * (5 + CLASSES), 1)
        self.register_buffer("centres", _centres().T)
        self.register_buffer("anchors", torch.tensor([[10.0, 10.0], [18.0, 18.0]]).view(1, 2, 1, 2))

    def raw(self, image: Tensor) -> Tensor:
        """[n, 2 anchors, cells, 8]."""
        made: Tensor = self.head(self.body(image))
        return made.view(-1, 2, 5 + CLASSES, _CELLS * _CELLS).permute(0, 1, 3, 2)

    def boxes(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and sizes in pixels."""
        inside = raw[..., :4].sigmoid()
        return (inside[..., :2] * 2 - 1) * _STRIDE + self.centres, (inside[..., 2:] * 2) ** 2 * self.anchors

    def forward(self, image: Tensor) -> Tensor:
        """[n, anchors, 8]: centre, size, objectness, classes."""
        raw = self.raw(image)
        centre, size = self.boxes(raw)
        boxes = torch.cat([centre, size], 3) * scores.CAMERA
        return torch.cat([boxes, raw[..., 4:].sigmoid()], 3).view(-1, 2 * _CELLS * _CELLS, 5 + CLASSES)


def shapes(count: int, seed: int) -> Samples:
    """Squares, discs and triangles on noise: one to three per picture, none within another."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.uniform(0.2, 0.8, (count, 3, 1, 1)) + random.normal(0, 0.06, (count, 3, SIZE, SIZE))
    boxes, classes = np.zeros((count, _MOST, 4)), np.full((count, _MOST), -1)
    for picture, box, kinds in zip(pictures, boxes, classes, strict=True):
        for place in range(random.integers(1, _MOST + 1)):
            size, kind = random.uniform(9, 20), random.integers(CLASSES)
            left, top = random.uniform(size / 2, SIZE - size / 2, 2)
            if any(abs(left - a) < (size + c) / 2 and abs(top - b) < (size + c) / 2 for a, b, c, _ in box[:place]):
                continue
            across, down = x - left, y - top
            inside = (
                (abs(across) < size / 2) & (abs(down) < size / 2),
                across**2 + down**2 < size**2 / 4,
                (abs(down) < size / 2) & (abs(across) < (down + size / 2) / 2),
            )[kind]
            picture[:, inside] = random.uniform(0, 1, (3, 1))
            box[place], kinds[place] = (left, top, size, size), kind
    return _with_cells(pictures, {"boxes": boxes, "classes": classes})


def bars(count: int, seed: int) -> Samples:
    """Rotated bars, one or two per picture: centre, length, width, angle from 0 to pi."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.uniform(0.2, 0.8, (count, 3, 1, 1)) + random.normal(0, 0.05, (count, 3, SIZE, SIZE))
    real = np.zeros((count, _MOST, 5))
    for picture, rows in zip(pictures, real, strict=True):
        for place in range(random.integers(1, 3)):
            left, top = random.uniform(9, SIZE - 9, 2)
            if any(np.hypot(left - row[0], top - row[1]) < 20 for row in rows[:place]):
                continue
            long, wide, angle = random.uniform(13, 20), random.uniform(4, 6), random.uniform(0.2, np.pi - 0.2)
            along = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
            across = -(x - left) * np.sin(angle) + (y - top) * np.cos(angle)
            picture[:, (abs(along) < long / 2) & (abs(across) < wide / 2)] = random.uniform(0, 1, (3, 1))
            rows[place] = left, top, long, wide, angle
    classes = np.where(real[:, :, 2] > 0, 0, -1)
    return _with_cells(pictures, {"boxes": real[:, :, :4], "classes": classes, "oriented": real})


def _with_cells(pictures: Array, truth: dict[str, Array]) -> Samples:
    """The samples, and for training the number of the object in each cell: -1 for none."""
    cells = np.full((len(pictures), _CELLS * _CELLS), -1)
    for row, boxes, classes in zip(cells, truth["boxes"], truth["classes"], strict=True):
        for number in np.flatnonzero(classes >= 0):
            across, down = (int(np.clip(value // _STRIDE, 0, _CELLS - 1)) for value in boxes[number, :2])
            row[down * _CELLS + across] = number
    inputs = {"image": pictures.clip(0, 1).astype(np.float32)}
    return Samples(inputs, {**_as_float32(truth), "cells": cells})


def _as_float32(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def _at_cells(truth: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Which cells hold an object, and the values of that object."""
    cells, values = truth["cells"], truth[name]
    is_there = cells >= 0
    rows = values[torch.arange(len(values))[:, None], cells.clamp(min=0)]
    return is_there, rows


def detection_loss(network: Detector, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of the cells' scores, and the distance of the boxes of cells with an object."""
    boxes, angle, logits = network.parts(inputs[0])
    is_there, real = _at_cells(truth, "boxes")
    _, kinds = _at_cells(truth, "classes")
    target = functional.one_hot(kinds.clamp(min=0), logits.shape[1]).permute(0, 2, 1).float() * is_there[:, None]
    count = is_there.sum().clamp(min=1)
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / count
    loss = loss + 0.5 * (boxes.permute(0, 2, 1) - real)[is_there].abs().mean()
    if angle.shape[1]:
        _, rows = _at_cells(truth, "oriented")
        loss = loss + 4 * (angle[:, 0].sigmoid() * torch.pi - rows[..., 4])[is_there].abs().mean()
    return loss


def anchor_loss(network: AnchorDetector, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Like `detection_loss`; the anchor whose size is nearer belongs to the object."""
    raw = network.raw(inputs[0])
    centre, size = network.boxes(raw)
    is_there, real = _at_cells(truth, "boxes")
    _, kinds = _at_cells(truth, "classes")
    number = (real[..., 2] > 14).long()
    chosen = torch.stack([is_there & (number == anchor) for anchor in range(2)], 1)
    loss = 3 * functional.binary_cross_entropy_with_logits(raw[..., 4], chosen.float(), reduction="sum") / chosen.sum()
    boxes = torch.cat([centre, size], 3)[chosen]
    expected, classes = (array[:, None].expand(-1, 2, *array.shape[1:])[chosen] for array in (real, kinds))
    loss = loss + 0.5 * (boxes - expected).abs().mean()
    return loss + functional.binary_cross_entropy_with_logits(
        raw[..., 5:][chosen], functional.one_hot(classes, CLASSES).float()
    )


class Landmarks(nn.Module):
    """A confidence and five points in pixels, joined: [n, 11]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.ReLU)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48 * 36, 64), nn.ReLU())
        self.face, self.points = nn.Linear(64, 1), nn.Linear(64, 2 * JOINTS)

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logit of a face, and points in pixels."""
        features = self.head(self.body(image))
        return self.face(features), self.points(features) * 8 + SIZE / 2

    def forward(self, image: Tensor) -> Tensor:
        """Confidence, x and y of each point."""
        face, points = self.parts(image)
        return torch.cat([face.sigmoid(), points * scores.CAMERA], 1)


def faces(count: int, seed: int) -> Samples:
    """Ovals with eyes, nose and the corners of a mouth; a third of the pictures have an oval only, or nothing."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.uniform(0.1, 0.9, (count, 3, 1, 1)) + random.normal(0, 0.06, (count, 3, SIZE, SIZE))
    points, face = np.full((count, JOINTS, 2), SIZE / 2), np.zeros(count)
    offsets = np.array([[-0.4, -0.3], [0.4, -0.3], [0, 0.1], [-0.3, 0.5], [0.3, 0.5]])
    for number, picture in enumerate(pictures):
        kind, size, turn = random.random(), random.uniform(10, 15), random.uniform(-0.4, 0.4)
        centre = random.uniform(size + 1, SIZE - size - 1, 2)
        if kind > 0.15:
            picture[:, (x - centre[0]) ** 2 * 1.3 + (y - centre[1]) ** 2 < size**2] = random.uniform(0.4, 1, (3, 1))
        if kind > 0.35:
            turned = offsets @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            points[number], face[number] = centre + turned * size, 1
            for left, top in points[number]:
                picture[:, (x - left) ** 2 + (y - top) ** 2 < 3.5] = random.uniform(0, 0.3, (3, 1))
    return Samples({"image": pictures.clip(0, 1).astype(np.float32)}, _as_float32({"points": points, "face": face}))


def landmark_loss(network: Landmarks, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of the face, distance of the points of faces."""
    face, points = network.parts(inputs[0])
    away = (points.view(-1, JOINTS, 2) - truth["points"]).abs().mean((1, 2))
    return functional.binary_cross_entropy_with_logits(face[:, 0], truth["face"]) + 0.5 * (away * truth["face"]).mean()


class Pose(nn.Module):
    """Rows of x, y in pixels and visibility per joint: [n, 5, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.Hardswish)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48 * 36, 96), nn.ReLU(), nn.Linear(96, 3 * JOINTS))

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Places in pixels [n, 5, 2], logits of visibility [n, 5, 1]."""
        rows = self.head(self.body(image)).view(-1, JOINTS, 3)
        return rows[..., :2] * 8 + SIZE / 2, rows[..., 2:]

    def forward(self, image: Tensor) -> Tensor:
        """Places and visibility, joined."""
        places, visible = self.parts(image)
        return torch.cat([places * scores.CAMERA, visible.sigmoid()], 2)


class HeatMaps(nn.Module):
    """A map of half the picture's size per joint."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone(nn.ReLU)
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(48, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, JOINTS, 3, padding=1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[n, joints, 24, 24]."""
        maps: Tensor = self.up(self.body(image))
        return maps


def figures(count: int, seed: int) -> Samples:
    """Figures of lines: a head, two hands and two feet, each in a colour of its own; some joints are hidden."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.uniform(0.2, 0.7, (count, 1, 1, 1)) + random.normal(0, 0.05, (count, 3, SIZE, SIZE))
    joints, visible = np.zeros((count, JOINTS, 2)), np.ones((count, JOINTS))
    colours = np.array([[1, 0.2, 0.2], [0.2, 1, 0.2], [0.2, 0.2, 1], [1, 1, 0.1], [0.1, 1, 1]])
    rest = np.array([[0, -12], [-9, -2], [9, -2], [-6, 13], [6, 13]])
    for number, picture in enumerate(pictures):
        centre = random.uniform(18, SIZE - 18, 2)
        joints[number] = centre + rest + random.uniform(-4, 4, (JOINTS, 2))
        visible[number] = random.random(JOINTS) > 0.2
        for (left, top), colour, seen in zip(joints[number], colours, visible[number], strict=True):
            if seen:
                for part in np.linspace(0, 1, 24):
                    across, down = centre + part * (np.array([left, top]) - centre)
                    picture[:, (x - across) ** 2 + (y - down) ** 2 < 1.5] = 0.9
                picture[:, (x - left) ** 2 + (y - top) ** 2 < 6] = colour[:, None]
    maps = np.exp(-((np.arange(0.5, SIZE, 2) - joints[..., 0, None])[:, :, None] ** 2) / 8)
    maps = maps * np.exp(-((np.arange(0.5, SIZE, 2) - joints[..., 1, None])[..., None] ** 2) / 8)
    truth = {"joints": joints, "visible": visible, "maps": maps * visible[..., None, None]}
    return Samples({"image": pictures.clip(0, 1).astype(np.float32)}, _as_float32(truth))


def pose_loss(network: Pose, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Distance of visible joints, cross entropy of visibility."""
    places, visible = network.parts(inputs[0])
    away = (places - truth["joints"]).abs().mean(2)
    seen = functional.binary_cross_entropy_with_logits(visible[..., 0], truth["visible"])
    return seen + 0.5 * (away * truth["visible"]).mean()


def map_loss(network: HeatMaps, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square of the maps' error, mostly where they are not zero."""
    errors: Tensor = (network(inputs[0]) - truth["maps"]) ** 2
    return 10 * (errors * (1 + 30 * truth["maps"])).mean()


TASKS: Final = (
    Task(
        *("detection, anchor-free, joined", Detector, shapes, detection_loss),
        *(scores.ap_of_joined, "AP50", _SHAPES),
        steps=_LONG,
    ),
    Task(
        *("detection, anchor-free, two outputs", Detector, shapes, detection_loss),
        *(scores.ap_of_separate, "AP50", _SHAPES, Separate),
        steps=_LONG,
    ),
    Task(
        *("detection, anchor-based, joined", AnchorDetector, shapes, anchor_loss),
        *(scores.ap_of_anchors, "AP50", _SHAPES),
        steps=_LONG,
    ),
    Task(
        *("oriented boxes, joined", lambda: Detector(5, 1), bars, detection_loss),
        *(scores.ap_of_oriented, "AP50", _SHAPES),
        steps=400,
    ),
    Task(
        *("landmarks, joined", Landmarks, faces, landmark_loss, scores.right_landmarks, "right", _PLACES),
        steps=900,
    ),
    Task("pose, joined", Pose, figures, pose_loss, scores.right_joints, "right", _PLACES, steps=400),
    Task("pose, heat maps", HeatMaps, figures, map_loss, scores.right_peaks, "PCK", _PLACES, steps=250),
)
