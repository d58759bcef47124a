"""Recognises the boxes and scores of detectors in outputs, and takes the objects from them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.measurements.sample_views import Box

Array = npt.NDArray[Any]
_SCORE: Final = 0.25
_OVERLAP: Final = 0.5
_MOST: Final = 20
_LEAST_ROWS: Final = 8
_MOST_COLUMNS: Final = 128
_MOST_CHANNELS: Final = 4
# How far boxes may reach beyond the picture, as a share of it.
_BEYOND: Final = 0.5
_LARGEST_SCORES: Final = 1.001


def looks_like_boxes(array: Array, scores: Array | None, picture: Array | None) -> bool:
    """Whether an output, with the scores in another one if it has four columns, holds boxes in the input picture."""
    return picture is not None and not _is_map(array, picture) and _tables(array, scores) is not None


def _is_map(array: Array, picture: Array) -> bool:
    """Whether the output is a picture itself: its last axes have the proportions of the input's."""
    sides = picture.shape[-2:] if picture.shape[-1] > _MOST_CHANNELS else picture.shape[-3:-1]
    return array.ndim > 3 or (array.ndim == 3 and array.shape[-2] * sides[1] == array.shape[-1] * sides[0])


def _tables(array: Array, scores: Array | None) -> tuple[Array, Array, slice] | None:
    """Boxes [rows, 4], scores [rows, classes] and the columns of the scores, of one sample; None if not recognised."""
    rows = _as_rows(array)
    if rows is None:
        return None
    beside = rows[:, 4:] if rows.shape[1] > 4 else None if scores is None else _as_rows(scores, len(rows))
    columns = slice(0, 0) if beside is None else _score_columns(beside)
    if beside is None or columns.stop == columns.start or not _are_boxes(rows[:, :4]):
        return None
    return rows[:, :4], beside[:, columns], columns


def _score_columns(rows: Array) -> slice:
    """The first columns with values in 0..1: what is beside them are angles or points."""
    fits = (rows.min(0) >= 0) & (rows.max(0) <= _LARGEST_SCORES)
    places = np.flatnonzero(fits)
    if not places.size:
        return slice(0, 0)
    start = int(places[0])
    others = np.flatnonzero(~fits[start:])
    return slice(start, start + (int(others[0]) if others.size else len(fits) - start))


def _as_rows(array: Array, count: int | None = None) -> Array | None:
    """[rows, columns] of a table in either order; there are more rows than columns."""
    table = np.squeeze(array)
    if array.dtype.kind != "f" or not np.isfinite(table).all():
        return None
    if table.ndim == 1 and count == len(table):
        return table[:, None]
    if table.ndim != 2 or max(table.shape) < _LEAST_ROWS or min(table.shape) < 4 - 3 * (count is not None):
        return None
    is_turned = table.shape[0] < table.shape[1] if count is None else table.shape[0] != count
    table = table.T if is_turned else table
    has_rows = count is None or len(table) == count
    return table if has_rows and table.shape[1] <= _MOST_COLUMNS else None


def _are_boxes(boxes: Array) -> bool:
    """Boxes have sizes, and lie around the picture: in pixels, or in shares of it."""
    sizes = boxes[:, 2:] - boxes[:, :2] if _are_corners(boxes) else boxes[:, 2:]
    return bool((sizes >= 0).mean() > 0.95 and sizes.max() > 0 and np.ptp(boxes[:, :2]) > 0)


def _are_corners(boxes: Array) -> bool:
    """Whether a box is two corners, not a centre and a size: the second corner is always farther."""
    return bool((boxes[:, 2:] > boxes[:, :2]).all(1).mean() > 0.95)


def boxes_of(
    pair: tuple[Array, Array], scores: tuple[Array, Array] | None, picture: Array
) -> tuple[tuple[Box, ...], ...]:
    """The objects of the float and the quantized model; the form of the boxes is that of the float model's."""
    found = _tables(pair[0], scores[0] if scores else None)
    assert found is not None
    boxes, _, columns = found
    tables = (found[:2], _same_columns(pair[1], scores[1] if scores else None, columns))
    corners, unit = _are_corners(boxes), _unit(boxes, picture)
    return tuple(_objects(*table, corners=corners, unit=unit) if table else () for table in tables)


def _same_columns(array: Array, scores: Array | None, columns: slice) -> tuple[Array, Array] | None:
    """The quantized model's boxes and scores, whatever its values are; None if they are not finite."""
    rows = _as_rows(array)
    beside = None if rows is None else rows[:, 4:] if scores is None else _as_rows(scores, len(rows))
    return None if rows is None or beside is None else (rows[:, :4], beside[:, columns])


def _unit(boxes: Array, picture: Array) -> Array:
    """The width and height of the picture in the unit of the boxes: shares, its pixels, or those of a larger one."""
    height, width = picture.shape[-2:] if picture.shape[-1] > _MOST_CHANNELS else picture.shape[-3:-1]
    reach = np.quantile(boxes[:, :2], 0.99, axis=0)
    if reach.max() <= 1 + _BEYOND:
        return np.ones(2)
    times = max(1.0, float((reach / (width, height)).max()))
    return np.array([width, height]) * (1.0 if times < 1 + _BEYOND else 2.0 ** np.ceil(np.log2(times)))


def _objects(boxes: Array, scores: Array, *, corners: bool, unit: Array) -> tuple[Box, ...]:
    """Objects above the score, the best first, without those that overlap a better one."""
    classes = scores[:, :1] * scores[:, 1:] if _has_objectness(scores) else scores
    best, labels = classes.max(1), classes.argmax(1)
    low = boxes[:, :2] if corners else boxes[:, :2] - boxes[:, 2:] / 2
    high = boxes[:, 2:] if corners else boxes[:, :2] + boxes[:, 2:] / 2
    low, high = low / unit, high / unit
    chosen: list[int] = []
    for row in np.argsort(-best, kind="stable"):
        if best[row] <= _SCORE or len(chosen) == _MOST:
            break
        if all(_overlap(low, high, int(row), other) < _OVERLAP for other in chosen):
            chosen.append(int(row))
    return tuple(_box(low[row], high[row], int(labels[row]), float(best[row])) for row in chosen)


def _box(low: Array, high: Array, label: int, score: float) -> Box:
    left, top, right, bottom = (round(float(value), 4) for value in (*low, *high))
    return Box(left, top, right - left, bottom - top, label, round(score, 3))


def _has_objectness(scores: Array) -> bool:
    """Whether the first column is the score of any object: most rows have classes, but no object."""
    if scores.shape[1] < 3:
        return False
    others = scores[:, 1:].max(1)
    return bool(np.median(scores[:, 0]) < 0.1 < np.median(others))


def _overlap(low: Array, high: Array, first: int, second: int) -> float:
    inside = np.prod((np.minimum(high[first], high[second]) - np.maximum(low[first], low[second])).clip(0))
    whole = np.prod(high[first] - low[first]) + np.prod(high[second] - low[second]) - inside
    return float(inside / max(float(whole), 1e-12))
