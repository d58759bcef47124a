"""A model whose operators' tensors are read and overwritten while it runs; and values rounded to codes."""

from __future__ import annotations

import re
from typing import Any

from .session import Session


def rounded(values: Any, grid: Any) -> tuple[Any, int]:
    """The values after rounding to a tensor's codes, and the number of values outside of the codes' range.

    Without a grid: the values themselves.
    """
    import numpy as np

    if not grid:
        return values, 0
    scale, zero, low, high = (np.float32(number) for number in grid)
    codes = np.rint(values / scale) + zero
    return (np.clip(codes, low, high) - zero) * scale, int(((codes < low - 0.5) | (codes > high + 0.5)).sum())


def operator_name(info: Any) -> str:
    """The name of what runs, by the file: MNN numbers what it makes of a pool of one or three dimensions."""
    name, is_pool = str(info.getName()), info.getType().startswith("Pooling")
    return re.sub(r"_raster_\d+$", "", name) if is_pool else name


def energy(values: Any) -> float:
    """The sum of squares; infinite if a value is not finite."""
    import numpy as np

    flat = np.asarray(values, np.float64).reshape(-1)
    return float(flat @ flat) if np.isfinite(flat).all() else float("inf")


class ObservedModel:
    """A model whose operators' tensors are read and overwritten while it runs."""

    def __init__(self, job: dict[str, Any], path: str, names: dict[str, str]) -> None:
        self.session = Session(job, path)
        self._names = names

    def feed(self, batch: dict[str, Any]) -> None:
        """Copy one batch in, named as the float model's inputs."""
        self.session.feed({self._names[name]: array for name, array in batch.items()})

    def run(self, batch: dict[str, Any], before: Any = None, after: Any = None) -> None:
        """Run one batch; `before` and `after` get an operator's name and its input or output tensors."""
        self.feed(batch)

        def call(see: Any) -> Any:
            def callback(tensors: Any, info: Any) -> bool:
                if see is not None:
                    see(operator_name(info), tensors)
                return True

            return callback

        self.session.run_with_callbacks(call(before), call(after))

    def read(self, tensors: Any) -> list[Any]:
        """The values of tensors."""
        return [self.session.read(tensor) for tensor in tensors]
