"""Section E: what MNN's offline tool `mnnquant` makes of mistakes, with "Quantize model done!" or without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from tests.conftest import TIMEOUT
from tests.faults.corpus.plan import ANY, Pair, Planted, fault
from tests.faults.corpus.tools import (
    held_out,
    keep,
    known,
    run_console_script,
    run_tool,
    source,
    write_images,
    write_samples,
)
from tests.faults.factory import FIRST, HIDDEN, LAST, NET, Factory
from tests.smallnets import TwoWays

#: Why rows of the catalogue's section E are not built here.
NOT_BUILT: Final = {
    "skipped-conv-crash": "the crash is in runtimes before 3.6.1, which the gate does not run; 3.6.1 runs the model",
    "subset-by-readdir": "which files a folder gives first differs from disk to disk, so no fault can be planted in it",
    "debug-report-empty": "it is about what the tool prints, not about the file it writes; 3.6.1 prints it",
    "wrong-batch-default": "mended in MNN before 3.6.1 (its pull request 4117)",
}
SAMPLES: Final = 40
KL: Final = ("--mnn-recipe=mnnquant-kl",)
EMA: Final = ("--mnn-recipe=mnnquant-ema",)
#: Fills memory that nobody writes: with large numbers, and with numbers that are nearly 0.
LARGE, SMALL = 165, 85


@dataclass(frozen=True)
class Made:
    """What the tool left, which may be nothing."""

    path: Path
    status: int


def images(factory: Factory, name: str = "digits") -> Path:
    """A folder of digits as PNG files; or what else people call a folder of images."""
    if (found := known(factory, "images", name)) is None:
        digits = factory.module(NET).calibration()["x"][:SAMPLES]
        folder = factory.fresh("images").parent / "images"
        if name == "digits":
            write_images(folder, digits)
        elif name == "blank":
            write_images(folder, np.zeros_like(digits))
        elif name == "captions":
            folder.mkdir()
            for number in range(SAMPLES):
                (folder / f"{number:03d}.png").write_text(f"a digit, number {number}\n")
        else:
            folder.mkdir()
        found = keep(factory, folder, "images", name)
    return found  # type: ignore[no-any-return]


def samples(factory: Factory, name: str = "digits", change: Callable[[Path], None] | None = None) -> Path:
    """The same digits in the tool's `sequence` form, each folder changed."""
    if (found := known(factory, "samples", name)) is None:
        found = factory.fresh("samples").parent / "samples"
        write_samples(found, {"x": factory.module(NET).calibration()["x"][:SAMPLES]})
        for sample in sorted(found.iterdir()) if change else ():
            assert change is not None
            change(sample)
        keep(factory, found, "samples", name)
    return found  # type: ignore[no-any-return]


def of_images(folder: Path, **changes: Any) -> dict[str, Any]:
    """A configuration as in MNN's documentation; None leaves a key out."""
    config = {
        "format": "GRAY",
        "mean": [0.0],
        "normal": [1 / 255],
        "width": 16,
        "height": 16,
        "path": f"{folder}/",
        "used_image_num": SAMPLES,
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
        **changes,
    }
    return {key: value for key, value in config.items() if value is not None}


def of_samples(folder: Path, shapes: Mapping[str, tuple[int, ...]] | None = None, **changes: Any) -> dict[str, Any]:
    inputs = [{"name": name, "shape": list(shape)} for name, shape in (shapes or {"x": (4, 1, 16, 16)}).items()]
    return {
        "input_type": "sequence",
        "path": f"{folder}/",
        "used_sample_num": SAMPLES // 4,
        "batch_size": 4,
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
        "inputs": inputs,
        **changes,
    }


def quantized(
    factory: Factory,
    config: dict[str, Any] | str,
    model: Path | None = None,
    *,
    before: Path | None = None,
    perturb: int | None = None,
    version: str = "",
) -> Made:
    """What mnnquant leaves where a model is to be; `before` is what lay there."""
    key = ("quantized", json.dumps(config), model, before, perturb, version)
    if (found := known(factory, *key)) is None:
        target = factory.fresh("net.mnn")
        settings = target.with_name("quant.json")
        settings.write_text(config if isinstance(config, str) else json.dumps(config))
        if before is not None:
            shutil.copy2(before, target)
        status = run_tool("mnnquant", model or factory.float(), target, settings, version=version, perturb=perturb)
        found = keep(factory, Made(target, status), *key)
    return found  # type: ignore[no-any-return]


