"""Whether two models of one network compute by the same operators, with the same attributes and connections.

Operators are identified by their names; those that only one of the models has (layout conversions, which a quantizer
moves) are skipped. If a tool renames all operators, only the matched layers are compared.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model, Op, input_name
from pytest_mnnquant.mnnfile.settings import settings

#: Operators that convert between float and int8.
CASTS: Final = ("FloatToInt8", "Int8ToFloat")
# Created by the converter, numbered separately in each model, or moved by quantization.
_FREE: Final = frozenset({"Raster", "ConvertTensor", *CASTS, "Cast", "Extra"})
# An activation may be fused into the previous operator, or follow it.
# Only Interp3D reads these; with --saveStaticModel MNN's converter writes them from memory that it never set.
_DEPTH_OF_INTERP: Final = ("depthScale", "outputDepth", "depthOffset")
_FUSED: Final = ("relu", "relu6", "activationType")
_DEPTH: Final = 200
Source = object
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """An operator of the first model, and its difference in the second model.

    `is_minor`: the computation is the same, but the declared input differs.
    """

    operator: str
    text: str
    is_minor: bool = False


def differences(first: Model, second: Model, match: Match) -> list[Difference]:
    """Where attributes or connections of the second model's operators differ from the first one's."""
    if any(_family(op) != _family(other) for op, other in match.pairs):
        return []  # Converted differently (an LSTM kept as one operator): other checks report the layers that differ.
    before, after = _named(first), _named(second)
    shared = {key for key, op in before.items() if key in after and _family(op) == _family(after[key])}
    pairs = {id(before[key]): (before[key], after[key]) for key in before if key in shared}
    pairs |= {id(op): (op, other) for op, other in match.pairs}
    by_name = {spec.name for spec in first.inputs} == {spec.name for spec in second.inputs}
    wiring, rewired = _Wiring(first, shared, by_name), _Wiring(second, shared, by_name)
    results = _inputs(first, second) if by_name else []
    for op, other in pairs.values():
        if text := _setting_difference(op, other, wiring, rewired):
            results.append(Difference(op.name, text))
        elif (op.subgraph, op.name) in shared and op.name == other.name and wiring.inputs(op) != rewired.inputs(other):
            text = f"takes {rewired.input_words(other)}; the float model's takes {wiring.input_words(op)}"
            results.append(Difference(op.name, text))
    return results + _outputs(first, second, wiring, rewired)


def _inputs(first: Model, second: Model) -> list[Difference]:
    """Inputs with another data type or another declared size; the number of samples does not count."""
    results, others = [], {spec.name: spec for spec in second.inputs}
    for spec in first.inputs:
        other = others[spec.name]
        if (spec.data_type == "float") != (other.data_type == "float"):
            text = f"its data type is {other.data_type}, {spec.data_type} in the float model"
            results.append(Difference(spec.name, text))
        sizes = zip(spec.shape[1:], other.shape[1:], strict=False)
        resized = any(size != changed for size, changed in sizes if size > 0 and changed > 0)
        if len(spec.shape) == len(other.shape) and resized:
            text = f"its declared shape is {list(other.shape)}, {list(spec.shape)} in the float model"
            results.append(Difference(spec.name, text, is_minor=True))
    return results


def foreign_casts(model: Model) -> dict[str, int]:
    """The number of quantizing operators per kind in a file without int8 layers; MNN's tools write no such file."""
    if any(weights.full_int8 for op in model.convolutions for weights in op.weights):
        return {}
    return dict(Counter(op.kind for op in model.ops if op.kind in CASTS))


def _outputs(first: Model, second: Model, before: _Wiring, after: _Wiring) -> list[Difference]:
    """Outputs from other operators than in the first model, or in another order."""
    results = []
    names, others = first.output_names, second.output_names
    if names != others and set(names) == set(others):
        text = f"the order of outputs is {', '.join(others)}, {', '.join(names)} in the float model"
        results.append(Difference("", text))
    for name in first.output_names:
        source, other = before.output(name), after.output(name)
        if name in second.output_names and source is not None and other is not None and source != other:
            text = f"output {name!r} comes from {_words(other)}; in the float model from {_words(source)}"
            results.append(Difference("", text))
    return results


