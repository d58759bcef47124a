"""Healthy models, judged by the gate: architectures x recipes, and finished files of every kind of source and tool.

    python benchmarks/healthy.py FOLDER [--group NAME ...] [--jobs N] [--all]

None of them may have an error finding. Every warning and every inconclusive check is printed, for a person to agree
with. The exit status is 1 after an error or a traceback of the plugin. Trained weights are kept in FOLDER. What a
person would call unhealthy is left out, with the reason (`LEFT_OUT`). Limits are the defaults of the gate.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from architectures import ARCHITECTURES, Architecture
from torch import Tensor, nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.recipes.names import recipe_named
from pytest_mnnquant.runtime.convert import convert, run_converter
from pytest_mnnquant.sources.spec import Spec, parse_spec

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
TIMEOUT: Final = 120.0
_CHECKS: Final = tuple(check.name for check in CHECKS if not check.is_timed)

OURS: Final = ("int8", "int8-average", "int8-percentile", "int8-histogram", "int8-kl", "int8+w8")
WEIGHTS: Final = ("w8", "w8-sym", "w8-scale16", "w8b32", "w4", "w4-hqq")
TOOLS: Final = ("mnnquant-kl", "mnnquant-admm", "mnnquant-ema", "mnncompress-repaired")
OWN: Final = "own=own_pipeline.py:quantize@w8"
#: In train mode too.
BOTH: Final = ("int8", "int8-average", "int8+w8")
#: Nets with tables, or with layers that MNN can't run in int8: healthy with those left float by name.
PARTLY: Final = ("raw_weights", "attention", "tied_embedding", "transformer", "segmentation", "gru")

_FEW_BITS: Final = "loses more than a point of top-1 in 4 bits: the gate is right to fail it"
_LOOPS: Final = "mnnquant can't quantize a model with loops, and is refused"
_KINDS: Final = "mnncompress knows Conv2d and Linear only, so layers of this net stay float"
_CRASH: Final = "MNN's KL crashes on a mean over several axes: the gate can but say so"
_BLOCKS: Final = "MNN can't store its layers in blocks, so the request has no effect: the gate is right to fail it"
_EMA: Final = "of mnnquant's EMA no layer can be left float, and this net needs that"
#: (architecture, recipe) -> why a person would not call it healthy. An architecture of "*" stands for any.
LEFT_OUT: Final = {
    ("grouped", "w4"): _FEW_BITS,
    **{(net, "w8b32"): _BLOCKS for net in ("lstm", "gru", "segmentation")},
    ("grouped", "mnnquant-ema"): "EMA on 320 samples loses more than a point of top-1",
    ("grouped", "mnncompress-repaired"): "its moving average of ranges loses more than a point of top-1",
    **{(net, recipe): _LOOPS for net in ("lstm", "gru") for recipe in TOOLS[:3]},
    **{(net, TOOLS[3]): _KINDS for net in ("conv1d", "lstm", "gru", "segmentation", "attention")},
    ("shared", TOOLS[3]): "mnncompress lists a module once, so only one of its calls is quantized",
    ("raw_weights", TOOLS[3]): "mnncompress can't: it has no Conv2d or Linear module",
    ("tied_embedding", TOOLS[3]): "mnncompress can't trace it",
    ("tied_embedding", "w4"): _FEW_BITS,
    **{(f"tflite {net}", "w4"): _FEW_BITS for net in ("mobile", "mlp")},
    ("mobile_net, dynamo", "mnnquant-kl"): _CRASH,
    ("zero branch and biases", "mnnquant-kl"): _CRASH,
    ("pruned lenet", "mnnquant-kl"): "mnnquant stores the pruned layer as NaN: top-1 falls from 0.99 to 0.66",
    ("two inputs, three outputs", "mnnquant-kl"): _CRASH,
    ("zero branch and biases", "mnnquant-ema"): "EMA gives a tensor of zeros the scale NaN, and is refused",
    ("two inputs, three outputs", "mnnquant-ema"): "EMA renames an output, so a pipeline's caller would not find it",
    ("two inputs, three outputs", "int8-average"): "an average of ranges cuts off 8 % of an output: it is truly worse",
    **{(net, "mnnquant-ema"): _EMA for net in ("segmentation", "raw_weights", "attention", "tied_embedding")},
    **{
        ("segmentation", recipe): "mnnquant stores transposed convolutions as int8 that MNN can't run in int8"
        for recipe in TOOLS[:2]
    },
}


@dataclass(frozen=True)
class Healthy:
    """A model that a person would call healthy. `kind` says of what source and by which tool it is."""

    name: str
    kind: str
    case: VariantUnderTest


@dataclass(frozen=True)
class Verdict:
    """What the gate said of it."""

    name: str
    kind: str
    findings: tuple[tuple[str, Finding], ...]
    seconds: float
    crash: str = ""
    passed: int = 0

    def of(self, *severities: Severity) -> list[str]:
        """The findings of these severities, in a line each."""
        return [
            f"{item.code} {name} {item.layer}: {item.message}; {item.cause_text}"
            for name, item in self.findings
            if item.severity in severities
        ]

    @property
    def errors(self) -> list[str]:
        """What must not be."""
        return [*self.of(Severity.ERROR, Severity.CONSEQUENCE), *filter(None, [self.crash])]


@dataclass
class PluginSession:
    """Where things are made. `trained` keeps weights, `scratch` is for files."""

    trained: Path
    scratch: Path
    store: Store
    _count: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def gate(self, source: Any, calibration: Any, evaluation: Any, **values: Any) -> SourceUnderTest:
        """The gate on a network of PyTorch or a file."""
        given = None if isinstance(source, Path) else source
        spec = parse_spec(str(source), HERE) if given is None else Spec("net", "net")
        settings = model_settings(spec.text, spec.name, HERE, {"timeout": TIMEOUT, **values})
        data = {"calibration": calibration, "evaluation": evaluation}
        return SourceUnderTest(settings, spec, self.store, lambda _: None, FixtureValues(given, **data))

    def fresh(self, name: str) -> Path:
        """A path in a folder of its own."""
        path = self.scratch / str(next(self._count)) / name
        path.parent.mkdir(parents=True)
        return path

    def made(self, source: Path, *flags: object, name: str = "net.mnn") -> Path:
        """What MNN's converter makes of a file."""
        output = self.fresh(name)
        convert(source, output, [str(flag) for flag in flags], timeout=TIMEOUT)
        return output