def judged(factory: Factory, made: Made, data: bool = True, options: tuple[str, ...] = KL) -> Planted:
    """Without data nothing can be compared with the ONNX model, so then the source is the float one."""
    if data:
        return Planted(factory.onnx(), made.path, data=factory.evaluation(), options=options, status=made.status)
    return Planted(factory.float(), made.path, options=options, status=made.status)


def healthy(factory: Factory, data: bool = True, **changes: Any) -> Planted:
    return judged(factory, quantized(factory, of_images(images(factory), **changes)), data)


def retrained(factory: Factory) -> Path:
    """The net after another training, as float ONNX: all its weights are others."""
    if (found := known(factory, "retrained")) is None:
        net, random = onnx.load(factory.onnx()), np.random.default_rng(0)
        for tensor in net.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.ndim > 1:
                other = values + 0.3 * values.std() * random.standard_normal(values.shape)
                tensor.CopyFrom(onnx.numpy_helper.from_array(other.astype(np.float32), tensor.name))
        found = keep(factory, factory.fresh("retrained.onnx", net.SerializeToString()), "retrained")
    return found  # type: ignore[no-any-return]


def stale(factory: Factory) -> Path:
    """What an earlier run of the pipeline left: the int8 model of other weights."""
    before = factory.convert(retrained(factory))
    return quantized(factory, of_images(images(factory)), before).path


# The tool that does not run ------------------------------------------------------------------------------------------


def console(slug: str, code: str, layer: str, before: Callable[[Factory], Path] | None) -> None:
    """The documented command aborts in every version; `before` is what lies where the model should be."""

    @fault("E", f"mnnquant-cli-broken{slug}", code, layer)
    def build(factory: Factory) -> Pair:
        key = ("console", slug)
        if (made := known(factory, *key)) is None:
            target = factory.fresh("net.mnn")
            settings = target.with_name("quant.json")
            settings.write_text(json.dumps(of_images(images(factory))))
            if before is not None:
                shutil.copy2(before(factory), target)
            made = keep(factory, Made(target, run_console_script(factory.float(), target, settings)), *key)
        assert made.status != 0
        return Pair(judged(factory, made), healthy(factory))


console("", "MNQ202", "", None)
console("-stale", "MNQ410", HIDDEN, stale)
console("-float-in-its-place", "MNQ401", HIDDEN, lambda factory: factory.float())


def nothing_written(
    slug: str,
    config: Callable[[Factory], dict[str, Any] | str],
    model: Callable[[Factory], Path] = lambda factory: factory.float(),
    *,
    crash: bool,
    twin: Callable[[Factory], Planted] = healthy,
    before: Callable[[Factory], Path] | None = None,
) -> None:
    """A run that leaves the output as it was: no file, or that of an earlier run."""

    @fault("E", slug, "MNQ410" if before else "MNQ202", HIDDEN if before else "")
    def build(factory: Factory) -> Pair:
        old = before(factory) if before else None
        made = quantized(factory, config(factory), model(factory), before=old)
        assert bool(made.status) is crash
        assert made.path.exists() is bool(before)
        return Pair(judged(factory, made), twin(factory))


def with_images(name: str = "digits", **changes: Any) -> Callable[[Factory], dict[str, Any]]:
    return lambda factory: of_images(images(factory, name), **changes)


def broken_json(factory: Factory) -> str:
    return json.dumps(of_images(images(factory)))[:-1] + ",}"


nothing_written("bad-method-name", with_images(feature_quantize_method="kl"), crash=True)
nothing_written("bad-method-name-weights", with_images(weight_quantize_method="MAXABS"), crash=True)
nothing_written("bad-method-name-stale", with_images(feature_quantize_method="MSE"), crash=True, before=stale)
nothing_written("bad-json-or-src-rc0-json", broken_json, crash=False)
nothing_written("bad-json-or-src-rc0-json-stale", broken_json, crash=False, before=stale)
nothing_written(
    "bad-json-or-src-rc0-source", with_images(), lambda factory: factory.folder / "nowhere.mnn", crash=False
)
nothing_written("bad-json-or-src-rc0-onnx", with_images(), lambda factory: factory.onnx(), crash=False)
nothing_written("no-images", with_images("none"), crash=True)
nothing_written("admm-kl-crash-admm", with_images(feature_quantize_method="ADMM"), crash=True)


