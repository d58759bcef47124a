"""Whether the static rule for scales that depend on addresses (MNQ418) is right about files that really do or don't.

    python benchmarks/propagation_truth.py [NET or SET ...]

Files of this package, mnnquant (KL and EMA), mnncompress and hand-edited ones. The sets are the networks of
`matrix_nets`, `invented_nets` and `joint_nets`. Each file is run in fresh processes whose heaps differ, through a
session, a session after a resize, and a module; a file truly differs if any two outputs of the same API are further
apart than rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from invented_nets import INVENTED
from joint_nets import JOINT, SKIPPED
from matrix_nets import NETS, MatrixNet

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.quants import write_with_quants
from pytest_mnnquant.mnnfile.scale_ambiguity import ambiguities
from pytest_mnnquant.quantize.mnnquant import quantize_offline
from pytest_mnnquant.recipes.recipe import MnnquantRecipe
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError, Spec

TIMEOUT: Final = 300.0
SAMPLES: Final = 4
HAND_EDITED: Final = "hand-edited"
RECIPES: Final = ("int8", "mnnquant-kl", "mnnquant-ema", "mnncompress-repaired")
KL: Final = MnnquantRecipe(name="mnnquant-kl", feature="KL")
WAYS: Final = ("session", "resize", "module")
#: Two runs differ if the noise between them is above this share of the signal's energy (-50 dB).
DIFFERS: Final = 1e-5
#: Processes that must agree before an accusation of the rule counts as false.
PATIENCE: Final = 24
SETS: Final = {"matrix": NETS, "invented": INVENTED, "joint": JOINT, "skipped": SKIPPED}
Outputs = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class File:
    """A quantized file: the tool that made it (or `HAND_EDITED`), and what is special about it."""

    maker: str
    label: str
    model: Model


def files(net: MatrixNet, store: Store, scratch: Path, recipes: Sequence[str], edits: int) -> Iterator[File]:
    """Quantized files of a network."""
    settings = ModelSettings("net", "net", scratch, timeout=TIMEOUT)
    data = {"calibration": net.data(64, 1), "evaluation": net.data(16, 77)}
    gate = SourceUnderTest(settings, Spec("net", "net"), store, lambda _: None, FixtureValues(net.network(), **data))
    for recipe in recipes:
        try:
            model = variant_under_test(gate, recipe, "eval" if recipe == "int8" else None).model
        except Unusable:
            continue
        yield File(recipe, recipe, model)
        yield from _hand_edited(recipe, model, scratch, edits)
    if "mnnquant-kl" in recipes:
        yield from _with_skipped_operators(gate, scratch)


def _with_skipped_operators(gate: SourceUnderTest, scratch: Path) -> Iterator[File]:
    """What mnnquant's KL makes if the user skips the resizes, or the resizes, sums and products."""
    model, calibration = gate.prepared.model, gate.prepared.calibration
    if calibration is None or all(op.kind != "Interp" for op in model.ops):
        return
    options = RunOptions(TIMEOUT, batched=gate.prepared.batched)
    for number, kinds in enumerate((("Interp",), ("Interp", "BinaryOp"))):
        names = tuple(op.name for op in model.ops if op.kind in kinds and not op.subgraph)
        path = scratch / f"skipped-{number}.mnn"
        with contextlib.suppress(NativeFailure, SourceError):
            quantize_offline(model, calibration, path, KL, names, options)
            yield File(KL.name, f"{KL.name} that skips each {' and '.join(kinds)}", read_model(path))


def _hand_edited(recipe: str, model: Model, scratch: Path, edits: int) -> Iterator[File]:
    layers = [op for op in model.convolutions if op.weights[0].full_int8]
    # A UnaryOp with a table of int8 results computes garbage between tensors that are not described.
    tables = [op for op in model.ops if op.kind == "UnaryOp" and op.parameters and op.parameters.span(2, 1)[1]]
    needed = {tensor for op in (*layers, *tables) for tensor in (op.inputs[0], op.outputs[0])}
    plain = {tensor: quant for tensor, quant in model.tensor_quants.items() if tensor in needed}
    if len(plain) < len(model.tensor_quants):
        label = f"{recipe}, layers alone described"
        yield File(HAND_EDITED, label, _edited(model, plain, scratch / f"{recipe}-plain.mnn"))
    for seed in range(edits):
        chance = random.Random(f"{recipe}{seed}")
        share = chance.choice((0.0, 0.5))
        chosen = {
            tensor: dataclasses.replace(quant, scale=quant.scale * chance.choice((1.0, 1.0, 1.6, 2.5)))
            for tensor, quant in model.tensor_quants.items()
            if tensor in needed or chance.random() < share
        }
        yield File(HAND_EDITED, f"{recipe}, edited {seed}", _edited(model, chosen, scratch / f"{recipe}-{seed}.mnn"))


def _edited(model: Model, quants: dict[int, Any], path: Path) -> Model:
    write_with_quants(model, quants, path)
    return read_model(path)


