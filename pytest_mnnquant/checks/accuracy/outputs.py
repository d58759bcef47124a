"""Unusable outputs: missing, not finite, or independent of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.blocks import count_true, is_true_of_all, largest_of

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
# MNN outputs values above this if it computes from uninitialized memory; networks do not produce them.
# Of the largest value, for float32.
_ROUNDING: Final = 1e-6
_ABSURD: Final = 1e30


def broken(reference: Outputs, outputs: Outputs) -> list[Finding]:
    """A finding for each output that can't be compared with the float model's; samples are on the first axis."""
    findings = (_broken(name, array, outputs.get(name), outputs) for name, array in reference.items())
    return [finding for finding in findings if finding is not None]


def _broken(name: str, reference: Array, output: Array | None, outputs: Outputs) -> Finding | None:
    if output is None:
        return Finding("MNQ705", f"output {name!r} is missing; the model's outputs: {', '.join(outputs) or 'none'}")
    if output.shape != reference.shape:
        message = f"output {name!r} has shape {list(output.shape)}, the float model's has {list(reference.shape)}"
        return Finding("MNQ705", message)
    if not is_true_of_all(np.isfinite, reference):
        return Finding(
            "MNQ707",
            f"output {name!r}: {_share_bad(reference):.0%} of the float model's values are not finite",
            fix="fix the float model or the evaluation data first: a quantized model can't be judged against them",
        )
    if output.dtype.kind != "f":
        return None
    # Values this large in the float model too are masks (the lowest float), and intended.
    if not is_true_of_all(lambda ref, out: np.isfinite(out) & (~_is_absurd(out) | _is_absurd(ref)), reference, output):
        message = f"output {name!r}: {_share_bad(output):.0%} of the values are not finite (or above {_ABSURD:g})"
        return Finding("MNQ703", message)
    first = output[:1]
    if len(output) > 1 and is_true_of_all(lambda out: out == first, output) and not _is_constant(reference):
        message = f"output {name!r} is the same for all {len(output)} samples; the float model's is not"
        return Finding("MNQ704", message)
    if output[0].size > 1 and is_true_of_all(_is_flat, output) and not is_true_of_all(_is_flat, reference):
        message = f"output {name!r}: all {output[0].size} values of a sample are equal; the float model's are not"
        return Finding("MNQ706", message)
    return None


def _is_absurd(values: Array) -> npt.NDArray[np.bool_]:
    """Where values are too large to be meant, if their type can hold such values."""
    largest = float(np.finfo(values.dtype).max) if values.dtype.kind == "f" else np.inf
    return np.asarray(np.abs(values) > min(_ABSURD, largest))


def _share_bad(array: Array) -> float:
    return count_true(lambda block: ~np.isfinite(block) | _is_absurd(block), array) / array.size


def _is_constant(array: Array) -> bool:
    """Whether all samples are equal, but for the rounding of floats, which depends on the place in a batch."""
    first, least = array[:1].astype(np.float64), _ROUNDING * largest_of(array)
    if array.dtype.kind != "f":
        return is_true_of_all(lambda block: block == array[:1], array)
    return is_true_of_all(lambda block: np.abs(block - first) <= least, array)


def _is_flat(array: Array) -> bool:
    flat = array.reshape(len(array), -1)
    return bool((flat == flat[:, :1]).all())