# Calibrated on something else ----------------------------------------------------------------------------------------


def misfed(
    slug: str,
    code: str,
    layer: str = ANY,
    folder: str = "digits",
    twin: Mapping[str, Any] | None = None,
    perturb: int | None = None,
    **changes: Any,
) -> None:
    """A configuration with a mistake in it, against the same without; found by held-out digits."""

    @fault("E", slug, code, layer)
    def build(factory: Factory) -> Pair:
        made = quantized(factory, of_images(images(factory, folder), **changes), perturb=perturb)
        assert made.status == 0
        return Pair(judged(factory, made), healthy(factory, **(twin or {})))


misfed("preprocess-missing", "MNQ541", mean=None, normal=None)
misfed("preprocess-normal-inverted", "MNQ541", normal=[255.0])
misfed("preprocess-twice", "MNQ540", normal=[1 / 255**2])
misfed("config-key-typo-normal", "MNQ541", normal=None, norm=[1 / 255])
misfed("dead-tensor-scale0", "MNQ540", folder="blank")
misfed("images-that-are-none-large", "MNQ417", folder="captions", perturb=LARGE)
misfed("images-that-are-none-small", "MNQ540", folder="captions", perturb=SMALL)
misfed("clamp-zero-inf", "MNQ417", feature_clamp_value=0)
misfed("clamp-zero-inf-half", "MNQ417", feature_clamp_value=0.5)
misfed("clamp-of-one", "MNQ541", feature_clamp_value=1)
misfed("clamp-weights-zero", "MNQ403", HIDDEN, weight_clamp_value=0)
misfed("clamp-weights-one", "MNQ413", HIDDEN, weight_clamp_value=1)
misfed("quant_bits-4-clips-activations", "MNQ402", HIDDEN, quant_bits=4)
misfed("quant_bits-2-clips-activations", "MNQ402", HIDDEN, quant_bits=2)


@fault("E", "clamp-zero-inf-without-data", "MNQ417", ANY)
def infinite_scales_in_the_file(factory: Factory) -> Pair:
    """No data are needed to see it: there is no tensor of which an infinite scale is right."""
    made = quantized(factory, of_images(images(factory), feature_clamp_value=0))
    return Pair(judged(factory, made, data=False), healthy(factory, data=False))


def unreadable(slug: str, code: str, perturb: int, change: Callable[[Path], None], **changes: Any) -> None:
    """Samples in text of which the tool can't read an input's values: it calibrates on memory that nobody wrote."""

    @fault("E", slug, code, ANY)
    def build(factory: Factory) -> Pair:
        made = quantized(factory, of_samples(samples(factory, slug, change), **changes), perturb=perturb)
        assert made.status == 0
        return Pair(judged(factory, made), judged(factory, quantized(factory, of_samples(samples(factory)))))


def rename(sample: Path) -> None:
    (sample / "x.txt").rename(sample / "input.txt")


def remove(sample: Path) -> None:
    (sample / "x.txt").unlink()


def as_they_are(_: Path) -> None:
    """Nothing is wrong with the samples."""


unreadable("missing-sequence-input-garbage", "MNQ417", LARGE, remove)
unreadable("missing-sequence-input-garbage-renamed", "MNQ417", LARGE, rename)
unreadable("missing-sequence-input-garbage-zero", "MNQ540", SMALL, remove)
unreadable("config-key-typo-input_type", "MNQ417", LARGE, as_they_are, input_type="Sequence")


# Left float ----------------------------------------------------------------------------------------------------------


def left_float(slug: str, data: bool = True, perturb: int | None = None, **changes: Any) -> None:
    """A run that can't compute a single sample, says "done", and writes the float model."""

    @fault("E", slug, "MNQ401", HIDDEN)
    def build(factory: Factory) -> Pair:
        made = quantized(factory, of_images(images(factory), **changes), perturb=perturb)
        assert made.status == 0
        return Pair(judged(factory, made, data), healthy(factory, data))


left_float("wrong-input-size-accepted", width=24, height=24)
# A size that is not given is read from memory that nobody wrote: at times the tool crashes of it.
left_float("wrong-input-size-left-out", data=False, perturb=SMALL, width=None, height=None)
left_float("config-key-typo-width", data=False, perturb=SMALL, width=None, wdith=16)
left_float("format-typo-bgr", format="gray")
left_float("format-typo-left-out", data=False, format=None)


