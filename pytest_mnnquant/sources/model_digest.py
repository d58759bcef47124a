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
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pytest_mnnquant.sources.code_digest import code_digest, is_project, project_folders, without_folders
from pytest_mnnquant.sources.value_parts import attributes, content, is_idle, is_printed, text_of

if TYPE_CHECKING:
    import torch

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, range)
_PRINTED: Final = (pathlib.PurePath, re.Pattern, datetime.date, datetime.timedelta, decimal.Decimal, fractions.Fraction)
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_DEEPEST: Final = 60
_MAPPINGS: Final = (dict, types.MappingProxyType)
_BUILT_IN: Final = (dict, types.MappingProxyType, list, tuple, set, frozenset)
# What torch keeps in each module besides weights and submodules: the mode, and hooks of training and of loading.
_IGNORED: Final = re.compile(
    r"training|_modules|_(?:is_full_)?backward\w*|_(?:load_)?state_dict\w*|_non_persistent\w*|_forward\w+_(?:kwargs|called)"
    r"|_torchdynamo_wrapper_id"
)


def digest(model: torch.nn.Module) -> str:
    """The digest of a model. It is the same in train and in eval mode."""
    values = _Values(project_folders(type(module).__module__ for module in model.modules()))
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
    """A hash of values of any type. Paths inside the project count from its folders, which differ between hosts."""

    def __init__(self, folders: tuple[Path, ...], seen: dict[Any, tuple[int, Any]] | None = None) -> None:
        self._total = hashlib.sha256()
        self._folders = folders
        self._seen = dict(seen or {})  # With the value: an id is unique while its object exists.
        self._pending: list[types.FunctionType | type] = []
        self._modules: set[str] = set()

    def hexdigest(self) -> str:
        """The hash of everything that was added, and of the code of the modules that it comes from."""
        self._total.update(code_digest(self._modules).encode())
        return self._total.hexdigest()

    def add_text(self, *texts: object) -> None:
        """Add texts and numbers."""
        for text in map(str, texts):
            text = without_folders(text, self._folders)
            self._total.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def _add_unique(self) -> None:
        """Make the digest unique: a part of the model can't be read."""
        self.add_text(secrets.token_hex())

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value of any type."""
        kind = type(value)
        self.add_text(kind.__module__, kind.__qualname__)
        if kind in _PLAIN:
            self.add_text(repr(value))
        elif self._is_known(id(value), value):
            return
        elif depth > _DEEPEST:
            self._add_unique()
        else:
            try:
                self._add_parts(value, depth + 1)
            except Exception:  # Of the user's classes.
                self._add_unique()

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
        elif isinstance(value, np.generic):
            self._add_items([value.dtype.str, value.tobytes()], depth)
        elif isinstance(value, (type, types.ModuleType, *_FUNCTIONS, staticmethod, classmethod, property)):
            self._add_code_of(value, depth)
        elif isinstance(value, weakref.ReferenceType):
            self.add(value(), depth)
        elif isinstance(value, _PRINTED) or (not self._is_module(value) and is_printed(value)):
            self.add_text(text_of(value), text_of(getattr(value, "graph", "")))
        elif not is_idle(value):
            self._add_contents(value, depth)

    def _add_contents(self, value: Any, depth: int) -> None:
        """The items of a container, and the attributes of any object; without attributes, what pickle would store."""
        if isinstance(value, _MAPPINGS):
            pairs = dict.items(value) if isinstance(value, dict) else value.items()
            self._add_items((part for pair in pairs for part in pair), depth)
        elif isinstance(value, list):
            self._add_items(list.__iter__(value), depth)
        elif isinstance(value, tuple):
            self._add_items(tuple.__iter__(value), depth)
        elif isinstance(value, set | frozenset):
            self.add_text(len(value), *sorted(self._digest_of_item(item, depth) for item in value))
        elif isinstance(value, enum.Enum):
            self.add_text(value.name)
            self.add(value.value, depth)
        elif isinstance(value, _PLAIN) or not attributes(value):
            self.add(content(value), depth)
        if type(value) not in _BUILT_IN:
            self._add_object(value, depth)

    def _digest_of_item(self, item: Any, depth: int) -> str:
        """The digest of an item of a set, which must not depend on the items before it: their order is random."""
        if type(item) in _PLAIN:
            return repr(item)
        values = _Values(self._folders, self._seen)
        values.add(item, depth)
        values.add_pending()
        self._modules |= values._modules
        return values._total.hexdigest()

    @staticmethod
    def _is_module(value: Any) -> bool:
        import torch

        return isinstance(value, torch.nn.Module)

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
        """The attributes of an object, and the code of its class."""
        import torch

        is_module = isinstance(value, torch.nn.Module)
        if isinstance(value, torch.jit.ScriptModule):
            graph: Any = value.inlined_graph
            self.add_text(text_of(graph.str(False)))  # Without places in files. Reading it adds an attribute.
        for name, item in attributes(value).items():
            if not (is_module and _IGNORED.fullmatch(name)):
                self.add_text(name)
                self.add(
                    list(item.values()) if is_module and name.endswith("_hooks") and isinstance(item, dict) else item,
                    depth,
                )
        self._pending.append(type(value))

    def _add_code_of(self, value: Any, depth: int) -> None:
        if isinstance(value, functools.partial):
            self._add_items((value.func, value.args, value.keywords), depth)
        elif isinstance(value, types.MethodType):
            self._add_items((value.__func__, value.__self__), depth)
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__, depth)
        elif isinstance(value, property):
            self._add_items((value.fget, value.fset), depth)
        else:
            self.add_text(getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
            if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType):
                self.add(value.__self__, depth)
            self._modules.add(str(getattr(value, "__module__", "") or value.__name__))
            if isinstance(value, types.FunctionType | type):
                self._pending.append(value)

    def _add_class(self, kind: type) -> None:
        """The functions of a class: they may have been replaced after their module was loaded."""
        for base in kind.__mro__:
            self._modules.add(base.__module__)
            if is_project(base.__module__) and not self._is_known(base, base):
                for name, item in vars(base).items():
                    if not name.startswith("__") and name != "_abc_impl":
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
            for name in (name for name in code.co_names if not name.startswith("__")):
                value = variables.get(name)
                self.add(value)
                if isinstance(value, types.ModuleType) and is_project(value.__name__):
                    self.add([vars(value).get(other) for other in code.co_names])


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return None
