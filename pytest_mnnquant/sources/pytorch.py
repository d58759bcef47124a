"""A PyTorch model as a source: a private copy, its outputs, its ONNX export. Imports torch only when called."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.defaults import EXPORTER
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.runtime.programs.sample_axes import as_samples
from pytest_mnnquant.sources.spec import DataError, SourceError, describe

if TYPE_CHECKING:
    import torch

EXPORTERS: Final = ("torchscript", "dynamo")
_BATCH: Final = 32
_EXPORT_SAMPLES: Final = 2


def private_copy(model: Any, name: str) -> torch.nn.Module:
    """A deep copy in eval mode, so that the caller's model does not change. Raises `SourceError`."""
    import_torch(name)
    import torch

    if not isinstance(model, torch.nn.Module):
        raise SourceError(
            f"{name}: returned {type(model).__name__}, expected torch.nn.Module",
            "return the network itself, with its trained weights",
        )
    # Wrappers that run a model in parallel or faster can't be exported.
    model = getattr(model, "_orig_mod", model)  # torch.compile
    model = model.module if isinstance(model, torch.nn.DataParallel) else model
    try:
        copied: torch.nn.Module = copy.deepcopy(model)
        for parameter in copied.parameters():
            parameter.grad = None
            parameter.requires_grad_(False)
    except Exception as error:
        raise SourceError(f"{name}: the model can't be copied: {describe(error)}") from error
    return copied.eval()


def import_torch(name: str) -> Any:
    """The torch module; raises `SourceError` with the command to install it."""
    try:
        import torch
    except ImportError:
        raise SourceError(
            f"{name}: a PyTorch model needs torch, which is not installed: pip install 'pytest-mnnquant[torch]' "
            "(without a GPU, install the CPU build of torch first)"
        ) from None
    return torch


def input_names(model: torch.nn.Module, name: str) -> tuple[str, ...]:
    """The names of `forward`'s required parameters (or of its first one). Raises `SourceError` if there are none."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    required = [p.name for p in positional if p.default is inspect.Parameter.empty]
    if not positional:
        raise SourceError(f"{name}: forward{inspect.signature(model.forward)} has no named inputs; add one for each")
    return tuple(required or [p.name for p in positional[:1]])


def as_tensors(inputs: dict[str, npt.NDArray[Any]], model: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """The arrays as tensors, in the order of the model's inputs; copied, since a model may work in place.

    Floating-point arrays get the type of the model's parameters: numpy creates float64 by default.
    """
    import torch

    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    kind = next(floating, torch.float32)
    tensors = (torch.from_numpy(np.array(array)) for array in inputs.values())
    return tuple(tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in tensors)


def flat_outputs(value: Any) -> list[torch.Tensor]:
    """The tensors that a model returned, in the order in which ONNX lists them."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in flat_outputs(item)]
    return []


def output_names(count: int) -> list[str]:
    """The names that outputs get in an export."""
    return [f"output{number}" if number else "output" for number in range(count)]


