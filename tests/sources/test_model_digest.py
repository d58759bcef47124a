"""What decides what a model computes is in its digest: no stale entry of the cache can be used for another model."""

from __future__ import annotations

import logging
import operator
import os
import subprocess
import sys
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.user_modules import import_file


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


class Slotted:
    """A value with a private slot, and one that is not assigned."""

    __slots__ = ("__value", "other")

    def __init__(self, value: int) -> None:
        self.__value = value


class Text(str):
    """A text with a class of its own."""


class Items(list[int]):
    """A list with an attribute."""

    def __init__(self, name: str) -> None:
        super().__init__([1])
        self.name = name


def _nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = SimpleNamespace(value=value)
    return value


SLOPES: Final = (Items("a"), Items("b"))
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
    "nested configuration": (
        SimpleNamespace(act=SimpleNamespace(slope=0.1)),
        SimpleNamespace(act=SimpleNamespace(slope=0.9)),
    ),
    "array in a configuration": (SimpleNamespace(w=np.zeros(3)), SimpleNamespace(w=np.ones(3))),
    "tensor in a configuration": (SimpleNamespace(w=torch.zeros(3)), SimpleNamespace(w=torch.ones(3))),
    "function in a configuration": (SimpleNamespace(act=_closure(1.0)), SimpleNamespace(act=_closure(2.0))),
    "set of tuples": ({(1, 2), (3, 4)}, {(1, 2), (3, 5)}),
    "set of functions": ({_closure(1.0)}, {_closure(2.0)}),
    "set of sets": ({frozenset({(1, 2)})}, {frozenset({(1, 3)})}),
    "set in a configuration": (SimpleNamespace(on={(1, "a")}), SimpleNamespace(on={(1, "b")})),
    "number of numpy": (np.float32(0.1), np.float32(0.9)),
    "type of numpy": (np.dtype("f4"), np.dtype("f8")),
    "queue": (deque([1, 2]), deque([1, 3])),
    "array of Python": (array("f", [1.0]), array("f", [2.0])),
    "slots": (Slotted(1), Slotted(2)),
    "text with a class": (Text("a"), Text("b")),
    "list with a class": (Items("a"), Items("b")),
    "bytes that change": (bytearray(b"a"), bytearray(b"b")),
    "view of a dictionary": (MappingProxyType({"a": [1]}), MappingProxyType({"a": [2]})),
    "attribute getter": (operator.attrgetter("a"), operator.attrgetter("b")),
    "bound built-in": ("a".join, "b".join),
    "method descriptor": (torch.Tensor.relu, torch.Tensor.abs),
    "operator of torch": (torch.ops.aten.relu.default, torch.ops.aten.abs.default),
    "distribution": (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
    "deep": (_nested(40, 1), _nested(40, 2)),
    "weak reference": (weakref.ref(SLOPES[0]), weakref.ref(SLOPES[1])),
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


class Call(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


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


@pytest.mark.parametrize("value", [iter([1]), _nested(500, 1), {iter([1])}, SimpleNamespace(part=iter([1]))])
def test_what_pickle_refuses_or_lies_too_deep_is_never_taken_from_the_cache(value: Any) -> None:
    generator = (item for item in "a")
    held = Holder([value, generator])
    assert digest(held) != digest(held)


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), threading.Event(), logging.getLogger("x"), torch.Generator(), torch.zeros(2).untyped_storage()],
)
def test_what_decides_nothing_is_ignored(value: Any) -> None:
    held = Holder(SimpleNamespace(value=value))
    assert digest(held) == digest(held)


def test_handles_of_hooks_are_ignored() -> None:
    def net() -> nn.Module:
        made = Holder(None)
        made.value = made.register_forward_hook(print)
        return made

    assert digest(net()) == digest(net())


def test_traced_networks_have_a_digest() -> None:
    def net(function: Callable[[Any], Any]) -> nn.Module:
        return torch.fx.symbolic_trace(nn.Sequential(nn.Identity(), Call(function)))

    assert digest(net(torch.relu)) == digest(net(torch.relu))
    assert digest(net(torch.relu)) != digest(net(torch.abs))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_networks_of_torchscript_have_a_digest() -> None:
    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        trace: Any = torch.jit.trace
        traced: nn.Module = trace(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2))
        return traced

    first = net(1)
    assert digest(first) == digest(first) == digest(net(1))
    assert digest(first) != digest(net(2))


PRINTS = """
import sys
from types import SimpleNamespace
import numpy, torch
from pytest_mnnquant.sources.model_digest import digest
from pytest_mnnquant.sources.user_modules import import_file
sys.path.insert(0, "")
from pathlib import Path
for _ in range(int(sys.argv[1])):
    object()
model = import_file(Path("nets/net.py").resolve()).build()
print(digest(model))
"""
PLACED = """
import enum, logging, torch
from pathlib import Path
from types import SimpleNamespace
HERE = Path(__file__).resolve().parent
LOG = logging.getLogger(__name__)

class Kind(enum.Enum):
    SOFT = "soft"

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        names = [f"name{at}" for at in range(20)]
        self.config = SimpleNamespace(file=str(HERE / "w.bin"), names={(name, 1) for name in names}, kind=Kind.SOFT)
        self.functions = {print, len, build, lambda x: x * 2, lambda x: x * 3}
        self.other = {SimpleNamespace: names, "set": frozenset(names)}

    def forward(self, x):
        LOG.info(HERE, __file__)
        return x

def build():
    return Net()
"""


def test_the_digest_is_the_same_in_another_folder_and_process(tmp_path: Path) -> None:
    digests = set()
    for seed, name in enumerate(("one", "two/deeper")):
        (tmp_path / name / "nets").mkdir(parents=True)
        (tmp_path / name / "nets" / "net.py").write_text(PLACED)
        environment = {**os.environ, "PYTHONHASHSEED": str(seed + 1)}
        command = [sys.executable, "-c", PRINTS, str(seed * 1000)]
        ended = subprocess.run(
            command, cwd=tmp_path / name, env=environment, check=True, capture_output=True, text=True
        )
        digests.add(ended.stdout)
    assert len(digests) == 1


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
