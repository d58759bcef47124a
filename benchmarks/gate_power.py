"""How often the paired latency gate raises a false alarm, and how often it finds a real slow-down; beside stored times.

    python benchmarks/gate_power.py [--null N] [--slow N] [--jobs-beside 0 1 2 3] [--only NAME] [--write]

A comparison is one child process in which a candidate and the accepted model run in turn. For a null comparison both
are the same int8 network, in two files. Slow-downs are real: a network with additional layers, or with one thread
less. The true slow-down is measured with many pairs, with the same number of busy loops (0 to 3) as in the
comparisons. The same comparisons are judged by what pytest-benchmark stores: this process' mean, minimum, and ratio to
the float model, against those of the comparison before (the accepted model's ratio to the float model is the
candidate's, divided by its true slow-down). `--write` puts the tables into docs/latency.md.
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

from common import gate  # noqa: E402

from pytest_mnnquant.cache.store import Store  # noqa: E402
from pytest_mnnquant.config.settings import model_settings  # noqa: E402
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest  # noqa: E402
from pytest_mnnquant.evidence.variant import variant_under_test  # noqa: E402
from pytest_mnnquant.measurements.timing import PairedTimes, TimingSettings  # noqa: E402
from pytest_mnnquant.mnnfile.model import Model, read_model  # noqa: E402
from pytest_mnnquant.runtime.options import RunOptions  # noqa: E402
from pytest_mnnquant.runtime.timing import paired_times  # noqa: E402
from pytest_mnnquant.sources.spec import Spec  # noqa: E402
from pytest_mnnquant.statistics.paired_ratio import paired_ratio  # noqa: E402

TIMEOUT: Final = 120.0
GATES: Final = (0.05, 0.10)
WIDTH: Final = 24
JUDGES: Final = ("paired", "stored mean", "stored minimum", "stored ratio")
PAGE: Final = _ROOT / "docs" / "latency.md"


class Net(nn.Module):
    """Convolutions in a row; `more` further ones by way of `channels` channels make it slower."""

    def __init__(self, depth: int, more: int = 0, channels: int = WIDTH, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        for _ in range(more):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, width, 1)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        out: torch.Tensor = self.head(self.layers(x).mean((2, 3)))
        return out


@dataclass(frozen=True)
class Pair:
    """A candidate beside the accepted model, on `inputs` and `threads` of the two; `base` is the float model."""

    name: str
    candidate: Model
    accepted: Model
    base: Model
    inputs: dict[str, Any]
    threads: tuple[int, int] = (1, 1)


@dataclass
class Counts:
    """What was judged, and how often it was reported as slower, by (judge, gate). `real`: its true slow-down."""

    real: float
    comparisons: int = 0
    alarms: dict[tuple[str, float], int] = dataclasses.field(default_factory=dict)
    unsure: dict[float, int] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)

    def add(self, judge: str, gate: float, alarm: bool) -> None:
        """Count one verdict."""
        self.alarms[judge, gate] = self.alarms.get((judge, gate), 0) + alarm


def variant(network: nn.Module, name: str, store: Store, side: int = 32) -> tuple[Model, Model]:
    """(float model, int8 variant) of a network for images of `side` pixels."""
    data = {"x": np.random.default_rng(0).random((128, 3, side, side), np.float32)}
    settings = model_settings(name, name, _ROOT, {"timeout": TIMEOUT})
    case = variant_under_test(
        SourceUnderTest(settings, Spec(name, name), store, lambda _: None, FixtureValues(network, data, data)),
        "int8",
        "eval",
    )
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


def measured(pair: Pair, limit: float | None = None, pairs: int = 150) -> PairedTimes:
    """One comparison, as the gate makes it."""
    how = TimingSettings(threads=pair.threads[1], pairs=pairs, limit=limit)
    if pair.threads[0] != pair.threads[1]:  # The gate times both alike; here one of them lost a thread.
        how = dataclasses.replace(how, threads=list(pair.threads[::-1]))  # type: ignore[arg-type]
    return paired_times(pair.accepted, pair.candidate, pair.inputs, how, RunOptions(TIMEOUT))


def judged(pair: Pair, rounds: int, load: int) -> Counts:
    """All comparisons of one pair beside `load` busy loops, by all judges."""
    with busy(load):
        truth = measured(pair, pairs=1500)
        counts = Counts(paired_ratio(truth.reference, truth.candidate).median - 1)
        stored = None
        for _ in range(rounds):
            started = time.monotonic()
            # Both gates are judged on the same pairs: the search goes on until the nearer of them is decided.
            times = measured(pair, limit=1 + min(GATES, key=lambda gate: abs(gate - counts.real)))
            counts.seconds.append(time.monotonic() - started)
            how = TimingSettings(threads=pair.threads[0], pairs=60, width=math.inf)
            ours = paired_times(pair.base, pair.candidate, pair.inputs, how, RunOptions(TIMEOUT))
            to_float = paired_ratio(ours.reference, ours.candidate).median
            now = {
                "stored mean": (times.candidate.mean(), times.reference.mean()),
                "stored minimum": (times.candidate.min(), times.reference.min()),
                "stored ratio": (to_float, to_float / (1 + counts.real)),
            }
            counts.comparisons += 1
            ratio = paired_ratio(times.reference, times.candidate)
            for gate in GATES:
                counts.add("paired", gate, ratio.low > 1 + gate)
                counts.unsure[gate] = counts.unsure.get(gate, 0) + (ratio.low <= 1 + gate < ratio.high)
                for judge, (figure, _) in now.items():
                    if stored is not None:
                        counts.add(judge, gate, bool(figure > (1 + gate) * stored[judge][1]))
            stored = now
    return counts


def all_pairs(folder: Path) -> tuple[Pair, list[Pair], Pair, Pair]:
    """(nothing changed, layers more, a thread less, a fixture model against itself)."""
    store, rng = Store(folder / "store"), np.random.default_rng(1)
    small, large = ({"x": rng.random((1, 3, side, side), np.float32)} for side in (32, 64))
    base, accepted = variant(Net(8), "accepted", store)
    wide_base, wide = variant(Net(4, width=64), "wide", store, 64)
    layer = variant(Net(8, 1, 12), "layer", store)[1]
    layers = variant(Net(8, 2, 12), "layers", store)[1]
    mobile = variant_under_test(gate("mobile_net", store), "int8", "eval")
    first = {name: array[:1] for name, array in mobile.source.inputs.items()}
    return (
        Pair("nothing changed", copied(accepted, folder, "same"), accepted, base, small),
        [
            Pair("a layer more", layer, accepted, base, small),
            Pair("two layers more", layers, accepted, base, small),
        ],
        Pair("a thread less", copied(wide, folder, "thread"), wide, wide_base, large, (1, 2)),
        Pair("mobile_net", copied(mobile.model, folder, "mobile"), mobile.model, mobile.variant.base, first),
    )


HEAD: Final = (
    "| comparison | busy loops | true slow-down | comparisons | judged by | slower at 5 % | at 10 % | "
    "inconclusive at 5 %, 10 % | seconds |",
    "|---|---|---|---|---|---|---|---|---|",
)


def rows_of(pair: Pair, load: int, counts: Counts) -> list[str]:
    """The table's rows of one comparison: how often each judge reports a slow-down."""
    rows = []
    for judge in JUDGES:
        # What is stored is compared with the comparison before, which the first does not have.
        judged_ones = counts.comparisons - (judge != "paired")
        shares = [f"{counts.alarms.get((judge, gate), 0) / judged_ones:.1%}" for gate in GATES]
        unsure = [f"{counts.unsure[gate] / counts.comparisons:.1%}" for gate in GATES]
        more = f"{', '.join(unsure)} | {np.median(counts.seconds):.1f}" if judge == "paired" else "| "
        rows.append(
            f"| {pair.name} | {load} | {counts.real:+.1%} | {counts.comparisons} | {judge} | "
            f"{shares[0]} | {shares[1]} | {more} |"
        )
    return rows


