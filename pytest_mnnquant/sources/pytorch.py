"""A PyTorch model as a source: a private copy, its outputs, its ONNX export. Imports torch only when called."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from pytest_mnnquant.sources.first_layer import expected_shape
from pytest_mnnquant.sources.model_fit import fix_for_failure
from pytest_mnnquant.sources.spec import DataError, SourceError, describe
from pytest_mnnquant.sources.torch_call import flat_outputs, forward_inputs, named_outputs

if TYPE_CHECKING:
    import torch

EXPORTERS: Final = ("torchscript", "dynamo")
_BATCH: Final = 32
_EXPORT_SAMPLES: Final = 2
_COMPILER, _DISABLE = "torch._dynamo", "TORCHDYNAMO_DISABLE"


def as_tensors(inputs: dict[str, npt.NDArray[Any]], model: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """The arrays as tensors, in the order of the model's inputs; copied, since a model may work in place.

    Floating-point arrays get the type of the model's parameters: numpy creates float64 by default.
    """
    import torch

    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    kind = next(floating, torch.float32)
    tensors = (torch.from_numpy(np.array(array)) for array in inputs.values())
    return tuple(tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in tensors)


def output_names(count: int) -> list[str]:
    """The names that outputs get in an export."""
    return [f"output{number}" if number else "output" for number in range(count)]


def outputs(
    model: torch.nn.Module,
    data: Dataset,
    name: str,
    axes: Mapping[str, int] = MappingProxyType({}),
    names: Sequence[str] = (),
) -> list[npt.NDArray[Any]]:
    """The model's outputs on all samples, samples first. `axes` are those of outputs that do not count on the first.

    `names` are the names of the outputs; without them `output`, `output1`, ...

    Raises `SourceError` if the model fails on the samples.
    """
    import torch

    parts: list[list[npt.NDArray[Any]]] = []
    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for batch in data.batches(_BATCH):
            try:
                results = flat_outputs(model(*as_tensors(batch, model)))
            except Exception as error:
                raise fails_on(name, data, batch, error, model) from error
            parts.append([(result.float() if result.is_floating_point() else result).numpy() for result in results])
    if not parts or not parts[0]:
        raise SourceError(
            f"{name}: the model returns no tensors",
            "return a tensor from forward(), or a tuple, dictionary or dataclass of tensors",
        )
    named = zip(names or output_names(len(parts[0])), zip(*parts, strict=True), strict=True)
    return [as_samples(list(column), axes.get(output), len(parts) == data.samples) for output, column in named]


def fails_on(
    name: str, data: Dataset, batch: Mapping[str, npt.NDArray[Any]], error: Exception, model: torch.nn.Module
) -> DataError:
    """The error of a model that raised `error` on a batch of the data, with the expected shape if it is known."""
    expected = expected_shape(model) if len(batch) == 1 else ""
    takes = f"; its first layer takes {expected}" if expected else ""
    shapes = ", ".join(f"{key} {value.shape}" for key, value in batch.items())
    return DataError(
        f"{name}: the model fails on {data.origin} ({shapes}): {describe(error)}{takes}",
        fix_for_failure(batch),
    )


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is exported: by which of `EXPORTERS`, with a dynamic batch or not. `name` is for messages.

    `axes` are those that count samples, if not the first. `outputs` are the names of the outputs in order; without them
    `output`, `output1`, ...
    """

    name: str
    exporter: str = EXPORTER
    dynamic: bool = True
    axes: SampleAxes = field(default_factory=SampleAxes)
    outputs: tuple[str, ...] = ()


def export(model: torch.nn.Module, data: Dataset, path: Path, options: ExportOptions) -> None:
    """Write the model (unmodified, in eval mode) to `path` as ONNX. Raises `SourceError` with the exporter's reason.

    Inputs are named like `forward`'s parameters.
    """
    import torch

    exporter, dynamic = options.exporter, options.dynamic
    example = as_tensors(data.batch(_EXPORT_SAMPLES if dynamic else 1), model)
    names = list(data.inputs)
    if exporter == "dynamo":
        import torch._dynamo  # The exporter needs the compiler: it must not be loaded where that is switched off.
    with torch.no_grad(), suppress_output(), torch.random.fork_rng(devices=[]):
        result = model(*example)
    results = list(options.outputs or named_outputs(result, names))
    keywords = export_keywords(names, results, dynamo=exporter == "dynamo", dynamic=dynamic, axes=options.axes)
    if "dynamic_shapes" in keywords and not forward_inputs(model, options.name).positional:  # forward(*arrays)
        keywords["dynamic_shapes"] = (keywords["dynamic_shapes"],)
    try:
        if exporter == "torchscript" and _has_script_children(model):  # The exporter's own trace refuses them.
            with suppress_output(), torch.random.fork_rng(devices=[]):
                model = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
        hidden = _required_inputs_only(model) if exporter == "torchscript" else contextlib.nullcontext()
        with suppress_output(), torch.random.fork_rng(devices=[]), hidden:
            torch.onnx.export(model, example, str(path), **keywords)
    except Exception as error:
        raise SourceError(
            f"{options.name}: the {exporter} exporter failed: {describe(error)}; {_export_fix(error, exporter)}"
        ) from error


def _has_script_children(model: torch.nn.Module) -> bool:
    import torch

    is_script = [isinstance(module, torch.jit.ScriptModule) for module in model.modules()]
    return any(is_script) and not is_script[0]


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
    import torch

    if isinstance(model, torch.jit.ScriptModule):  # Its forward can't be replaced.
        yield
        return
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

    Also runs code under torch.compile and torch.autocast in ordinary float32. Makes nn.TransformerEncoder use its
    ordinary path, as in train mode: the fast path of eval mode is one operator, which can't be exported or observed.
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
            with _uncompiled(), _full_precision(), _without_graphs():
                yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Run what torch.compile wraps as written: only values count.

    The compiler takes a second to load. If it is not loaded yet, the environment says what it does when it is.
    """
    import torch

    stance = getattr(torch.compiler, "set_stance", None)  # Older versions of torch have none.
    if _COMPILER in sys.modules:
        with contextlib.nullcontext() if stance is None else stance("force_eager"):
            yield
        return
    before = os.environ.get(_DISABLE)
    os.environ[_DISABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DISABLE]
        else:
            os.environ[_DISABLE] = before
        if _COMPILER in sys.modules:  # It has read the environment; code after this may compile.
            sys.modules[_COMPILER].config.disable = before == "1"


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Stop the torchscript exporter from printing the whole graph, past `sys.stdout`, if it fails."""
    import torch

    library: Any = torch._C
    log = getattr(library, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    library._jit_onnx_log = lambda *texts: None
    try:
        yield
    finally:
        library._jit_onnx_log = log


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Let torch.autocast change nothing: MNN computes in float32, and can't convert to bfloat16."""
    import torch

    kind: Any = torch.amp.autocast_mode.autocast
    enter = kind.__enter__

    def enter_disabled(self: Any) -> Any:
        self._enabled = False
        return enter(self)

    kind.__enter__ = enter_disabled
    try:
        yield
    finally:
        kind.__enter__ = enter
