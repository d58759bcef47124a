"""How a model is called: which arrays are its inputs, how they are passed, and how its outputs are named."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mnnquant.sources.pytorch import suppress_output
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.sources.torch_call import bound, flat_outputs, forward_inputs, named_outputs

A, B, C = torch.ones(2, 3), torch.zeros(2, 3), torch.full((2, 3), 2.0)
Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    hidden: Any = None
    count: int = 3


class Optional(nn.Module):
    def forward(self, x: Any, y: Any = None, z: Any = None, n: int = 2) -> Any:
        return Result(x * n if z is None else x + z, (y, x))


class Keywords(nn.Module):
    def forward(self, *, pixels: Any, scale: Any) -> Any:
        return {"image": pixels * scale, "scale": scale}


class Arguments(nn.Module):
    def forward(self, *arrays: Any) -> Any:
        return arrays[0] - arrays[-1]


class Anything(nn.Module):
    def forward(self, *arrays: Any, **more: Any) -> Any:
        return arrays[0] - more.get("y", arrays[-1])


class NamedOnly(nn.Module):
    def forward(self, **more: Any) -> Any:
        return more["a"] - more["b"]


class Nothing(nn.Module):
    def forward(self) -> Any:
        return A


@pytest.mark.parametrize(
    ("model", "given", "names"),
    [
        (Optional(), (), ("x",)),
        (Optional(), ("z", "x", "labels"), ("x", "z")),
        (Optional(), ("x", "other"), ("x",)),
        (Keywords(), ("scale", "pixels"), ("pixels", "scale")),
        (Arguments(), ("left", "right", "labels"), ("left", "right")),
        (Arguments(), (), ("input",)),
        (Anything(), ("x",), ("x",)),
        (NamedOnly(), ("b", "a"), ("b", "a")),
    ],
    ids=str,
)
def test_the_inputs_are_what_the_model_requires_and_the_data_name(
    model: nn.Module, given: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert forward_inputs(model, "m").names(given) == names


def test_the_inputs_of_torchscript_are_those_of_its_schema() -> None:
    with suppress_output():
        scripted = torch.jit.script(nn.Bilinear(3, 3, 2))
    assert forward_inputs(scripted, "m").names(()) == ("input1", "input2")


def test_a_model_without_inputs_is_refused() -> None:
    with pytest.raises(SourceError):
        forward_inputs(Nothing(), "m")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (A, ["output"]),
        ((A, [B, C]), ["output", "output1", "output2"]),
        ({"boxes": A, "x": B, "a b": C, "none": None}, ["boxes", "x_output", "a_b"]),
        (Result(A, (B, C)), ["logits", "hidden", "hidden1"]),
        (Pair(A, {"k": B}), ["first", "second.k"]),
    ],
    ids=["tensor", "nested", "dictionary", "dataclass", "named tuple"],
)
def test_outputs_are_named_by_their_keys(value: Any, names: list[str]) -> None:
    assert list(named_outputs(value, ["x"])) == names
    assert len(flat_outputs(value)) == len(names)


@pytest.mark.parametrize(
    ("model", "arrays", "expected"),
    [
        (Optional(), {"x": A, "z": C}, [A + C, A]),
        (Optional(), {"x": A}, [A * 2, A]),
        (Keywords(), {"scale": C, "pixels": A}, [C, C]),
        (Arguments(), {"left": A, "right": C}, [A - C]),
        (Anything(), {"x": A, "y": C}, [A - C]),
        (NamedOnly(), {"b": C, "a": A}, [A - C]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrays_are_passed_by_name_and_outputs_are_plain(
    model: nn.Module, arrays: dict[str, torch.Tensor], expected: list[torch.Tensor]
) -> None:
    network, outputs = bound(model, list(arrays), list(arrays.values()), "m")
    copies = [network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for each in copies:
        result = each(*arrays.values())
        assert isinstance(result, torch.Tensor | tuple)
        tensors = flat_outputs(result)
        assert len(tensors) == len(outputs) == len(expected)
        assert all(torch.equal(*pair) for pair in zip(tensors, expected, strict=True))
    assert type(network).__name__ == type(model).__name__


def test_a_plain_model_keeps_its_class() -> None:
    model = nn.Linear(3, 2)
    network, outputs = bound(model, ["input"], [A], "m")
    assert type(network) is nn.Linear
    assert outputs == ("output",)


class TakesOne(nn.Module):
    """Its only argument is a dictionary, a list or a tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, batch: Any) -> torch.Tensor:
        if self.kind == "tensor":
            return nn.functional.relu(batch)
        first, second = (batch["ids"], batch["mask"]) if self.kind == "dictionary" else batch
        out: torch.Tensor = first - 2 * second
        return out


@pytest.mark.parametrize("kind", ["dictionary", "list"])
def test_several_arrays_may_be_one_argument(kind: str) -> None:
    network, names = TakesOne(kind), ("ids", "mask")
    assert forward_inputs(network, "net").names(names) == names
    example = (torch.full((2, 3), 5.0), torch.ones(2, 3))
    changed, outputs = bound(network, names, example, "net")
    assert outputs == ("output",)
    assert torch.equal(changed(*example), torch.full((2, 3), 3.0))
    assert torch.equal(copy.deepcopy(changed)(*example), changed(*example))


def test_one_array_of_another_name_is_not_an_argument() -> None:
    assert forward_inputs(TakesOne("tensor"), "net").names(("x",)) == ("batch",)
    with pytest.raises(TypeError):
        bound(TakesOne("tensor"), ("x", "y"), (torch.ones(2), torch.ones(2)), "net")
