"""Whether two models of one network compute by the same operators, set and connected alike.

Operators are told by their names; those that only one of the models has (layout conversions, which a quantizer moves)
are looked through. Tools that rename all operators leave the layers to compare, by their match.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model, Op, input_name
from pytest_mnnquant.mnnfile.settings import settings

#: Between float and int8.
CASTS: Final = ("FloatToInt8", "Int8ToFloat")
# Made by the converter, numbered anew in each model, or moved by quantization.
_FREE: Final = frozenset({"Raster", "ConvertTensor", *CASTS, "Cast", "Extra"})
# An activation may be fused into the operator before it, or follow it.
_FUSED: Final = ("relu", "relu6", "activationType")
_DEPTH: Final = 200
Source = object
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """An operator of the first model, and what the second one has otherwise.

    `is_minor`: it computes the same, but who asks the file what to feed is told something else.
    """

    operator: str
    text: str
    is_minor: bool = False


def differences(first: Model, second: Model, match: Match) -> list[Difference]:
    """Where the second model's operators are set or connected otherwise than the first one's."""
    if any(_family(op) != _family(other) for op, other in match.pairs):
        return []  # Converted by other rules (an LSTM kept as one operator): the layers that differ are told as such.
    ours, theirs = _named(first), _named(second)
    shared = {key for key, op in ours.items() if key in theirs and _family(op) == _family(theirs[key])}
    pairs = {id(ours[key]): (ours[key], theirs[key]) for key in ours if key in shared}
    pairs |= {id(op): (op, other) for op, other in match.pairs}
    by_name = {one.name for one in first.inputs} == {one.name for one in second.inputs}
    before, after = _Wiring(first, shared, by_name), _Wiring(second, shared, by_name)
    found = _inputs(first, second) if by_name else []
    for op, other in pairs.values():
        if text := _set_otherwise(op, other, before, after):
            found.append(Difference(op.name, text))
        elif (op.subgraph, op.name) in shared and op.name == other.name and before.inputs(op) != after.inputs(other):
            found.append(Difference(op.name, f"takes {after.told(other)}; the float model's takes {before.told(op)}"))
    return found + _outputs(first, second, before, after)


def _inputs(first: Model, second: Model) -> list[Difference]:
    """Inputs that are of another kind of number, or say another size; the number of samples is nobody's."""
    found, others = [], {one.name: one for one in second.inputs}
    for ours in first.inputs:
        theirs = others[ours.name]
        if (ours.data_type == "float") != (theirs.data_type == "float"):
            text = f"this input takes {theirs.data_type}; in the float model {ours.data_type}"
            found.append(Difference(ours.name, text))
        sizes = zip(ours.shape[1:], theirs.shape[1:], strict=False)
        if len(ours.shape) == len(theirs.shape) and any(one != two for one, two in sizes if one > 0 and two > 0):
            text = f"this input says it takes {list(theirs.shape)}; in the float model {list(ours.shape)}"
            found.append(Difference(ours.name, text, is_minor=True))
    return found


def foreign_casts(model: Model) -> dict[str, int]:
    """Quantizing operators in a file without int8 layers, counted by kind; MNN's own tools write no such file."""
    if any(weights.full_int8 for op in model.convolutions for weights in op.weights):
        return {}
    return dict(Counter(op.kind for op in model.ops if op.kind in CASTS))


def _outputs(first: Model, second: Model, before: _Wiring, after: _Wiring) -> list[Difference]:
    """Outputs that come from other operators than the first model's, or in another order."""
    found = []
    names, others = first.output_names, second.output_names
    if names != others and set(names) == set(others):
        text = f"the outputs are {', '.join(others)}; in the float model {', '.join(names)}: by number each is another"
        found.append(Difference("", text))
    for name in first.output_names:
        ours, theirs = before.output(name), after.output(name)
        if name in second.output_names and ours is not None and theirs is not None and ours != theirs:
            text = f"output {name!r} comes from {_words(theirs)}; in the float model from {_words(ours)}"
            found.append(Difference("", text))
    return found


def _named(model: Model) -> dict[Key, Op]:
    """Operators that are told by their names."""
    counts = Counter((op.subgraph, op.name) for op in model.ops)
    return {
        (op.subgraph, op.name): op
        for op in model.ops
        if op.name and op.kind not in _FREE and counts[op.subgraph, op.name] == 1
    }


