"""What decides what a model computes is in its digest: no stale entry of the cache can be used for another model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.spec import import_file


def test_the_digest_is_that_of_structure_and_state(digits: Prepared) -> None:
    def net(seed: int = 0, act: type[nn.Module] = nn.ReLU) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 3), act())

    assert digest(net()) == digest(net())
    assert len({digest(model) for model in (net(), net(1), net(act=nn.GELU), nn.Sequential(net()))}) == 4
    assert digits.network is not None
    assert digest(digits.network) == digits.digest


def test_the_digest_tells_plain_attributes_apart() -> None:
    """Code that goes by an attribute computes something else, with the same weights."""

    def net(swapped: bool) -> nn.Module:
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(3, 3))
        made.swapped = swapped  # type: ignore[assignment]
        return made

    assert digest(net(True)) != digest(net(False))
    assert digest(net(True)) == digest(net(True).train())


def test_the_digest_distinguishes_functions_that_are_attributes() -> None:
    def net(act: Any) -> nn.Module:
        torch.manual_seed(0)
        made = nn.Linear(2, 2)
        made.act = act
        return made

    functions = (torch.relu, nn.functional.relu6, nn.functional.silu, lambda x: x * 2, lambda x: x * 3)
    assert len({digest(net(function)) for function in functions}) == len(functions)
    assert digest(net(torch.relu)) == digest(net(torch.relu))


class Holder(nn.Module):
    """A module that keeps any value as an attribute."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _closure(scale: float) -> Callable[[float], float]:
    return lambda x: x * scale


PAIRS: dict[str, tuple[Any, Any]] = {
    "list": ([1, 2], [1, 3]),
    "nested": ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
    "type of a number": (1, 1.0),
    "array": (np.zeros(3), np.ones(3)),
    "tensor": (torch.zeros(3), torch.ones(3)),
    "bfloat16": (torch.zeros(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)),
    "tensors in a list": ([torch.zeros(1)], [torch.ones(1)]),
    "closure": (_closure(1.0), _closure(2.0)),
    "set": ({"a"}, {"b"}),
    "path": (Path("a"), Path("b")),
    "type": (torch.float16, torch.float32),
    "configuration": (SimpleNamespace(width=1), SimpleNamespace(width=2)),
    "modules in a list": ([nn.ReLU()], [nn.GELU()]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_digest_covers_values_of_attributes(name: str) -> None:
    first, second = PAIRS[name]
    assert digest(Holder(first)) != digest(Holder(second))
    assert digest(Holder(first)) == digest(Holder(first))


def test_the_digest_covers_buffers_that_are_not_saved() -> None:
    def net(value: float) -> nn.Module:
        made = nn.Identity()
        made.register_buffer("scale", torch.full((2,), value), persistent=False)
        return made

    assert digest(net(1.0)) != digest(net(2.0))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_the_digest_covers_quantized_weights() -> None:
    def net(scale: float) -> nn.Module:
        return Holder(torch.quantize_per_tensor(torch.arange(4.0), scale, 0, torch.qint8))

    assert digest(net(0.1)) != digest(net(0.2))


class Hostile(nn.Module):
    """A module that can neither be printed nor saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def __repr__(self) -> str:
        raise ValueError("no text")

    def state_dict(self, *_: Any, **__: Any) -> Any:
        raise KeyError("no state")


def test_a_module_that_can_not_be_printed_or_saved_has_a_digest() -> None:
    first, second = Hostile(), Hostile()
    assert digest(first) == digest(second)
    second.weight.data += 1
    assert digest(first) != digest(second)


def test_what_can_not_be_read_is_never_taken_from_the_cache() -> None:
    class Closed:
        __slots__ = ("value",)

        def __getattribute__(self, name: str) -> Any:
            raise ValueError("closed")

    assert digest(Holder([Closed()])) != digest(Holder([Closed()]))


def test_a_value_that_holds_itself_has_a_digest() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert digest(Holder(endless)) == digest(Holder(endless))


NET = """
import torch
from pack import parts
from pack.deep import again
import limits
SCALE = 1.0

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)

    def forward(self, x):
        import late
        return again.twice(self.fc(x)) * SCALE

def build():
    torch.manual_seed(0)
    return Net()
"""
FILES = {
    "net.py": NET,
    "limits.py": "TOP = 6",
    "late.py": "",
    "pack/__init__.py": "",
    "pack/parts.py": "from . import deeper",
    "pack/deeper.py": "",
    "pack/deep/__init__.py": "",
    "pack/deep/again.py": "from ..deeper import *\nfrom limits import TOP\ndef twice(x):\n    return x * 2",
    "unrelated.py": "",
}


def _digest_of(folder: Path, changed: str = "") -> str:
    """The digest of the model in a fresh copy of the project, in which one file has one more line."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n# changed\n" * (name == changed))
    names = [name for name in sys.modules if name.startswith(("pack", "limits", "late", "unrelated", "mnnquant_"))]
    for name in names:
        del sys.modules[name]
    module = import_file(folder / "net.py")
    __import__("unrelated")
    model = module.build()
    model(torch.ones(1, 2))
    return digest(model)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, of which modules can be imported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("changed", [name for name in FILES if name != "unrelated.py"])
def test_the_digest_covers_the_code_of_the_model_and_of_what_it_imports(project: Path, changed: str) -> None:
    assert _digest_of(project) != _digest_of(project, changed)


def test_the_digest_ignores_other_code(project: Path) -> None:
    assert _digest_of(project) == _digest_of(project, "unrelated.py")


def test_the_digest_covers_global_values_that_the_code_reads(project: Path) -> None:
    _digest_of(project)
    model = import_file(project / "net.py").build()
    before = digest(model)
    module = sys.modules[type(model).__module__]
    module.SCALE = 2.0  # type: ignore[attr-defined]
    assert digest(model) != before
    module.SCALE = 1.0  # type: ignore[attr-defined]
    assert digest(model) == before
    type(model).forward = lambda self, x: x
    assert digest(model) != before