Group = Callable[[PluginSession], Iterator[Healthy]]


# Architectures x recipes --------------------------------------------------------------------------------------------


def _tables(gate: SourceUnderTest) -> tuple[str, ...]:
    """What MNN keeps float regardless of the request: an experienced user skips it by name."""
    return tuple(op.name for op in gate.prepared.model.layers if not op.is_convolution)


def _without_int8(gate: SourceUnderTest) -> tuple[str, ...]:
    """The layers that MNN can't run in int8."""
    return tuple(
        op.name
        for op in gate.prepared.model.layers
        if op.is_convolution and (op.subgraph or op.kind.startswith("Deconvolution"))
    )


def of_architecture(name: str, bench: PluginSession) -> Iterator[Healthy]:
    """One trained network of PyTorch in all recipes."""
    architecture = ARCHITECTURES[name]
    data = architecture.calibration(), architecture.evaluation()
    network = architecture.trained(bench.trained)
    plain = bench.gate(network, *data)
    tables, unable = (_tables(plain), _without_int8(plain)) if name in PARTLY else ((), ())
    whole = {"w": plain, "8": plain, "+": plain}
    if tables:
        whole |= {
            "w": bench.gate(network, *data, skip_layer=tables),
            "+": bench.gate(network, *data, skip_layer=tables),
        }
    if tables or unable:
        whole["8"] = bench.gate(network, *data, skip_layer=(*tables, *unable))
    for recipe in (*OURS, *WEIGHTS, "fp16", *TOOLS, OWN):
        if (name, recipe) in LEFT_OUT or (recipe == OWN and tables):
            continue
        chosen = recipe_named(recipe)
        unskippable = recipe in ("fp16", "mnnquant-ema") or recipe == OWN
        gate = plain if unskippable else whole["8" if chosen.activations and chosen.fill is None else "w"]
        wanted = ("train", "eval") if recipe in BOTH else ("eval",)
        for mode in chosen.modes(True, wanted):
            yield Healthy(
                f"{name} {chosen.label(mode)}",
                f"PyTorch, {chosen.quantizer.value}",
                variant_under_test(gate, recipe, mode),
            )


# Finished files -----------------------------------------------------------------------------------------------------


