"""How a PyTorch model is called: the names of its inputs, and the names of its outputs."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from pytest_mnnquant.sources.network_checks import require_plain_output
from pytest_mnnquant.sources.spec import SourceError, describe
from pytest_mnnquant.sources.torch_module import run_once

if TYPE_CHECKING:
    import torch

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LABELS: Final = "labels"


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """The parameters of `forward` by name.

    `positional` and `keyword_only` are in order; `required` have no default. `has_args`, `has_kwargs`: it takes more,
    as `*args` or `**kwargs`.
    """

    positional: tuple[str, ...]
    keyword_only: tuple[str, ...]
    required: tuple[str, ...]
    has_args: bool = False
    has_kwargs: bool = False

    def names(self, given: Iterable[str]) -> tuple[str, ...]:
        """The inputs of the model, if the data name the arrays `given`: required ones, and optional ones among these.

        Without required ones and names it is the first parameter.
        """
        arrays = [name for name in given if name != _LABELS]
        known = (*self.positional, *self.keyword_only)
        if self.may_take_container(arrays):
            return tuple(arrays)
        names = tuple(name for name in known if name in self.required or name in arrays)
        more = [name for name in arrays if name not in known]
        if self.has_kwargs or (self.has_args and not self.required):
            names = (*names, *more)
        return names or self.positional[:1] or ("input",)

    def may_take_container(self, names: Sequence[str]) -> bool:
        """Whether several arrays of other names may be a dictionary or a list, the only argument of `forward`."""
        is_alone = self.required == self.positional[:1] and not (self.has_args or self.has_kwargs)
        return is_alone and len(names) > 1 and set(names).isdisjoint((*self.positional, *self.keyword_only))


def forward_inputs(model: torch.nn.Module, name: str) -> ForwardInputs:
    """The parameters of a model's `forward`. Raises `SourceError` if it has none."""
    try:
        schema = getattr(model.forward, "schema", None)
    except Exception as error:
        raise SourceError(f"{name}: reading forward raised {describe(error)}") from error
    if schema is not None:  # TorchScript
        arguments = schema.arguments[1:]
        positional = tuple(item.name for item in arguments if not item.kwarg_only)
        keyword_only = tuple(item.name for item in arguments if item.kwarg_only)
        required = tuple(item.name for item in arguments if not item.has_default_value())
        inputs = ForwardInputs(positional, keyword_only, required)
    else:
        inputs = _of_signature(inspect.signature(model.forward).parameters.values())
    if not (inputs.positional or inputs.keyword_only or inputs.has_args or inputs.has_kwargs):
        raise SourceError(f"{name}: forward{inspect.signature(model.forward)} has no inputs; add one for each")
    return inputs


def _of_signature(parameters: Iterable[inspect.Parameter]) -> ForwardInputs:
    listed = list(parameters)
    named = [item for item in listed if item.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)]
    kinds = {item.kind for item in listed}
    return ForwardInputs(
        positional=tuple(item.name for item in named if item.kind in _POSITIONAL),
        keyword_only=tuple(item.name for item in named if item.kind not in _POSITIONAL),
        required=tuple(item.name for item in named if item.default is inspect.Parameter.empty),
        has_args=inspect.Parameter.VAR_POSITIONAL in kinds,
        has_kwargs=inspect.Parameter.VAR_KEYWORD in kinds,
    )


def named_outputs(value: Any, inputs: Iterable[str] = ()) -> dict[str, torch.Tensor]:
    """The tensors that a model returned, by name, in the order in which they are exported.

    Names are the keys of dictionaries, dataclasses and named tuples, else `output`, `output1`, ... A name that an input
    has gets `_output` added.
    """
    taken = set(inputs)
    names: dict[str, torch.Tensor] = {}
    for path, tensor in _leaves(value):
        stem = re.sub(r"[^\w.]+", "_", ".".join(path)) or "output"
        stem = f"{stem}_output" if stem in taken else stem
        name, number = stem, 0
        while name in names or name in taken:
            number += 1
            name = f"{stem}{number}"
        names[name] = tensor
    return names


