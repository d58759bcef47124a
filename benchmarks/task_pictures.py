"""Networks from picture to picture, to masks and to depth, on drawn scenes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import task_scores as scores
import torch
from task_detection import conv
from task_kinds import Line, Samples, Task
from torch import Tensor, nn
from torch.nn import functional

SIZE: Final = 48
_DECIBELS: Final = Line("more than 0.5 dB", 0.5)
_OVERLAP: Final = Line("more than 0.02 of mean IoU", 0.02)
_FIFTH: Final = Line("an error that rises by more than 20 %", 0.2, is_share_of_error=True)
Array = npt.NDArray[Any]


def _float32(array: Array) -> Array:
    return array.astype(np.float32)


class UNet(nn.Module):
    """Down twice and up twice, with the features of each size joined; the last layer is a 1x1 convolution."""

    def __init__(self, given: int, made: int, act: type[nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        self.first, self.second = conv(given, 12, 3, 2, act), conv(12, 24, 3, 2, act)
        self.middle = nn.Sequential(conv(24, 32, act=act), conv(32, 32, act=act))
        self.up, self.last = conv(44, 24, act=act), nn.Conv2d(24, made, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps [n, made, height, width]."""
        first = self.first(image)
        x = self.middle(self.second(first))
        x = self.up(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="bilinear"), first], 1))
        maps: Tensor = functional.interpolate(self.last(x), scale_factor=2.0, mode="bilinear")
        return maps


class Segmenter(UNet):
    """Logits of background and three shapes."""

    def __init__(self) -> None:
        super().__init__(3, 4)


class WithArgMax(nn.Module):
    """The same network, with class numbers as its output."""

    def __init__(self, network: nn.Module, axis: int = 1) -> None:
        super().__init__()
        self.network, self.axis = network, axis

    def forward(self, image: Tensor) -> Tensor:
        """Class numbers."""
        classes: Tensor = self.network(image).argmax(self.axis)
        return classes


def masks(count: int, seed: int) -> Samples:
    """Shapes on noise, mostly background, and the class of each pixel."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures = random.uniform(0.2, 0.8, (count, 3, 1, 1)) + random.normal(0, 0.08, (count, 3, SIZE, SIZE))
    mask = np.zeros((count, SIZE, SIZE), np.int64)
    for picture, classes in zip(pictures, mask, strict=True):
        for kind in (1, 2, 3):
            if random.random() < 0.5:
                (left, top), size = random.uniform(8, SIZE - 8, 2), random.uniform(4, 8)
                across, down = x - left, y - top
                inside = (
                    (abs(across) < size) & (abs(down) < size),
                    across**2 + down**2 < size**2,
                    (abs(down) < size) & (abs(across) < (down + size) / 2),
                )[kind - 1]
                picture[:, inside], classes[inside] = random.uniform(0, 1, (3, 1)), kind
    return Samples({"image": _float32(pictures.clip(0, 1))}, {"mask": mask})


def mask_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy; background counts less."""
    return functional.cross_entropy(network(inputs[0]), truth["mask"], torch.tensor([0.3, 1, 1, 1]))


class Depth(UNet):
    """Metres, from 1 to 12."""

    def __init__(self) -> None:
        super().__init__(3, 1, nn.ReLU)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, height, width]."""
        return 1 + 11 * super().forward(image).sigmoid()


def scenes(count: int, seed: int) -> Samples:
    """A floor that recedes, and boxes that stand on it, all in mist: what is far away is pale."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    pictures, depth = np.zeros((count, 3, SIZE, SIZE)), np.zeros((count, 1, SIZE, SIZE))
    for picture, metres in zip(pictures, depth, strict=True):
        metres[0] = np.clip(12 - 10 * (y - 12) / (SIZE - 12), 1.5, 12)
        colour = random.uniform(0, 0.5, (3, 1, 1)) * np.ones((3, SIZE, SIZE))
        for away in sorted(random.uniform(2, 9, random.integers(1, 5)), reverse=True):
            bottom = 12 + (12 - away) * (SIZE - 12) / 10
            size, left = 30 / away, random.uniform(0, SIZE)
            inside = (abs(x - left) < size) & (y < bottom) & (y > bottom - 3 * size)
            metres[0][inside], colour[:, inside] = away, random.uniform(0, 0.6, (3, 1))
        clear = np.exp(-metres / 6)
        picture[:] = colour * clear + 0.9 * (1 - clear) + random.normal(0, 0.02, picture.shape)
    return Samples({"image": _float32(pictures.clip(0, 1))}, {"depth": _float32(depth)})


def depth_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Relative distance."""
    depth: Tensor = network(inputs[0])
    return ((depth - truth["depth"]).abs() / truth["depth"]).mean()


class Matting(UNet):
    """Alpha, from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, height, width]."""
        return super().forward(image).sigmoid()


def mattes(count: int, seed: int) -> Samples:
    """A blob with a soft edge and strands before a background: alpha is 0 or 1 nearly everywhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    alpha = np.zeros((count, 1, SIZE, SIZE))
    for shape in alpha:
        left, top = random.uniform(16, SIZE - 16, 2)
        angle, away = np.arctan2(y - top, x - left), np.hypot(x - left, y - top)
        edge = random.uniform(9, 14) + 2 * np.sin(random.integers(3, 7) * angle + random.uniform(0, 6))
        shape[0] = 1 / (1 + np.exp((away - edge) / random.uniform(0.4, 1.5)))
    front, back = (random.uniform(low, low + 0.5, (count, 3, 1, 1)) for low in (0.5, 0.0))
    pictures = alpha * front + (1 - alpha) * back + random.normal(0, 0.04, (count, 3, SIZE, SIZE))
    unknown = (alpha > 0.02) & (alpha < 0.98)
    return Samples({"image": _float32(pictures.clip(0, 1))}, {"alpha": _float32(alpha), "unknown": _float32(unknown)})