def of_files(name: str, bench: PluginSession) -> Iterator[Healthy]:  # noqa: C901  A list of files, one by one.
    """What a build leaves behind, from ONNX and from MNN sources."""
    architecture = ARCHITECTURES[name]
    calibration, evaluation = architecture.calibration(), architecture.evaluation()
    own = bench.gate(architecture.trained(bench.trained), calibration, evaluation)
    int8 = variant_under_test(own, "int8", "eval")
    params, floats = int8.variant.params, int8.variant.base.path
    assert params is not None
    source = own.prepared.model.path.with_name("float.onnx")
    flags: dict[str, tuple[object, ...]] = {
        "int8": ("--compressionParamsFile", params),
        "w8": ("--weightQuantBits", "8"),
        "w4": ("--weightQuantBits", "4"),
        "w8b32": ("--weightQuantBits", "8", "--weightQuantBlock", "32"),
        "fp16": ("--fp16",),
    }
    wide = name == "mlp"  # From ONNX, MNN's converter loses a Linear of 65,536 weights: a fault, not of the gate.
    for start, kind in ((source, "ONNX"), (floats, "MNN")):
        for recipe, given in flags.items():
            if wide and start == source and recipe == "int8":
                continue
            for extra, label in (((), "alone"), (("--saveExternalData",), "weights beside it")):
                quantized = bench.made(start, *given, *extra)
                for with_params in (True, False) if recipe == "int8" else (False,):
                    values = {"quantized": str(quantized), "params": str(params) if with_params else None}
                    gate = bench.gate(start, calibration, evaluation, **values)
                    files = f"{label}{', params given' if with_params else ''}"
                    yield Healthy(
                        f"{name} {recipe} file, {files}",
                        f"{kind} file, converter",
                        variant_under_test(gate, recipe, None),
                    )
        for recipe in ("int8", "int8-kl", "w8", "fp16", "mnnquant-kl"):
            gate = bench.gate(start, calibration, evaluation)
            yield Healthy(
                f"{name} {recipe}", f"{kind} source, made by the gate", variant_under_test(gate, recipe, None)
            )
    yield from _without_some(name, bench, own, source, flags, calibration, evaluation)
    for recipe in ("mnnquant-kl", "mnnquant-admm", "mnnquant-ema", "mnncompress-repaired"):
        done = variant_under_test(own, recipe, "eval" if recipe.startswith("mnnc") else None).variant
        values = {"quantized": str(done.model.path), "params": str(done.params) if done.params else None}
        # Of mnncompress the source is the ONNX that it exported itself.
        start = done.base.path if recipe.startswith("mnnc") else source
        gate = bench.gate(start, calibration, evaluation, **values)
        yield Healthy(
            f"{name} {recipe} file", "finished file, mnnquant or mnncompress", variant_under_test(gate, "int8", None)
        )
    network = architecture.trained(bench.trained)
    dynamo = bench.gate(network, calibration, evaluation, exporter="dynamo")
    for recipe in ("int8", "w8", "mnnquant-kl"):
        if (f"{name}, dynamo", recipe) in LEFT_OUT:
            continue
        mode = "eval" if recipe == "int8" else None
        yield Healthy(
            f"{name} {recipe}, dynamo", "PyTorch, exported by dynamo", variant_under_test(dynamo, recipe, mode)
        )
    beside = bench.fresh("beside.onnx")
    onnx.save_model(
        onnx.load(source), beside, save_as_external_data=True, location="beside.onnx.data", size_threshold=0
    )
    for recipe in ("int8", "w8"):
        gate = bench.gate(beside, calibration, evaluation)
        yield Healthy(f"{name} {recipe}", "ONNX with weights beside it", variant_under_test(gate, recipe, None))
    external = bench.made(source, "--saveExternalData", name="float.mnn")
    for recipe in ("int8", "w8", "fp16", "mnnquant-kl"):
        gate = bench.gate(external, calibration, evaluation)
        yield Healthy(f"{name} {recipe}", "MNN source with weights beside it", variant_under_test(gate, recipe, None))
    bare = {key: array for key, array in evaluation.items() if key != "labels"}
    for recipe in ("int8", "w8"):
        gate = bench.gate(source, calibration, bare)
        yield Healthy(
            f"{name} {recipe}, no labels", "ONNX source, made by the gate", variant_under_test(gate, recipe, None)
        )
    gate = bench.gate(source, None, None, quantized=str(bench.made(source, *flags["w8"])))
    yield Healthy(f"{name} w8 file, no data", "ONNX file, converter", variant_under_test(gate, "w8", None))


