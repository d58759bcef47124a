"""Observes a pipeline: how it uses the given model and calibration data."""

from __future__ import annotations

import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pytest_mnnquant.measurements.calibration import Observations
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.quantize.observer_scales import has_range, observer_scales
from pytest_mnnquant.quantize.ranges import batchnorm_drift
from pytest_mnnquant.runtime.inference import BATCH
from pytest_mnnquant.sources.pytorch import as_tensors

_MOVED: Final = 0.01  # a scale that changed by more has moved
# Exporters run a model on examples, or without values: such passes are not calibration.
_EXPORTERS: Final = ((torch.onnx, "export"), (torch.export, "export"), (torch.jit, "trace"))

Tensors = tuple[torch.Tensor, ...]


class Calibration:
    """The calibration data for a pipeline: batches as tuples of tensors, in the order of the model's inputs.

    `names` are the names of these inputs, `axes` those that count samples in them. `batched` is False for a model that
    can only be exported with a batch of one.
    """

    def __init__(self, data: Dataset, model: nn.Module, batched: bool, monitor: PipelineMonitor) -> None:
        self._data = data
        self._model = model
        self._monitor = monitor
        self.names = tuple(data.inputs)
        self.batched = batched
        self.axes = SampleAxes(data.axes)

    def __len__(self) -> int:
        return self._data.samples if self._data.is_single else math.ceil(self._data.samples / BATCH)

    def __iter__(self) -> Iterator[Tensors]:
        self._monitor.begin_iteration()
        try:
            for batch in self._data.batches(BATCH):
                tensors = as_tensors(batch, self._model)
                self._monitor.hand_out(tensors)
                yield tensors
        finally:  # Also if a loop ends early.
            self._monitor.end_iteration()


@dataclass
class _Passes:
    """Forward passes, by the module that ran."""

    counts: Counter[int] = field(default_factory=Counter)
    gradients: bool = False
    training: bool = False


