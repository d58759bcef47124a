"""The worst samples in the HTML report, as SVG: pictures in the page, boxes and curves drawn over them."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from pytest_mnnquant.measurements.sample_views import Box, Panel

_WIDTH, _HEIGHT = 200, 110
_SIDE: Final = 192


def drawing(panel: Panel, name: str) -> Markup:
    """A panel as an SVG element; `name` is its text for screen readers."""
    if panel.png:
        scale = max(1.0, _SIDE / max(panel.width, panel.height))
        width, height = round(panel.width * scale), round(panel.height * scale)
        inside = Markup('<image href="data:image/png;base64,{}" width="{}" height="{}"/>').format(
            panel.png, panel.width, panel.height
        )
        inside += Markup("").join(_box(box, panel) for box in panel.boxes)
        view = f"0 0 {panel.width} {panel.height}"
    else:
        width, height = _WIDTH, _HEIGHT
        inside = Markup("").join(_curve(values, panel, number) for number, values in enumerate(panel.curves))
        view = f"0 0 {_WIDTH} {_HEIGHT}"
    return Markup('<svg class="sample" role="img" aria-label="{}" width="{}" height="{}" viewBox="{}">{}</svg>').format(
        name, width, height, view, inside
    )


def _box(box: Box, panel: Panel) -> Markup:
    """A rectangle with its class; a title says its score."""
    left, top, size = box.left * panel.width, box.top * panel.height, max(panel.width, panel.height) / 16
    sides = left, top, max(0.0, box.width) * panel.width, max(0.0, box.height) * panel.height
    # A dark line below a light one is seen on every picture.
    rectangle = Markup("").join(
        Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(name, *sides)
        for name in ("below", "above")
    )
    text = Markup('<text x="{:.2f}" y="{:.2f}" font-size="{:.2f}">{}</text>').format(left, top, size, box.label)
    title = f"class {box.label}, score {box.score:.2f}"
    return Markup('<g class="box"><title>{}</title>{}{}</g>').format(title, rectangle, text)


def _curve(values: tuple[float, ...], panel: Panel, number: int) -> Markup:
    """A line from left to right; the second one is dashed."""
    span = (panel.high - panel.low) or 1.0
    step = _WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{place * step:.1f},{4 + (_HEIGHT - 8) * (panel.high - value) / span:.1f}"
        for place, value in enumerate(values)
    )
    return Markup('<polyline class="curve{}" points="{}"/>').format(number, points)