def _without_some(
    name: str,
    bench: PluginSession,
    own: SourceUnderTest,
    source: Path,
    flags: dict[str, Any],
    calibration: Any,
    evaluation: Any,
) -> Iterator[Healthy]:
    """The first or the last layer left float."""
    layers = [op.name for op in own.prepared.model.convolutions]
    network = ARCHITECTURES[name].trained(bench.trained)
    for place, layer in (("first", layers[0]), ("last", layers[-1])):
        skip = (layer.replace("[", "?"),)
        gate = bench.gate(network, calibration, evaluation, skip_layer=skip)
        for recipe in ("int8", "w8", "int8+w8", "mnnquant-kl"):
            case = variant_under_test(gate, recipe, "eval" if recipe.startswith("int8") else None)
            yield Healthy(f"{name} {recipe}, {place} layer float", "PyTorch, skipped layer", case)
        made = variant_under_test(gate, "int8", "eval").variant
        values = {"quantized": str(made.model.path), "params": str(made.params), "skip_layer": skip}
        finished = bench.gate(source, calibration, evaluation, **values)
        told = f"{name} int8 file, {place} layer float"
        yield Healthy(told, "ONNX file, skipped layer", variant_under_test(finished, "int8", None))


# TFLite -------------------------------------------------------------------------------------------------------------


def of_tflite(name: str, bench: PluginSession) -> Iterator[Healthy]:
    """A TFLite model as the source, and the float `.mnn` that MNN's converter makes of it."""
    from tests.tflite_nets import NETS

    net = NETS[name]
    path = net.write(bench.fresh(f"{name}.tflite"))
    floats = bench.fresh("float.mnn")
    arguments = ["-f", "TFLITE", "--modelFile", str(path), "--bizCode", "MNN"]
    run_converter(arguments, floats, timeout=TIMEOUT, what=f"converting {path.name}")
    data = net.calibration(), net.evaluation()
    for source, kind in ((path, "TFLite source"), (floats, "MNN made of TFLite")):
        gate = bench.gate(source, *data)
        for recipe in (*OURS, "w8", "w8-sym", "w8b32", "w4", "fp16", *TOOLS[:3]):
            if (f"tflite {name}", recipe) not in LEFT_OUT:
                yield Healthy(f"tflite {name} {recipe}", kind, variant_under_test(gate, recipe, None))
        for recipe, flags in (("w8", ["--weightQuantBits", "8"]), ("fp16", ["--fp16"])):
            direct = bench.fresh("direct.mnn")
            run_converter([*arguments, *flags], direct, timeout=TIMEOUT, what=f"converting {path.name}")
            given = bench.gate(source, *data, quantized=str(direct))
            yield Healthy(
                f"tflite {name} {recipe} file",
                f"{kind}, converter from TFLite",
                variant_under_test(given, recipe, None),
            )
        int8 = variant_under_test(gate, "int8", None).variant
        direct = bench.fresh("direct.mnn")
        flags = ["--compressionParamsFile", str(int8.params)]
        run_converter([*arguments, *flags], direct, timeout=TIMEOUT, what=f"converting {path.name}")
        given = bench.gate(source, *data, quantized=str(direct), params=str(int8.params))
        yield Healthy(
            f"tflite {name} int8 file", f"{kind}, converter from TFLite", variant_under_test(given, "int8", None)
        )


# Odd but healthy ----------------------------------------------------------------------------------------------------


def _images(seed: int, shape: tuple[int, ...] = (1, 12, 12), count: int = 400) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


class Two(nn.Module):
    """Two inputs of other kinds, three outputs of other ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.count = nn.Conv2d(1, 16, 3), nn.Linear(6, 16)
        self.scores, self.offset = nn.Linear(16, 12), nn.Linear(16, 1)

    def forward(self, image: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A map, scores and a number."""
        seen = torch.relu(self.see(image))
        both = seen.mean((2, 3)) + torch.relu(self.count(sums))
        return seen, self.scores(both), self.offset(both)


class OneAtATime(nn.Module):
    """A batch of one is written into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 16, 3), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.head(torch.relu(self.conv(x)).reshape(1, 16, -1).mean(2))
        return out


class ZeroBranch(nn.Module):
    """A residual branch that starts as nothing, as training with zero-init leaves it early."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 12)
        nn.init.zeros_(self.branch.weight)
        for layer in (self.first, self.branch, self.head):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.first(x))
        out: Tensor = self.head(torch.relu(x + self.branch(x)).mean((2, 3)))
        return out


