"""The plugin's calibration against mnncompress's: the same ranges, more layers, less time.

python benchmarks/calibration.py FOLDER [--only agreement|time] [--repetitions N]

Needs mnncompress 0.3.2. `agreement`: both calibrate every architecture by a moving average (recipe `int8-average`) on
the same 320 samples, both models are made with MNN's converter, and the scales and zero points of the layers that both
have in int8 are compared. mnncompress rounds tensors while it observes them, so that deeper observers see rounded
values; the comparison is made twice: with values passed through unrounded, and with mnncompress unmodified.

`time`: the calibration of `mobile_net` on 640 samples in batches of 32, without import, export, binding or conversion,
against mnncompress and against plain forward passes, interleaved; then the whole way from the PyTorch model to an int8
model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from architectures import ARCHITECTURES, Architecture

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.coverage.check import coverage, layer_rows
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.mnnfile.matching import match_layers
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.propagation import find_propagated, ops_to_observe
from pytest_mnnquant.quantize.ranges import calibrate_torch
from pytest_mnnquant.quantize.tensor_binding import bind_tensors
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.recipes.recipe import Int8Recipe, Observer
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.pytorch import as_tensors
from pytest_mnnquant.sources.spec import Spec

RECIPE: Final = Int8Recipe(name="int8-average", observer=Observer("average"))
SAMPLES: Final = 640
TIMEOUT: Final = 120.0
HERE: Final = Path(__file__).resolve().parent


def gate_of(name: str, folder: Path, store: Store, samples: int) -> SourceUnderTest:
    """An architecture under test, calibrated on the first `samples` samples."""
    architecture = ARCHITECTURES[name]
    return SourceUnderTest(
        ModelSettings(source=name, name=name, base=HERE, timeout=TIMEOUT),
        Spec(name, name),
        store,
        lambda _: None,
        FixtureValues(
            model=architecture.trained(folder / "weights"),
            calibration=architecture.calibration(samples),
            evaluation=architecture.evaluation(),
        ),
    )


# Agreement ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What differs between the layers that both models have in int8: largest relative differences, counts."""

    layers: int
    tensors: int
    scale: float
    zeros: int
    weight_scale: float
    widened: int


def theirs(name: str, folder: Path, models: Path, passing: bool) -> Model | str:
    """The int8 model of an mnncompress user, written into `models`, or why there is none."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, str(HERE / "mnncompress_offline.py"), name, str(folder), made]
        from mnncompress_offline import ENVIRONMENT

        ran = subprocess.run(
            [*command, *(["--passing"] if passing else [])],
            capture_output=True,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        if ran.returncode:
            return ran.stderr.strip().splitlines()[-1][:160]
        output = models / f"theirs-{name}-{'passing' if passing else 'rounding'}.mnn"
        flags = ("--compressionParamsFile", str(Path(made) / "theirs.bin"))
        return convert(Path(made) / "theirs.onnx", output, flags, timeout=TIMEOUT)


def coverage_of(base: Model, model: Model) -> float:
    """Share of the weight bytes that a model has in full int8."""
    return coverage(layer_rows(match_layers(base, model), RECIPE, lambda _: False))


def compared(base: Model, ours: Model, other: Model) -> Shared:
    """Compare the layers that are in full int8 in both models."""
    mine, others = match_layers(base, ours), match_layers(base, other)
    pairs = [(op, mine.partner(op), others.partner(op)) for op in base.layers]
    shared = [(op, a, b) for op, a, b in pairs if a and b and a.weights[0].full_int8 and b.weights[0].full_int8]
    on_purpose = {base.tensor_names[link.tensor] for link in find_propagated(base, int8_layers(base))}
    scales, zeros, weights, widened = [0.0], 0, [0.0], 0
    seen: set[str] = set()
    for op, a, b in shared:
        weights.append(_relative(a.weights[0].steps(), b.weights[0].steps()))
        for name, (left, right) in _tensors(base, op, ours, a, other, b).items():
            if name in seen:
                continue
            seen.add(name)
            if name in on_purpose:
                widened += 1
                continue
            scales.append(_relative(np.array([left.scale]), np.array([right.scale])))
            zeros += left.zero != right.zero
    return Shared(len(shared), len(seen) - widened, max(scales), zeros, max(weights), widened)


def _tensors(base: Model, op: Op, ours: Model, a: Op, other: Model, b: Op) -> dict[str, tuple[Any, Any]]:
    ends = ((op.inputs[0], a.inputs[0], b.inputs[0]), (op.outputs[0], a.outputs[0], b.outputs[0]))
    return {base.tensor_names[own]: (ours.tensor_quants[x], other.tensor_quants[y]) for own, x, y in ends}


def _relative(left: Any, right: Any) -> float:
    return float(np.max(np.abs(left - right) / np.maximum(np.abs(right), 1e-30)))


def agreement(folder: Path, store: Store) -> None:
    """Print a row per architecture. Models are kept in `store`."""
    head = f"{'architecture':<16}{'plugin':>7}{'mnnc.':>8}{'shared':>8}{'tensors':>9}{'scales':>10}{'zeros':>7}"
    print(f"{head}{'weights':>10}{'widened':>9}{'unmodified':>11}{'zeros':>7}")
    for name in ARCHITECTURES:
        gate = gate_of(name, folder, store, 320)
        base = gate.prepared.model
        try:
            variant = variant_under_test(gate, RECIPE.name, "eval").variant
        except Unusable as error:
            print(f"{name:<16}plugin: {error}")
            continue
        passing, rounding = (theirs(name, folder, store.root, way) for way in (True, False))
        line = f"{name:<16}{coverage_of(base, variant.model):>7.1%}"
        if isinstance(passing, str) or isinstance(rounding, str):
            print(f"{line}    none   {passing if isinstance(passing, str) else rounding}")
            continue
        exact, real = (compared(base, variant.model, model) for model in (passing, rounding))
        line += f"{coverage_of(base, rounding):>8.1%}{exact.layers:>8}{exact.tensors:>9}{exact.scale:>10.1e}"
        print(f"{line}{exact.zeros:>7}{exact.weight_scale:>10.1e}{exact.widened:>9}{real.scale:>11.1e}{real.zeros:>7}")


# Time ---------------------------------------------------------------------------------------------------------------


def timed(ways: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each way, run in turns, each turn starting with another."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for run in ways.values():
        run()  # Once to warm up.
    for turn in range(repetitions):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def loops(folder: Path, threads: int, repetitions: int) -> dict[str, list[float]]:
    """The calibration loops of `mobile_net` alone. Runs in mnncompress's environment."""
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as models:
        source = gate_of("mobile_net", folder, Store(Path(models)), SAMPLES).prepared
        return _loops(source, repetitions)