def _family(op: Op) -> str:
    return "convolution" if op.is_convolution else op.kind


def _set_otherwise(op: Op, other: Op, before: _Wiring, after: _Wiring) -> str:
    ours, theirs = dict(settings(op)), dict(settings(other))
    for name in _FUSED:
        ours.pop(name, None)
        theirs.pop(name, None)
    for name, value in ours.items():
        if theirs.get(name, value) != value:
            verb = "are" if isinstance(value, tuple) else "is"
            return f"its {name} {verb} {_told(theirs[name])}, {_told(value)} in the float model"
    activation, wanted = after.activation(other), before.activation(op)
    # What a full-int8 layer's codes can hold is its upper limit too: mnnquant's EMA makes a ReLU of a ReLU6.
    bounded = any(weights.full_int8 for weights in other.weights)
    if activation != wanted and not (bounded and activation and wanted):
        return f"{activation or 'nothing'} is applied to what it computes, {wanted or 'nothing'} in the float model"
    return ""


def _told(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Wiring:
    """What each operator of a model takes, in terms of operators that another model has too."""

    def __init__(self, model: Model, shared: set[Key], by_name: bool) -> None:
        self._shared = shared
        self._names = {name: number for number, name in enumerate(model.tensor_names)}
        self._producers = {(op.subgraph, tensor): op for op in model.ops for tensor in op.outputs}
        inputs = [input_name(op) for op in model.ops if op.kind == "Input"]
        # By their names where both models have the same, else by their order.
        self._inputs: dict[str, object] = {name: name if by_name else number for number, name in enumerate(inputs)}
        self._consumers: dict[tuple[str, int], list[Op]] = {}
        for op in model.ops:
            for tensor in op.inputs:
                self._consumers.setdefault((op.subgraph, tensor), []).append(op)

    def inputs(self, op: Op) -> tuple[Source, ...]:
        """Where the inputs of an operator come from, constants at the end left out."""
        found = [self._source(op.subgraph, tensor) for tensor in op.inputs]
        while found and found[-1] == "const":
            found.pop()
        return tuple(found)

    def output(self, name: str) -> Source | None:
        """Where an output of the model comes from; None where the other model has no such operator."""
        tensor = self._names.get(name)
        source = None if tensor is None else self._source("", tensor)
        return source if isinstance(source, tuple) and source[0] != "input" else None

    def told(self, op: Op) -> str:
        """The same in words."""
        return ", ".join(_words(source) for source in self.inputs(op)) or "nothing"

    def activation(self, op: Op) -> str:
        """What clamps the output of an operator: fused into it, or following it alone."""
        own = settings(op)
        fused = next((name for name in ("relu6", "relu") if own.get(name)), "")
        kinds = {1: "relu", 2: "relu6"}
        fused = fused or kinds.get(int(str(own.get("activationType", 0))), "")
        if fused or len(op.outputs) != 1:
            return fused
        followers = self._consumers.get((op.subgraph, op.outputs[0]), [])
        while len(followers) == 1 and followers[0].kind in _FREE and len(followers[0].outputs) == 1:
            followers = self._consumers.get((op.subgraph, followers[0].outputs[0]), [])
        is_clamp = len(followers) == 1 and followers[0].kind in ("ReLU", "ReLU6")
        return followers[0].kind.lower() if is_clamp else ""

    def _source(self, subgraph: str, tensor: int, depth: int = 0) -> Source:
        op = self._producers.get((subgraph, tensor))
        if op is None or depth > _DEPTH:
            return f"#{tensor}" if op is None else "..."
        if op.kind == "Input":
            return ("input", self._inputs[input_name(op)])
        if op.kind == "Const":
            return "const"
        if (subgraph, op.name) in self._shared:
            return (op.name, op.outputs.index(tensor))
        above = {self._source(subgraph, each, depth + 1) for each in op.inputs} - {"const"}
        if not above:
            return "const"
        return next(iter(above)) if len(above) == 1 else frozenset(above)


def _words(source: Source) -> str:
    if isinstance(source, frozenset):
        return " and ".join(sorted(_words(one) for one in source))
    if isinstance(source, tuple):
        name, number = source
        if name == "input":
            return f"input {number}"
        return str(name) if number == 0 else f"output {number} of {name}"
    return str(source)
