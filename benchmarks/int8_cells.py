"""The results of `best_int8.py`: one JSON file per network and recipe."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True)
class Cell:
    """One variant. `value` is the metric of `label`, `reference` the float model's; both None if it was not made.

    `drop` is by how much the variant is worse, in the unit of the metric, with its 95 % interval; without labels it is
    1 - cosine, and the interval is that value. `seconds` to make it, `size` in bytes. `chosen` and `left_float` are
    those of `int8-best`. `unused` are the transformations that did not bring the outputs closer. `commit` is that of
    the code that measured; empty if unknown.
    """

    label: str = ""
    value: float | None = None
    reference: float | None = None
    drop: float = math.inf
    low: float = math.inf
    high: float = math.inf
    passes: bool = False
    seconds: float = 0.0
    size: int = 0
    sqnr_db: float = -math.inf
    chosen: str = ""
    left_float: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    reason: str = ""
    commit: str = ""

    @property
    def is_made(self) -> bool:
        """Whether the variant could be made and run."""
        return self.value is not None


class Cells:
    """The kept results in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder / "cells"

    def get(self, network: str, recipe: str) -> Cell | None:
        """The kept result; None if it was not measured."""
        path = self._path(network, recipe)
        if not path.is_file():
            return None
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tuples = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
        return Cell(**{**stored, **tuples})

    def keep(self, network: str, recipe: str, cell: Cell) -> None:
        """Keep a result."""
        path = self._path(network, recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(cell)), encoding="utf-8")

    def _path(self, network: str, recipe: str) -> Path:
        return self._folder / f"{network}, {recipe}.json"
