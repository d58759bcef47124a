"""A corpus of real `.mnn` files: networks x recipes, each file written by MNN's own tools.

python benchmarks/corpus.py FOLDER [--old 3.0.0=PYTHON ...]

`--old` names the interpreter of an environment that has another MNN wheel. Existing files are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from corpus_nets import NETS, SAMPLES, arrays, write_tflite

from pytest_mnnquant.mnnfile.model import read_model
from pytest_mnnquant.quantize.calibration import Range, make_params, save_params
from pytest_mnnquant.quantize.ranges import calibrate_runtime
from pytest_mnnquant.recipes.mnn_support import int8_layers
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.data import as_dataset
from pytest_mnnquant.sources.pytorch import ExportOptions, export

TIMEOUT: Final = 300.0
# The tools' return value says nothing, and their destructors may crash after the work is done.
_PROGRAM: Final = "import os, sys, _tools; getattr(_tools, sys.argv[1])(sys.argv[1:]); sys.stdout.flush(); os._exit(0)"

W8, W4 = ("--weightQuantBits", "8"), ("--weightQuantBits", "4")
SYMMETRIC, EXTERNAL, SPARSE = "--weightQuantAsymmetric=0", "--saveExternalData", "--detectSparseSpeedUp"
HALF_SCALES = ("--weightQuantScaleBit", "16")
RECIPES: Final[dict[str, tuple[str, ...]]] = {
    "float": (),
    "fp16": ("--fp16",),
    "w8": W8,
    "w4b16": (*W4, "--weightQuantBlock", "16"),
    "w8-ext": (*W8, EXTERNAL),
    "ext": (EXTERNAL,),
    "fp16-ext": ("--fp16", EXTERNAL),
    "w4b16-ext": (*W4, "--weightQuantBlock", "16", EXTERNAL),
    **{f"w{bits}": ("--weightQuantBits", str(bits)) for bits in range(2, 8)},
    **{f"w{bits}-sym": ("--weightQuantBits", str(bits), SYMMETRIC) for bits in (2, 3, 4, 8)},
    "w8b32-sym": (*W8, "--weightQuantBlock", "32", SYMMETRIC),
    "w8-half-scales": (*W8, *HALF_SCALES),
    "w4b16-half-scales": (*W4, "--weightQuantBlock", "16", *HALF_SCALES),
    "w4-half-scales-ext": (*W4, *HALF_SCALES, EXTERNAL),
    "hqq4": (*W4, "--hqq"),
    "hqq4b16": (*W4, "--hqq", "--weightQuantBlock", "16"),
    "hqq8": (*W8, "--hqq"),
}
SPARSE_RECIPES: Final[dict[str, tuple[str, ...]]] = {
    "sparse": (SPARSE,),
    "sparse-ext": (SPARSE, EXTERNAL),
    "sparse-w8": (*W8, SPARSE),
    "sparse-w4": (*W4, SPARSE),
    "sparse-w8-sym": (*W8, SPARSE, SYMMETRIC),
    "sparse-w3-sym": ("--weightQuantBits", "3", SPARSE, SYMMETRIC),
    "sparse-w4b16": (*W4, SPARSE, "--weightQuantBlock", "16"),
    "sparse-w8-half-scales": (*W8, SPARSE, *HALF_SCALES),
    "sparse-w8-ext": (*W8, SPARSE, EXTERNAL),
    "sparse-fp16": (SPARSE, "--fp16"),
}
COMMON: Final = ("float", "fp16", "w8", "w4b16", "w8-ext")
OLD: Final = ("float", "fp16", "w8", "w8-sym", "w4", "w4-sym", "w4b16", "w8-ext")


@dataclass(frozen=True)
class Wheel:
    """An installed MNN: the tools of its wheel, each run in a process and folder of its own."""

    python: str = sys.executable
    version: str = ""

    def tool(self, name: str, *arguments: str, folder: Path) -> str:
        """Run `mnnconvert` or `mnnquant`; returns what it printed. Raises `RuntimeError` where it crashes."""
        done = subprocess.run(
            [self.python, "-c", _PROGRAM, name, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
        )
        printed = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode:
            raise RuntimeError(f"{name} {' '.join(arguments)} ended with {done.returncode}: {printed[-300:]}")
        return printed

    def convert(self, source: Path, output: Path, flags: Iterable[str] = ()) -> None:
        """Convert an .onnx, .tflite, .json or .mnn file."""
        kinds = {".onnx": "ONNX", ".tflite": "TFLITE", ".json": "JSON"}
        with tempfile.TemporaryDirectory(dir=output.parent) as name:
            fresh = Path(name) / output.name
            names = ("--modelFile", str(source.resolve()), "--MNNModel", str(fresh.resolve()), "--bizCode", "MNN")
            printed = self.tool(
                "mnnconvert", "-f", kinds.get(source.suffix, "MNN"), *names, *flags, folder=fresh.parent
            )
            _publish(fresh, output, printed)

    def quantize(self, source: Path, output: Path, config: dict[str, object]) -> None:
        """Full int8 by the wheel's own calibration (`mnnquant`)."""
        with tempfile.TemporaryDirectory(dir=output.parent) as name:
            folder = Path(name).resolve()
            model = read_model(source)
            data = folder / "data" / "sample"
            data.mkdir(parents=True)
            shapes = {item.name: item.shape[1:] for item in model.inputs}
            listed = []
            for key, array in arrays(shapes).items():
                (data / f"{key}.txt").write_text("\n".join(f"{value:.7g}" for value in array.reshape(-1)))
                listed.append({"name": key, "shape": list(array.shape)})
            (data / "input.json").write_text(json.dumps({"inputs": listed, "outputs": list(model.output_names)}))
            settings = {"input_type": "sequence", "path": f"{data.parent}/", "batch_size": SAMPLES, **config}
            (folder / "config.json").write_text(json.dumps(settings))
            fresh = folder / output.name
            printed = self.tool(
                "mnnquant", str(source.resolve()), str(fresh), str(folder / "config.json"), folder=folder
            )
            _publish(fresh, output, printed)

    def dump(self, model: Path, output: Path) -> None:
        """The converter's own reading of a model, as JSON."""
        with tempfile.TemporaryDirectory(dir=output.parent) as name:
            fresh = Path(name).resolve() / output.name
            names = ("--modelFile", str(model.resolve()), "--JsonFile", str(fresh))
            printed = self.tool("mnnconvert", "-f", "MNN", *names, "--bizCode", "MNN", folder=fresh.parent)
            _publish(fresh, output, printed)


