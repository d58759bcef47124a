"""The proof that a float model computes what its source computes, step by step.

A PyTorch model becomes ONNX, and ONNX becomes a float `.mnn`. If onnxruntime is installed, each step has its own
metrics, which separate errors of the exporter, of the converter and of quantization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.measurements.conversion import FLOAT_MNN, ONNX, PYTORCH, Step
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.metrics.agreement import Agreement, agreement, is_same
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.inference import Arrays
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.onnxruntime import has_onnxruntime, run_onnx
from pytest_mnnquant.runtime.options import RunOptions

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
#: Samples that a proof is made on.
PROOF_SAMPLES: Final = 64
NOT_INSTALLED: Final = "onnxruntime is not installed to run the ONNX model (pip install 'pytest-mnnquant[onnx]')"


def name_outputs(model: Model, expected: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
    """PyTorch's outputs by their `names` in the export. Raises `ValueError` if the model has others."""
    if len(model.output_names) != len(expected):
        raise ValueError(f"the model returns {len(expected)} tensors, its ONNX export {len(model.output_names)}")
    lost = sorted(set(names) - set(model.output_names))
    if lost:
        raise ValueError(f"the ONNX export has no output {lost[0]!r}; its outputs: {', '.join(model.output_names)}")
    return dict(zip(names, expected, strict=True))


def compare_outputs(expected: Outputs, results: Outputs, model: str = "the float model") -> dict[str, Agreement]:
    """The agreement of each output. Raises `ValueError` if an output is missing or has another shape."""
    missing = sorted(set(expected) - set(results))
    if missing:
        raise ValueError(f"{model} has no output {missing[0]!r}; its outputs: {', '.join(sorted(results))}")
    return {name: agreement(_flat(array), _flat(results[name])) for name, array in expected.items()}


def _flat(array: Array) -> Array:
    return array if array.ndim == 2 else array.reshape(len(array), -1)


def is_proven(proof: Mapping[str, Agreement]) -> bool:
    """Whether every output agrees to float rounding."""
    return all(is_same(item) for item in proof.values())


def steps_from_pytorch(
    onnx: Path, inputs: Arrays, expected: Outputs, ran: Run, proof: dict[str, Agreement], options: RunOptions
) -> tuple[tuple[Step, ...], str]:
    """The steps through the ONNX export; or the single step without it, and the reason.

    `expected` are PyTorch's outputs on `inputs`, `ran` is the float model's run with `options`, `proof` compares the
    two.
    """
    direct = (Step(PYTORCH, FLOAT_MNN, proof),)
    if not has_onnxruntime():
        return direct, NOT_INSTALLED
    try:
        between = run_onnx(onnx, inputs, options)
        exported = compare_outputs(expected, between, "the ONNX export")
        converted = compare_outputs({name: between[name] for name in expected}, ran.outputs)
    except (NativeFailure, ValueError) as error:
        return direct, f"onnxruntime can't run the ONNX export: {first_line(error)}"
    return (Step(PYTORCH, ONNX, exported), Step(ONNX, FLOAT_MNN, converted)), ""


def proof_from_onnx(
    onnx: Path, inputs: Arrays, origin: str, ran: Run, options: RunOptions, *, is_sized: bool = False
) -> tuple[dict[str, Agreement] | None, str]:
    """The agreement of the float model's outputs with the ONNX model's; None with the reason if that can't run.

    `is_sized`: the size of some outputs depends on the data, so `ran` has other tensors in their place.
    """
    if not has_onnxruntime():
        return None, NOT_INSTALLED
    try:
        expected = run_onnx(onnx, inputs, options, tuple(ran.outputs) if is_sized else ())
    except NativeFailure as error:
        return None, f"onnxruntime can't run the ONNX model on {origin}: {first_line(error)}"
    if is_sized and not expected:
        return None, "the size of all outputs depends on the data, and no tensor before them has the ONNX model's name"
    return compare_outputs(expected, ran.outputs), ""


def first_line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
