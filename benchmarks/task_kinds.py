"""A task: a network, generated data, and the score by which its users judge it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
_BATCH: Final = 24
_TRAINING: Final = 640


@dataclass(frozen=True)
class Samples:
    """Generated samples: `inputs` by the network's argument names, `truth` as the score and the loss need it.

    Samples are on the first axis. For a network with states, steps are on the second axis of `inputs`.
    """

    inputs: Arrays
    truth: Arrays


@dataclass(frozen=True)
class Line:
    """The loss that a user rejects: more than `allowed`, in the unit of the score, or as a share of the float's error.

    `words` is the rule as the docs print it.
    """

    words: str
    allowed: float
    is_share_of_error: bool = False

    def loss(self, before: float, after: float) -> float:
        """What is lost, in units of the line: above 1, a user rejects the model. An error is a negative score."""
        lost = before - after
        return lost / (self.allowed * (-before if self.is_share_of_error else 1.0))


Size = int | tuple[int, ...]


def first_state(size: Size, samples: int) -> Array:
    """Zeros as the first state of each sample, without the axis of the samples."""
    shape = (size,) if isinstance(size, int) else tuple(length for length in size if length)
    return np.zeros((samples, *shape), np.float32)


@dataclass(frozen=True)
class Task:
    """One task.

    `loss(network, inputs, truth)` trains; `score(outputs, truth)` judges the outputs in the network's order, higher is
    better (errors are negative). `ship` makes the network that is exported of the trained one. `states` maps inputs
    that are states to the number of the output that is fed back; `state_sizes` gives their length, or their
    shape with 0 for the axis of the samples.
    """

    name: str
    network: Callable[[], nn.Module]
    draw: Callable[[int, int], Samples]
    loss: Callable[[Any, list[Tensor], dict[str, Tensor]], Tensor]
    score: Callable[[Sequence[Array], Arrays], float]
    unit: str
    line: Line
    ship: Callable[[Any], nn.Module] = lambda network: network
    steps: int = 300
    rate: float = 5e-3
    calibration: int = 96
    evaluation: int = 120
    states: Mapping[str, int] = field(default_factory=dict)
    state_sizes: Mapping[str, Size] = field(default_factory=dict)

    def trained(self, folder: Path) -> nn.Module:
        """The network to ship, in eval mode; weights trained here are kept in `folder`."""
        torch.manual_seed(0)
        network = self.network()
        source = "".join(inspect.getsource(item) for item in (type(network), self.draw, self.loss))
        digest = hashlib.sha256(f"{source}{network}{self.steps}{self.rate}".encode()).hexdigest()[:12]
        path = folder / f"{type(network).__name__}-{digest}.pt"
        if path.is_file():
            network.load_state_dict(torch.load(path))
        else:
            self._train(network)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(network.state_dict(), path)
        return self.ship(network.eval()).eval()

    def _train(self, network: nn.Module) -> None:
        samples = self.draw(_TRAINING, 1)
        inputs = [torch.from_numpy(array) for array in samples.inputs.values()]
        truth = {name: torch.from_numpy(array) for name, array in samples.truth.items()}
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, self.steps, pct_start=0.2)
        network.train()
        for _ in range(self.steps):
            chosen = torch.randint(_TRAINING, (_BATCH,))
            loss = self.loss(
                network, [tensor[chosen] for tensor in inputs], {name: array[chosen] for name, array in truth.items()}
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()

    def samples(self, count: int, seed: int) -> Arrays:
        """Inputs for the gate: those of `draw`, and the first states of sequences."""
        first = {name: first_state(size, count) for name, size in self.state_sizes.items()}
        return {**self.draw(count, seed).inputs, **first}

    def steps_without_states(self, count: int, seed: int) -> Arrays:
        """Every third step of the sequences as a sample, with zeros as its state, as people save them."""
        steps = {name: array[:, 2::3] for name, array in self.draw(count, seed).inputs.items()}
        inputs = {name: array.reshape(-1, *array.shape[2:]) for name, array in steps.items()}
        samples = len(next(iter(inputs.values())))
        return {**inputs, **{name: first_state(size, samples) for name, size in self.state_sizes.items()}}
