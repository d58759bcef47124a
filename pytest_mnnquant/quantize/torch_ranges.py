"""Runs calibration data through a PyTorch model and collects the data that observers need of each value.

Modules return most of the relevant values, so hooks on these modules are enough and almost free. If a module does not
return one of them (functional code in the middle of a `forward`), every operator is watched.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.quantize.observers import BINS, Histogram
from pytest_mnnquant.quantize.torch_watch import OnValue, Value, watch_values
from pytest_mnnquant.runtime.progress import report_progress
from pytest_mnnquant.sources.pytorch import as_tensors, suppress_output

BATCH: Final = 32
# Enough to find where values leave modules; BatchNorm in train mode needs two.
_FEW: Final = 2
# Where a value leaves a module: the module's name, the number of its call, the position in its return value.
Exit = tuple[str, int, int]
Exits = dict[Value, Exit]


def collect_extremes(
    network: torch.nn.Module, observed: set[Value], data: Dataset, exits: Exits | None = None
) -> dict[Value, npt.NDArray[np.float64]]:
    """Minimum and maximum of each value in each batch, shape [batches, 2]. `network` runs in its current mode.

    `exits` are the places where values leave modules in this mode; None: a trial run finds them.
    """
    seen: dict[Value, list[torch.Tensor]] = defaultdict(list)

    def see(value: Value, tensor: torch.Tensor) -> None:
        if tensor.numel():
            seen[value].extend(torch.aminmax(tensor))

    _run_all(network, observed, data, see, exits)
    return {value: torch.stack(pairs).double().numpy().reshape(-1, 2) for value, pairs in seen.items()}


def collect_histograms(
    network: torch.nn.Module,
    bounds: dict[Value, tuple[float, float]],
    data: Dataset,
    exits: Exits | None = None,
) -> dict[Value, Histogram]:
    """A histogram of each value over its bounds; `exits` as for `collect_extremes`."""
    counts = {value: np.zeros(BINS) for value in bounds}

    def see(value: Value, tensor: torch.Tensor) -> None:
        low, high = bounds[value]
        if tensor.numel() and high > low:
            counts[value] += torch.histc(tensor.float(), BINS, low, high).numpy()

    _run_all(network, set(bounds), data, see, exits)
    return {value: Histogram(*bounds[value], counts[value]) for value in bounds}


def _run_all(network: torch.nn.Module, observed: set[Value], data: Dataset, see: OnValue, exits: Exits | None) -> None:
    with suppress_output():
        if exits is None:
            trial = copy.deepcopy(network) if network.training else network
            few = next(iter(data.batches(_FEW)))
            exits = module_exits(trial, as_tensors(few, network))
        chosen = _for_values(observed, see)
        hooked = all(value in exits or _is_input(value) for value in observed)
        places = {exits[value]: value for value in observed if value in exits}
        with _watch_exits(network, places, chosen) if hooked else watch_values(network, chosen) as run:
            torch.manual_seed(0)  # Dropout in train mode must not make two runs differ.
            batches = list(data.batches(BATCH))
            for number, batch in enumerate(batches):
                report_progress(number, len(batches), "batches")
                run(*as_tensors(batch, network))


def _for_values(observed: set[Value], see: OnValue) -> OnValue:
    return lambda value, tensor: see(value, tensor) if value in observed else None


def _is_input(value: Value) -> bool:
    return not value.module and value.operator.startswith("input")


def module_exits(network: torch.nn.Module, example: tuple[torch.Tensor, ...], also: OnValue | None = None) -> Exits:
    """The places where values leave a module unmodified; other values are missing. Runs `network` once, in its mode.

    A tensor that a module returns is the value that was computed into it last. `also` gets every computed value.
    """
    latest: dict[int, tuple[Value, torch.Tensor]] = {}  # Holds the tensor, so that its id is not reused.
    exits: Exits = {}

    def see(value: Value, tensor: torch.Tensor) -> None:
        latest[id(tensor)] = (value, tensor)
        if also is not None:
            also(value, tensor)

    def leave(place: Exit, tensor: torch.Tensor) -> None:
        if id(tensor) in latest:
            exits.setdefault(latest[id(tensor)][0], place)

    with _on_results(network, leave) as restart, watch_values(network, see) as run:
        restart()
        run(*example)
    return exits


@contextlib.contextmanager
def _on_results(
    network: torch.nn.Module, leave: Callable[[Exit, torch.Tensor], None], only: Iterable[str] | None = None
) -> Iterator[Callable[[], None]]:
    """Within this context `leave` gets each tensor that a module returns; the yielded function starts a new pass."""
    calls: Counter[str] = Counter()
    names = None if only is None else set(only)

    def hook(name: str) -> Callable[..., None]:
        def left(_module: torch.nn.Module, _inputs: Any, result: Any) -> None:
            number = calls[name]
            calls[name] += 1
            for place, tensor in enumerate(result if isinstance(result, tuple | list) else (result,)):
                if isinstance(tensor, torch.Tensor):
                    leave((name, number, place), tensor)

        return left

    hooks = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if names is None or name in names
    ]
    try:
        yield calls.clear
    finally:
        for handle in hooks:
            handle.remove()


@contextlib.contextmanager
def _watch_exits(network: torch.nn.Module, exits: dict[Exit, Value], see: OnValue) -> Iterator[Callable[..., Any]]:
    def leave(place: Exit, tensor: torch.Tensor) -> None:
        if place in exits:
            see(exits[place], tensor)

    with (
        _on_results(network, leave, {name for name, _, _ in exits}) as restart,
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):

        def run(*inputs: torch.Tensor) -> Any:
            restart()
            for number, tensor in enumerate(inputs):
                if tensor.is_floating_point():
                    see(Value("", f"input{number}", 0), tensor)
            return network(*inputs)

        yield run
