"""The weights of a float model made from a file: broken ones must be blamed on the source, not on MNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model
from pytest_mnnquant.sources.spec import SourceError


def require_finite(model: Model, source: str | Path) -> None:
    """Raise `SourceError` that names `source` if weights, biases or vectors of normalizations are not finite.

    Constants may hold infinity, as masks do, but not NaN.
    """
    for name, values in _weights(model):
        if not np.isfinite(values).all():
            raise SourceError(
                f"{source}: the weights of {name} hold NaN or infinity: the model itself is broken",
                "export the weights of a training that did not diverge",
            )


def _weights(model: Model) -> Iterator[tuple[str, Floats]]:
    for op in model.ops:
        with suppress(BadModel):  # The checks of the file report it.
            if len(op.weights) == 1:
                values = model.decoded(op)
                yield op.name, values[~np.isinf(values)] if op.kind == "Const" else values
    with suppress(BadModel):
        yield from model.vectors().items()
