"""Section F, version-regression: what older releases of MNN write, healthy and not, judged beside the MNN of today.

python -m tests.faults.corpus.wheels FOLDER installs those releases, each in a folder of its own. The tests look for
them where MNNQUANT_TEST_WHEELS says, or in build/wheels.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from tests.faults.corpus.mnnquant import SAMPLES, images, of_images, of_samples, quantized, retrained
from tests.faults.corpus.params_files import FLAG, renamed
from tests.faults.corpus.plan import ANY, Builder, Pair, Planted, fault
from tests.faults.corpus.tools import WHEELS, held_out, keep, known, run_tool, source, wheels, write_samples
from tests.faults.factory import HIDDEN, NET, SECOND, Factory

VERSIONS: Final = ("3.0.0", "3.2.0")
EIGHT, FOUR = ("--weightQuantBits", "8"), ("--weightQuantBits", "4")
W8, W4, KL, EMA = (
    ("--mnn-recipe=w8",),
    ("--mnn-recipe=w4",),
    ("--mnn-recipe=mnnquant-kl",),
    ("--mnn-recipe=mnnquant-ema",),
)
#: What is not built of these releases.
NOT_BUILT: Final = {
    "version-regression-3.0.0-mnnquant-ema": "EMA of 3.0.0 reads memory that was never written: of two runs alike one "
    "writes the scales of today, the other infinite ones",
    "version-regression-in-the-kernels": "an older release that computes wrongly does so on the device, which "
    "--mnn-target runs: tests/targets/test_older_runtimes.py",
}


def install(folder: Path) -> None:
    """Install each of the older releases into a folder of its own; numpy is that of this environment."""
    for version in VERSIONS:
        if not (folder / version / "MNN").is_dir():
            target = ("--target", str(folder / version))
            command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *target, f"MNN=={version}")
            subprocess.run(command, check=True)


def lacking(version: str) -> str:
    """Why faults of this release can't be planted here; empty where they can."""
    if (wheels() / version / "MNN").is_dir():
        return ""
    return f"MNN {version} is not in {wheels()} ({WHEELS}): python -m tests.faults.corpus.wheels FOLDER installs it"


def converted(factory: Factory, version: str, model: Path, *flags: str | Path) -> Path:
    """What the converter of a release makes of an `.onnx` or `.mnn` file."""
    key = ("converted", version, model, flags)
    if (found := known(factory, *key)) is None:
        target = factory.fresh("net.mnn")
        kind = "ONNX" if model.suffix == ".onnx" else "MNN"
        given = ("-f", kind, "--modelFile", model, "--MNNModel", target, "--bizCode", "MNN")
        assert run_tool("mnnconvert", *given, *flags, version=version) == 0
        found = keep(factory, target, *key)
    return found  # type: ignore[no-any-return]


def old(slug: str, code: str, layer: str = "", versions: tuple[str, ...] = VERSIONS) -> Callable[[Any], Any]:
    """A fault of each of these releases; the builder gets the release too."""

    def add(build: Callable[[Factory, str], Pair]) -> Callable[[Factory, str], Pair]:
        for version in versions:
            name = f"version-regression-{version}-{slug}"
            fault("F", name, code, layer, needs=partial(lacking, version))(_of(build, version))
        return build

    return add


def _of(build: Callable[[Factory, str], Pair], version: str) -> Builder:
    return lambda factory: build(factory, version)


def judged(
    factory: Factory, model: Path, options: tuple[str, ...] = (), params: Path | None = None, data: bool = True
) -> Planted:
    evaluation = factory.evaluation() if data else None
    return Planted(factory.onnx() if data else factory.float(), model, params, evaluation, options=options)


# Its converter, weights only -----------------------------------------------------------------------------------------


def weight_only(
    slug: str, code: str, layer: str, flags: tuple[str, ...], twin: tuple[str, ...], options: tuple[str, ...]
) -> None:
    @old(slug, code, layer)
    def build(factory: Factory, version: str) -> Pair:
        made, meant = (converted(factory, version, factory.onnx(), *one) for one in (flags, twin))
        return Pair(judged(factory, made, options), judged(factory, meant, options))


weight_only("mistyped-flag", "MNQ401", HIDDEN, ("--weightQuantBit", "8"), EIGHT, W8)
weight_only("fp16-swallows-int8", "MNQ402", HIDDEN, ("--fp16", *EIGHT), EIGHT, W8)
weight_only("bits-clamped", "MNQ402", HIDDEN, ("--weightQuantBits", "1"), FOUR, W4)


@old("stale-weights", "MNQ410", HIDDEN)
def eight_bits_of_another_training(factory: Factory, version: str) -> Pair:
    made, twin = (converted(factory, version, one, *EIGHT) for one in (retrained(factory), factory.onnx()))
    return Pair(judged(factory, made, W8), judged(factory, twin, W8))


@old("weight-file-missing", "MNQ803")
def without_external_weights(factory: Factory, version: str) -> Pair:
    whole = converted(factory, version, factory.onnx(), *EIGHT, "--saveExternalData")
    if (model := known(factory, "alone", version)) is None:
        model = keep(factory, factory.fresh("net.mnn", whole.read_bytes()), "alone", version)
    return Pair(judged(factory, model, W8), judged(factory, whole, W8))


