"""Watches every tensor that a PyTorch model computes, without tracing: eager code runs unmodified.

A `TorchDispatchMode` sees each ATen call. A call is identified by its module, its operator, and the number of earlier
calls of that operator in the module. So the same value has the same identity in every batch, and in train and eval
mode (dropout and other operators with random masks are not counted, because they exist in one mode only).
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_DROPOUTS: Final = ("*dropout*",)
# Operators that only move values: the value keeps the identity of its computation.
_MOVES: Final = frozenset(
    {"view", "_unsafe_view", "_reshape_alias", "t", "transpose", "permute", "unsqueeze", "squeeze", "clone"}
    | {"contiguous", "detach", "alias"}
)
_UNFILLED: Final = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


@dataclass(frozen=True, slots=True)
class Value:
    """The identity of a tensor in a model: `operator` call number `turn` inside the module at `module`."""

    module: str
    operator: str
    turn: int

    def __str__(self) -> str:
        return f"{self.module or 'model'}:{self.operator}" + (f"#{self.turn}" if self.turn else "")


OnValue = Callable[[Value, torch.Tensor], None]


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, position: _Position, see: OnValue) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = position
        self._see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if (
            name == "bernoulli"
        ):  # A mask: of attention's dropout, which `_DropoutMute` does not see, or of a dropped path.
            self._place.masks.append(result)
        masked = any(arg is mask for arg in args for mask in self._place.masks)
        if not self._place.muted and not masked and name not in _MOVES | _UNFILLED:
            tensors = result if isinstance(result, list | tuple) else (result,)
            for tensor in tensors[:1] if isinstance(result, tuple) else tensors:
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    self._see(self._place.next(name), tensor)
        return result


class _DropoutMute(TorchFunctionMode):
    def __init__(self, position: _Position) -> None:
        super().__init__()
        self._place = position

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if not any(fnmatch.fnmatch(name, pattern) for pattern in _DROPOUTS):
            return func(*args, **(kwargs or {}))
        self._place.muted += 1
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._place.muted -= 1


class _Position:
    """Which module runs now, and how often each operator ran in it during this forward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._stack = [""]
        self._turns: Counter[tuple[str, str]] = Counter()
        self.masks: list[torch.Tensor] = []
        self.muted = 0

    def enter(self, module: torch.nn.Module, _inputs: Any) -> None:
        self._stack.append(self._names.get(id(module), self._stack[-1]))

    def leave(self, _module: torch.nn.Module, _inputs: Any, _result: Any) -> None:
        self._stack.pop()

    def restart(self) -> None:
        self._stack = [""]
        self._turns.clear()
        self.masks.clear()

    def next(self, operator: str) -> Value:
        key = (self._stack[-1], operator)
        self._turns[key] += 1
        return Value(*key, self._turns[key] - 1)


@contextlib.contextmanager
def watch_values(model: torch.nn.Module, see: OnValue) -> Iterator[Callable[..., Any]]:
    """Within this context, call the yielded function with a batch; `see` gets each floating-point tensor computed."""
    position = _Position(model)
    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(position.enter))
        hooks.append(module.register_forward_hook(position.leave))

    def run(*inputs: torch.Tensor) -> Any:
        position.restart()
        for number, tensor in enumerate(inputs):
            if tensor.is_floating_point():
                see(Value("", f"input{number}", 0), tensor)
        with _DropoutMute(position), _Dispatch(position, see):
            return model(*inputs)

    try:
        # This form of attention has the same operators with and without dropout.
        with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
            yield run
    finally:
        for hook in hooks:
            hook.remove()
