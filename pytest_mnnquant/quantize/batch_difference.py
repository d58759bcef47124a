"""Models whose outputs change if several samples are fed at once: by MNN, or by the code of the model itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pytest_mnnquant.measurements.conversion import BatchDifference
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.metrics.agreement import is_same
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.conversion_proof import Outputs, compare_outputs, is_proven
from pytest_mnnquant.quantize.file_batches import TriedBatch
from pytest_mnnquant.runtime.inference import Arrays
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.source_runtime import RUNTIMES
from pytest_mnnquant.sources.onnx_file import takes_any_batch
from pytest_mnnquant.sources.tflite_file import takes_any_tflite_batch


def batch_difference(
    expected: Outputs, alone: Outputs, together: Outputs, *, in_source: bool = False
) -> BatchDifference | None:
    """The output that is right for single samples and most wrong for several; None if there is none.

    `expected` are the source's outputs of single samples; `in_source`: it computes the same for several.
    """
    try:
        singles, several = (compare_outputs(expected, outputs) for outputs in (alone, together))
    except ValueError:  # Other shapes: the model does not take several samples at all.
        return None
    wrong = [name for name in expected if is_same(singles[name]) and not is_same(several[name])]
    if not wrong:
        return None
    worst = max(wrong, key=lambda name: several[name].relative_error)
    return BatchDifference(worst, singles[worst], several[worst], in_source)


def of_file(path: Path, model: Model, inputs: Arrays, tried: TriedBatch) -> BatchDifference | None:
    """The difference of a file that declares batches of any size; its own runtime shows what it computes itself.

    `model` is its float model. A `.mnn` file has no other runtime.
    """
    if tried.together is None or not _takes_any_batch(path, model):
        return None
    alone, together = tried.run.outputs, tried.together.outputs
    runtime = RUNTIMES.get(path.suffix)
    if runtime is None or not runtime.is_installed:
        return batch_difference(alone, alone, together)
    try:
        expected = runtime.run(path, inputs, dataclasses.replace(tried.options, batched=False))
    except NativeFailure:
        return batch_difference(alone, alone, together)
    takes = computes_together(path, inputs, expected, tried.options)
    return batch_difference(expected, alone, together, in_source=takes)


def _takes_any_batch(path: Path, model: Model) -> bool:
    if path.suffix == ".mnn":
        return bool(model.inputs) and all(item.shape and item.shape[0] < 1 for item in model.inputs)
    return takes_any_tflite_batch(path) if path.suffix == ".tflite" else takes_any_batch(path)


def computes_together(source: Path, inputs: Arrays, expected: Outputs, options: RunOptions) -> bool:
    """Whether an ONNX or TFLite model gives the expected outputs for several samples at once."""
    runtime = RUNTIMES[source.suffix]
    if not runtime.is_installed:
        return False
    try:
        outputs = runtime.run(source, inputs, dataclasses.replace(options, batched=True))
        return is_proven(compare_outputs(expected, outputs))
    except (NativeFailure, ValueError):
        return False


def of_network(network: Any, data: Dataset, names: tuple[str, ...], name: str) -> BatchDifference | None:
    """The difference of a PyTorch model that takes two samples at once and mixes them."""
    from pytest_mnnquant.sources import pytorch
    from pytest_mnnquant.sources.spec import SourceError

    if data.axes or data.samples < 2:
        return None
    few = data.first(2)
    try:
        alone, together = (
            pytorch.outputs(network, dataclasses.replace(few, alone=single), name, names=names)
            for single in (True, False)
        )
    except SourceError:  # It refuses several samples, so an app can't feed them.
        return None
    expected = dict(zip(names, alone, strict=True))
    return batch_difference(expected, expected, dict(zip(names, together, strict=True)))


def of_export(
    onnx: Path, expected: Outputs, alone: Run, together: Run | None, inputs: Arrays, options: RunOptions
) -> BatchDifference | None:
    """The difference of an export for batches of any size, which was replaced by one for single samples."""
    if together is None:
        return None
    takes = computes_together(onnx, inputs, expected, options)
    return batch_difference(expected, alone.outputs, together.outputs, in_source=takes)
