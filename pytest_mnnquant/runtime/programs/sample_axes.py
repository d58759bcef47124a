"""From samples to batches of a model, and from its outputs to samples."""

from __future__ import annotations

from typing import Any


def as_batch(rows: Any, axis: Any) -> Any:
    """Samples, counted on the first axis, as an input that counts them on `axis`.

    None: the input is a single sample, without an axis for samples.
    """
    import numpy as np

    if axis is None:
        return np.array(rows[0])
    return np.ascontiguousarray(np.moveaxis(rows, 0, axis))


def as_samples(parts: list[Any], axis: Any, single: bool) -> Any:
    """The outputs of all batches as one array that counts samples on its first axis.

    `axis` counts samples in each output; None: unknown. `single`: each batch holds one sample; if its output does not
    begin with an axis of 1, the first axis is not the samples' (time steps, layers), and the outputs are stacked.
    """
    import numpy as np

    if axis is not None:
        return np.concatenate([np.moveaxis(np.atleast_1d(part), axis, 0) for part in parts])
    shapes = {part.shape for part in parts}
    if single and len(shapes) == 1 and next(iter(shapes))[:1] not in ((), (1,)):
        return np.stack(parts)
    return np.concatenate([np.atleast_1d(part) for part in parts])