def outputs(
    model: torch.nn.Module, data: Dataset, name: str, axes: Mapping[str, int] = MappingProxyType({})
) -> list[npt.NDArray[Any]]:
    """The model's outputs on all samples, samples first. `axes` are those of outputs that do not count on the first.

    Raises `SourceError` if the model fails on the samples.
    """
    import torch

    parts: list[list[npt.NDArray[Any]]] = []
    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for batch in data.batches(_BATCH):
            try:
                results = flat_outputs(model(*as_tensors(batch, model)))
            except Exception as error:
                shapes = ", ".join(f"{key} {value.shape}" for key, value in batch.items())
                raise DataError(
                    f"{name}: the model fails on {data.origin} ({shapes}): {describe(error)}",
                    "give samples that forward() accepts, counted on the first axis; try the model on one sample",
                ) from error
            parts.append([result.numpy() for result in results])
    if not parts or not parts[0]:
        raise SourceError(
            f"{name}: the model returns no tensors",
            "return a tensor from forward(), or a tuple or dictionary of tensors",
        )
    named = zip(output_names(len(parts[0])), zip(*parts, strict=True), strict=True)
    return [as_samples(list(column), axes.get(output), len(parts) == data.samples) for output, column in named]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is exported: by which of `EXPORTERS`, with a dynamic batch or not. `name` is for messages.

    `axes` are those that count samples, if not the first.
    """

    name: str
    exporter: str = EXPORTER
    dynamic: bool = True
    axes: SampleAxes = field(default_factory=SampleAxes)


def export(model: torch.nn.Module, data: Dataset, path: Path, options: ExportOptions) -> None:
    """Write the model (unmodified, in eval mode) to `path` as ONNX. Raises `SourceError` with the exporter's reason.

    Inputs are named like `forward`'s parameters.
    """
    import torch

    exporter, dynamic = options.exporter, options.dynamic
    example = as_tensors(data.batch(_EXPORT_SAMPLES if dynamic else 1), model)
    names = list(data.inputs)
    with torch.no_grad(), suppress_output(), torch.random.fork_rng(devices=[]):
        count = len(flat_outputs(model(*example)))
    keywords = export_keywords(
        names, output_names(count), dynamo=exporter == "dynamo", dynamic=dynamic, axes=options.axes
    )
    try:
        hidden = _required_inputs_only(model) if exporter == "torchscript" else contextlib.nullcontext()
        with suppress_output(), torch.random.fork_rng(devices=[]), hidden:
            torch.onnx.export(model, example, str(path), **keywords)
    except Exception as error:
        raise SourceError(
            f"{options.name}: the {exporter} exporter failed: {describe(error)}; {_export_fix(error, exporter)}"
        ) from error


def _export_fix(error: BaseException, exporter: str) -> str:
    """The fix for an exporter that failed: install the packages that it needs, or use the other exporter."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) or type(cause).__name__ == "VersionError":  # protobuf's, of onnx's own files
            return "its packages are missing or have wrong versions: pip install 'pytest-mnnquant[torch]'"
        cause = cause.__cause__
    return f"use the other one: --mnn-exporter={EXPORTERS[1 - EXPORTERS.index(exporter)]}"


def export_keywords(
    inputs: list[str], outputs: list[str], *, dynamo: bool, dynamic: bool, axes: SampleAxes | None = None
) -> dict[str, Any]:
    """The keywords of `torch.onnx.export` for these names, as this torch supports them; `dynamic`: any batch size."""
    import torch

    places: dict[str, int | None] = {**axes.inputs, **axes.outputs} if axes else {}
    known = inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    if "dynamo" in known:
        options["dynamo"] = dynamo
    if dynamo:
        if "external_data" in known:
            options["external_data"] = False
        if dynamic:
            batch = torch.export.Dim("batch")
            options["dynamic_shapes"] = tuple({places.get(name) or 0: batch} for name in inputs)
    elif dynamic:
        options["dynamic_axes"] = {name: {places.get(name) or 0: "batch"} for name in [*inputs, *outputs]}
    return options


@contextlib.contextmanager
def _required_inputs_only(model: torch.nn.Module) -> Iterator[None]:
    """Hide optional parameters of `forward`: the torchscript exporter turns numeric ones into model inputs."""
    original, forward = vars(model).get("forward"), model.forward
    model.forward = lambda *inputs: forward(*inputs)
    try:
        yield
    finally:
        del model.forward
        if original is not None:
            model.forward = original


@contextlib.contextmanager
def suppress_output() -> Iterator[None]:
    """Keep torch's warnings (which `filterwarnings = error` would raise), prints and logs out of the user's run.

    Also makes nn.TransformerEncoder use its ordinary path, as in train mode: the fast path of eval mode is a single
    operator, which can't be exported or observed.
    """
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast)