def _named(model: Model) -> dict[Key, Op]:
    """The operators that are identified by their names."""
    counts = Counter((op.subgraph, op.name) for op in model.ops)
    return {
        (op.subgraph, op.name): op
        for op in model.ops
        if op.name and op.kind not in _FREE and counts[op.subgraph, op.name] == 1
    }


def _family(op: Op) -> str:
    return "convolution" if op.is_convolution else op.kind


def _setting_difference(op: Op, other: Op, before: _Wiring, after: _Wiring) -> str:
    expected, actual = dict(settings(op)), dict(settings(other))
    for name in (*_FUSED, *(_DEPTH_OF_INTERP if op.kind == "Interp" else ())):
        expected.pop(name, None)
        actual.pop(name, None)
    for name, value in expected.items():
        if actual.get(name, value) != value:
            verb = "are" if isinstance(value, tuple) else "is"
            return f"its {name} {verb} {_value_words(actual[name])}, {_value_words(value)} in the float model"
    activation, expected_activation = after.activation(other), before.activation(op)
    # The range of a full-int8 layer's codes is an upper limit too: mnnquant's EMA turns a ReLU6 into a ReLU.
    bounded = any(weights.full_int8 for weights in other.weights)
    if activation != expected_activation and not (bounded and activation and expected_activation):
        applied, expected_words = activation or "nothing", expected_activation or "nothing"
        return f"{applied} is applied to its output, {expected_words} in the float model"
    return ""


def _value_words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Wiring:
    """The inputs of each operator of a model, in terms of operators that both models have."""

    def __init__(self, model: Model, shared: set[Key], by_name: bool) -> None:
        self._shared = shared
        self._names = {name: number for number, name in enumerate(model.tensor_names)}
        self._producers = {(op.subgraph, tensor): op for op in model.ops for tensor in op.outputs}
        inputs = [input_name(op) for op in model.ops if op.kind == "Input"]
        # By name if both models have the same names, else by order.
        self._inputs: dict[str, object] = {name: name if by_name else number for number, name in enumerate(inputs)}
        self._consumers: dict[tuple[str, int], list[Op]] = {}
        for op in model.ops:
            for tensor in op.inputs:
                self._consumers.setdefault((op.subgraph, tensor), []).append(op)

    def inputs(self, op: Op) -> tuple[Source, ...]:
        """The sources of an operator's inputs, without constants at the end."""
        sources = [self._source(op.subgraph, tensor) for tensor in op.inputs]
        while sources and sources[-1] == "const":
            sources.pop()
        return tuple(sources)

    def output(self, name: str) -> Source | None:
        """The source of a model's output; None if the other model does not have that operator."""
        tensor = self._names.get(name)
        source = None if tensor is None else self._source("", tensor)
        return source if isinstance(source, tuple) and source[0] != "input" else None

    def input_words(self, op: Op) -> str:
        """The sources of an operator's inputs, as text."""
        return ", ".join(_words(source) for source in self.inputs(op)) or "nothing"

    def activation(self, op: Op) -> str:
        """The activation on the output of an operator: fused into it, or as its only consumer."""
        values = settings(op)
        fused = next((name for name in ("relu6", "relu") if values.get(name)), "")
        kinds = {1: "relu", 2: "relu6"}
        fused = fused or kinds.get(int(str(values.get("activationType", 0))), "")
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
        return " and ".join(sorted(_words(part) for part in source))
    if isinstance(source, tuple):
        name, number = source
        if name == "input":
            return f"input {number}"
        return str(name) if number == 0 else f"output {number} of {name}"
    return str(source)