class PipelineMonitor:
    """Observes every call of a module in this process: of the given model and of models made from it.

    Use as a context. Layers are recognized by their weights, even if a quantizer replaced them; observers by their
    scale, or by the smallest and largest value that they have seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kinds = {type(module) for module in model.modules()}
        self._state = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
        self._before_export, self._after_export = _Passes(), _Passes()
        self._exported = False
        self._depth = 0
        self._handed_out = 0
        self._alive: dict[int, weakref.ref[torch.Tensor]] = {}
        self._pending = 0  # batches of the current iteration without a pass so far
        self._roots: dict[int, nn.Module] = {}
        self._observers: dict[int, nn.Module] = {}
        self._calibrating = False
        self._seen_calibrating = False
        self._scales: dict[int, float] = {}
        self._hooks: list[Any] = []
        self._compile = torch.compile
        self._exporters = {(place, name): getattr(place, name) for place, name in _EXPORTERS}

    def __enter__(self) -> PipelineMonitor:
        self._hook()
        for (place, name), function in self._exporters.items():
            setattr(place, name, self._unhooked(function, exports=place is torch.onnx))
        torch.compile = _uncompiled
        return self

    def __exit__(self, *_: object) -> None:
        self._unhook()
        for (place, name), function in self._exporters.items():
            setattr(place, name, function)
        torch.compile = self._compile

    # The calibration data --------------------------------------------------------------------------------------------

    def begin_iteration(self) -> None:
        """The pipeline starts to iterate over the batches."""
        self._pending = 0

    def hand_out(self, tensors: Tensors) -> None:
        """The pipeline gets a batch."""
        self._handed_out += 1
        self._pending += 1
        for tensor in tensors:
            self._alive[id(tensor)] = weakref.ref(tensor)

    def end_iteration(self) -> None:
        """The iteration over the batches ends."""
        # Batches that were only collected in a list have not calibrated yet; the last one may have been left out.
        if not self._seen_calibrating and self._pending <= 1:
            self._save_scales()

    # Passes ----------------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _unhooked(self, function: Callable[..., Any], exports: bool) -> Callable[..., Any]:
        @wraps(function)
        def write(*args: Any, **kwargs: Any) -> Any:
            if not self._hooks:  # One exporter calls another.
                return function(*args, **kwargs)
            self._end_calibration()
            self._exported |= exports
            self._unhook()
            try:
                return function(*args, **kwargs)
            finally:
                self._hook()

        return write

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._depth += 1
        if torch.compiler.is_compiling() or any(isinstance(item, fx.Proxy) for item in inputs):
            return
        if self._depth == 1 and any(parameter.ndim >= 2 for parameter in module.parameters()):
            self._begin_pass(module, inputs)
        passes = self._after_export if self._exported else self._before_export
        if self._is_layer(module):
            passes.counts[id(module)] += 1
            passes.gradients |= torch.is_grad_enabled()
        passes.training |= module.training and self._depends_on_mode(module)
        if type(module) not in self._kinds and has_range(module):
            self._observers[id(module)] = module

    def _leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._depth -= 1

    def _begin_pass(self, module: nn.Module, inputs: Any) -> None:
        """A pass through a whole network begins: on the given calibration data, or on other values."""
        self._roots[id(module)] = module
        self._pending -= 1
        tensors = list(_tensors_in(inputs))
        if any(self._was_handed_out(tensor) for tensor in tensors):
            self._calibrating = self._seen_calibrating = True
        elif tensors:
            self._end_calibration()

    def _end_calibration(self) -> None:
        """Calibration has ended: save the scales that the observers have so far."""
        if self._calibrating:
            self._save_scales()
        self._calibrating = False

    def _was_handed_out(self, tensor: torch.Tensor) -> bool:
        whole = tensor if tensor._base is None else tensor._base
        reference = self._alive.get(id(whole))
        return reference is not None and reference() is whole

    def _is_layer(self, module: nn.Module) -> bool:
        whole = isinstance(module, fx.GraphModule | torch.jit.ScriptModule) or type(module) is type(self._model)
        return whole or any(p is not None and p.ndim >= 2 for p in module._parameters.values())

    def _depends_on_mode(self, module: nn.Module) -> bool:
        """Whether this module may compute something else in train mode, and belongs to the model."""
        if isinstance(module, _NormBase | _DropoutNd):
            return True
        return type(module) in self._kinds and not type(module).__module__.startswith("torch.nn.")

    # Observations ----------------------------------------------------------------------------------------------------

    def _save_scales(self) -> None:
        self._scales = observer_scales(self._observers)

    def observations(self) -> Observations:
        """What the pipeline did."""
        passes = self._before_export if self._before_export.counts else self._after_export
        return Observations(
            handed_out=self._handed_out,
            forwards=max(passes.counts.values(), default=0),
            # Observers of mnncompress may run in an export only, which is not observed.
            observers=max(len(self._observers), int("mnncompress" in sys.modules)),
            gradients=passes.gradients,
            training=passes.training,
            drift=batchnorm_drift(self._state, {name: value.detach() for name, value in _tensors(self._model)}),
            weight_change=self._weight_change(),
            moved={} if self._calibrating else self._moved_scales(),
        )

    def _weight_change(self) -> float:
        """The largest relative change of a weight; 1 for a weight that is missing or has another shape."""
        now, largest = dict(_tensors(self._model)), 0.0
        names = [name for name, old in self._state.items() if old.is_floating_point() and "running_" not in name]
        for name in names:
            old, new = self._state[name], now.get(name)
            if new is None or new.shape != old.shape:
                largest = max(largest, 1.0)
            elif not torch.equal(new, old):
                largest = max(largest, float((new.detach() - old).norm() / old.norm().clamp_min(1e-12)))
        return largest

    def _moved_scales(self) -> dict[str, tuple[float, float]]:
        names: dict[int, str] = {}
        for root in self._roots.values():
            for name, module in root.named_modules():
                names.setdefault(id(module), name)
        now = observer_scales(self._observers)
        return {
            names.get(key) or type(self._observers[key]).__name__: (old, now[key])
            for key, old in self._scales.items()
            if key in now and abs(now[key] - old) > _MOVED * abs(old)
        }


def _uncompiled(model: Any = None, **_: Any) -> Any:
    """Replaces `torch.compile`, since compiled code runs without hooks; the results are the same."""
    return model if model is not None else lambda function: function


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _tensors_in(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors_in(value)