@fault("E", "ema-external-weights", "MNQ803")
def ema_of_a_model_with_external_weights(factory: Factory) -> Pair:
    """EMA does not find the weights, and writes layers without any."""
    apart = factory.convert(factory.float(), "--saveExternalData")
    config = of_images(images(factory), feature_quantize_method="EMA")
    made = quantized(factory, config, apart)
    return Pair(judged(factory, made, options=EMA), judged(factory, quantized(factory, config), options=EMA))


# Layers to skip ------------------------------------------------------------------------------------------------------


def skipped(slug: str, names: list[str], code: str, layer: str, *, key: str = "skip_quant_op_names", ema: bool = False,
            data: bool = True) -> None:  # fmt: skip
    """The last layer was to stay float; `names` are what the configuration lists."""

    @fault("E", slug, code, layer)
    def build(factory: Factory) -> Pair:
        method = {"feature_quantize_method": "EMA"} if ema else {}
        made = quantized(factory, of_images(images(factory), **{key: names}, **method))
        twin = quantized(factory, of_images(images(factory), skip_quant_op_names=[LAST]))
        asked = (f"--mnn-skip-layer={LAST}",)
        return Pair(
            judged(factory, made, data, (*(EMA if ema else KL), *asked)), judged(factory, twin, data, (*KL, *asked))
        )


skipped("skip-name-no-match", ["output"], "MNQ405", LAST)
skipped("skip-name-no-match-module", ["classifier.4"], "MNQ405", LAST, data=False)
skipped("config-key-typo-skip", [LAST], "MNQ405", LAST, key="skip_quant_op_name", data=False)
skipped("ema-skips-nothing", [LAST], "MNQ405", LAST, ema=True)
skipped("skip-name-too-many", [LAST, HIDDEN], "MNQ401", HIDDEN)


# What the tool gets --------------------------------------------------------------------------------------------------


@fault("E", "int8-source", "MNQ701", FIRST)
def an_int8_model_quantized_again(factory: Factory) -> Pair:
    """It calibrates what int8 kernels hand on as if they were numbers."""
    made = quantized(factory, of_images(images(factory)), factory.int8())
    return Pair(judged(factory, made), healthy(factory))


@fault("E", "int8-source-of-four-bits", "MNQ410", HIDDEN)
def a_model_of_two_bits_quantized_again(factory: Factory) -> Pair:
    """Eight bits again, of weights that two bits have left."""
    coarse = factory.convert(factory.float(), "--weightQuantBits", "2")
    made = quantized(factory, of_images(images(factory)), coarse)
    return Pair(judged(factory, made), healthy(factory))


@fault("E", "ema-drops-identity", "MNQ410", HIDDEN)
def an_ema_model_of_other_weights(factory: Factory) -> Pair:
    """It has no uuid, and its operators have other names: only the weights show whose it is."""
    config = of_images(images(factory), feature_quantize_method="EMA")
    made = quantized(factory, config, factory.convert(retrained(factory)))
    return Pair(judged(factory, made, options=EMA), judged(factory, quantized(factory, config), options=EMA))


@fault("E", "nothing-written-no-folder", "MNQ202")
def a_folder_that_is_not_there(factory: Factory) -> Pair:
    """The tool says "done", and nothing is written."""
    if (made := known(factory, "no folder")) is None:
        target = factory.folder / "nowhere" / "net.mnn"
        settings = factory.fresh("quant.json", json.dumps(of_images(images(factory))).encode())
        made = keep(factory, Made(target, run_tool("mnnquant", factory.float(), target, settings)), "no folder")
    assert made.status == 0
    return Pair(judged(factory, made), healthy(factory))


# By hand in Python ---------------------------------------------------------------------------------------------------

_EAGER: Final = """
import sys
import MNN
import numpy as np
net = MNN.nn.load_module_from_file(sys.argv[1], ["x"], ["output"])
x = MNN.expr.placeholder([1, 1, 16, 16], MNN.expr.NCHW, MNN.expr.float)
x.name = "x"
x.write(np.zeros(256, np.float32))
out = net.forward([x])[0]
out.name = "output"
MNN.expr.save([out], sys.argv[2])
"""


