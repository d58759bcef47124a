"""Files whose results depend on the addresses of MNN's tensors in memory (see `scale_propagation`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_mnnquant.mnnfile.commands import Command, possible_commands
from pytest_mnnquant.mnnfile.model import Model, TensorQuant
from pytest_mnnquant.mnnfile.propagated_values import SEEN_THROUGH, Values, computed
from pytest_mnnquant.mnnfile.scale_propagation import Outcome, outcomes


@dataclass(frozen=True, slots=True)
class Reaching:
    """A quantization that reaches a tensor: the tensor that has it in the file, and the operator with that input."""

    tensor: str
    operator: str
    scale: float
    zero: float


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """A tensor without a quantization in the file that several quantizations reach, and the operator that writes it.

    `operator` is the name of the first operator whose result depends on the choice, `differs` its kind and name.
    """

    tensor: str
    maker: str
    reaching: tuple[Reaching, ...]
    operator: str
    differs: str


def ambiguities(model: Model) -> list[Ambiguity]:
    """The tensors whose scale depends on addresses, if the outputs depend on it too; in the order of the file."""
    by_tensor: dict[str, Ambiguity] = {}
    if model.tensor_quants:
        for steps in possible_commands(model):
            for resized in (False, True):
                for ambiguity in _ambiguities(model, steps, outcomes(steps, model.tensor_quants, resized=resized)):
                    by_tensor.setdefault(ambiguity.tensor, ambiguity)
    return list(by_tensor.values())


def _ambiguities(model: Model, steps: Sequence[Command], ways: Sequence[Outcome]) -> Iterator[Ambiguity]:
    quants, values = model.tensor_quants, Values()
    results = [computed(steps, quants, way, values) for way in ways]
    names = set(model.output_names)
    ends = {tensor for tensor, name in enumerate(model.tensor_names) if name in names}
    computing = (step for step in steps if step.kind not in SEEN_THROUGH or step.output in ends)
    if not any(_differs(results, step.output) for step in computing):
        return
    first = next(step for step in steps if _differs(results, step.output))
    makers = {step.output: step for step in steps}
    for tensor in dict.fromkeys(tensor for step in steps for tensor in (*step.inputs, step.output)):
        sources = {way.sources[tensor] for way in ways if tensor in way.sources}
        grids = {values.grid(quants[source]) for source in sources}
        if len(grids) > 1 or (grids and any(tensor not in way.sources for way in ways)):
            maker = makers.get(tensor)
            reaching = tuple(_reaching(model, steps, source) for source in sorted(sources))
            yield Ambiguity(
                model.tensor_names[tensor], maker.title if maker else "", reaching, first.op.name, first.title
            )


def _differs(results: Sequence[Mapping[int, int]], tensor: int) -> bool:
    return len({result.get(tensor) for result in results}) > 1


def _reaching(model: Model, steps: Sequence[Command], source: int) -> Reaching:
    quant: TensorQuant = model.tensor_quants[source]
    taker = next((step.op.name for step in steps if source in step.inputs and step.op.is_convolution), "")
    maker = next((step.op.name for step in steps if source == step.output), "")
    return Reaching(model.tensor_names[source], taker or maker, quant.scale, quant.zero)
