"""How samples are shown: the form is chosen by shape, type and values, the panels are small, the worst come first."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.evidence.detections import boxes_of
from pytest_mnnquant.evidence.output_form import Form, Shown, form_of
from pytest_mnnquant.evidence.panels import panels_of
from pytest_mnnquant.evidence.png import png
from pytest_mnnquant.evidence.sample_views import by_difference, shown_of, worst_of

Array = npt.NDArray[Any]
RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.random((3, 64, 64)).astype(np.float32)
#: The most bytes of one sample with all its panels.
MOST_BYTES = 100_000


def smooth(*shape: int) -> Array:
    places = np.arange(np.prod(shape)).reshape(shape)
    return np.sin(places / 50).astype(np.float32)


def class_scores(classes: int = 4) -> Array:
    """Scores of a map: each quarter of the plane has its class."""
    chosen = (np.arange(32)[:, None] // 16 * 2 + np.arange(32) // 16) % classes
    return np.stack([np.where(chosen == number, 6.0, -3.0) for number in range(classes)]).astype(np.float32)


def rows(count: int = 40, times: float = 1.0, score: float = 0.9) -> Array:
    """Rows of centre, size and two class scores: one object at (20, 30), the rest without a score."""
    table = np.concatenate([RANDOM.uniform(10, 50, (count, 2)), RANDOM.uniform(4, 20, (count, 2))], 1) * times
    table = np.concatenate([table, np.full((count, 2), 0.01)], 1)
    table[7] = np.array([20 * times, 30 * times, 16 * times, 8 * times, 0.02, score])
    return table.astype(np.float32)


def decoded(text: str) -> tuple[int, int, int, bytes]:
    """Width, height, colour type and the rows of a PNG file."""
    data = base64.b64decode(text)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, body, head = 8, b"", (0, 0, 0)
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunk = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + chunk)
        if kind == b"IHDR":
            width, height, _, colour, *_ = struct.unpack(">IIBBBBB", chunk)
            head = (width, height, colour)
        body += chunk if kind == b"IDAT" else b""
        at += 12 + length
    return *head, zlib.decompress(body)


PEAKS = np.stack(
    [np.exp(-((np.arange(24)[:, None] - at) ** 2 + (np.arange(24) - 2 * at) ** 2) / 6) for at in (3, 5, 7, 9)]
).astype(np.float32)
ANGLED = np.insert(rows(), 4, 2.5, axis=1)
FORMS: dict[str, tuple[Shown, Form]] = {
    "a picture": (Shown(smooth(3, 40, 30), smooth(3, 40, 30), PICTURE), Form.PICTURE),
    "a grey picture in channels last": (Shown(smooth(40, 30, 1), smooth(40, 30, 1)), Form.PICTURE),
    "logits of classes": (Shown(class_scores(), class_scores()), Form.CLASSES),
    "two opposite classes": (Shown(class_scores(2), class_scores(2)), Form.CLASSES),
    "class numbers": (Shown(class_scores().argmax(0), class_scores().argmax(0)), Form.CLASSES),
    "class numbers with an axis of one": (
        Shown(class_scores().argmax(0)[None], class_scores().argmax(0)),
        Form.CLASSES,
    ),
    "heat maps": (Shown(PEAKS, PEAKS), Form.CHANNEL),
    "two channels of colour": (Shown(np.abs(smooth(2, 24, 24)), smooth(2, 24, 24)), Form.CHANNEL),
    "frames and bands": (Shown(smooth(30, 24), smooth(30, 24)), Form.SPECTRUM),
    "boxes with scores": (Shown(rows(), rows(), PICTURE), Form.BOXES),
    "boxes with the channels first": (Shown(rows().T, rows().T, PICTURE), Form.BOXES),
    "boxes with an angle": (Shown(ANGLED, ANGLED, PICTURE), Form.BOXES),
    "boxes with scores beside": (
        Shown(rows()[:, :4], rows()[:, :4], PICTURE, (rows()[:, 4:], rows()[:, 4:])),
        Form.BOXES,
    ),
    "rows without a picture": (Shown(rows(), rows()), Form.CURVE),
    "a map of the picture's shape": (Shown(np.abs(smooth(1, 32, 32)), smooth(1, 32, 32), PICTURE), Form.PICTURE),
    "a vector": (Shown(smooth(10), smooth(10)), Form.CURVE),
    "one value": (Shown(smooth(1), smooth(1)), Form.CURVE),
    "a scalar": (Shown(np.float32(1.5) + np.zeros(()), np.zeros(())), Form.CURVE),
    "a volume": (Shown(smooth(4, 9, 12, 12), smooth(4, 9, 12, 12)), Form.CHANNEL),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_follows_from_the_output(name: str) -> None:
    shown, form = FORMS[name]
    assert form_of(shown) is form


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_small_panels(name: str) -> None:
    shown, form = FORMS[name]
    panels = panels_of(shown)
    titles = [panel.title for panel in panels]
    if form is Form.CURVE:
        assert titles[-2:] == ["float and quantized", "difference"]
        assert all(np.isfinite(value) for panel in panels[-2:] for curve in panel.curves for value in curve)
    elif form is Form.BOXES:
        assert titles == ["float", "quantized"]
    else:
        assert titles[-3:] == ["float", "quantized", "difference"]
    assert (titles[0] == "input") == (shown.picture is not None and form is not Form.BOXES)
    for panel in panels:
        if panel.png:
            assert decoded(panel.png)[:2] == (panel.width, panel.height)
            assert max(panel.width, panel.height) <= 128


def test_a_large_photo_stays_small() -> None:
    noise = RANDOM.random((3, 700, 501)).astype(np.float32)
    panels = panels_of(Shown(noise, noise + 0.1, noise))
    assert sum(len(panel.png) for panel in panels) < MOST_BYTES
    strip = RANDOM.random((1, 8, 4000)).astype(np.float32)
    assert all(panel.png for panel in panels_of(Shown(strip, strip)))


def test_values_that_are_not_finite_can_be_shown() -> None:
    for form in ("a picture", "a vector", "frames and bands", "boxes with scores"):
        shown = FORMS[form][0]
        broken = shown.output.copy()
        broken.reshape(-1)[::2] = np.nan
        assert panels_of(Shown(shown.reference, broken, shown.picture))


def test_the_colours_are_on_the_float_models_scale() -> None:
    dark = smooth(1, 16, 16)
    _, first, second = (decoded(panel.png)[3] for panel in panels_of(Shown(dark, dark * 0, dark))[1:])
    assert first != second
    _, float_panel, quantized, difference = panels_of(Shown(dark, dark, dark))
    assert float_panel.png == quantized.png
    assert set(decoded(difference.png)[3]) == {0, 127}  # The filter of each row, and no difference.


@pytest.mark.parametrize("times", [1, 8])
def test_objects_are_drawn_where_they_are(times: float) -> None:
    table = rows(times=times)
    (box,), none = boxes_of((table, rows(times=times, score=0.1)), None, PICTURE)
    reach = 64 if times == 1 else 512
    expected = (12 * times / reach, 26 * times / reach, 16 * times / reach, 8 * times / reach)
    assert (box.left, box.top, box.width, box.height) == pytest.approx(expected, abs=1e-3)
    assert (box.label, box.score) == (1, 0.9)
    assert none == ()


def test_corners_and_shares_are_recognised() -> None:
    table = rows()
    centre, half = table[:, :2].copy(), table[:, 2:4] / 2
    table[:, :2], table[:, 2:4] = (centre - half) / 64, (centre + half) / 64
    ((box,), _) = boxes_of((table, table), None, PICTURE)
    assert (box.left, box.top, box.width, box.height) == pytest.approx((12 / 64, 26 / 64, 16 / 64, 8 / 64), abs=1e-3)


def test_the_worst_samples_of_the_worst_output_come_first() -> None:
    reference = {"good": smooth(6, 10), "bad": smooth(6, 4)}
    output = {name: array.copy() for name, array in reference.items()}
    output["good"][1] += 0.01
    output["bad"][4] += 2
    output["bad"][2] += 1
    ranked = by_difference(reference, output)
    assert ranked.output == "bad"
    assert worst_of(ranked.errors)[:2] == [4, 2]
    assert len(worst_of(ranked.errors)) == 4


def test_integers_are_ranked_by_the_share_that_differs() -> None:
    classes = np.zeros((3, 8, 8), np.int64)
    other = classes.copy()
    other[2, :4] = 1
    ranked = by_difference({"ids": classes}, {"ids": other})
    assert ranked.errors.tolist() == [0, 0, 0.5]


def test_scores_are_found_beside_boxes_whichever_output_is_worse() -> None:
    boxes, scored = rows()[None, :, :4], rows()[None, :, 4:]
    outputs = {"boxes": boxes, "scores": scored}
    for name in outputs:
        shown = shown_of(name, 0, {"image": PICTURE[None]}, outputs, outputs)
        assert form_of(shown) is Form.BOXES


def test_a_png_has_its_pixels() -> None:
    pixels = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
    width, height, colour, body = decoded(png(pixels))
    assert (width, height, colour) == (7, 5, 0)
    assert body == b"".join(b"\0" + row.tobytes() for row in pixels)
    assert decoded(png(np.stack([pixels] * 3, -1)))[2] == 2
    assert decoded(png(pixels % 3, np.zeros((3, 3))))[2] == 3