def summary(pair: Pair, every: list[Counts]) -> str:
    """Over all loads: how often the gate reports a slow-down."""
    total = sum(counts.comparisons for counts in every)
    alarms = {gate: sum(counts.alarms["paired", gate] for counts in every) for gate in GATES}
    parts = (f"{number} of {total} ({number / total:.1%}) at a {gate:.0%} gate" for gate, number in alarms.items())
    return f"- {pair.name}: reported as slower {', '.join(parts)}"


def main() -> None:
    """Make the networks, judge, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument("--jobs-beside", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--only", help="the one comparison of this name")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    loads = given.jobs_beside
    lines, sums = list(HEAD), []
    print(*HEAD, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        same, slower, thread, mobile = all_pairs(Path(name))
        for pair, rounds in (
            (same, given.null),
            *((pair, given.slow) for pair in slower),
            (thread, given.slow),
            (mobile, 5 * len(loads)),
        ):
            if given.only not in (None, pair.name):
                continue
            every = []
            # Beside busy loops a second of two cores gains little or nothing: a slow-down is missing.
            for load in loads[:1] if pair is thread else loads:
                counts = judged(pair, max(2, rounds // len(loads)), load)
                every.append(counts)
                lines += (rows := rows_of(pair, load, counts))
                print(*rows, sep="\n", flush=True)
            sums.append(summary(pair, every))
            print(sums[-1], flush=True)
    if given.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- power -->")
        after = rest.partition("<!-- /power -->")[2]
        text = "\n".join([*sums, "", *lines])
        PAGE.write_text(f"{before}<!-- power -->\n{text}\n<!-- /power -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
