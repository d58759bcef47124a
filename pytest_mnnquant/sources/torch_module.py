"""A private copy of a PyTorch model that can be exported and observed: without wrappers, computed weights and devices.

The caller's model is never changed. torch is imported only when a function is called.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_mnnquant.runtime.background import spare_cores
from pytest_mnnquant.sources.network_checks import require_usable
from pytest_mnnquant.sources.spec import SourceError, describe
from pytest_mnnquant.sources.torch_replacements import (
    compiled_network,
    remove_simulated_quantization,
    restore_forward,
    use_batch_norm,
    wrapped_network,
)

if TYPE_CHECKING:
    import torch


def import_torch(name: str) -> Any:
    """The torch module; raises `SourceError` with the command to install it.

    Beside other workers of xdist, torch gets the share of the cores that this worker has.
    """
    try:
        import torch
    except ImportError:
        raise SourceError(
            f"{name}: a PyTorch model needs torch, which is not installed: pip install 'pytest-mnnquant[torch]' "
            "(without a GPU, install the CPU build of torch first)"
        ) from None
    torch.set_num_threads(min(torch.get_num_threads(), spare_cores() + 1))
    return torch


def private_copy(model: Any, name: str, *, keep_types: bool = False) -> torch.nn.Module:
    """A deep copy in eval mode, in float32 and on the CPU. Raises `SourceError`.

    Weights that the model computes before each run (`weight_norm`, `spectral_norm`, pruning, parametrizations) are
    computed once and stored. With `keep_types`, half-precision weights keep their type.
    """
    import_torch(name)
    with warnings.catch_warnings():  # Deprecations of what a model uses are not errors of the gate.
        warnings.simplefilter("ignore")
        return _private_copy(unwrapped(model, name), name, keep_types=keep_types)


def _private_copy(module: torch.nn.Module, name: str, *, keep_types: bool) -> torch.nn.Module:
    try:
        copied: torch.nn.Module = copy.deepcopy(module, _computed_tensors(module))
    except Exception as error:
        if odd := _odd_weight(module):
            fix = "give the network with weights that are plain tensors"
            raise SourceError(f"{name}: {odd}, which can't be copied", fix) from error
        raise SourceError(
            f"{name}: the model can't be copied: {describe(error)}",
            "return a model without open files, locks, generators or other objects that copy.deepcopy() refuses",
        ) from error
    try:
        require_usable(copied, name)
        return plain_module(copied, keep_types=keep_types)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{name}: the computed weights of the model can't be stored: {describe(error)}",
            "remove its weight norms and parametrizations before returning it "
            "(torch.nn.utils.parametrize.remove_parametrizations)",
        ) from error


def _odd_weight(module: torch.nn.Module) -> str:
    """The first weight of a class that is not torch's, and its class; empty if there is none."""
    try:
        kinds = ((key, type(tensor)) for key, tensor in module.named_parameters())
        odd = ((key, kind) for key, kind in kinds if kind.__module__.partition(".")[0] != "torch")
        return next((f"{key} is a {kind.__module__}.{kind.__qualname__}" for key, kind in odd), "")
    except Exception:  # Of the user's class.
        return ""


def unwrapped(model: Any, name: str) -> torch.nn.Module:
    """The network itself, without wrappers that run it in parallel or faster. Raises `SourceError` for others."""
    try:
        return _unwrapped(model, name)
    except SourceError:
        raise
    except Exception as error:  # Of attributes of the user's class.
        raise SourceError(f"{name}: the model can't be read: {describe(error)}") from error


def _unwrapped(model: Any, name: str) -> torch.nn.Module:
    import torch

    if isinstance(model, torch.export.ExportedProgram):
        return model.module()
    if isinstance(model, Mapping):
        raise SourceError(
            f"{name}: returned a dictionary ({len(model)} entries), expected torch.nn.Module",
            "build the network, load these weights with load_state_dict(), and return the network",
        )
    if not isinstance(model, torch.nn.Module):
        raise SourceError(
            f"{name}: returned {type(model).__name__}, expected torch.nn.Module",
            "return the network itself, with its trained weights",
        )
    while (inner := wrapped_network(model)) is not None:
        model = inner
    network: torch.nn.Module = model
    return network


