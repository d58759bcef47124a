"""Whether the private copy of a PyTorch model computes what the caller's model computes.

A copy may differ: a module finds another by `id()`, a closure holds the caller's tensors, `__deepcopy__` loses a part,
or the code asks for the type of its weights. The gate would then judge another network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output
from pytest_mnnquant.sources.spec import SourceError, seeded_generators
from pytest_mnnquant.sources.torch_call import called, named_outputs
from pytest_mnnquant.sources.torch_module import has_other_types, is_graph, set_eval, unwrapped
from pytest_mnnquant.sources.torch_replacements import has_simulated_quantization

if TYPE_CHECKING:
    import torch

#: The largest difference that is rounding, as a share of an output's range; of weights in half precision.
_ROUNDING, _HALF_ROUNDING = 1e-2, 0.1
_FIX: Final = "let copy.deepcopy() copy all that forward() reads: no id() of modules, no tensors in closures"
_HALF_FIX: Final = "return model.float(), and let it compute the same as in half precision"


def require_same_outputs(
    built: Any, network: torch.nn.Module, sample: Mapping[str, npt.NDArray[Any]], name: str
) -> None:
    """Raise `SourceError` if `network`, the private copy of `built`, computes other outputs of a sample.

    `built` runs once, in eval mode, and gets its mode, attributes and buffers back. Models that can't run here
    (their device is missing), that build weights when they run, or whose simulated quantization the copy leaves out,
    are not compared.
    """
    import torch

    model = unwrapped(built, name)
    if is_graph(model) or has_simulated_quantization(model):
        return
    with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]), seeded_generators(name):
        torch.manual_seed(0)
        own = _outputs_of(model, sample)
        torch.manual_seed(0)
        copied = list(named_outputs(network(*as_tensors(dict(sample), network)), sample).values())
    is_half = has_other_types(model)
    what = "" if own is None else _what_differs(own, copied, is_half)
    if what:
        raise SourceError(f"{name}: a copy of the model in float32 {what}", _HALF_FIX if is_half else _FIX)


def _what_differs(own: Mapping[str, torch.Tensor], copied: Sequence[torch.Tensor], is_half: bool) -> str:
    """What a copy returns instead of the model's outputs; empty if both are equal up to rounding."""
    if len(own) != len(copied):
        return f"returns {len(copied)} tensors, the model itself {len(own)}"
    allowed = _HALF_ROUNDING if is_half else _ROUNDING
    for (output, first), second in zip(own.items(), copied, strict=True):
        if first.shape != second.shape:
            return f"gives {output!r} the shape {list(second.shape)}, the model itself {list(first.shape)}"
        difference = _difference(first, second)
        if difference > allowed and (first.is_floating_point() or not is_half):
            return f"differs from the model itself in {output!r} by {difference:.2g} of its range, allowed {allowed:g}"
    return ""


def _outputs_of(model: torch.nn.Module, sample: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor] | None:
    """The outputs of the caller's model; None if it can't run here, or has other weights after its run.

    A model with lazy layers does not run, since its first run would build them in the caller's model.
    """
    if _is_lazy(model):
        return None
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
    weights = _weights(model)
    with _unchanged(model):
        set_eval(model)
        try:
            tensors = tuple(tensor.to(device) for tensor in as_tensors(dict(sample), model))
            _, value = called(model, tuple(sample), tensors, "the model", lambda call: call())
            result = named_outputs(value, sample)
        except Exception:  # Of the user's code, in a form that the copy does not have.
            return None
        is_built = _weights(model) == weights
    return {key: tensor.detach().cpu() for key, tensor in result.items()} if is_built else None


def _weights(model: torch.nn.Module) -> list[str]:
    return [key for key, _ in model.named_parameters()]


def _is_lazy(model: torch.nn.Module) -> bool:
    from torch.nn.parameter import is_lazy

    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


@contextlib.contextmanager
def _unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Give all modules their attributes, containers in these, and the values of their buffers back."""
    held = [(vars(module), dict(vars(module))) for module in model.modules()]
    containers = [
        (value, value.copy()) for _, values in held for value in values.values() if type(value) in (list, dict)
    ]
    buffers = [(tensor, tensor.clone()) for tensor in model.buffers()]
    try:
        yield
    finally:
        for container, values in containers:
            container.clear()
            container.extend(values) if isinstance(container, list) else container.update(values)
        for attributes, values in held:
            attributes.clear()
            attributes.update(values)
        for tensor, value in buffers:
            tensor.copy_(value)


def _difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference as a share of the range of finite values; of integers the share that differs."""
    import torch

    if not first.numel():
        return 0.0
    if not first.is_floating_point():
        return float((first != second).double().mean())
    one, other = first.double(), second.double()
    finite = torch.isfinite(one)
    if not finite.any():
        return 0.0
    span = float(one[finite].abs().max())
    largest = float((one - other)[finite].abs().max())
    return largest / span if span else largest
