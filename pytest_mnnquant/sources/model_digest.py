"""A hash of what decides what a PyTorch model computes: weights, attributes, functions, and the code of its modules.

Nothing of the model is called or printed: `__repr__` and `state_dict` of user classes may raise. A value that can't be
read makes the digest unique, so that nothing is taken from the cache.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import pathlib
import re
import secrets
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_mnnquant.sources.code_digest import code_digest, is_project

if TYPE_CHECKING:
    import torch

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, range)
_PRINTED: Final = (pathlib.PurePath, re.Pattern, datetime.date, datetime.timedelta, decimal.Decimal, fractions.Fraction)
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_DEEPEST: Final = 20
# What torch keeps in each module besides weights and submodules: the mode, and hooks of training and of loading.
_IGNORED: Final = re.compile(
    r"training|_modules|_(?:is_full_)?backward\w*|_(?:load_)?state_dict\w*|_non_persistent\w*|_forward\w+_(?:kwargs|called)"
)


def digest(model: torch.nn.Module) -> str:
    """The digest of a model. It is the same in train and in eval mode."""
    values = _Values()
    for name, module in model.named_modules():
        values.add_text(name)
        values.add(module)
    values.add(_state(model))
    values.add_pending()
    return values.hexdigest()


def _state(model: torch.nn.Module) -> Any:
    """The state dictionary, which quantized modules need: they keep no parameters. None if it can't be made."""
    try:
        return model.state_dict()
    except (Exception, SystemExit):
        return None


class _Values:
    """A hash of values of any type. Values of classes that are not the project's count by what is plain in them."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()
        self._seen: dict[Any, tuple[int, Any]] = {}  # With the value: an id is unique while its object exists.
        self._pending: list[types.FunctionType | type] = []
        self._modules: set[str] = set()

    def hexdigest(self) -> str:
        """The hash of everything that was added, and of the code of the modules that it comes from."""
        self._total.update(code_digest(self._modules).encode())
        return self._total.hexdigest()

    def add_text(self, *texts: object) -> None:
        """Add texts and numbers."""
        for text in map(str, texts):
            self._total.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value of any type."""
        kind = type(value)
        self.add_text(kind.__module__, kind.__qualname__)
        if kind in _PLAIN:
            self.add_text(repr(value))
        elif depth > _DEEPEST or self._is_known(id(value), value):
            return
        else:
            try:
                self._add_parts(value, depth + 1)
            except Exception:  # Of the user's classes.
                self.add_text(secrets.token_hex())

    def add_pending(self) -> None:
        """Add the functions and classes that were met so far, and those that they use."""
        while self._pending:
            item = self._pending.pop()
            if isinstance(item, type):
                self._add_class(item)
            else:
                self._add_code(item.__code__, item.__globals__)
                self.add([item.__defaults__, item.__kwdefaults__])
                self.add([_content(cell) for cell in item.__closure__ or ()])

    def _is_known(self, key: Any, value: Any) -> bool:
        if key in self._seen:
            self.add_text(self._seen[key][0])
            return True
        self._seen[key] = (len(self._seen), value)
        return False

    def _add_parts(self, value: Any, depth: int) -> None:
        if _is_tensor(value):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray):
            self.add_text(value.dtype, value.shape)
            self._add_items(value.ravel().tolist() if value.dtype.hasobject else [value.tobytes()], depth)
        elif isinstance(value, enum.Enum):
            self.add_text(value.name)
        elif isinstance(value, dict):
            self._add_items((part for pair in dict.items(value) for part in pair), depth)
        elif isinstance(value, list | tuple):
            self._add_items(value, depth)
        elif isinstance(value, set | frozenset):
            self.add_text(len(value), *sorted(repr(item) for item in value if type(item) in _PLAIN))
        elif isinstance(value, _PRINTED) or type(value).__module__ == "torch":  # torch.dtype, torch.device
            self.add_text(re.sub("0x[0-9a-f]+", "", repr(value)))
        elif isinstance(value, (type, types.ModuleType, *_FUNCTIONS)):
            self._add_code_of(value, depth)
        else:
            self._add_object(value, depth)

    def _add_items(self, items: Iterable[Any], depth: int) -> None:
        for item in items:
            self.add(item, depth)

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        import torch

        tensor = tensor.detach()
        self.add_text(tensor.dtype, tuple(tensor.shape))
        if tensor.is_quantized:
            tensor = torch.stack([tensor.int_repr().double(), tensor.dequantize().double()])
        tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and not self._is_known(place, tensor):  # state_dict() repeats the parameters.
            self._total.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())

    def _add_object(self, value: Any, depth: int) -> None:
        """The attributes of an object; of a class that is not the project's only those that are plain."""
        import torch

        kind = type(value)
        is_module = isinstance(value, torch.nn.Module)
        attributes: dict[str, Any] = dict(getattr(value, "__dict__", {}))
        attributes |= {name: getattr(value, name, None) for name in _slots(kind)}
        known = is_module or is_project(kind.__module__)
        for name, item in attributes.items():
            if is_module and _IGNORED.fullmatch(name):
                continue
            if known or isinstance(item, (*_PLAIN, list, tuple, dict)):
                self.add_text(name)
                self.add(list(item.values()) if is_module and name.endswith("_hooks") else item, depth)
        if isinstance(value, torch.jit.ScriptModule):
            self.add_text(value.inlined_graph)
        self._pending.append(kind)

    def _add_code_of(self, value: Any, depth: int) -> None:
        if isinstance(value, functools.partial):
            self._add_items((value.func, value.args, value.keywords), depth)
        elif isinstance(value, types.MethodType):
            self._add_items((value.__func__, value.__self__), depth)
        else:
            self.add_text(getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
            self._modules.add(str(getattr(value, "__module__", "") or value.__name__))
            if isinstance(value, types.FunctionType | type):
                self._pending.append(value)

    def _add_class(self, kind: type) -> None:
        """The functions of a class: they may have been replaced after their module was loaded."""
        for base in kind.__mro__:
            self._modules.add(base.__module__)
            if is_project(base.__module__) and not self._is_known(base, base):
                for name, item in vars(base).items():
                    if isinstance(item, (*_PLAIN, *_FUNCTIONS, list, tuple, dict)) and not name.startswith("__"):
                        self.add_text(name)
                        self.add(item)

    def _add_code(self, code: types.CodeType, variables: dict[str, Any]) -> None:
        """Code and the global values that it uses."""
        self.add_text(code.co_names)
        self._total.update(code.co_code)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._add_code(constant, variables)
            elif isinstance(constant, frozenset):
                self.add_text(*sorted(map(repr, constant)))
            else:
                self.add_text(repr(constant))
        if is_project(str(variables.get("__name__"))):
            for name in code.co_names:
                value = variables.get(name)
                self.add(value)
                if isinstance(value, types.ModuleType) and is_project(value.__name__):
                    self.add([vars(value).get(other) for other in code.co_names])


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _slots(kind: type) -> list[str]:
    found: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        found += [slots] if isinstance(slots, str) else slots
    return [name for name in found if name not in ("__dict__", "__weakref__")]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return None
