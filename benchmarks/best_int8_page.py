"""Writes docs/best-int8.md from the cells of `best_int8.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from int8_cells import Cell, Cells
from int8_networks import CASES, HEALTHY

OTHERS: Final = ("mnncompress", "mnnquant-kl", "mnnquant-admm", "mnnquant-ema")
PLAIN: Final = "int8"
SUFFIXES: Final = ("int8+equalized", "int8+scaled", "int8+corrected", "int8+rounded")
BEST: Final = "int8-best"
RECIPES: Final = (*OTHERS, PLAIN, *SUFFIXES, BEST)
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "best-int8.md"
#: A loss of a share, or of a cosine, that is too large if any recipe avoids it; 1 dB for SNR.
_POINT: Final = 0.01
_DECIBEL: Final = 1.0
_HEAD: Final = """\
# The best int8 that MNN can run

What each way to int8 loses, on networks that are trained in seconds on generated data or digits, and on real networks
from wheels of PyPI. Made by `python benchmarks/best_int8.py build/best --write`; how the suffixes work is in
[recipes](recipes.md#suffixes-that-keep-more-accuracy).

- A cell is the loss against the float model in the unit of the metric (points are hundredths of a share), with its
  95 % interval, as the gate measures it on held-out data. A negative loss is a gain. Without labels it is 1 - cosine to
  the float model's outputs, without an interval. **Bold**: the accuracy check passes. `-`: it can't be made; empty:
  not measured.
- The arithmetic is that of MNN's ARM kernels: an int8 MaxPool, which is wrong on x86, runs in an exact form
  ([targets](targets.md)). Its outputs equal those of the ARM kernels in every bit where both were compared.
- PyTorch models are calibrated in eval mode. Files of other frameworks can't be quantized by mnncompress.
"""


def write_page(cells: Cells) -> None:
    """Write the page from all kept cells."""
    rows = {name: {recipe: cells.get(name, recipe) for recipe in RECIPES} for name in CASES}
    known = {name: row for name, row in rows.items() if any(row.values())}
    parts = (_HEAD, _losses(known), _comparison(known), _choices(known), _costs(known), _healthy(cells), _origin(cells))
    PAGE.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


Row = Mapping[str, Cell | None]


def _losses(rows: Mapping[str, Row]) -> str:
    lines = _table(("network", "metric", "float", *(f"`{recipe}`" for recipe in RECIPES)))
    for name, row in rows.items():
        made = next((cell for cell in row.values() if cell and cell.is_made), Cell())
        value = "" if made.reference is None else f"{made.reference:.4g}"
        lines.append(_line((f"{name}: {CASES[name].about}", made.label, value, *map(_loss, row.values()))))
    return "\n".join(lines) + "\n"


def _loss(cell: Cell | None) -> str:
    if cell is None or not cell.is_made:
        return "-" if cell else ""
    factor = 100 if _is_share(cell) else 1
    text = f"{factor * cell.drop:.1f}"
    if cell.low < cell.high:
        text += f" ({factor * cell.low:.1f} to {factor * cell.high:.1f})"
    return f"**{text}**" if cell.passes else text


def _is_share(cell: Cell) -> bool:
    return cell.reference is not None and 0 <= cell.reference <= 1


def _is_worse(best: Cell, other: Cell) -> bool:
    """Whether `int8-best` loses more than another variant, beyond the intervals of both. No loss is below 0."""
    return other.is_made and best.low > max(0.0, other.drop) and best.drop > max(0.0, other.high)


def _comparison(rows: Mapping[str, Row]) -> str:
    """Where `int8-best` is worse than another recipe, or loses more than a point that another recipe keeps."""
    worse, lost = [], []
    for name, row in rows.items():
        best = row[BEST]
        if best is None:
            continue
        others = {recipe: cell for recipe, cell in row.items() if cell and cell.is_made and recipe != BEST}
        limit = _POINT if _is_share(best) else _DECIBEL
        worse += [f"{name} (`{recipe}`)" for recipe, cell in others.items() if _is_worse(best, cell)]
        if best.drop > limit:
            lost += [f"{name} (`{recipe}`)" for recipe, cell in others.items() if cell.drop <= limit]
    judged = sum(row[BEST] is not None for row in rows.values())
    return (
        f"`int8-best` on {judged} networks: it loses more than another recipe, beyond the intervals of both, on "
        f"{', '.join(worse) or 'none'}. It loses more than 1 point (1 dB)\nwhere another recipe does not on "
        f"{', '.join(lost) or 'none'}.\n"
    )


def _costs(rows: Mapping[str, Row]) -> str:
    recipes = (PLAIN, *SUFFIXES, BEST)
    lines = [
        "## What it costs",
        "",
        "Seconds to make the variant (`int8`: to calibrate and convert), and the size relative to plain `int8`,",
        "measured on a shared machine: compare them within a row. *unused*: a transformation was made, but not used,",
        "since it did not bring the outputs closer.",
        "",
        *_table(("network", *(f"`{recipe}`" for recipe in recipes))),
    ]
    for name, row in rows.items():
        plain = row[PLAIN]
        lines.append(_line((name, *(_cost(row[recipe], plain) for recipe in recipes))))
    return "\n".join(lines) + "\n"


def _cost(cell: Cell | None, plain: Cell | None) -> str:
    if cell is None or not cell.is_made:
        return "-" if cell else ""
    ratio = f", {cell.size / plain.size:.3f}" if plain and plain.size and cell is not plain else ""
    return f"{cell.seconds:.1f} s{ratio}" + (", unused" if cell.unused else "")


def _choices(rows: Mapping[str, Row]) -> str:
    lines = ["## What int8-best chose", "", *_table(("network", "recipe", "layers left float", "passes"))]
    for name, row in rows.items():
        cell = row[BEST]
        if cell is not None and cell.is_made:
            left = ", ".join(f"`{layer}`" for layer in cell.left_float) or "none"
            lines.append(_line((name, f"`{cell.chosen}`", left, "yes" if cell.passes else "no")))
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...]) -> list[str]:
    return [_line(head), "|---" * len(head) + "|"]


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _healthy(cells: Cells) -> str:
    """The SQNR of networks that are healthy as plain int8, with each suffix."""
    recipes = (PLAIN, *SUFFIXES)
    rows = {name: [cells.get(name, recipe) for recipe in recipes] for name in (*CASES, *HEALTHY)}
    healthy = {name: [cell for cell in row if cell and cell.is_made] for name, row in rows.items()}
    complete = {name: row for name, row in healthy.items() if len(row) == len(recipes) and row[0].passes}
    worst = min((cell.sqnr_db - row[0].sqnr_db, name) for name, row in complete.items() for cell in row[1:])
    failed = [name for name, row in complete.items() if not all(cell.passes for cell in row)]
    lines = [
        "## Healthy networks",
        "",
        "SQNR in dB of the worst output on held-out data, if plain `int8` passes. A suffix is used only if it",
        f"brings the outputs on calibration data closer. The largest loss on held-out data is {-worst[0]:.1f} dB",
        f"({worst[1]}); networks that fail with a suffix: {', '.join(failed) or 'none'}.",
        "",
        *_table(("network", *(f"`{recipe}`" for recipe in recipes))),
    ]
    lines += [_line((name, *(f"{cell.sqnr_db:.1f}" for cell in row))) for name, row in complete.items()]
    return "\n".join(lines) + "\n"


def _origin(cells: Cells) -> str:
    """Which commits measured the networks; several for a network whose cells are of different ones."""
    networks: dict[str, list[str]] = {}
    for name in (*CASES, *HEALTHY):
        made = {cell.commit or "an earlier one" for recipe in RECIPES if (cell := cells.get(name, recipe))}
        if made:
            networks.setdefault(" and ".join(sorted(made)), []).append(name)
    lines = ["## Commits", "", *_table(("measured at", "networks"))]
    lines += [_line((commits, "; ".join(names))) for commits, names in networks.items()]
    return "\n".join(lines) + "\n"
