"""Whether an int8 file computes the same in every process, API and architecture.

    python benchmarks/process_spread.py [--recipe int8] [--processes 8] [--without-arm]

A PAN neck whose deepest feature has two int8 consumers of different scale is quantized by the recipe. It runs in fresh
processes: through a session, a session after a resize, and a module, on this host with heaps that differ, and on MNN's
ARM kernels under emulation. The exit status is 1 if a run has less than 40 dB of SQNR against the float model, or if
runs on one machine differ by more than a quantization step.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import torch
from matrix_nets import smooth, up
from propagation_truth import SAMPLES, WAYS, run_forked
from torch import Tensor, nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.target.check import ROUNDING, furthest
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.operator_differences import output_scales
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.metrics.agreement import sqnr_db
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.scale_ambiguity import ambiguities
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import Spec
from pytest_mnnquant.targets.emulator import NAME, Emulator, cache_folder

Outputs = dict[str, npt.NDArray[Any]]
TIMEOUT: Final = 900.0
LEAST_DB: Final = 40.0
CPU: Final = "cortex-a76"


class TwoConsumers(nn.Module):
    """The deepest feature goes upsampled into one joined tensor, and unmodified into another, as in YOLO's necks."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d  # With the weights of PyTorch, which leave 48 dB in int8.
        self.first, self.second, self.deep = conv(3, 16, 3, 2, 1), conv(16, 24, 3, 2, 1), conv(24, 32, 3, 2, 1)
        self.fuse_up, self.down, self.fuse_down = conv(56, 24, 3, 1, 1), conv(24, 24, 3, 2, 1), conv(56, 32, 3, 1, 1)
        self.fine_head, self.coarse_head = conv(24, 6, 1), conv(32, 6, 1)
        with torch.no_grad():
            self.deep.weight.mul_(0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps."""
        second = functional.silu(self.second(functional.silu(self.first(image))))
        deep = functional.silu(self.deep(second))
        fine = functional.silu(self.fuse_up(torch.cat([up(deep), second], 1)))
        coarse = functional.silu(self.fuse_down(torch.cat([functional.silu(self.down(fine)), deep], 1)))
        return self.fine_head(fine), self.coarse_head(coarse)


@dataclasses.dataclass(frozen=True)
class Spread:
    """What the runs of one way have: the lowest SQNR in dB, and the largest difference from the first, in steps."""

    runs: int
    lowest_db: float
    steps: float


def spread(exact: Outputs, runs: Iterator[Outputs], first: Outputs | None, scales: dict[str, float]) -> Spread:
    """Compare runs with the float model's outputs, and with the first run of this machine."""
    count, lowest, steps = 0, float("inf"), 0.0
    for outputs in runs:
        first = first or outputs
        count += 1
        lowest = min(lowest, *(sqnr_db(array, outputs[name]) for name, array in exact.items()))
        steps = max(steps, furthest(first, outputs, scales))
    return Spread(count, lowest, steps)


def on_host(model: Model, data: Outputs, way: str, processes: int, scratch: Path) -> Iterator[Outputs]:
    """The outputs of fresh processes whose heaps differ."""
    for seed in range(processes):
        outputs = run_forked(model, data, way, seed, scratch)
        if outputs is None:
            raise SystemExit(f"process_spread.py: {way} does not run")
        yield outputs


def on_arm(model: Model, data: Outputs, way: str, processes: int) -> Iterator[Outputs]:
    """The outputs of fresh emulated processes."""
    send = Emulator(folder=cache_folder() / NAME).target(CPU).send
    options = RunOptions(TIMEOUT, batched=way != "session", through_module=way == "module", send=send)
    for _ in range(processes):
        yield dict(run(model, data, options).outputs)


def main() -> None:
    """Print a line for each machine and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="int8")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--without-arm", action="store_true")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    network = TwoConsumers().eval()
    pictures = {
        "calibration": {"image": smooth((64, 3, 32, 32), 1)},
        "evaluation": {"image": smooth((SAMPLES, 3, 32, 32), 77)},
    }
    with tempfile.TemporaryDirectory(prefix="spread-") as folder:
        scratch = Path(folder)
        settings = ModelSettings("net", "net", scratch, timeout=TIMEOUT)
        values = FixtureValues(network, **pictures)
        gate = SourceUnderTest(settings, Spec("net", "net"), Store(scratch / "store"), lambda _: None, values)
        mode = "eval" if chosen.recipe.startswith("int8") else None
        model = variant_under_test(gate, chosen.recipe, mode).model
        data = dict(gate.inputs)
        exact = dict(run(gate.prepared.model, data, RunOptions(TIMEOUT)).outputs)
        scales, failed = output_scales(model, exact), False
        print(f"{chosen.recipe}: {len(ambiguities(model))} tensors whose scale depends on addresses")
        import MNN  # noqa: F401  Loaded for the forks.

        machines: dict[str, Callable[[str], Iterator[Outputs]]] = {
            "host": lambda way: on_host(model, data, way, chosen.processes, scratch)
        }
        if not chosen.without_arm:
            machines[CPU] = lambda way: on_arm(model, data, way, chosen.processes)
        for machine, runs in machines.items():
            first = next(runs(WAYS[0]))
            for way in WAYS:
                result = spread(exact, runs(way), first, scales)
                is_bad = result.lowest_db < LEAST_DB or result.steps > ROUNDING
                failed |= is_bad
                print(
                    f"{'FAILED' if is_bad else 'ok':6} {machine}, {way}: {result.runs} processes, SQNR at least "
                    f"{result.lowest_db:.1f} dB, at most {result.steps:.2f} steps apart",
                    flush=True,
                )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
