"""What a value of any class consists of, for the digest of a model: attributes, or what pickle would store."""

from __future__ import annotations

import logging
import re
import types
import warnings
from typing import Any, Final

# Values that decide nothing of what a model computes; pickle refuses most of them.
_IDLE: Final = (logging.Logger, logging.Handler, logging.LoggerAdapter)
_IDLE_PACKAGES: Final = re.compile(r"(?:_thread|threading|torch\.(?:cuda|storage|utils\.hooks))(?:\..*)?")
# Parts of torch that count by their text: operators, devices, and handles of what lies in C++.
_PRINTED_PACKAGES: Final = re.compile(r"torch|torch\.(?:_|fx|jit|export|classes|package).*")
# Addresses, and numbers that TorchScript gives to classes in the order in which a process makes them.
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+|\.___torch_mangle_\d+")
_DESCRIPTORS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)
_CONTENTS: Final = (bool, int, float, complex, str, bytes, bytearray)


def is_idle(value: Any) -> bool:
    """Whether a value decides nothing: locks, loggers, storages (their tensors count), handles of hooks."""
    return isinstance(value, (*_IDLE, *_DESCRIPTORS)) or bool(_IDLE_PACKAGES.fullmatch(type(value).__module__))


def is_printed(value: Any) -> bool:
    """Whether a value is a part of torch that counts by its text."""
    return bool(_PRINTED_PACKAGES.fullmatch(type(value).__module__))


def text_of(value: Any) -> str:
    """The text of a value, without what differs between processes."""
    return _ADDRESS.sub("", str(value))


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of a value, in its dictionary and its slots. Raises what the classes of users raise."""
    named = dict(getattr(value, "__dict__", {}))
    return named | {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}


def content(value: Any) -> Any:
    """What a value without attributes holds: its number or text, or the parts that pickle would store.

    Raises an error, mostly `TypeError`, for a value that pickle refuses.
    """
    for kind in _CONTENTS:
        if isinstance(value, kind):
            return kind.__repr__(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = value.__reduce_ex__(4)
    if isinstance(parts, str):
        return parts
    # Items of lists and dictionaries follow as iterators.
    return [list(part) if at > 2 and part is not None else part for at, part in enumerate(parts[:5])]


def _slots(kind: type) -> list[str]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if is_private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]
