"""The float model of a `.mnn` source: the file itself, or what the installed converter makes of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.metrics.agreement import Agreement
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.mnnfile.structure import differences
from pytest_mnnquant.quantize.conversion_proof import compare_outputs
from pytest_mnnquant.quantize.convert_twice import convert_twice
from pytest_mnnquant.quantize.file_batches import TriedBatch
from pytest_mnnquant.quantize.prepared import FLOAT, Choices
from pytest_mnnquant.runtime.inference import Arrays, run
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.sources.spec import QuantizedSource, SourceError

_PLAIN: Final = "give the model as it was before --saveExternalData, or its .onnx"


def float_of_mnn(path: Path, digest: str, choices: Choices, store: Store, say: Callable[[str], None]) -> Model:
    """The model that variants are quantized from. Raises `SourceError` for weights that are missing or quantized.

    External weights are put into the file, since MNN applies a params file before it reads them. The converter of
    another version of MNN leaves operators that the installed one removes, also when it quantizes. A file that is
    judged as given (`choices.is_given`) is compared with the unmodified source.
    """
    model = read_model(path)
    if model.external_missing:
        raise SourceError(
            f"{path}: {model.external_missing:,} bytes of its weights are missing from {path.name}.weight in the same "
            "folder"
        )
    is_external = model.external_path is not None
    if is_external:
        _require_float(path, model)
    elif choices.is_given or model.version == _installed():
        return model
    say("putting the weights into one file" if is_external else "converting with the installed version of MNN")
    folder = store.folder(
        "whole", {"source": digest}, lambda made: _convert(path, made / FLOAT, timeout=choices.timeout)
    )
    whole = read_model(folder / FLOAT)
    if whole.external_path is not None and choices.is_given:
        return model
    if whole.external_path is not None:
        left = next(op for op in whole.ops if any(weights.external for weights in op.weights))
        raise SourceError(
            f"{path}: MNN's converter loses the weights of {left.kind} {left.name}, which are in {path.name}.weight",
            _PLAIN,
            left.name,
        )
    return whole if is_external or differences(model, whole, match_layers(model, whole)) else model


def proof_of_mnn(path: Path, model: Model, inputs: Arrays, tried: TriedBatch | None) -> dict[str, Agreement]:
    """How the float model agrees with its `.mnn` source; empty if it is the source, or without data.

    Raises `NativeFailure` if they have other outputs.
    """
    if tried is None or model.path == path:
        return {}
    expected = run(read_model(path), inputs, tried.options).outputs
    try:
        return compare_outputs(expected, tried.run.outputs)
    except ValueError as error:
        what = f"converting {path.name} (float): MNN changes the outputs: {error}"
        raise NativeFailure(FailureKind.BAD_OUTPUT, what) from None


def _convert(path: Path, output: Path, timeout: float) -> None:
    convert_twice(path, output, timeout=timeout)


def _require_float(path: Path, model: Model) -> None:
    low = [op for op in model.layers if any(weights.storage is not Storage.FLOAT32 for weights in op.weights)]
    if low:
        raise QuantizedSource(f"{len(low)} of {len(model.layers)} layers of {path.name} are already quantized")


def _installed() -> str:
    try:
        return version("MNN")
    except PackageNotFoundError:
        return ""