def matte_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Distance, mostly at the edges."""
    alpha: Tensor = network(inputs[0])
    return ((alpha - truth["alpha"]).abs() * (1 + 4 * truth["unknown"])).mean()


def drawn(count: int, seed: int, size: int = SIZE) -> Array:
    """Pictures [n, 1, size, size] in 0..1: slopes, stripes and shapes with sharp edges."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    pictures = np.zeros((count, 1, size, size))
    for (picture,) in pictures:
        angle, slope = random.uniform(0, 2 * np.pi), random.uniform(-0.01, 0.01, 2)
        picture += random.uniform(0.3, 0.7) + slope[0] * (x - size / 2) + slope[1] * (y - size / 2)
        waves = np.sin((np.cos(angle) * x + np.sin(angle) * y) * random.uniform(0.4, 1.6))
        picture += random.uniform(0, 0.15) * waves * (x > random.uniform(0, size))
        for _ in range(random.integers(2, 6)):
            (left, top), wide = random.uniform(0, size, 2), random.uniform(2, 10)
            turned = random.uniform(-1, 1)
            disc = np.hypot(x - left, y - top) < wide
            box = (abs(x - left + turned * (y - top)) < wide) & (abs(y - top) < wide)
            picture[disc if random.random() < 0.5 else box] = random.uniform(0, 1)
    return _float32(pictures.clip(0, 1))


class SuperResolution(nn.Module):
    """Twice the size: what is added to bilinear interpolation, by PixelShuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 24, 5, padding=2), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, 2 height, 2 width]."""
        added: Tensor = self.layers(image)
        return functional.interpolate(image, scale_factor=2.0, mode="bilinear") + added


def halves(count: int, seed: int) -> Samples:
    """Pictures of half the size, and the whole ones."""
    large = drawn(count, seed)
    small = large.reshape(count, 1, SIZE // 2, 2, SIZE // 2, 2).mean((3, 5))
    return Samples({"image": small}, {"picture": large})


class Denoiser(nn.Module):
    """What is subtracted from the picture: its noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), conv(24, 24, act=nn.ReLU), conv(24, 24, act=nn.ReLU)),
            nn.Conv2d(24, 1, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """[n, 1, height, width]."""
        noise: Tensor = self.layers(image)
        return image - noise


def noisy(count: int, seed: int) -> Samples:
    """Pictures with noise, and without."""
    clean = drawn(count, seed)
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, clean.shape)
    return Samples({"image": _float32(clean + noise)}, {"picture": clean})


def picture_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error."""
    return 100 * functional.mse_loss(network(inputs[0]), truth["picture"])


class Colorizer(UNet):
    """Two colour channels in -1..1 of a grey picture."""

    def __init__(self) -> None:
        super().__init__(1, 2, nn.ReLU)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 2, height, width]."""
        return super().forward(image).tanh()


def greys(count: int, seed: int) -> Samples:
    """Sky, grass and discs: the colour follows from the place, the brightness and the texture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    grey, colours = np.zeros((count, 1, SIZE, SIZE)), np.zeros((count, 2, SIZE, SIZE))
    for (picture,), colour in zip(grey, colours, strict=True):
        horizon = random.uniform(14, 34)
        sky = y < horizon
        picture[:] = np.where(sky, random.uniform(0.6, 0.9), random.uniform(0.2, 0.5) + 0.1 * np.sin(2.2 * x))
        colour[:] = np.where(sky, np.array([-0.1, -0.5])[:, None, None], np.array([-0.4, 0.4])[:, None, None])
        for _ in range(random.integers(1, 4)):
            (left, top), wide = random.uniform(4, SIZE - 4, 2), random.uniform(3, 8)
            inside, light = np.hypot(x - left, y - top) < wide, random.uniform(0, 1)
            picture[inside] = light
            colour[:, inside] = np.array([[0.6 * light], [0.6 - 0.5 * light]])
    return Samples({"image": _float32(grey + random.normal(0, 0.01, grey.shape))}, {"colours": _float32(colours)})


def colour_loss(network: nn.Module, inputs: list[Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Square error."""
    return 10 * functional.mse_loss(network(inputs[0]), truth["colours"])


TASKS: Final = (
    Task("segmentation, logits", Segmenter, masks, mask_loss, scores.iou_of_logits, "mean IoU", _OVERLAP),
    Task(
        *("segmentation, ArgMax inside", Segmenter, masks, mask_loss),
        *(scores.iou_of_classes, "mean IoU", _OVERLAP, WithArgMax),
    ),
    Task("depth", Depth, scenes, depth_loss, scores.relative_depth, "-AbsRel", _FIFTH),
    Task("matting", Matting, mattes, matte_loss, scores.alpha_error, "-MAE x 1000", _FIFTH),
    Task("super-resolution", SuperResolution, halves, picture_loss, scores.psnr, "PSNR", _DECIBELS),
    Task("denoising", Denoiser, noisy, picture_loss, scores.psnr, "PSNR", _DECIBELS),
    Task("colorization", Colorizer, greys, colour_loss, scores.psnr_of_colours, "PSNR", _DECIBELS),
)
