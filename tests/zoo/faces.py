"""The 200 faces and non-faces that ship with scikit-image (from Labeled Faces in the Wild, Huang et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tests.zoo.test_real_networks import file_of

# The order in which MTCNN's nets answer: their class 1 is a face.
NO_FACE, FACE = 0, 1


@dataclass(frozen=True)
class Patches:
    """Patches as MTCNN takes them, shape [samples, 3, size, size] in -1..1, and their classes, shape [samples]."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def every_second(self, first: int) -> Patches:
        """One half of the patches, with as many faces as non-faces."""
        return Patches(self.images[first::2], self.labels[first::2])


def patches(size: int) -> Patches:
    """All 200 at a net's size; skips the test where scikit-image is not installed."""
    grey = np.load(file_of("skimage", "data", "lfw_subset.npy"))  # [200, 25, 25] in 0..1, the faces first
    levels = torch.tensor(grey[:, None] * 255, dtype=torch.float32)
    scaled = torch.nn.functional.interpolate(levels, size=(size, size), mode="bilinear", antialias=True)
    images = ((scaled - 127.5) / 128).expand(-1, 3, -1, -1)
    labels = np.where(np.arange(len(grey)) < len(grey) // 2, FACE, NO_FACE)
    return Patches(np.ascontiguousarray(images.numpy()), labels.astype(np.int64))


def overlap(boxes: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Intersection over union of the boxes that two nets answer, shape [samples].

    Answers, shape [samples, 4], are how far the face's corners lie from the patch's, in patch sizes.
    """
    patch = np.array([0.0, 0.0, 1.0, 1.0])
    ours, theirs = patch + boxes.astype(np.float64), patch + others.astype(np.float64)
    low, high = np.maximum(ours[:, :2], theirs[:, :2]), np.minimum(ours[:, 2:], theirs[:, 2:])
    shared = _area(np.concatenate([low, high], axis=1))
    return np.asarray(shared / (_area(ours) + _area(theirs) - shared))


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1))
