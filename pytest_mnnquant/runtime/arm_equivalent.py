"""A copy of a model that computes on this machine the same values as the model on ARM."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_mnnquant.cache.temporary import temporary_prefix
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.pooling import expected_int8_pools, pools_right, write_exact_copy


def int8_pools(model: Model, run: Run) -> set[str]:
    """The pools that ran in int8: from the trace of the run, or without a trace (models with loops) from the file."""
    if run.trace is None:
        return expected_int8_pools(model)
    return {op.operator for op in run.trace if op.int8 and op.kind == "Pooling"}


@contextlib.contextmanager
def arm_equivalent(model: Model, run: Run) -> Iterator[tuple[Model, tuple[str, ...]]]:
    """Yield the copy and the names of its changed MaxPool operators; if no operator changes, the model itself.

    `run` is the model's run on this machine, whose trace shows the int8 operators. The copy is deleted with the
    context.
    """
    pools = int8_pools(model, run)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
        copy = Path(folder) / "exact.mnn"
        changed = write_exact_copy(model, pools, copy) if pools and not pools_right() else ()
        yield (read_model(copy) if changed else model), changed
