"""The proof that a float model computes what its source computes, step by step.

A PyTorch model becomes ONNX, and ONNX becomes a float `.mnn`. If onnxruntime is installed, each step has its own
metrics, which separate errors of the exporter, of the converter and of quantization.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.measurements.conversion import FLOAT_MNN, ONNX, PYTORCH, Step
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.metrics.agreement import Agreement, agreement, is_same, sqnr_db
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.arm_equivalent import arm_equivalent
from pytest_mnnquant.runtime.background import start_ahead
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.job_results import are_stored
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.source_runtime import ONNXRUNTIME, SourceRuntime
from pytest_mnnquant.sources.onnx_data import external_files

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
#: Samples that a proof is made on, at most; of large ones as many as have `_ELEMENTS`, but at least the fewest.
PROOF_SAMPLES: Final = 64
_FEWEST, _ELEMENTS = 16, 1 << 21


def proof_samples(data: Dataset) -> int:
    """The number of samples that a proof is made on: `PROOF_SAMPLES`, or fewer of large ones."""
    size = sum(math.prod(array.shape[1:]) for array in data.inputs.values())
    return max(_FEWEST, min(PROOF_SAMPLES, _ELEMENTS // max(1, size)))


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
    other = [name for name, array in expected.items() if _flat(array).shape != _flat(results[name]).shape]
    if other:
        shapes = [list(outputs[other[0]].shape) for outputs in (results, expected)]
        raise ValueError(f"output {other[0]!r} of {model} has shape {shapes[0]}, the source's {shapes[1]}")
    if not any(array.size for array in expected.values()):
        raise ValueError("no output holds a value")
    return {
        name: agreement(array, results[name].reshape(array.shape)) for name, array in expected.items() if array.size
    }


def _flat(array: Array) -> Array:
    return array if array.ndim == 2 else array.reshape(len(array), math.prod(array.shape[1:]))


def output_error(reference: Model, model: Model, inputs: Arrays, options: RunOptions) -> float:
    """The error of a model's outputs: the sum over outputs of squared error / squared reference, from 0.

    The model computes as on ARM. Infinite if an output is missing or has another size. Raises `NativeFailure`.
    """
    expected, ran = run(reference, inputs, options).outputs, run(model, inputs, options)
    with arm_equivalent(model, ran) as (exact, changed):
        computed = (run(exact, inputs, options) if changed else ran).outputs
    if any(name not in computed or computed[name].shape != array.shape for name, array in expected.items()):
        return math.inf
    return float(sum(10 ** (-sqnr_db(array, computed[name]) / 10) for name, array in expected.items()))


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
    if not ONNXRUNTIME.is_installed:
        return direct, ONNXRUNTIME.not_installed
    try:
        between = ONNXRUNTIME.run(onnx, inputs, options, tensor_files=external_files(onnx))
        exported = compare_outputs(expected, between, "the ONNX export")
        converted = compare_outputs({name: between[name] for name in expected}, ran.outputs)
    except (NativeFailure, ValueError) as error:
        return direct, f"onnxruntime can't run the ONNX export: {first_line(error)}"
    return (Step(PYTORCH, ONNX, exported), Step(ONNX, FLOAT_MNN, converted)), ""


def run_onnx_ahead(onnx: Path, inputs: Arrays, options: RunOptions) -> None:
    """Run an ONNX export in the background; `steps_from_pytorch` then finds the stored result."""
    if are_stored() and ONNXRUNTIME.is_installed:
        start_ahead(lambda: ONNXRUNTIME.run(onnx, inputs, options, tensor_files=external_files(onnx)))


def proof_from_file(
    runtime: SourceRuntime,
    source: Path,
    data: Dataset,
    ran: Run,
    options: RunOptions,
    *,
    makers: Mapping[str, str] | None = None,
) -> tuple[dict[str, Agreement] | None, str]:
    """The agreement of the float model's outputs with its source's; None with the reason if the source can't run.

    `ran` is the float model's run on the first samples of the data. With `makers`, the size of some outputs depends on
    the data, so `ran` has other tensors in their place: by their names, the operators that compute them. Raises
    `NativeFailure` if both have other outputs.
    """
    if not runtime.is_installed:
        return None, runtime.not_installed
    try:
        names = () if makers is None else tuple(dict.fromkeys((*ran.outputs, *makers.values())))
        files = external_files(source) if runtime is ONNXRUNTIME else ()
        expected = runtime.run(source, data.head(proof_samples(data)), options, names, files)
    except NativeFailure as error:
        return None, f"{runtime.name} can't run the {runtime.kind} model on {data.origin}: {first_line(error)}"
    if makers is not None:
        expected = _by_value(expected, ran.outputs, makers)
    if makers is not None and not expected:
        return None, f"the {runtime.kind} model has no tensor before its outputs, whose size depends on the data"
    computed = {name: array for name, array in expected.items() if name not in data.inputs}
    try:
        return compare_outputs(computed, ran.outputs), ""
    except ValueError as error:
        what = f"converting {source.name} (float): MNN changes the outputs: {error}"
        raise NativeFailure(FailureKind.BAD_OUTPUT, what, fix="report the model to MNN") from None


def _by_value(expected: Outputs, results: Outputs, makers: Mapping[str, str]) -> dict[str, Array]:
    """The source's tensor for each of `results`: that of its name, or that of its operator's name if it agrees.

    MNN's converter swaps the names of two tensors if it moves an operator before a Reshape.
    """
    pairs = {name: [expected[key] for key in (name, makers[name]) if key in expected] for name in results}
    return {
        name: next((array for array in arrays if _agrees(array, results[name])), arrays[0])
        for name, arrays in pairs.items()
        if arrays
    }


def _agrees(expected: Array, result: Array) -> bool:
    return _flat(expected).shape == _flat(result).shape and is_same(agreement(_flat(expected), _flat(result)))


def first_line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
