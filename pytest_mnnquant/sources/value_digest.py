"""A hash of Python values of any type: numbers, containers, arrays, objects with their attributes, functions."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
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

from pytest_mnnquant.sources.callable_digest import CALLABLES, add_callable, add_code_of
from pytest_mnnquant.sources.code_digest import code_digest, without_folders
from pytest_mnnquant.sources.torch_parts import (
    graph_text,
    is_module,
    is_tensor,
    plain_tensor,
    relevant_attributes,
    tensor_bytes,
)
from pytest_mnnquant.sources.value_parts import attributes, content, is_idle, is_printed, text_of

if TYPE_CHECKING:
    import torch

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, range)
_PRINTED: Final = (pathlib.PurePath, re.Pattern, datetime.date, datetime.timedelta, decimal.Decimal, fractions.Fraction)
_DEEPEST: Final = 60
_MAPPINGS: Final = (dict, types.MappingProxyType)
_BUILT_IN: Final = (dict, types.MappingProxyType, list, tuple, set, frozenset)


class ValueDigest:
    """A hash of values of any type. Paths inside the project count from its folders, which differ between hosts.

    `pending` are functions and classes whose code is not added yet; `modules` are the Python modules that code comes
    from. A value that can't be read makes the hash unique.
    """

    def __init__(self, folders: tuple[Path, ...], seen: dict[Any, tuple[int, Any]] | None = None) -> None:
        self.pending: list[types.FunctionType | type] = []
        self.modules: set[str] = set()
        self._total = hashlib.sha256()
        self._folders = folders
        self._seen = dict(seen or {})  # With the value: an id is unique while its object exists.

    def hexdigest(self) -> str:
        """The hash of everything that was added, and of the code of the modules that it comes from."""
        self._total.update(code_digest(self.modules).encode())
        return self._total.hexdigest()

    def add_text(self, *texts: object) -> None:
        """Add texts and numbers."""
        for text in map(str, texts):
            text = without_folders(text, self._folders)
            self._total.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    def add_bytes(self, part: bytes) -> None:
        """Add bytes."""
        self._total.update(part)

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value of any type, which is inside `depth` others."""
        kind = type(value)
        self.add_text(kind.__module__, kind.__qualname__)
        if kind in _PLAIN:
            self.add_text(repr(value))
        elif self.is_known(id(value), value):
            return
        elif depth > _DEEPEST:
            self._add_unique()
        else:
            try:
                self._add_parts(value, depth + 1)
            except Exception:  # Of the user's classes.
                self._add_unique()

    def add_items(self, items: Iterable[Any], depth: int) -> None:
        """Add several values."""
        for item in items:
            self.add(item, depth)

    def add_pending(self) -> None:
        """Add the functions and classes that were met so far, and those that they use."""
        while self.pending:
            add_code_of(self, self.pending.pop())

    def is_known(self, key: Any, value: Any) -> bool:
        """Whether a value was added before; then its number is added. Notes it otherwise."""
        if key in self._seen:
            self.add_text(self._seen[key][0])
            return True
        self._seen[key] = (len(self._seen), value)
        return False

    def _add_unique(self) -> None:
        """Make the digest unique: a part of the model can't be read."""
        self.add_text(secrets.token_hex())

    def _add_parts(self, value: Any, depth: int) -> None:
        if is_tensor(value):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray):
            self.add_text(value.dtype, value.shape)
            self.add_items(value.ravel().tolist() if value.dtype.hasobject else [value.tobytes()], depth)
        elif isinstance(value, np.generic):
            self.add_items([value.dtype.str, value.tobytes()], depth)
        elif isinstance(value, CALLABLES):
            add_callable(self, value, depth)
        elif isinstance(value, weakref.ReferenceType):
            self.add(value(), depth)
        elif isinstance(value, _PRINTED) or (not is_module(value) and is_printed(value)):
            self.add_text(text_of(value), text_of(getattr(value, "graph", "")))
        elif not is_idle(value):
            self._add_contents(value, depth)

    def _add_contents(self, value: Any, depth: int) -> None:
        """The items of a container, and the attributes of any object; without attributes, what pickle would store."""
        if isinstance(value, _MAPPINGS):
            pairs = dict.items(value) if isinstance(value, dict) else value.items()
            self.add_items((part for pair in pairs for part in pair), depth)
        elif isinstance(value, list):
            self.add_items(list.__iter__(value), depth)
        elif isinstance(value, tuple):
            self.add_items(tuple.__iter__(value), depth)
        elif isinstance(value, set | frozenset):
            self.add_text(len(value), *sorted(self._digest_of_item(item, depth) for item in value))
        elif isinstance(value, enum.Enum):
            self.add_text(value.name)
            self.add(value.value, depth)
        elif isinstance(value, _PLAIN) or not attributes(value):
            self.add(content(value), depth)
        if type(value) not in _BUILT_IN:
            self._add_object(value, depth)

    def _add_object(self, value: Any, depth: int) -> None:
        """The attributes of an object, and the code of its class."""
        if graph := graph_text(value):
            self.add_text(graph)
        for name, item in relevant_attributes(value):
            self.add_text(name)
            self.add(item, depth)
        self.pending.append(type(value))

    def _digest_of_item(self, item: Any, depth: int) -> str:
        """The digest of an item of a set, which must not depend on the items before it: their order is random."""
        if type(item) in _PLAIN:
            return repr(item)
        values = ValueDigest(self._folders, self._seen)
        values.add(item, depth)
        values.add_pending()
        self.modules |= values.modules
        return values._total.hexdigest()

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        self.add_text(tensor.dtype, tuple(tensor.shape))
        plain = plain_tensor(tensor)
        place = (plain.data_ptr(), plain.dtype, tuple(plain.shape), plain.stride())
        if plain.numel() and not self.is_known(place, plain):  # state_dict() repeats the parameters.
            self.add_bytes(tensor_bytes(plain))
