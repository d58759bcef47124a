"""How often the paired latency gate raises a false alarm, and how often it finds a real slow-down; beside stored times.

    python benchmarks/gate_power.py [--null N] [--slow N] [--jobs-beside 0 1 2 3]

A comparison is one child process in which a candidate and the accepted model run in turn. For a null comparison both
are the same int8 network, in two files. Slow-downs are real: a network with layers more, or a thread less; by how much
it is slower is measured by many pairs with nothing beside. Busy loops run beside, 0 to 3 in turn. The same comparisons
are judged by what pytest-benchmark stores: this process' mean, minimum, and ratio to the float model, against those of
the comparison before. Needs no torch but for the networks.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from pytest_mnnquant.case import case_of  # noqa: E402
from pytest_mnnquant.gate import Gate  # noqa: E402
from pytest_mnnquant.metrics.ratio import paired_ratio  # noqa: E402
from pytest_mnnquant.mnnfile.model import Model, read_model  # noqa: E402
from pytest_mnnquant.quantize.store import Store  # noqa: E402
from pytest_mnnquant.runtime.timing import PairedTimes, TimingSettings, paired_times  # noqa: E402
from pytest_mnnquant.settings import model_settings  # noqa: E402
from pytest_mnnquant.sources.spec import Spec  # noqa: E402

TIMEOUT: Final = 120.0
GATES: Final = (0.05, 0.10)
WIDTH: Final = 24


class Net(nn.Module):
    """Convolutions in a row; `more` further ones of `channels` channels make it slower."""

    def __init__(self, depth: int, more: int, channels: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        for _ in range(more):
            layers += [nn.Conv2d(WIDTH, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, WIDTH, 1)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        out: torch.Tensor = self.head(self.layers(x).mean((2, 3)))
        return out


@dataclass(frozen=True)
class Pair:
    """A candidate beside the accepted model; `threads` of both."""

    name: str
    candidate: Model
    accepted: Model
    threads: tuple[int, int] = (1, 1)


@dataclass
class Counts:
    """What was judged, and how often it was told to be slower, by (judge, gate)."""

    comparisons: int = 0
    alarms: dict[tuple[str, float], int] = dataclasses.field(default_factory=dict)
    unsure: dict[float, int] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)

    def add(self, judge: str, gate: float, alarm: bool) -> None:
        """Count one verdict."""
        self.alarms[judge, gate] = self.alarms.get((judge, gate), 0) + alarm


def variant(network: nn.Module, name: str, store: Store) -> tuple[Model, Model]:
    """(float model, int8 variant) of a network."""
    data = {"x": np.random.default_rng(0).random((128, 3, 32, 32), np.float32)}
    settings = model_settings(name, name, _ROOT, {"timeout": TIMEOUT})
    case = case_of(Gate(settings, Spec(name, name), store, lambda _: None, network, data, data), "int8", "eval")
    return case.variant.base, case.model


def copied(model: Model, folder: Path, name: str) -> Model:
    """The same file under another name."""
    path = folder / f"{name}.mnn"
    path.write_bytes(model.path.read_bytes())
    return read_model(path)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that do nothing but take time."""
    workers = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


def _spin() -> None:
    while True:
        math.sqrt(2.0)


def measured(pair: Pair, inputs: dict[str, Any], limit: float | None = None, pairs: int = 150) -> PairedTimes:
    """One comparison, as the gate makes it."""
    how = TimingSettings(threads=pair.threads[1], pairs=pairs, limit=limit)
    if pair.threads[0] != pair.threads[1]:  # The gate times both alike; here one of them lost a thread.
        how = dataclasses.replace(how, threads=list(pair.threads[::-1]))  # type: ignore[arg-type]
    return paired_times(pair.accepted, pair.candidate, inputs, timeout=TIMEOUT, settings=how)


def judged(pair: Pair, base: Model, inputs: dict[str, Any], rounds: int, beside: list[int]) -> Counts:
    """All comparisons of one pair, by all judges."""
    counts, stored = Counts(), None
    for number in range(rounds):
        load = beside[number * len(beside) // rounds]
        with busy(load):
            started = time.monotonic()
            times = measured(pair, inputs, limit=1 + GATES[1])
            counts.seconds.append(time.monotonic() - started)
            ours = paired_times(
                base, pair.candidate, inputs, timeout=TIMEOUT, settings=TimingSettings(pairs=60, width=math.inf)
            )
        counts.comparisons += 1
        ratio = paired_ratio(times.reference, times.candidate)
        accepted_float = np.median(times.reference) / np.median(ours.reference)
        now = {
            "stored mean": (times.candidate.mean(), times.reference.mean()),
            "stored minimum": (times.candidate.min(), times.reference.min()),
            "stored ratio": (paired_ratio(ours.reference, ours.candidate).median, float(accepted_float)),
        }
        for gate in GATES:
            counts.add("paired", gate, ratio.low > 1 + gate)
            counts.unsure[gate] = counts.unsure.get(gate, 0) + (ratio.low <= 1 + gate < ratio.high)
            for judge, (figure, _) in now.items():
                if stored is not None:
                    counts.add(judge, gate, bool(figure > (1 + gate) * stored[judge][1]))
        stored = now
    return counts


def main() -> None:
    """Make the networks, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--jobs-beside", type=int, nargs="+", default=[0, 1, 2, 3])
    given = parser.parse_args()
    inputs = {"x": np.random.default_rng(1).random((1, 3, 32, 32), np.float32)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "store")
        base, accepted = variant(Net(8, 0), "accepted", store)
        same = Pair("nothing changed", copied(accepted, folder, "same"), accepted)
        slower = [
            Pair("a narrow layer more", variant(Net(8, 1, 12), "narrow", store)[1], accepted),
            Pair("two layers more", variant(Net(8, 2), "two", store)[1], accepted),
            Pair("a thread less", copied(accepted, folder, "thread"), accepted, (1, 2)),
        ]
        print("| comparison | really slower by | judged by | gate 5 % | gate 10 % | open at 5 %, 10 % | seconds |")
        print("|---|---|---|---|---|---|---|")
        for pair, rounds in ((same, given.null), *((pair, given.slow) for pair in slower)):
            truth = measured(pair, inputs, pairs=1500)
            real = paired_ratio(truth.reference, truth.candidate).median - 1
            counts = judged(pair, base, inputs, rounds, given.jobs_beside)
            for judge in ("paired", "stored mean", "stored minimum", "stored ratio"):
                shares = [counts.alarms.get((judge, gate), 0) / counts.comparisons for gate in GATES]
                cells = f"{shares[0]:.1%} | {shares[1]:.1%}"
                more = " | | |"
                if judge == "paired":
                    unsure = [counts.unsure[gate] / counts.comparisons for gate in GATES]
                    more = f" | {unsure[0]:.1%}, {unsure[1]:.1%} | {np.median(counts.seconds):.2f} |"
                print(f"| {pair.name} ({rounds}) | {real:+.1%} | {judge} | {cells}{more}", flush=True)


if __name__ == "__main__":
    main()
