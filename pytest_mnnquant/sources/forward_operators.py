"""Finds the module of a PyTorch model that computes what no export keeps: random or complex numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_mnnquant.sources.spec import SourceError

if TYPE_CHECKING:
    import torch


def require_repeatable(model: torch.nn.Module, example: Sequence[torch.Tensor], name: str) -> None:
    """Raise `SourceError` that names the module whose random numbers change the outputs in eval mode."""
    import torch

    from pytest_mnnquant.sources.torch_call import flat_outputs

    runs = []
    for seed in (1, 2):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            runs.append(flat_outputs(model(*(tensor.clone() for tensor in example))))
    if len(runs[0]) == len(runs[1]) and all(map(_is_equal, *runs)):
        return
    place = _first_place(model, example, _is_random)
    if place is not None:
        raise SourceError(
            f"{name}: {place} draws random numbers in eval mode, which change the outputs with each run",
            "pass training=self.training to F.dropout, and make noise an input of forward()",
        )


def require_real(model: torch.nn.Module, example: Sequence[torch.Tensor], name: str) -> None:
    """Raise `SourceError` that names the module which computes with complex numbers."""
    place = _first_place(model, example, _makes_complex)
    if place is not None:
        raise SourceError(
            f"{name}: {place} computes with complex numbers, which MNN does not support",
            "compute spectra in the data, or as a convolution with the sines and cosines as weights",
        )


def _is_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    import torch

    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)


def _is_random(operator: Any, _result: Any) -> bool:
    import torch

    return torch.Tag.nondeterministic_seeded in getattr(operator, "tags", ())


def _makes_complex(_operator: Any, result: Any) -> bool:
    import torch

    return isinstance(result, torch.Tensor) and result.is_complex()


def _first_place(
    model: torch.nn.Module, example: Sequence[torch.Tensor], matches: Callable[[Any, Any], bool]
) -> str | None:
    """The first operator of a run that matches, with its module; None if none does."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    path: list[str] = []
    places: list[str] = []

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if not places and matches(func, result):
                operator = str(func.overloadpacket).removeprefix("aten.")
                places.append(f"{path[-1] or 'forward()'} ({operator})" if path else f"forward() ({operator})")
            return result

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: path.append(name)

    def leave(*_: Any) -> None:
        path.pop()

    watch: Any = Watch  # Its constructor has no types.
    hooks = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), watch():
            model(*(tensor.clone() for tensor in example))
    finally:
        for hook in hooks:
            hook.remove()
    return next(iter(places), None)