def flat_outputs(value: Any) -> list[torch.Tensor]:
    """The tensors that a model returned, in the order in which they are exported."""
    return [tensor for _, tensor in _leaves(value)]


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield path, require_plain_output(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from _leaves(getattr(value, key), (*path, key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, path)


def bound(
    model: torch.nn.Module, names: Sequence[str], example: Sequence[torch.Tensor], name: str
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The model with inputs of these names by position, and tensors as outputs, and the names of its outputs.

    Runs it on the `example`. The class of the model changes, so it must be a private copy; submodules keep their names.
    """
    import torch

    places, result = called(model, names, example, name, partial(run_once, model))
    try:
        outputs = tuple(named_outputs(result, names))
    except SourceError as error:
        raise SourceError(f"{name}: {error}", error.fix) from None
    if places is None and _is_plain(result):
        return model, outputs
    if isinstance(model, torch.jit.ScriptModule):
        raise SourceError(
            f"{name}: no exporter takes this TorchScript module, which has keyword-only inputs or returns a dictionary",
            "give file.py:callable, which builds the network, or a module that returns a tensor or a tuple of tensors",
        )
    model.__class__ = _bound_class(type(model), places)
    return model, outputs


def called(
    model: torch.nn.Module,
    names: Sequence[str],
    example: Sequence[torch.Tensor],
    name: str,
    run: Callable[[Callable[[], Any]], Any],
) -> tuple[Places | None, Any]:
    """How a model takes inputs of these names, None by position, and its result; `run` runs the call that it gets."""
    inputs = forward_inputs(model, name)
    if inputs.may_take_container(names):
        return _run_with_container(model, tuple(names), example, run)
    by_position = tuple(names) == inputs.positional[: len(names)] or inputs.has_args
    places = None if by_position else Places(inputs.positional, tuple(names))
    args, keywords = (list(example), {}) if places is None else places.arranged(example)
    return places, run(lambda: model(*args, **keywords))


def _is_plain(value: Any) -> bool:
    """Whether exporters take it, and list its tensors in order."""
    import torch

    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return all(map(_is_plain, value))
    return isinstance(value, torch.Tensor)


@dataclass(frozen=True, slots=True)
class Places:
    """How `forward` takes arrays of these `names`: its `positional` parameters, or a `container` with all arrays."""

    positional: tuple[str, ...]
    names: tuple[str, ...]
    container: Literal["dict", "list", ""] = ""

    def arranged(self, arrays: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call: by position as far as no earlier parameter is missing, then by keyword."""
        given = dict(zip(self.names, arrays, strict=True))
        if self.container:
            return [given if self.container == "dict" else list(arrays)], {}
        count = next((number for number, name in enumerate(self.positional) if name not in given), len(self.positional))
        return [given.pop(name) for name in self.positional[:count]], given


def _run_with_container(
    model: torch.nn.Module,
    names: tuple[str, ...],
    example: Sequence[torch.Tensor],
    run: Callable[[Callable[[], Any]], Any],
) -> tuple[Places, Any]:
    """How a model takes several arrays as one argument, and its result. Raises what it raises for a dictionary."""
    first: Exception | None = None
    kinds: tuple[Literal["dict", "list"], ...] = ("dict", "list")
    for kind in kinds:
        places = Places((), names, kind)
        args, _ = places.arranged(example)
        try:
            return places, run(partial(model, *args))
        except Exception as error:
            first = first or error
    assert first is not None
    raise first


def _bound_class(kind: type[torch.nn.Module], places: Places | None) -> type[torch.nn.Module]:
    def forward(self: Any, *arrays: Any) -> Any:
        args, keywords = (list(arrays), {}) if places is None else places.arranged(arrays)
        return _plain_result(kind.forward(self, *args, **keywords))

    def reduce(self: Any, _protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
        return _new_bound, (kind, places), self.__getstate__() if hasattr(self, "__getstate__") else vars(self)

    body = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), body)


def _new_bound(kind: type[torch.nn.Module], places: Places | None) -> torch.nn.Module:
    made = _bound_class(kind, places)
    return made.__new__(made)


def _plain_result(value: Any) -> Any:
    """A result that exporters take: a tensor, or a tuple of all tensors in it."""
    import torch

    tensors = flat_outputs(value)
    return value if isinstance(value, torch.Tensor) else tuple(tensors)