def _publish(fresh: Path, output: Path, printed: str) -> None:
    if not fresh.exists():
        raise RuntimeError(f"{output.name} was not written: {printed[-300:]}")
    for part in (fresh.with_name(fresh.name + ".weight"), fresh):
        if part.exists():
            part.replace(output.with_name(part.name))


@dataclass(frozen=True)
class Entry:
    """A file of the corpus: where it lies in the folder, and what makes it."""

    name: str
    build: Callable[[Path, Path], None]

    def path(self, root: Path) -> Path:
        """The file, made if it is not there."""
        target = root / f"{self.name}.mnn"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.build(root, target)
        return target


def entries(old: Iterable[Wheel] = ()) -> list[Entry]:
    """All files, named net/recipe or net/recipe@version."""
    now = Wheel()
    found = [Entry(f"cnn/{recipe}", partial(_converted, now, "cnn", flags)) for recipe, flags in RECIPES.items()]
    found += [
        Entry(f"sparse/{recipe}", partial(_converted, now, "sparse", flags)) for recipe, flags in SPARSE_RECIPES.items()
    ]
    for net in NETS:
        if net != "cnn":
            found += [Entry(f"{net}/{recipe}", partial(_converted, now, net, RECIPES[recipe])) for recipe in COMMON]
    for recipe in ("float", "fp16", "w4"):
        native = (*RECIPES[recipe], "--groupConvNative")
        found.append(Entry(f"grouped/native-{recipe}", partial(_converted, now, "grouped", native)))
    for net in ("lstm", "gru"):
        origin = partial(_converted, now, net, ("--useOriginRNNImpl", "--fp16"))
        found.append(Entry(f"{net}/origin", partial(_converted, now, net, ("--useOriginRNNImpl",))))
        found.append(Entry(f"{net}/origin-fp16", origin))
    found += [Entry(f"transformer/fused-{r}", partial(_fused, now, RECIPES[r])) for r in ("float", "w8")]
    found += [Entry(f"tflite/{recipe}", partial(_tflite, now, RECIPES[recipe], False)) for recipe in COMMON]
    found.append(Entry("tflite/int8", partial(_tflite, now, (), True)))
    found.append(Entry("tflite/int8-ext", partial(_tflite, now, (EXTERNAL,), True)))
    for net in ("cnn", "conv1d", "depthwise", "multi", "transformer"):
        found.append(Entry(f"{net}/params", partial(_by_params, now, net, ())))
    found.append(Entry("cnn/params-ext", partial(_by_params, now, "cnn", (EXTERNAL,))))
    for net, method in (("cnn", "KL"), ("depthwise", "KL"), ("conv1d", "ADMM"), ("conv1d", "EMA"), ("cnn", "EMA")):
        found.append(Entry(f"{net}/mnnquant-{method.lower()}", partial(_by_mnnquant, now, net, method)))
    for wheel in old:
        found += [Entry(f"cnn/{r}@{wheel.version}", partial(_converted, wheel, "cnn", RECIPES[r])) for r in OLD]
        for recipe in ("sparse", "sparse-w8", "sparse-w4", "sparse-w8-sym"):
            flags = SPARSE_RECIPES[recipe]
            found.append(Entry(f"sparse/{recipe}@{wheel.version}", partial(_converted, wheel, "sparse", flags)))
        found += [
            Entry(f"lstm/{r}@{wheel.version}", partial(_converted, wheel, "lstm", RECIPES[r])) for r in ("float", "w8")
        ]
        found.append(Entry(f"cnn/params@{wheel.version}", partial(_by_params, wheel, "cnn", ())))
        for net, method in (("cnn", "KL"), ("conv1d", "ADMM"), ("cnn", "EMA")):
            name = f"{net}/mnnquant-{method.lower()}@{wheel.version}"
            found.append(Entry(name, partial(_by_mnnquant, wheel, net, method)))
    return found


