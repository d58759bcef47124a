"""Submodules of a private copy that exporters don't take, written as others that compute the same.

Only a submodule that is known to compute what torch defines is changed: custom code and hooks keep their effect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def compiled_network(module: Any) -> torch.nn.Module | None:
    """The network that torch.compile wrapped; None if the module is not such a wrapper."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # A wrapper exists only after its import.
    if dynamo is None or not isinstance(module, dynamo.OptimizedModule):
        return None
    network: torch.nn.Module = module._orig_mod
    return network


def remove_simulated_quantization(model: torch.nn.Module) -> None:
    """Replace observers and simulated quantization of torch.ao by identities, in place."""
    import torch

    if isinstance(model, torch.jit.ScriptModule):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if _is_simulation(child):
                setattr(module, name, torch.nn.Identity())


def _is_simulation(module: torch.nn.Module) -> bool:
    """Whether torch's code alone decides what the module returns, and it observes or simulates quantization."""
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    if not isinstance(module, FakeQuantizeBase | ObserverBase) or "forward" in vars(module):
        return False
    has_hooks = module._forward_hooks or module._forward_pre_hooks
    return not has_hooks and type(module).forward.__module__.startswith("torch.ao.")


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


def _with_batch_norm(kind: Any) -> type[torch.nn.Module]:
    def apply(self: Any, value: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import batch_norm

        if self.training or not self.track_running_stats:
            result: torch.Tensor = kind._apply_instance_norm(self, value)
            return result
        return batch_norm(value, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def reduce(self: Any, _protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
        return _new_norm, (kind,), self.__getstate__() if hasattr(self, "__getstate__") else vars(self)

    body = {
        "_apply_instance_norm": apply,
        "__reduce_ex__": reduce,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), body)


def _new_norm(kind: Any) -> torch.nn.Module:
    made = _with_batch_norm(kind)
    return made.__new__(made)