@old("hqq-unknown", "MNQ415", HIDDEN)
def hqq_of_a_release_that_has_none(factory: Factory, version: str) -> Pair:
    """The flag came later: this release ignores it as it does every flag that it does not know."""
    made, twin = (converted(factory, version, factory.onnx(), *FOUR, *more) for more in (("--hqq",), ()))
    return Pair(judged(factory, made, ("--mnn-recipe=w4-hqq",)), judged(factory, twin, W4))


# Its converter, with a params file -----------------------------------------------------------------------------------


def params_missing(slug: str, code: str, version: str) -> None:
    """3.0.0 leaves the path empty, later releases write a guide there."""

    @old(slug, code, "", (version,))
    def build(factory: Factory, version: str) -> Pair:
        if (guide := known(factory, "guide", version)) is None:
            guide = keep(factory, factory.fresh("params.json"), "guide", version)
        made = converted(factory, version, factory.onnx(), FLAG, guide)
        twin = converted(factory, version, factory.float(), FLAG, factory.params())
        return Pair(judged(factory, made, params=guide), judged(factory, twin, params=factory.params()))


params_missing("params-path-missing", "MNQ301", "3.0.0")
params_missing("params-path-missing-created", "MNQ303", "3.2.0")


@old("params-misnamed", "MNQ304", SECOND)
def params_of_another_export(factory: Factory, version: str) -> Pair:
    if (params := known(factory, "misnamed")) is None:
        params = keep(factory, renamed(factory, {"/features/features.6/Relu_output_0": "relu_1"}), "misnamed")
    made, twin = (converted(factory, version, factory.float(), FLAG, one) for one in (params, factory.params()))
    return Pair(judged(factory, made, params=params), judged(factory, twin, params=factory.params()))


@old("params-mistyped-flag", "MNQ305", HIDDEN)
def params_that_were_never_read(factory: Factory, version: str) -> Pair:
    made, twin = (
        converted(factory, version, factory.float(), flag, factory.params()) for flag in ("--compressionParams", FLAG)
    )
    return Pair(*(judged(factory, one, params=factory.params()) for one in (made, twin)))


@old("params-stale", "MNQ410", HIDDEN)
def params_of_before_a_retraining(factory: Factory, version: str) -> Pair:
    made, twin = (
        converted(factory, version, converted(factory, version, one), FLAG, factory.params())
        for one in (retrained(factory), factory.onnx())
    )
    return Pair(*(judged(factory, one, params=factory.params()) for one in (made, twin)))


class Wide(nn.Sequential):
    """A Linear of 65,536 weights: today's converter writes such a layer wrongly when it comes from ONNX."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
        return x


@old("params-on-large-linear", "MNQ403", "/1/Gemm_output_0__matmul_converted")
def params_on_a_large_linear(factory: Factory, version: str) -> Pair:
    data = {"x": factory.module(NET).evaluation()["x"][:100]}
    wide = source(factory, "wide", Wide, data)
    path, params = wide.model.path, factory.params(wide)
    made, twin = (converted(factory, version, one, FLAG, params) for one in (path.with_name("float.onnx"), path))
    evaluation = held_out(factory, "wide", data)
    return Pair(*(Planted(path, one, params, evaluation) for one in (made, twin)))


# Its offline tool ----------------------------------------------------------------------------------------------------


def by_ema(factory: Factory, version: str, brightness: int = 1, **changes: Any) -> Planted:
    """The net by mnnquant's EMA of a release, fed with digits that are this much brighter."""
    name = f"digits times {brightness}"
    if (folder := known(factory, "fed", name)) is None:
        folder = factory.fresh("samples").parent / "samples"
        digits = factory.module(NET).calibration()["x"][:SAMPLES]
        folder = keep(factory, write_samples(folder, {"x": brightness * digits}), "fed", name)
    config = of_samples(folder, feature_quantize_method="EMA", **changes)
    made = quantized(factory, config, converted(factory, version, factory.onnx()), version=version)
    assert made.status == 0
    return judged(factory, made.path, EMA)


def by_kl(factory: Factory, version: str, **changes: Any) -> Planted:
    config = of_images(images(factory), **changes)
    made = quantized(factory, config, converted(factory, version, factory.onnx()), version=version)
    assert made.status == 0
    return judged(factory, made.path, KL)


@old("mnnquant-kl", "MNQ402", HIDDEN)
def kl_that_knows_no_inputs(factory: Factory, version: str) -> Pair:
    """KL of these releases gives the layers after a pooling or a reshaping no input scale: they are weight-only."""
    base = converted(factory, version, factory.onnx())
    return Pair(by_kl(factory, version), judged(factory, quantized(factory, of_images(images(factory)), base).path, KL))


@old("mnnquant-preprocess-missing", "MNQ541", ANY, ("3.2.0",))
def pixels_of_255(factory: Factory, version: str) -> Pair:
    return Pair(by_ema(factory, version, 255), by_ema(factory, version))


@old("mnnquant-skips-nothing", "MNQ405", HIDDEN, ("3.2.0",))
def ema_skips_nothing(factory: Factory, version: str) -> Pair:
    asked = f"--mnn-skip-layer={HIDDEN}"
    made = by_ema(factory, version, skip_quant_op_names=[HIDDEN])
    return Pair(dataclasses.replace(made, options=(*EMA, asked)), by_ema(factory, version))


@old("mnnquant-float", "MNQ401", HIDDEN, ("3.2.0",))
def images_of_another_size(factory: Factory, version: str) -> Pair:
    return Pair(by_kl(factory, version, width=24, height=24), by_ema(factory, version))


if __name__ == "__main__":
    install(Path(sys.argv[1]))
