"""The matrix of architectures and recipes as a page of Markdown."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.catalogue import RULES

_HOW: Final = "python benchmarks/recipe_matrix.py FOLDER"
_INTRO: Final = """\
# Architectures and recipes

Every recipe on {count} small networks, with MNN's real tools. Made by a script, not by hand:

    {how}

{environment}.

The networks (`benchmarks/architectures.py`) are trained on the digits of `fixtures/`; recipes that calibrate get 320
training images, and everything is judged on the 600 held-out images against the float model.

- **coverage**: share of the float weight bytes that are stored as the recipe requires
- **ratio**: bytes of the float model / bytes of the quantized one
- **cosine**: mean cosine similarity of the outputs to the float model's
- **top-1**: of the quantized model (each table says the float model's); in a segmentation, of pixels
- **outcome**: `passed`, or the rules that checks fail by (all but latency, at their defaults): the gate holds such a
  model back, and `pytest-mnnquant explain CODE` says more. `open`: a check had no evidence. If MNN or a tool made no
  model, the reason.

Recipes that calibrate in PyTorch do so in train and in eval mode; one row stands for both if they have the same values.
"""


@dataclass(frozen=True)
class Cell:
    """One variant of one architecture.

    `codes` are those of findings that fail checks, `open_codes` those that leave one inconclusive; `reason` says why
    a variant or its metrics are missing. `left` names the layers that are not stored as requested, and why.
    """

    architecture: str
    recipe: str
    mode: str | None
    coverage: float | None = None
    ratio: float | None = None
    cosine: float | None = None
    top1: float | None = None
    codes: tuple[str, ...] = ()
    open_codes: tuple[str, ...] = ()
    reason: str = ""
    left: tuple[str, ...] = ()
    crash: str = ""
    seconds: float = 0.0

    @property
    def figures(self) -> tuple[str, ...]:
        """What the page shows of it."""
        percent = "" if self.coverage is None else f"{self.coverage:.1%}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        cosine, top1 = ("" if value is None else f"{value:.4f}" for value in (self.cosine, self.top1))
        return percent, ratio, cosine, top1, self.outcome

    @property
    def outcome(self) -> str:
        """What came of it, in words."""
        if self.crash:
            return f"**traceback of the plugin**: {self.crash.strip().splitlines()[-1]}"
        left_open = f"open: {', '.join(self.open_codes)}" if self.open_codes else ""
        return "; ".join(words for words in (", ".join(self.codes), left_open, self.reason) if words) or "passed"

    @property
    def mark(self) -> str:
        """What came of it, in a few characters."""
        if self.crash:
            return "**bug**"
        if self.coverage is None:
            return "none"
        codes = ", ".join(code.removeprefix("MNQ") for code in self.codes)
        return codes or ("open" if self.open_codes else "ok")


@dataclass(frozen=True)
class Rows:
    """All cells of one architecture, with its float model's bytes and top-1, and what it is."""

    architecture: str
    about: str
    float_bytes: int
    float_top1: float
    cells: tuple[Cell, ...]


def optional_versions() -> dict[str, str]:
    """Versions of packages that only some recipes need."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    return {name: version(name) for name in ("mnncompress",)}


def render(rows: Sequence[Rows], environment: str) -> str:
    """The whole page."""
    parts = [_INTRO.format(count=len(rows), how=_HOW, environment=environment), _overview(rows)]
    parts += [_section(row) for row in rows]
    return "\n".join(parts)


def _overview(rows: Sequence[Rows]) -> str:
    """Recipes x architectures, in a few characters each."""
    labels: dict[tuple[str, str | None], None] = {}
    for row in rows:
        labels |= {(cell.recipe, cell.mode): None for cell in row.cells}
    head = ["recipe", *(row.architecture.replace("_", " ") for row in rows)]
    found = {(row.architecture, cell.recipe, cell.mode): cell.mark for row in rows for cell in row.cells}
    lines = []
    for recipe in dict.fromkeys(recipe for recipe, _ in labels):
        modes = [mode for name, mode in labels if name == recipe]
        marks = {mode: [found.get((row.architecture, recipe, mode), "") for row in rows] for mode in modes}
        if len({tuple(mark) for mark in marks.values()}) == 1:
            lines.append([recipe, *marks[modes[0]]])
        else:
            lines += [[f"{recipe}-{mode}", *marks[mode]] for mode in modes]
    legend = (
        "`ok`: all checks pass; numbers: the rules (`MNQ...`) they fail by; `open`: one was inconclusive (MNN gives\n"
        "no trace of models with loops); `none`: the model could not be made, and the tables below say why.\n"
    )
    broken = sorted({code for row in rows for cell in row.cells for code in cell.codes})
    rules = "".join(f"- {code.removeprefix('MNQ')} {RULES[code].name}: {RULES[code].meaning}\n" for code in broken)
    return f"## At a glance\n\n{legend}\n{_table(head, lines)}\nThe rules by which cells fail:\n\n{rules}"


def _section(row: Rows) -> str:
    lines = []
    for recipe in dict.fromkeys(cell.recipe for cell in row.cells):
        cells = [cell for cell in row.cells if cell.recipe == recipe]
        if len({cell.figures for cell in cells}) == 1:
            lines.append([recipe, *cells[0].figures])
        else:
            lines += [[f"{recipe}[{cell.mode}]", *cell.figures] for cell in cells]
    head = ["recipe", "coverage", "ratio", "cosine", "top-1", "outcome"]
    title = f"## {row.architecture}\n\n{row.about}\nFloat: {row.float_bytes:,} bytes, top-1 {row.float_top1:.4f}.\n"
    left = next((cell.left for cell in row.cells if cell.recipe == "int8" and cell.left), ())
    notes = "".join(f"- {item.replace('|', '/')}\n" for item in left)
    return f"{title}\n{_table(head, lines)}" + (f"\nWhat `int8` leaves float:\n\n{notes}" if notes else "")


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"

    return line(head) + "|" + "---|" * len(head) + "\n" + "".join(line(cells) for cells in lines)