def is_graph(model: torch.nn.Module) -> bool:
    """Whether the model is a recorded graph (TorchScript, torch.export), which has no train mode."""
    import torch

    return isinstance(model, torch.jit.ScriptModule) or (
        isinstance(model, torch.fx.GraphModule) and "_guards_fn" in dict(model.named_children())
    )


def plain_module(model: torch.nn.Module, *, keep_types: bool = False) -> torch.nn.Module:
    """Make a model plain, in place, and return it; see `private_copy`."""
    _unwrap_children(model)
    set_eval(model)
    remove_simulated_quantization(model)
    model.cpu()
    if not keep_types and has_other_types(model):
        model.float()
    for module in model.modules():
        _fold_computed_weights(module)
        _move_attributes(module, keep_types=keep_types)
    use_batch_norm(model)  # After the weights, whose removal needs the class that torch made.
    freeze(model)
    return model


def set_eval(model: torch.nn.Module) -> None:
    """Put a model into eval mode; a graph of torch.export has one mode only."""
    try:
        model.eval()
    except NotImplementedError:
        return


def freeze(model: torch.nn.Module) -> None:
    """Switch the gradients of all parameters off."""
    from torch.nn.parameter import UninitializedParameter

    for parameter in model.parameters():
        # Those of a copied TorchScript module are not leaves.
        if parameter.is_leaf and not isinstance(parameter, UninitializedParameter):
            parameter.grad = None
            parameter.requires_grad_(False)


def has_other_types(model: torch.nn.Module) -> bool:
    """Whether some weights are floating-point numbers of another type than float32."""
    import torch

    tensors = (*model.parameters(), *model.buffers())
    return any(tensor.is_floating_point() and tensor.dtype is not torch.float32 for tensor in tensors)


def _computed_tensors(model: torch.nn.Module) -> dict[int, Any]:
    """The memo for `copy.deepcopy`: copies of what it refuses: results of a run in attributes, and lazy buffers."""
    import torch
    from torch.nn.parameter import UninitializedBuffer

    if isinstance(model, torch.jit.ScriptModule):
        return {}
    found = (tensor for module in model.modules() for tensor in _tensors_in(list(vars(module).values())))
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in found if tensor.grad_fn is not None}
    lazy = (buffer for buffer in model.buffers() if isinstance(buffer, UninitializedBuffer))
    make: Any = UninitializedBuffer
    return memo | {id(buffer): make(device=buffer.device, dtype=buffer.dtype) for buffer in lazy}


def _tensors_in(values: list[Any], depth: int = 3) -> Iterator[torch.Tensor]:
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, Mapping):
            yield from _tensors_in(list(value.values()), depth - 1)
        elif depth and isinstance(value, list | tuple | set):
            yield from _tensors_in(list(value), depth - 1)


def _unwrap_children(model: torch.nn.Module) -> None:
    """Replace submodules that torch.compile wrapped by the modules themselves."""
    import torch

    if isinstance(model, torch.jit.ScriptModule):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            inner = compiled_network(child)
            if inner is not None:
                setattr(module, name, inner)
        restore_forward(module)


def _fold_computed_weights(module: torch.nn.Module) -> None:
    from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    for hook in list(getattr(module, "_forward_pre_hooks", {}).values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    if parametrize.is_parametrized(module):
        # The class is made for one module, but a copy shares it; removal changes the class.
        kind = type(module)
        body = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, body)
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name)


def _move_attributes(module: torch.nn.Module, *, keep_types: bool) -> None:
    """Bring what a module keeps in plain attributes to the CPU: tensors, and devices for tensors that it creates."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return
    cpu = torch.device("cpu")
    for name, value in list(vars(module).items()):
        if isinstance(value, torch.device) and value.type != "cpu":
            vars(module)[name] = cpu
        elif isinstance(value, str) and "device" in name and value.partition(":")[0] in ("cuda", "mps", "xpu"):
            vars(module)[name] = "cpu"
        elif isinstance(value, torch.Tensor):
            moved = value.cpu()
            vars(module)[name] = moved if keep_types or not moved.is_floating_point() else moved.float()
        elif value is torch.float16 or value is torch.bfloat16:
            vars(module)[name] = value if keep_types else torch.float32


def run_once(model: torch.nn.Module, call: Callable[[], Any]) -> Any:
    """The result of `call`, which runs the model for the first time, so that it builds what it builds lazily.

    What it builds gets eval mode and no gradients. Random weights are the same in every process.
    """
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result = call()
    set_eval(model)
    freeze(model)
    return result
