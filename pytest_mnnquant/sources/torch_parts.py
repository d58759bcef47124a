"""What a digest takes of tensors and modules of PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.sources.value_parts import attributes, text_of

if TYPE_CHECKING:
    import torch

# What torch keeps in each module besides weights and submodules: the mode, and hooks of training and of loading.
_IGNORED: Final = re.compile(
    r"training|_modules|_(?:is_full_)?backward\w*|_(?:load_)?state_dict\w*|_non_persistent\w*|_forward\w+_(?:kwargs|called)"
    r"|_torchdynamo_wrapper_id"
)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch."""
    import torch

    return isinstance(value, torch.Tensor)


def is_module(value: Any) -> bool:
    """Whether a value is a module of PyTorch."""
    import torch

    return isinstance(value, torch.nn.Module)


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor without gradients that holds all of a tensor's content: of a quantized one codes and values."""
    import torch

    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = torch.stack([tensor.int_repr().double(), tensor.dequantize().double()])
    return tensor.to_dense() if tensor.layout is not torch.strided else tensor


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The values of a dense tensor of any type, bfloat16 included."""
    import torch

    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def graph_text(value: Any) -> str:
    """The graph of a scripted module, without places in files; empty for others. Reading it adds an attribute."""
    import torch

    if not isinstance(value, torch.jit.ScriptModule):
        return ""
    graph: Any = value.inlined_graph
    return text_of(graph.str(False))


def relevant_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object; of a module those that decide what it computes, hooks without their numbers."""
    of_module = is_module(value)
    for name, item in attributes(value).items():
        if of_module and name.endswith("_hooks") and isinstance(item, dict) and not _IGNORED.fullmatch(name):
            yield name, list(item.values())
        elif not (of_module and _IGNORED.fullmatch(name)):
            yield name, item
