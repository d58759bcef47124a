"""What a digest takes of functions, classes and Python modules: their code, and the values that their code uses."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final

from pytest_mnnquant.sources.code_digest import is_project

if TYPE_CHECKING:
    from pytest_mnnquant.sources.value_digest import ValueDigest

_FUNCTIONS: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
#: Values that `add_callable` takes.
CALLABLES: Final = (type, types.ModuleType, *_FUNCTIONS, staticmethod, classmethod, property)


def add_callable(values: ValueDigest, value: Any, depth: int) -> None:
    """Add what a function or a class is made of, and note the module that its code comes from."""
    if isinstance(value, functools.partial):
        values.add_items((value.func, value.args, value.keywords), depth)
    elif isinstance(value, types.MethodType):
        values.add_items((value.__func__, value.__self__), depth)
    elif isinstance(value, staticmethod | classmethod):
        values.add(value.__func__, depth)
    elif isinstance(value, property):
        values.add_items((value.fget, value.fset), depth)
    else:
        values.add_text(getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType):
            values.add(value.__self__, depth)
        values.modules.add(str(getattr(value, "__module__", "") or value.__name__))
        if isinstance(value, types.FunctionType | type):
            values.pending.append(value)


def add_code_of(values: ValueDigest, item: types.FunctionType | type) -> None:
    """Add the code of a function, or of all functions of a class, with their defaults and what they enclose."""
    if isinstance(item, type):
        _add_class(values, item)
        return
    _add_code(values, item.__code__, item.__globals__)
    values.add([item.__defaults__, item.__kwdefaults__])
    values.add([_content(cell) for cell in item.__closure__ or ()])


def _add_class(values: ValueDigest, kind: type) -> None:
    """The functions of a class: they may have been replaced after their module was loaded."""
    for base in kind.__mro__:
        values.modules.add(base.__module__)
        if is_project(base.__module__) and not values.is_known(base, base):
            for name, item in vars(base).items():
                if not name.startswith("__") and name != "_abc_impl":
                    values.add_text(name)
                    values.add(item)


def _add_code(values: ValueDigest, code: types.CodeType, variables: dict[str, Any]) -> None:
    """Code and the global values that it uses."""
    values.add_text(code.co_names)
    values.add_bytes(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(values, constant, variables)
        elif isinstance(constant, frozenset):
            values.add_text(*sorted(map(repr, constant)))
        else:
            values.add_text(repr(constant))
    if is_project(str(variables.get("__name__"))):
        for name in (name for name in code.co_names if not name.startswith("__")):
            value = variables.get(name)
            values.add(value)
            if isinstance(value, types.ModuleType) and is_project(value.__name__):
                values.add([vars(value).get(other) for other in code.co_names])


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return None
