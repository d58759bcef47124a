"""Inputs that never change, although the model runs them in int8: states, caches and masks that were never fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.dataset import Dataset

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
_KINDS: Final = ("calibration", "evaluation")


def judge_constant_inputs(
    calibration: Dataset, evaluation: Dataset | None, quantized: Mapping[str, str], outputs: Mapping[str, Shape]
) -> list[Finding]:
    """A finding for each input that has one value in both sets and gets an int8 scale.

    `quantized` gives, by the name of an input, a layer that reads its codes. `outputs` are the shapes of a sample's
    outputs. An input of zeros with the shape of an output is a state: an error, since only the first step gets zeros.
    It is not if another input is a switch that is off, as `has_mask_input` of SAM is for its `mask_input`.
    """
    sets = [data for data in (calibration, evaluation) if data is not None]
    constant = [
        name for name in calibration.inputs if _is_constant([data.inputs[name] for data in sets if name in data.inputs])
    ]
    if len(constant) == len(calibration.inputs):  # Samples that are all identical are another finding.
        return []
    outputs = {} if any(_is_off(calibration.inputs[name]) for name in constant) else outputs
    findings, taken = [], set[str]()
    for name in constant:
        if name not in quantized:
            continue
        state = next((output for output in _alike(calibration.inputs[name], outputs) if output not in taken), "")
        taken.add(state)
        findings.append(_finding(name, [data for data in sets if name in data.inputs], quantized[name], state))
    return findings


def _alike(array: Array, outputs: Mapping[str, Shape]) -> list[str]:
    """The outputs that may be fed back to an input. States start from 0; another constant is a setting."""
    shape = _plain(array.shape[1:])
    return [output for output, other in outputs.items() if shape and _plain(other) == shape and not array.any()]


def _is_off(array: Array) -> bool:
    """Whether an input is a single 0 per sample."""
    return array[0].size == 1 and not array.any()


def _is_constant(arrays: list[Array]) -> bool:
    first = arrays[0][:1]
    return (
        sum(map(len, arrays)) > 1
        and all(array.shape[1:] == first.shape[1:] for array in arrays)
        and all(bool((array == first).all()) for array in arrays)
    )


def _plain(shape: Shape) -> Shape:
    """A shape without axes of 1, which exporters add and remove; empty for a single number."""
    return tuple(size for size in shape if size != 1)


def _finding(name: str, sets: list[Dataset], layer: str, output: str) -> Finding:
    sample = np.asarray(sets[0].inputs[name][0])
    value = f"{sample.min():g}" if sample.min() == sample.max() else "the same"
    where = " and ".join(f"all {data.samples:,} {kind} samples" for data, kind in zip(sets, _KINDS, strict=False))
    message = f"input {name!r} is {value} in {where}, and its int8 scale comes from this value"
    if not output:
        fix = f"give samples with the values that {name!r} has in the application, or ignore this for a real constant"
        return Finding("MNQ522", message, layer, fix=fix, as_warning=True)
    cause = Cause(
        "state-never-fed",
        f"output {output!r} has the shape of this input: it is a state, and only the first step gets this value",
    )
    fix = f"give sequences as samples and add --mnn-state={name}={output}"
    return Finding("MNQ522", message, layer, cause, fix)
