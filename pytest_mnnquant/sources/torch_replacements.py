"""Modules that exporters don't take, written as others that compute the same.

Only a module that is known to compute what torch defines is replaced: custom code and hooks keep their effect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

_IS_CHANGED: Final = "_mnnquant_uses_batch_norm"
_STEP: Final = "_mnnquant_step"


def wrapped_network(module: Any) -> torch.nn.Module | None:
    """The network in a wrapper that runs it faster or in parallel, or averages its weights; None for other modules.

    A wrapper with its own `forward` or with hooks computes something else than its network.
    """
    import torch

    if (network := compiled_network(module)) is not None:
        return network
    parallel: Any = torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel
    if not isinstance(module, parallel | torch.optim.swa_utils.AveragedModel) or not runs_code_of(module, "torch."):
        return None
    inner: torch.nn.Module = module.module
    return inner


def compiled_network(module: Any) -> torch.nn.Module | None:
    """The network that torch.compile wrapped; None if the module is not such a wrapper, or has hooks."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # A wrapper exists only after its import.
    if dynamo is None or not isinstance(module, dynamo.OptimizedModule) or _has_hooks(module):
        return None
    network: torch.nn.Module = module._orig_mod
    return network


def restore_forward(module: torch.nn.Module) -> None:
    """Undo `module.forward = torch.compile(...)`: the module gets the function that was compiled."""
    compiled = vars(module).get("forward")
    original = getattr(compiled, "_torchdynamo_orig_callable", None)
    if original is None:
        return
    function = getattr(original, "__func__", None)
    del module.forward
    if function is None:
        vars(module)["forward"] = original
    elif function is not type(module).forward:  # A copy still has the method of the module it was copied from.
        vars(module)["forward"] = MethodType(function, module)


def _has_hooks(module: Any) -> bool:
    return bool(vars(module).get("_forward_hooks") or vars(module).get("_forward_pre_hooks"))


def runs_code_of(module: torch.nn.Module, package: str) -> bool:
    """Whether code of this package, as `torch.nn.`, alone decides what the module returns."""
    is_changed = "forward" in vars(module) or _has_hooks(module)
    return not is_changed and type(module).forward.__module__.startswith(package)


def remove_simulated_quantization(model: torch.nn.Module) -> None:
    """Replace observers and simulated quantization of torch.ao by identities, in place."""
    import torch

    if isinstance(model, torch.jit.ScriptModule):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if _is_simulation(child):
                setattr(module, name, torch.nn.Identity())


def has_simulated_quantization(model: torch.nn.Module) -> bool:
    """Whether `remove_simulated_quantization` changes a model."""
    return any(_is_simulation(module) for module in model.modules())


def _is_simulation(module: torch.nn.Module) -> bool:
    """Whether torch's code alone decides what the module returns, and it observes or simulates quantization."""
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    return isinstance(module, FakeQuantizeBase | ObserverBase) and runs_code_of(module, "torch.ao.")


def use_batch_norm(model: torch.nn.Module) -> None:
    """Let each InstanceNorm with running statistics compute by BatchNorm, in place.

    In eval mode both compute the same, and exporters know only the second. Only this step of `forward` changes.
    """
    import torch
    from torch.nn.modules.instancenorm import _InstanceNorm

    if isinstance(model, torch.jit.ScriptModule):
        return
    for module in list(model.modules()):
        kind: Any = type(module)
        is_norm = module is not model and isinstance(module, _InstanceNorm) and module.running_mean is not None
        if is_norm and kind._apply_instance_norm is _InstanceNorm._apply_instance_norm:
            module.__class__ = _with_batch_norm(kind)


def uses_batch_norm(module: torch.nn.Module) -> bool:
    """Whether `use_batch_norm` changed this module."""
    return hasattr(module, _IS_CHANGED)


def set_norm_step(module: torch.nn.Module, step: torch.nn.Module) -> None:
    """Let a module that `use_batch_norm` changed compute by `step`, which takes a batch, instead of by BatchNorm."""
    module.add_module(_STEP, step)


def _with_batch_norm(kind: Any) -> type[torch.nn.Module]:
    def apply(self: Any, value: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import batch_norm

        result: torch.Tensor
        if self.training or not self.track_running_stats:
            result = kind._apply_instance_norm(self, value)
        elif (step := self._modules.get(_STEP)) is not None:
            result = step(value)
        else:
            result = batch_norm(value, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return result

    def reduce(self: Any, _protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
        return _new_norm, (kind,), self.__getstate__() if hasattr(self, "__getstate__") else vars(self)

    body = {
        "_apply_instance_norm": apply,
        _IS_CHANGED: True,
        "__reduce_ex__": reduce,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), body)


def _new_norm(kind: Any) -> torch.nn.Module:
    made = _with_batch_norm(kind)
    return made.__new__(made)