def _onnx(root: Path, net: str) -> Path:
    path = root / "onnx" / f"{net}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        network = NETS[net].module()
        data = as_dataset(arrays(NETS[net].inputs), tuple(NETS[net].inputs), net)
        unfinished = path.with_suffix(".part")
        export(network, data, unfinished, ExportOptions(net))
        unfinished.replace(path)
    return path


def _converted(wheel: Wheel, net: str, flags: tuple[str, ...], root: Path, target: Path) -> None:
    wheel.convert(_onnx(root, net), target, flags)


def _fused(wheel: Wheel, flags: tuple[str, ...], root: Path, target: Path) -> None:
    """With MNN's own operators for attention and normalization."""
    wheel.convert(_onnx(root, "transformer"), target, (*flags, "--transformerFuse"))


def _tflite(wheel: Wheel, flags: tuple[str, ...], int8: bool, root: Path, target: Path) -> None:
    source = target.with_suffix(".tflite")
    write_tflite(source, int8)
    wheel.convert(source, target, flags)


def _float(wheel: Wheel, net: str, root: Path) -> Path:
    name = f"{net}/float@{wheel.version}" if wheel.version else f"{net}/float"
    return Entry(name, partial(_converted, wheel, net, ())).path(root)


def _by_params(wheel: Wheel, net: str, flags: tuple[str, ...], root: Path, target: Path) -> None:
    """Full int8 by a params file with the ranges of random data."""
    base = read_model(_float(wheel, net, root))
    data = as_dataset(arrays(NETS[net].inputs), tuple(NETS[net].inputs), net)
    layers = int8_layers(base)
    ranges: dict[int, Range] = calibrate_runtime(base, layers, data, RunOptions(TIMEOUT, batched=True)).ranges
    params = save_params(make_params(base, layers, ranges), target.with_suffix(".params.bin"))
    wheel.convert(base.path, target, ("--compressionParamsFile", str(params.resolve()), *flags))


def _by_mnnquant(wheel: Wheel, net: str, method: str, root: Path, target: Path) -> None:
    config: dict[str, object] = {"feature_quantize_method": method, "weight_quantize_method": "MAX_ABS"}
    wheel.quantize(_float(wheel, net, root), target, config)


def old_wheel(text: str) -> Wheel:
    """Read `VERSION=PYTHON`."""
    version, _, python = text.partition("=")
    return Wheel(python, version)


def build(root: Path, old: Iterable[Wheel] = (), say: Callable[[str], None] = print) -> list[tuple[str, Path]]:
    """Make the corpus in `root`; returns (name, file) of each that its tool could make."""
    wanted = entries(old)
    for net in NETS:  # The exporter is not made for threads.
        _onnx(root, net)
    for wheel in (Wheel(), *old):
        for net in ("cnn", "conv1d"):
            _float(wheel, net, root)

    def made(entry: Entry) -> tuple[str, Path] | None:
        try:
            return entry.name, entry.path(root)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            say(f"{entry.name}: not made: {error}")
            return None

    with ThreadPoolExecutor(2) as pool:
        return [item for item in pool.map(made, wanted) if item is not None]


def main() -> None:
    """Build the corpus and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--old", type=old_wheel, action="append", default=[])
    options = parser.parse_args()
    files = build(options.folder, options.old)
    print(f"{len(files)} files, {sum(path.stat().st_size for _, path in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
