"""Converts an `.onnx`, `.tflite` or `.mnn` file to a float `.mnn` model, and proves that both compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, MNN_SOURCE, ONNX, TFLITE, Step
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.metrics.agreement import Agreement
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.quantize import batch_difference, file_states
from pytest_mnnquant.quantize.conversion_proof import is_proven, proof_from_file, proof_samples
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.file_batches import TriedBatch, try_batch
from pytest_mnnquant.quantize.mnn_source import float_of_mnn, proof_of_mnn
from pytest_mnnquant.quantize.prepared import FLOAT, Choices, Prepared
from pytest_mnnquant.quantize.source_weights import require_finite
from pytest_mnnquant.quantize.unread_inputs import read_data
from pytest_mnnquant.runtime.source_runtime import RUNTIMES
from pytest_mnnquant.sources.model_fit import require_fit
from pytest_mnnquant.sources.onnx_data import external_files
from pytest_mnnquant.sources.onnx_file import inputs_of_any_shape, integer_weights, require_float
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError, Spec
from pytest_mnnquant.sources.state_names import require_names
from pytest_mnnquant.sources.tflite_file import lost_signatures, require_float_tflite

_FORMATS: Final = {".onnx": ONNX, ".tflite": TFLITE, ".mnn": MNN_SOURCE}


def prepare_file(spec: Spec, choices: Choices, store: Store, say: Callable[[str], None]) -> Prepared:
    """The float model of a file, proven on real samples if there are any. Raises as `prepare` does."""
    assert spec.path is not None
    digest = "".join(file_digest(file) for file in (spec.path, *_beside(spec.path)))
    if spec.path.suffix == ".mnn":
        model = float_of_mnn(spec.path, digest, choices, store, say)
    else:
        _require_float(spec.path)
        say("converting to float")
        source = spec.path
        folder = store.folder(
            "float", {"source": digest}, lambda made: _convert_file(source, made / FLOAT, choices.timeout)
        )
        model = read_model(folder / FLOAT)
    try:
        require_finite(model, spec.path)
    except SourceError:
        _require_float_weights(spec.path)
        raise
    names = tuple(item.name for item in model.inputs)
    require_names(choices.states, names, model.output_names, spec.text)
    calibration = read_data(choices.calibration, "the calibration data", model, choices)
    evaluation = read_data(choices.evaluation, "the evaluation data", model, choices)

    any_shape = inputs_of_any_shape(spec.path) if spec.path.suffix == ".onnx" else frozenset()
    declared = tuple(item for item in model.inputs if item.name not in any_shape)

    def fitted(part: Dataset | None) -> Dataset | None:
        if part is None or not choices.states:
            return part and require_fit(part, declared)
        return file_states.with_states(model, part, choices.states, choices.timeout)

    calibration, evaluation = fitted(calibration), fitted(evaluation)
    data = evaluation or calibration
    tried = None if data is None else try_batch(model, data, choices.timeout)
    proof, unproven = _proof_of_file(spec.path, model, data, tried)
    if proof and not is_proven(proof):
        _require_float_weights(spec.path)
    return Prepared(
        spec,
        model,
        digest,
        calibration,
        evaluation,
        tried is None or tried.run.batched,
        proof,
        unproven,
        (Step(_FORMATS[spec.path.suffix], FLOAT_MNN, proof),) if proof else (),
        sample_run=tried.run if tried else None,
        axes=tried.options.axes if tried else SampleAxes(),
        states=choices.states,
        signatures=lost_signatures(spec.path) if spec.path.suffix == ".tflite" else (),
        batches=batch_difference.of_file(spec.path, model, data.head(proof_samples(data)), tried)
        if data and tried
        else None,
    )


def _require_float(path: Path) -> None:
    """Raise `QuantizedSource` for a file that another tool quantized."""
    if path.suffix == ".tflite":
        require_float_tflite(path)
    else:
        require_float(path)


def _require_float_weights(path: Path) -> None:
    """Raise `QuantizedSource` if an ONNX file stores weights as integers.

    MNN 3.6.1 reads uninitialized memory as their scales, except for one scale per channel of a Conv and one scale per
    tensor of a MatMul or Gemm.
    """
    if path.suffix == ".onnx" and (count := integer_weights(path)):
        raise QuantizedSource(
            f"{path.name} stores weights as integers ({count} DequantizeLinear), which MNN's converter misreads"
        )


def _beside(path: Path) -> tuple[Path, ...]:
    """The files with the weights of a model file. Raises `SourceError` if one of an ONNX file is missing."""
    if path.suffix == ".onnx":
        return external_files(path)
    weights = path.with_name(path.name + ".weight")
    return (weights,) if weights.is_file() else ()


def _convert_file(source: Path, output: Path, timeout: float) -> None:
    convert_twice(source, output, timeout=timeout)


def _proof_of_file(
    path: Path, model: Model, data: Dataset | None, tried: TriedBatch | None
) -> tuple[dict[str, Agreement] | None, str]:
    if path.suffix == ".mnn":
        return proof_of_mnn(path, model, data.head(proof_samples(data)) if data else {}, tried), ""
    if data is None or tried is None:
        kind = _FORMATS[path.suffix]
        return None, f"no data were given (--mnn-evaluation) to compare the float model with the {kind} model"
    makers = None
    if data_sized_outputs(model):
        names = model.tensor_names
        by_tensor = {names[tensor]: op.name for op in model.ops if not op.subgraph for tensor in op.outputs}
        makers = {name: by_tensor.get(name, name) for name in tried.run.outputs}
    return proof_from_file(RUNTIMES[path.suffix], path, data, tried.run, tried.options, makers=makers)