def stir(seed: int) -> None:
    """Leave holes of many sizes in the heap, so that what MNN allocates next lies in another order."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    chance = np.random.default_rng(seed)
    held = [libc.malloc(int(size)) for size in chance.integers(32, 1200, 6000)]
    for place in chance.permutation(len(held))[: len(held) // 2]:
        libc.free(held[place])


def run_once(model: Model, data: Outputs, way: str, seed: int) -> Outputs:
    """The outputs of a model, in this process, after the heap was filled by chance."""
    import MNN

    stir(seed)
    if way == "module":
        order = [item.name for item in model.inputs]
        net = MNN.nn.load_module_from_file(str(model.path), order, list(model.output_names))
        given = [MNN.expr.const(data[name], list(data[name].shape), MNN.expr.NCHW) for name in order]
        made: Outputs = {}
        for name, variable in zip(model.output_names, net.forward(given), strict=True):
            layout = MNN.expr.NC4HW4
            plain = MNN.expr.convert(variable, MNN.expr.NCHW) if variable.data_format == layout else variable
            made[name] = np.array(plain.read()).copy()
        return made
    interpreter = MNN.Interpreter(str(model.path))
    session = interpreter.createSession({"numThread": 1})
    inputs = interpreter.getSessionInputAll(session)
    whole = way == "resize"
    if whole:
        for name, tensor in inputs.items():
            interpreter.resizeTensor(tensor, data[name].shape)
        interpreter.resizeSession(session)
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    caffe = MNN.Tensor_DimensionType_Caffe
    for start in range(1 if whole else SAMPLES):
        for name, tensor in inputs.items():
            batch = data[name] if whole else np.ascontiguousarray(data[name][start : start + 1])
            tensor.copyFrom(MNN.Tensor(batch.shape, MNN.Halide_Type_Float, batch, caffe))
        if interpreter.runSession(session) not in (0, None):
            raise RuntimeError("runSession failed")
        for name, tensor in interpreter.getSessionOutputAll(session).items():
            shape = tensor.getShape()
            copy = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), caffe)
            tensor.copyToHostTensor(copy)
            parts.setdefault(name, []).append(np.array(copy.getNumpyData()).reshape(shape).copy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def run_forked(model: Model, data: Outputs, way: str, seed: int, scratch: Path) -> Outputs | None:
    """The same in a process of its own; None where MNN crashes."""
    path = scratch / "outputs.npz"
    path.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(silent, stream)
            outputs: dict[str, Any] = run_once(model, data, way, seed)
            np.savez(path, **outputs)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if not path.exists():
        return None
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except ValueError:
        return None


def spread(model: Model, data: Outputs, seeds: range, scratch: Path) -> float | None:
    """The largest noise / signal between two runs of the same API; None where it does not run."""
    worst = 0.0
    for way in WAYS:
        runs = [run_forked(model, data, way, seed, scratch) for seed in seeds]
        known = [outputs for outputs in runs if outputs is not None]
        if not known:
            continue
        for other in known[1:]:
            for name, array in known[0].items():
                first, second = array.astype(np.float64), other[name].astype(np.float64)
                worst = max(worst, float(((first - second) ** 2).sum() / max((first**2).sum(), 1e-30)))
    return worst


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the rule says of a file, and whether its runs differ. `noise`: the largest noise / signal of two runs."""

    file: File
    noise: float | None
    tensors: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs differ by more than rounding."""
        return self.noise is not None and self.noise > DIFFERS

    @property
    def judgement(self) -> str:
        """`ok`, or how the rule is wrong."""
        if bool(self.tensors) == self.differs:
            return "ok"
        return "MISSED" if self.differs else "FALSE ALARM"

    def line(self, net: str) -> str:
        """The line of the log."""
        decibels = "equal" if not self.noise else f"{-10 * np.log10(self.noise):.1f} dB"
        return f"{self.judgement:11} {net}: {self.file.label}: runs {decibels} {' '.join(self.tensors)}".rstrip()


def verdicts(net: MatrixNet, place: Path, chosen: argparse.Namespace) -> Iterator[Verdict]:
    """The verdict on each file of a network that has no loops."""
    data = {key: array[:SAMPLES] for key, array in net.data(16, 77).items()}
    for file in files(net, Store(place / "store"), place, chosen.recipes.split(","), chosen.edits):
        if not file.model.has_subgraphs:
            verdict = Verdict(
                file,
                spread(file.model, data, range(chosen.processes), place),
                tuple(item.tensor for item in ambiguities(file.model)),
            )
            if verdict.judgement == "FALSE ALARM":  # A few processes may agree by chance.
                verdict = dataclasses.replace(verdict, noise=spread(file.model, data, range(PATIENCE), place))
            yield verdict


def main() -> None:
    """Print a line per file, and what the rule got wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help=f"networks, or {', '.join(SETS)}; all if omitted")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--edits", type=int, default=2, help="hand-edited files of each quantized one")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--scratch", type=Path)
    chosen = parser.parse_args()
    nets = {name: net for group in SETS.values() for name, net in group.items()}
    names = [name for item in chosen.nets or SETS for name in SETS.get(item, (item,))]
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="propagation-") as folder:
        scratch = chosen.scratch or Path(folder)
        import MNN  # noqa: F401  Loaded for the forks.

        for name in names:
            place = scratch / name.replace(" ", "-")
            place.mkdir(parents=True, exist_ok=True)
            for verdict in verdicts(nets[name], place, chosen):
                counted = counts.setdefault(verdict.file.maker, Counter())
                counted.update(["differs" if verdict.differs else "same", verdict.judgement])
                print(verdict.line(name), flush=True)
    for maker, count in sorted(counts.items()):
        print(
            f"{maker}: {count['differs']} files differ, {count['same']} do not, {count['MISSED']} missed, "
            f"{count['FALSE ALARM']} false alarms"
        )


if __name__ == "__main__":
    main()