def _tiny(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


#: name -> (network, shapes of a sample of each input)
ODD: Final[dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]]] = {
    "one Linear": (lambda: _tiny(nn.Linear(8, 4)), {"input": (8,)}),
    "one Conv2d": (lambda: _tiny(nn.Conv2d(1, 2, 3)), {"input": (1, 8, 8)}),
    "one Conv1d": (lambda: _tiny(nn.Conv1d(4, 8, 3)), {"input": (4, 20)}),
    "one depthwise": (lambda: _tiny(nn.Conv2d(8, 8, 3, groups=8)), {"input": (8, 8, 8)}),
    "two Linear": (lambda: _tiny(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), {"input": (8,)}),
    "three layers": (
        lambda: _tiny(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        {"input": (1, 8, 8)},
    ),
    "zero branch and biases": (ZeroBranch, {"x": (1, 12, 12)}),
    "two inputs, three outputs": (Two, {"image": (1, 12, 12), "sums": (6,)}),
    "batch of one": (OneAtATime, {"x": (1, 12, 12)}),
    "no bias": (
        lambda: _tiny(nn.Conv2d(1, 16, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(1600, 12, bias=False)),
        {"input": (1, 12, 12)},
    ),
    "transposed": (
        lambda: _tiny(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 4, 1)),
        {"input": (1, 12, 12)},
    ),
}


def of_odd(name: str, bench: PluginSession) -> Iterator[Healthy]:
    """A small net of random weights, which labels say nothing about."""
    build, shapes = ODD[name]
    torch.manual_seed(0)
    network = build().eval()
    calibration, evaluation = ({key: _images(seed, shape) for key, shape in shapes.items()} for seed in (1, 2))
    gate = bench.gate(network, calibration, evaluation)
    tools = ("mnnquant-kl", "mnnquant-ema") if name not in ("transposed", "batch of one") else ()
    ours = ("int8", "int8-average", "int8+w8") if name != "transposed" else ("int8+w8",)
    for recipe in (*ours, "w8", "w8-sym", "fp16", *tools):
        if (name, recipe) in LEFT_OUT:
            continue
        for mode in recipe_named(recipe).modes(True, ("train", "eval")):
            told = f"{name} {recipe_named(recipe).label(mode)}"
            yield Healthy(told, "PyTorch, odd", variant_under_test(gate, recipe, mode))
    start = gate.prepared.model.path.with_name("float.onnx")
    for recipe in ("w8", "fp16"):
        flags = ("--weightQuantBits", "8") if recipe == "w8" else ("--fp16",)
        given = bench.gate(start, None, evaluation, quantized=str(bench.made(start, *flags)))
        yield Healthy(f"{name} {recipe} file", "ONNX file, odd", variant_under_test(given, recipe, None))


def of_hopeless(bench: PluginSession) -> Iterator[Healthy]:
    """One channel 300 times as large as the rest: int8 ruins it, 16 bits and weight-only 8 bits do not."""
    architecture: Architecture = ARCHITECTURES["cnn"]
    network: Any = architecture.trained(bench.trained)
    with torch.no_grad():
        norm, second = network.features[1], network.features[4]
        norm.weight[3] *= 300
        norm.bias[3] *= 300
        second.weight[:, 3] /= 300
    gate = bench.gate(network, architecture.calibration(), architecture.evaluation())
    for recipe in ("fp16", "w8-sym"):
        yield Healthy(
            f"cnn with a huge channel {recipe}", "PyTorch, int8-hostile", variant_under_test(gate, recipe, None)
        )
    start = gate.prepared.model.path.with_name("float.onnx")
    given = bench.gate(start, None, architecture.evaluation(), quantized=str(bench.made(start, "--fp16")))
    yield Healthy(
        "cnn with a huge channel fp16 file", "ONNX file, int8-hostile", variant_under_test(given, "fp16", None)
    )


def of_pruned(bench: PluginSession) -> Iterator[Healthy]:
    """Whole channels and most weights are zero."""
    architecture = ARCHITECTURES["lenet"]
    network: Any = architecture.trained(bench.trained)
    with torch.no_grad():
        layer = network.fc1
        layer.weight[layer.weight.abs() < layer.weight.abs().quantile(0.6)] = 0
        layer.weight[::10] = 0
        layer.bias[::10] = 0
    gate = bench.gate(network, architecture.calibration(), architecture.evaluation())
    for recipe in ("int8", "int8-average", "w8", "w8-sym", "fp16"):
        mode = "eval" if recipe.startswith("int8") else None
        yield Healthy(f"pruned lenet {recipe}", "PyTorch, pruned", variant_under_test(gate, recipe, mode))
    start = gate.prepared.model.path.with_name("float.onnx")
    for recipe, flags in (
        ("w8", ("--weightQuantBits", "8")),
        ("w8-sym", ("--weightQuantBits=8", "--weightQuantAsymmetric=0")),
    ):
        made = bench.made(start, *flags, "--detectSparseSpeedUp")
        given = bench.gate(start, None, architecture.evaluation(), quantized=str(made))
        yield Healthy(
            f"pruned lenet {recipe} sparse file", "ONNX file, pruned", variant_under_test(given, recipe, None)
        )


GROUPS: Final[dict[str, Group]] = {
    **{name: partial(of_architecture, name) for name in ARCHITECTURES},
    **{f"files-{name}": partial(of_files, name) for name in ("cnn", "lenet", "mobile_net", "mlp")},
    **{f"tflite-{name}": partial(of_tflite, name) for name in ("cnn", "mobile", "mlp")},
    **{f"odd-{name}": partial(of_odd, name) for name in ODD},
    "hopeless": of_hopeless,
    "pruned": of_pruned,
}


# Judging ------------------------------------------------------------------------------------------------------------


def judged(healthy: Healthy) -> Verdict:
    """What all checks but latency say of it."""
    start = time.perf_counter()
    findings: list[tuple[str, Finding]] = []
    crash, passed = "", 0
    try:
        for name in _CHECKS:
            result = run_check(healthy.case, name)
            findings += [(name, item) for item in result.findings]
            passed += bool(result)
    except Exception:  # A traceback here is a defect of the plugin.
        crash = traceback.format_exc()
    return Verdict(healthy.name, healthy.kind, tuple(findings), time.perf_counter() - start, crash, passed)


def verdicts_of(name: str, folder: Path) -> list[Verdict]:
    """All of one group."""
    torch.set_num_threads(1)
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as made:
        bench = PluginSession(folder, Path(made), Store(Path(kept)))
        try:
            found.extend(judged(healthy) for healthy in GROUPS[name](bench))
        except Exception:  # It could not even be made.
            found.append(Verdict(name, "not made", (), 0.0, traceback.format_exc()))
    return found


def summarize(verdict: Verdict, everything: bool) -> str:
    """A line for the verdict, and a line for each finding."""
    codes = Counter(item.code for _, item in verdict.findings)
    listed = ", ".join(f"{code} x{count}" if count > 1 else code for code, count in sorted(codes.items()))
    state = "ERROR" if verdict.errors else "ok"
    lines = [f"| {verdict.name} | {verdict.kind} | {verdict.passed} | {state} | {listed} | {verdict.seconds:.1f} s |"]
    lines += [f"    error: {line}" for line in verdict.errors]
    lines += [f"    warning: {line}" for line in verdict.of(Severity.WARNING)]
    lines += [f"    open: {line}" for line in verdict.of(Severity.GAP)]
    return "\n".join(lines) + "\n" if everything or len(lines) > 1 else ""


def main() -> None:
    """Judge all, print what is said against them, and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trained weights are kept")
    parser.add_argument("--group", action="append", choices=list(GROUPS), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="groups at a time")
    parser.add_argument("--all", action="store_true", help="print those that nothing is said against too")
    options = parser.parse_args()
    start, found, folder = time.perf_counter(), [], options.folder.resolve()
    print("| model | source and tool | checks passed | verdict | findings | time |\n|---|---|---|---|---|---|")
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(verdicts_of, name, folder) for name in options.group or GROUPS]):
            verdicts = future.result()
            found += verdicts
            print("".join(summarize(verdict, options.all) for verdict in verdicts), end="", flush=True)
    bad = [verdict for verdict in found if verdict.errors]
    warned = Counter(item.code for verdict in found for _, item in verdict.findings)
    print(f"\n{len(found)} healthy models, {len(bad)} with an error, {time.perf_counter() - start:.0f} s")
    print("findings: " + ", ".join(f"{code} {count} times" for code, count in warned.most_common()))
    print("\n".join(f"left out: {net} {recipe}: {why}" for (net, recipe), why in LEFT_OUT.items()))
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