@fault("E", "python-quant-collapses-to-const", "MNQ203")
def the_answer_for_one_input(factory: Factory) -> Pair:
    """Saved in Python without lazy evaluation: what is in the file is what the net made of one input."""
    if (path := known(factory, "collapsed")) is None:
        path = factory.fresh("net.mnn")
        command = [sys.executable, "-c", _EAGER, str(factory.int8()), str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)
        keep(factory, path, "collapsed")
    return Pair(
        Planted(factory.onnx(), path, data=factory.evaluation()),
        Planted(factory.onnx(), factory.int8(), data=factory.evaluation()),
    )


# Other networks ------------------------------------------------------------------------------------------------------


class Mean(nn.Module):
    """A convolution, and the mean over both axes of an image, on which MNN 3.6.1's KL crashes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))


@fault("E", "admm-kl-crash-kl", "MNQ202")
def kl_of_a_mean(factory: Factory) -> Pair:
    data = {"x": factory.module(NET).evaluation()["x"][:100]}
    model = source(factory, "mean", Mean, data).model.path
    made, twin = (
        quantized(factory, of_images(images(factory), feature_quantize_method=method), model)
        for method in ("KL", "EMA")
    )
    assert made.status
    path = held_out(factory, "mean", data)
    return Pair(
        Planted(model, made.path, data=path, options=KL, status=made.status),
        Planted(model, twin.path, data=path, options=EMA),
    )


def two_inputs() -> dict[str, Any]:
    random = np.random.default_rng(0)
    image = random.standard_normal((100, 2, 8, 8)).astype(np.float32)
    return {"image": image, "extra": 2 * random.standard_normal((100, 5)).astype(np.float32)}


SHAPES: Final = {"image": (4, 2, 8, 8), "extra": (4, 5)}


def several(slug: str, code: str, layer: str, crash: bool, perturb: int | None, lost: str) -> None:
    """A net of two inputs, fed with images, or with a file less."""

    @fault("E", slug, code, layer)
    def build(factory: Factory) -> Pair:
        data = two_inputs()
        model = source(factory, "two inputs", two_ways, data).model.path
        whole = two_samples(factory, data, "")
        if lost:
            config = of_samples(two_samples(factory, data, lost), SHAPES)
        else:
            config = of_images(images(factory), width=8, height=8)
        made = quantized(factory, config, model, perturb=perturb)
        assert bool(made.status) is crash
        twin = quantized(factory, of_samples(whole, SHAPES), model)
        path = held_out(factory, "two inputs", data)
        return Pair(
            Planted(model, made.path, data=path, options=KL, status=made.status),
            Planted(model, twin.path, data=path, options=KL),
        )


def two_ways() -> nn.Module:
    torch.manual_seed(0)
    return TwoWays()


def two_samples(factory: Factory, data: Mapping[str, Any], lost: str) -> Path:
    if (found := known(factory, "two samples", lost)) is None:
        found = factory.fresh("samples").parent / "samples"
        write_samples(found, {name: array[:SAMPLES] for name, array in data.items()})
        for sample in found.iterdir() if lost else ():
            (sample / f"{lost}.txt").unlink()
        keep(factory, found, "two samples", lost)
    return found  # type: ignore[no-any-return]


several("multi-input", "MNQ202", "", True, None, "")
several("multi-input-image-missing", "MNQ417", ANY, False, LARGE, "image")


class Rows(nn.Module):
    """Reads an image row by row: half of an LSTM's weights lie in a While body of MNN."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.LSTM(16, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.rnn(x[:, 0])
        out: torch.Tensor = self.head(states[:, -1])
        return out


@fault("E", "subgraph-skipped", "MNQ203", "Convolution28")
def admm_of_a_loop(factory: Factory) -> Pair:
    """ADMM looks at operators of the top level alone, and gives one of them the shape of another."""
    data = {"x": factory.module(NET).evaluation()["x"][:100]}
    model, path = source(factory, "rows", Rows, data).model.path, held_out(factory, "rows", data)
    made = quantized(factory, of_samples(samples(factory), feature_quantize_method="ADMM"), model)
    assert made.status == 0
    twin = factory.convert(model, "--weightQuantBits", "8")
    return Pair(
        Planted(model, made.path, data=path, options=("--mnn-recipe=mnnquant-admm",)),
        Planted(model, twin, data=path, options=("--mnn-recipe=w8",)),
    )
