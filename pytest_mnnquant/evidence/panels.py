"""Draws one sample as small panels: the float model's output, the quantized model's, and their difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.evidence.detections import boxes_of
from pytest_mnnquant.evidence.output_form import Form, Shown, channels_first, form_of
from pytest_mnnquant.evidence.png import png
from pytest_mnnquant.measurements.sample_views import Panel

Array = npt.NDArray[Any]
_MOST_PIXELS: Final = 96
_MOST_POINTS: Final = 192
_RGB: Final = 3
_GOLDEN: Final = 0.618033988749895
# A colour map that grows in lightness: black, violet, red, yellow, white.
_STOPS: Final = np.array([[0, 0, 4], [86, 15, 110], [187, 55, 84], [249, 142, 9], [252, 255, 164]])


def panels_of(shown: Shown) -> tuple[Panel, ...]:
    """The input if it is a picture, then float, quantized and difference side by side."""
    form = form_of(shown)
    pair = (_finite(channels_first(array)) for array in (shown.reference, shown.output))
    makers: dict[Form, Callable[[Shown, Array, Array], tuple[Panel, ...]]] = {
        Form.PICTURE: _pictures,
        Form.CHANNEL: _channel,
        Form.CLASSES: _class_maps,
        Form.BOXES: _boxes,
        Form.SPECTRUM: _spectra,
        Form.CURVE: _curves,
    }
    made = makers[form](shown, *pair)
    with_input = shown.picture is not None and form is not Form.BOXES
    return (*((_input(shown.picture),) if with_input and shown.picture is not None else ()), *made)


def _finite(array: Array) -> Array:
    """Values that are not finite as zeros, in a float output."""
    return np.asarray(np.where(np.isfinite(array), array, 0)) if array.dtype.kind == "f" else array


def _input(picture: Array) -> Panel:
    maps = _finite(channels_first(picture))
    return _painted("input", maps, *_bounds(maps), note="")


def _bounds(array: Array) -> tuple[float, float]:
    """The range of the values that count, without the outermost half percent."""
    low, high = np.quantile(array.astype(np.float64), (0.005, 0.995))
    return (float(low), float(high)) if high > low else (float(array.min()), float(array.max()))


def _grey(values: Array, low: float, high: float) -> Array:
    """Values as 0..255."""
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-30)
    return np.asarray(np.rint(scaled.clip(0, 1) * 255), np.uint8)


def _painted(title: str, maps: Array, low: float, high: float, note: str) -> Panel:
    """A picture [1 or 3, height, width] with values from `low` to `high`."""
    small = np.stack([_reduced(plane) for plane in maps[:_RGB]])
    pixels = np.moveaxis(_grey(small, low, high), 0, -1)
    pixels = pixels if pixels.shape[-1] == _RGB else pixels[..., 0]
    return Panel(title, png(pixels), pixels.shape[1], pixels.shape[0], note=note)


def _reduced(plane: Array) -> Array:
    """A plane with at most 96 pixels on a side: means of squares of equal size."""
    step = math.ceil(max(plane.shape) / _MOST_PIXELS)
    if step == 1:
        return plane.astype(np.float64)
    height, width = (size // step for size in plane.shape)
    if not height or not width:  # A strip that is thinner than a step.
        return np.asarray(plane[::step, ::step], np.float64)
    cut = plane[: height * step, : width * step].astype(np.float64)
    return np.asarray(cut.reshape(height, step, width, step).mean((1, 3)))


def _differing(difference: Array) -> Panel:
    """Blue below zero, red above, pale where nothing differs."""
    small = _reduced(difference)
    most = float(np.abs(small).max()) or 1.0
    shades = np.linspace(-1, 1, 255)[:, None]
    colours = np.where(shades < 0, [33, 102, 172], [178, 24, 43])
    palette = np.rint(247 + (colours - 247) * np.abs(shades))
    pixels = np.rint((small / most).clip(-1, 1) * 127 + 127).astype(np.uint8)
    note = f"blue {-most:.3g}, red {most:.3g}"
    return _indexed("difference", pixels, palette, note)


def _pictures(_: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    low, high = _bounds(reference)
    note = f"black {low:.3g}, white {high:.3g}"
    difference = (output.astype(np.float64) - reference).mean(0)
    return (
        _painted("float", reference, low, high, note),
        _painted("quantized", output, low, high, note),
        _differing(difference),
    )


def _channel(shown: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    """The plane in which the outputs differ most."""
    planes = [array.reshape(-1, *array.shape[-2:]) for array in (reference, output)]
    errors = np.square(planes[1].astype(np.float64) - planes[0]).sum((1, 2))
    worst = int(errors.argmax())
    first, second, difference = _pictures(shown, *(plane[worst : worst + 1] for plane in planes))
    name = f", channel {worst} of {len(errors)}"
    return tuple(
        Panel(panel.title, panel.png, panel.width, panel.height, note=panel.note + name)
        for panel in (first, second, difference)
    )


def _class_maps(_: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    classes = [array if array.dtype.kind in "iub" else array.argmax(0) for array in (reference, output)]
    classes = [array.reshape(-1, *array.shape[-2:])[0] for array in classes]
    step = math.ceil(max(classes[0].shape) / (_MOST_PIXELS + 32))
    first, second = (array[::step, ::step] for array in classes)
    numbers = np.unique(np.concatenate([first.ravel(), second.ravel()]))
    palette = np.array([colour_of(int(number)) for number in numbers[:256]])
    painted = [
        _indexed(title, np.searchsorted(numbers, array).clip(0, 255), palette, f"{np.unique(array).size} classes")
        for title, array in (("float", first), ("quantized", second))
    ]
    note = f"red: another class, {(classes[0] != classes[1]).mean():.1%}"
    return (*painted, _indexed("difference", first != second, np.array([[235, 235, 235], [178, 24, 43]]), note))


def _indexed(title: str, numbers: Array, palette: Array, note: str) -> Panel:
    height, width = numbers.shape
    return Panel(title, png(numbers.astype(np.uint8), palette), width, height, note=note)


def colour_of(number: int) -> tuple[int, int, int]:
    """The colour of a class: 0 is grey, neighbours are far apart."""
    if number == 0:
        return (96, 96, 96)
    hue = number * _GOLDEN % 1 * 6
    light = 0.95 if number % 2 else 0.75
    rise = [abs((hue + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]
    red, green, blue = (round(255 * light * (0.25 + 0.75 * min(max(value, 0.0), 1.0))) for value in rise)
    return red, green, blue


def _spectra(_: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    low, high = _bounds(reference)
    places = np.linspace(0, len(_STOPS) - 1, 256)
    palette = np.stack([np.interp(places, np.arange(len(_STOPS)), column) for column in _STOPS.T], 1)
    note = f"dark {low:.3g}, light {high:.3g}"
    made = []
    for title, array in (("float", reference), ("quantized", output)):
        made.append(_indexed(title, _grey(_reduced(array), low, high), palette, note))
    return (*made, _differing(output.astype(np.float64) - reference))


def _boxes(shown: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    assert shown.picture is not None
    maps = channels_first(shown.picture)
    base = _painted("", maps, *_bounds(maps), note="")
    found = boxes_of((shown.reference, shown.output), shown.scores, shown.picture)
    return tuple(
        Panel(title, base.png, base.width, base.height, boxes=boxes, note=f"{len(boxes)} objects")
        for title, boxes in zip(("float", "quantized"), found, strict=True)
    )


def _curves(_: Shown, reference: Array, output: Array) -> tuple[Panel, ...]:
    """Both as curves; of rows of few values, the column that differs most."""
    first, second, note = *(array.astype(np.float64) for array in (reference, output)), ""
    if first.ndim >= 2 and min(first.shape[-2:]) > 1:
        first, second = (array.reshape(-1, array.shape[-1]) for array in (first, second))
        first, second = (array if len(array) >= array.shape[1] else array.T for array in (first, second))
        worst = int(np.square(second - first).sum(0).argmax())
        note = f"column {worst} of {first.shape[1]}, "
        first, second = first[:, worst], second[:, worst]
    both = [_thinned(array.reshape(-1)) for array in (first, second)]
    difference = [_thinned((second - first).reshape(-1))]
    return (
        _plotted("float and quantized", both, f"{note}{first.size} values; quantized dashed"),
        _plotted("difference", difference, f"{note}quantized - float"),
    )


def _thinned(values: Array) -> Array:
    return np.asarray(values[np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).astype(int)])


def _plotted(title: str, curves: Sequence[Array], note: str) -> Panel:
    low, high = min(float(curve.min()) for curve in curves), max(float(curve.max()) for curve in curves)
    points = tuple(tuple(float(f"{value:.5g}") for value in curve) for curve in curves)
    return Panel(title, curves=points, low=low, high=high, note=f"{note}; {low:.3g} to {high:.3g}")
