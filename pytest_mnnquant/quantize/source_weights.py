"""The weights of a float model made from a file: broken ones must be blamed on the source, not on MNN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pytest_mnnquant.mnnfile.model import BadModel, Floats, Model
from pytest_mnnquant.sources.spec import SourceError


def require_finite(model: Model, source: Path) -> None:
    """Raise `SourceError` that names `source` if weights, biases or vectors of normalizations are not finite."""
    for name, values in _weights(model):
        if not np.isfinite(values).all():
            raise SourceError(
                f"{source}: the weights of {name} hold NaN or infinity: the model itself is broken",
                "export the weights of a training that did not diverge",
            )


def _weights(model: Model) -> Iterator[tuple[str, Floats]]:
    try:
        yield from ((op.name, model.decoded(op)) for op in model.convolutions)
        yield from model.vectors().items()
    except BadModel:  # The checks of the file report it.
        return