def _loops(source: Prepared, repetitions: int) -> dict[str, list[float]]:
    import mnncompress_offline

    network: Any = source.network
    data = source.calibration
    assert data is not None
    layers = int8_layers(source.model)
    ops = ops_to_observe(source.model, layers, find_propagated(source.model, layers))
    options = RunOptions(TIMEOUT, batched=source.batched)
    binding = bind_tensors(network, source.model, ops, data, options)
    _, watched = mnncompress_offline.watching(mnncompress_offline.quantizers(), network)
    arrays = [torch.from_numpy(np.array(array)) for array in data.inputs.values()]

    def plain() -> None:
        with torch.no_grad():
            for batch in data.batches(mnncompress_offline.BATCH):
                network(*as_tensors(batch, network))

    return timed(
        {
            "plain": plain,
            "ours": lambda: calibrate_torch(binding, data, "eval", RECIPE.observer, options),
            "theirs": lambda: mnncompress_offline.calibrate(watched, arrays),
        },
        repetitions,
    )


def wholes(folder: Path, threads: int, repetitions: int) -> dict[str, list[float]]:
    """From the PyTorch model to the int8 `.mnn`, import excepted. Runs in mnncompress's environment."""
    import mnncompress_offline

    if threads:
        torch.set_num_threads(threads)
    architecture: Architecture = ARCHITECTURES["mobile_net"]
    module = mnncompress_offline.quantizers()

    def ours() -> None:
        with tempfile.TemporaryDirectory() as made:
            assert variant_under_test(
                gate_of("mobile_net", folder, Store(Path(made)), SAMPLES), RECIPE.name, "eval"
            ).model

    def other() -> None:
        with tempfile.TemporaryDirectory() as made:
            arrays = {name: torch.from_numpy(array) for name, array in architecture.calibration(SAMPLES).items()}
            quantizer, watched = mnncompress_offline.watching(module, architecture.trained(folder / "weights"))
            mnncompress_offline.calibrate(watched, list(arrays.values()))
            mnncompress_offline.write(quantizer, watched, arrays, Path(made))
            flags = ("--compressionParamsFile", str(Path(made) / "theirs.bin"))
            convert(Path(made) / "theirs.onnx", Path(made) / "theirs.mnn", flags, timeout=TIMEOUT)

    return timed({"ours": ours, "theirs": other}, repetitions)


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median and quartiles of a ratio, taken pair by pair; and that of the fastest runs, which other load spares."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f}; fastest {min(over) / min(under):.2f})"


def times(folder: Path, repetitions: int) -> None:
    """Print ratios, with one thread and with as many as torch takes."""
    from mnncompress_offline import ENVIRONMENT

    for threads in (1, 0):
        found = {}
        for what, count in (("loops", repetitions), ("wholes", max(3, repetitions // 5))):
            command = [sys.executable, __file__, str(folder), "--child", what, "--threads", str(threads)]
            environment = {**os.environ, **ENVIRONMENT} | ({"OMP_NUM_THREADS": "1"} if threads else {})
            ran = subprocess.run(
                [*command, "--repetitions", str(count)], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            found[what] = json.loads(ran.stdout.splitlines()[-1])
        loop, whole = found["loops"], found["wholes"]
        what = "one thread" if threads else "default threads"
        print(f"{what}, {SAMPLES} samples; median (quartiles; of the fastest runs)")
        for name, seconds in loop.items():
            print(f"  {name:<8}{statistics.median(seconds) * 1000:8.0f} ms for the loop")
        print(f"  plugin / mnncompress, loop: {ratio(loop['ours'], loop['theirs'])} (required: at most 0.35)")
        print(f"  plugin / plain forward: {ratio(loop['ours'], loop['plain'])} (required: at most 1.3)")
        print(f"  mnncompress / plain forward: {ratio(loop['theirs'], loop['plain'])}")
        medians = {name: statistics.median(seconds) for name, seconds in whole.items()}
        print(f"  the whole: plugin {medians['ours']:.2f} s, mnncompress {medians['theirs']:.2f} s: ", end="")
        print(ratio(whole["ours"], whole["theirs"]))


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("--only", choices=["agreement", "time"])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=["loops", "wholes"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.child:
        measure = loops if options.child == "loops" else wholes
        print(json.dumps(measure(folder, options.threads, options.repetitions)))
        return
    if options.only != "time":
        with tempfile.TemporaryDirectory() as models:
            agreement(folder, Store(Path(models)))
    if options.only != "agreement":
        times(folder, options.repetitions)


if __name__ == "__main__":
    main()
