"""The recurrent half of nn.LSTM, which MNN runs in the body of a While loop.

MNN gives no trace of a body, so nothing in it can be observed. PyTorch has the values: the convolution's input is the
hidden state, which the LSTM returns for every step, and its output is W_hh h + b. MNN 3.6.1 runs it in int8. (It
computes the body of a GRU in float, whatever the params file says.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.calibration import Range
from pytest_mnnquant.quantize.tensor_binding import moments_of
from pytest_mnnquant.quantize.torch_ranges import BATCH
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A convolution `op` in the body of a loop, and the LSTM whose layer and direction it computes."""

    op: Op
    module: str
    layer: int
    reverse: bool


def recurrent_layers(network: nn.Module, model: Model) -> tuple[Recurrent, ...]:
    """The layer of an LSTM that each convolution in a loop computes: the one with the same weights, in any order."""
    names = Counter(name for op in model.ops for name in op.output_names)
    # MNN finds a layer of the params file by the name of its output, which bodies of several loops may share.
    bodies = [op for op in model.layers if op.subgraph and op.is_convolution and names[op.output_names[0]] == 1]
    left = {op.name: (op, moments_of(model.decoded(op))) for op in bodies}
    layers = []
    for name, module, layer, reverse in _directions(network):
        identity = moments_of(getattr(module, f"weight_hh_l{layer}" + ("_reverse" if reverse else "")))
        match = next((op for op, known in left.values() if identity and known and identity.matches(known)), None)
        if match is not None:
            layers.append(Recurrent(match, name, layer, reverse))
            del left[match.name]
    return tuple(layers)


def _directions(network: nn.Module) -> Iterator[tuple[str, nn.LSTM, int, bool]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.LSTM) and not module.proj_size:
            for layer in range(module.num_layers):
                for reverse in (False, True)[: 1 + module.bidirectional]:
                    yield name, module, layer, reverse


def recurrent_ranges(
    network: nn.Module, model: Model, layers: tuple[Recurrent, ...], data: Dataset
) -> dict[str, tuple[Range, Range]]:
    """By operator name: the ranges of the hidden state, and of the convolution's output.

    `network` runs in its current mode. Ranges are min and max for all observers: no histogram is collected.
    """
    ranges_of: dict[str, tuple[Range, Range]] = {}
    biases = model.vectors()

    def see(op: Op, states: torch.Tensor) -> None:
        weights, bias = torch.from_numpy(np.array(model.decoded(op))), biases.get(op.name, np.zeros(1, np.float32))
        outputs = states.float() @ weights.T + torch.from_numpy(np.array(bias))
        ranges = (_range(states), _range(outputs))
        known = ranges_of.get(op.name, ranges)
        ranges_of[op.name] = (known[0].merged(ranges[0]), known[1].merged(ranges[1]))

    hooks = []
    for name in {item.module for item in layers}:
        of_module = [item for item in layers if item.module == name]

        def look(lstm: Any, inputs: Any, _result: Any, of_module: list[Recurrent] = of_module) -> None:
            states = {(layer, reverse): tensor for layer, reverse, tensor in hidden_states(lstm, *inputs)}
            for item in of_module:
                if (item.layer, item.reverse) in states:
                    see(item.op, states[item.layer, item.reverse])

        hooks.append(network.get_submodule(name).register_forward_hook(look))
    try:
        with suppress_output(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for batch in data.batches(BATCH):
                network(*as_tensors(batch, network))
    finally:
        for hook in hooks:
            hook.remove()
    return ranges_of


def hidden_states(
    lstm: nn.LSTM, inputs: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
) -> Iterator[tuple[int, bool, torch.Tensor]]:
    """(layer, reverse, hidden state before each step) of an LSTM; nothing for packed or unbatched sequences."""
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 3:
        return
    ways = 1 + lstm.bidirectional
    time = 1 if lstm.batch_first else 0
    for layer in range(lstm.num_layers):
        part = slice(layer * ways, (layer + 1) * ways)
        start = None if state is None else (state[0][part], state[1][part])
        inputs, _ = _single(lstm, layer)(inputs, start)
        for way, states in enumerate(torch.split(inputs, lstm.hidden_size, -1)):
            steps = states.shape[time]
            first = torch.zeros_like(states.narrow(time, 0, 1)) if start is None else start[0][way].unsqueeze(time)
            # Each step starts from the state of the step before; the last state is not used.
            before = states.narrow(time, 1 if way else 0, steps - 1)
            yield layer, bool(way), torch.cat([first, before], time)


def _single(lstm: nn.LSTM, layer: int) -> nn.LSTM:
    """One layer of an LSTM as a separate module."""
    size = lstm.input_size if layer == 0 else lstm.hidden_size * (1 + lstm.bidirectional)
    single = nn.LSTM(size, lstm.hidden_size, 1, lstm.bias, lstm.batch_first, bidirectional=lstm.bidirectional)
    parameters = dict(lstm.named_parameters())
    weights = {name: parameters[name.replace("_l0", f"_l{layer}")].detach() for name, _ in single.named_parameters()}
    single.load_state_dict(weights)
    return single


def _range(tensor: torch.Tensor) -> Range:
    low, high = torch.aminmax(tensor)
    return Range(float(low), float(high))
