"""Which planted faults, and which healthy counterparts, are reported: by the gate, and by what people look at today.

    python benchmarks/scoreboard.py FOLDER [--only SLUG ...] [--jobs N] [--write]

Every pair of tests/faults/corpus is built in FOLDER and judged by the tool's exit status; by its file being smaller, or
3 times smaller; by MNN's own `mnnconvert --testdir` (log, not exit status); by the overlap of the 5 largest outputs, at
least one half, as in MNN's testPTQ.py; by a mean cosine of 0.99; by the uuids of model and params file being equal; and
by a run of this plugin. With --write the tables go to docs/scoreboard.md. The exit status is 1 if the plugin misses a
fault or fails a healthy counterpart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from pytest_mnnquant.cache.store import Store  # noqa: E402
from pytest_mnnquant.mnnfile.flatbuffer import BadModel  # noqa: E402
from pytest_mnnquant.mnnfile.model import Model, read_model  # noqa: E402
from pytest_mnnquant.mnnfile.params import BadParams, read_params  # noqa: E402
from pytest_mnnquant.runtime.convert import run_converter  # noqa: E402
from pytest_mnnquant.runtime.inference import run  # noqa: E402
from pytest_mnnquant.runtime.jobs import NativeFailure  # noqa: E402
from pytest_mnnquant.runtime.options import RunOptions  # noqa: E402
from tests.faults.corpus.every import FAULTS  # noqa: E402
from tests.faults.corpus.plan import Fault, Planted  # noqa: E402
from tests.faults.factory import Factory  # noqa: E402

TIMEOUT: Final = 120.0
SAMPLES, TOP, OVERLAP, COSINE = 60, 5, 0.5, 0.99
PLUGIN: Final = "pytest-mnnquant"
#: Sections of faults that were made up after the rules: edited files, and mixtures of others.
UNLISTED: Final = "UV"
Values = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Artifacts:
    """What other judges look at: files of one case, and outputs of both models if both run. None: missing."""

    planted: Planted
    float_model: Model | None
    quantized: Path | None
    params: Path | None

    @property
    def ratio(self) -> float:
        """How many times smaller the quantized file is; 0 if it is missing."""
        if self.float_model is None or self.quantized is None or not self.quantized.is_file():
            return 0.0
        return self.float_model.size / max(1, self.quantized.stat().st_size)

    @property
    def outputs(self) -> tuple[Values, Values] | None:
        """Outputs of the float and of the quantized model on the evaluation data, or on noise without data."""
        if self.float_model is None or self.quantized is None:
            return None
        try:
            inputs = _inputs(self.float_model, self.planted.data)
            return _ran(self.float_model, inputs), _ran(read_model(self.quantized), inputs)
        except (BadModel, NativeFailure, OSError, ValueError, KeyError):
            return None


def _inputs(model: Model, data: Path | None) -> dict[str, npt.NDArray[Any]]:
    if data is not None and data.is_file() and data.suffix == ".npz":
        with np.load(data) as arrays:
            return {tensor.name: arrays[tensor.name][:SAMPLES] for tensor in model.inputs}
    random = np.random.default_rng(0)
    shapes = {tensor.name: [max(1, size) for size in tensor.shape[1:]] for tensor in model.inputs}
    return {name: random.random((8, *shape)).astype(np.float32) for name, shape in shapes.items()}


def _ran(model: Model, inputs: Mapping[str, npt.NDArray[Any]]) -> Values:
    try:
        return run(model, inputs, RunOptions(TIMEOUT)).outputs
    except NativeFailure:
        return run(model, inputs, RunOptions(TIMEOUT, batched=False)).outputs


def _is_unlike(case: Artifacts, good: Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool]) -> bool:
    if case.outputs is None:
        return True
    floats, quantized = case.outputs
    flat = {name: array.reshape(len(array), -1).astype(np.float64) for name, array in floats.items()}
    return not all(
        name in quantized and quantized[name].size == array.size and good(array, quantized[name].reshape(array.shape))
        for name, array in flat.items()
    )


def _cosine(floats: npt.NDArray[Any], quantized: npt.NDArray[Any]) -> bool:
    norms = np.linalg.norm(floats, axis=1) * np.linalg.norm(quantized, axis=1)
    return bool((np.einsum("ij,ij->i", floats, quantized) / np.maximum(norms, 1e-30)).mean() >= COSINE)


def _overlap(floats: npt.NDArray[Any], quantized: npt.NDArray[Any]) -> bool:
    most = min(TOP, floats.shape[1])
    pairs = zip(np.argsort(-floats)[:, :most], np.argsort(-quantized)[:, :most], strict=True)
    return all(len(set(expected) & set(largest)) >= OVERLAP * most for expected, largest in pairs)


def _testdir(case: Artifacts) -> bool:
    """Whether MNN's own comparison with the float model's outputs on one sample does not print TEST_SUCCESS."""
    if case.float_model is None or case.quantized is None or not case.quantized.is_file():
        return True
    try:
        inputs = {name: array[:1] for name, array in _inputs(case.float_model, case.planted.data).items()}
        expected = run(case.float_model, inputs, RunOptions(TIMEOUT, batched=False)).outputs
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "test"
            folder.mkdir()
            form = {
                "inputs": [{"name": key, "shape": list(array.shape)} for key, array in inputs.items()],
                "outputs": list(expected),
            }
            (folder / "input.json").write_text(json.dumps(form), encoding="utf-8")
            for key, array in {**inputs, **expected}.items():
                np.savetxt(folder / f"{key}.txt", array.reshape(-1), fmt="%.9g")
            flags = ["-f", "MNN", "--modelFile", str(case.quantized.resolve()), "--bizCode", "MNN"]
            flags += ["--testdir", str(folder)]
            return "TEST_SUCCESS" not in run_converter(flags, Path(name) / "out.mnn", timeout=TIMEOUT, what="testdir")
    except (BadModel, NativeFailure, OSError, ValueError, KeyError):
        return True


def _uuids(case: Artifacts) -> bool:
    """Whether the model does not carry the uuid of the params file; without a params file, False."""
    if case.params is None:
        return False
    try:
        assert case.quantized is not None
        return read_params(case.params).uuid != read_model(case.quantized).uuid
    except (AssertionError, BadModel, BadParams, OSError):
        return True


#: Whether a judge reports a case as faulty, by the head of the judge's column.
JUDGES: Final[dict[str, Callable[[Artifacts], bool]]] = {
    "exit status": lambda case: case.planted.status != 0,
    "smaller": lambda case: case.ratio <= 1,
    "3x smaller": lambda case: case.ratio < 3,
    "--testdir": _testdir,
    "top-5 overlap": lambda case: _is_unlike(case, _overlap),
    "cosine 0.99": lambda case: _is_unlike(case, _cosine),
    "uuid": _uuids,
}


def run_plugin(planted: Planted, store: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the plugin fails the case, and its JSON report."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not latency"]
        command += [f"--mnn-cache-dir={store}", f"--mnn-report={path}", *planted.arguments()]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.returncode == 1, report


def artifacts(planted: Planted, report: Mapping[str, Any]) -> Artifacts:
    """The files that other judges get; if the gate made the model, those of its first variant."""
    (model,) = report.get("models", [None])
    variant = model["variants"][0] if model else {}
    source = (model or {}).get("float") or {}
    path = planted.float_model or (Path(source["path"]) if source.get("path") else None)
    quantized = (variant.get("quantized") or {}).get("path")
    params = (variant.get("params") or {}).get("path")
    return Artifacts(
        planted,
        read_model(path) if path else None,
        planted.quantized or (Path(quantized) if quantized else None),
        planted.params or (Path(params) if params and planted.quantized is None else None),
    )


@dataclass(frozen=True)
class Verdict:
    """Whether each judge reports a case, and the (rule, layer) of each root cause that the plugin reports."""

    reported: Mapping[str, bool]
    roots: list[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One case with its verdict. `mismatch`: how the plugin's root causes differ from the planted ones, or ""."""

    fault: Fault
    planted: Planted
    is_fault: bool
    reported: Mapping[str, bool]
    mismatch: str


def judge(planted: Planted, store: Path) -> Verdict:
    """Show one case to all judges."""
    failed, report = run_plugin(planted, store)
    case = artifacts(planted, report)
    reported = {name: is_reported(case) for name, is_reported in JUDGES.items()} | {PLUGIN: failed}
    findings = [
        finding
        for model in report.get("models", [])
        for variant in model["variants"]
        for check in variant["checks"]
        for finding in check["findings"]
        if finding["severity"] == "error"
    ]
    return Verdict(reported, [(finding["code"], finding["layer"] or "") for finding in findings])


def compare(fault: Fault, planted: Planted, is_fault: bool, verdict: Verdict) -> Row:
    """Hold a verdict against what was planted."""
    roots = sorted(verdict.roots)
    expected = fault.expected(roots) if is_fault else []
    mismatch = "" if roots == expected else f"reported {roots}, expected {expected}"
    return Row(fault, planted, is_fault, verdict.reported, mismatch)


def summary(rows: list[Row]) -> list[str]:
    """The first table: faults found, and false alarms on healthy cases, by each judge.

    A healthy counterpart that several faults share counts as a single case.
    """
    healthy = list({tuple(row.planted.arguments()): row for row in rows if not row.is_fault}.values())
    faults = [row for row in rows if row.is_fault]
    listed, other = (
        [row for row in faults if (row.fault.section in UNLISTED) == is_other] for is_other in (False, True)
    )
    heads = (
        f"faults found, of {len(listed)}",
        f"of {len(other)} on no list",
        f"false alarms, of {len(healthy)} healthy",
    )
    lines = [f"| judged by | {' | '.join(heads)} |", "|---|---|---|---|"]
    for name in (*JUDGES, PLUGIN):
        cells = []
        for group in (listed, other, healthy):
            count = sum(row.reported[name] for row in group)
            cells.append(f"{count} ({count / max(1, len(group)):.0%})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def details(rows: list[Row]) -> list[str]:
    """One line per fault: which judges find it, and which report its healthy counterpart."""
    heads = (*JUDGES, PLUGIN)
    lines = [f"| fault | rule | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    pairs: dict[str, dict[bool, Row]] = {}
    for row in rows:
        pairs.setdefault(str(row.fault), {})[row.is_fault] = row
    for slug, pair in pairs.items():
        cells = []
        for name in heads:
            cell = "found" if pair[True].reported[name] else "-"
            cells.append(cell + (", false alarm" if pair[False].reported[name] else ""))
        lines.append(f"| {slug} | {pair[True].fault.code} | {' | '.join(cells)} |")
    return lines


def write(rows: list[Row]) -> None:
    """Write the page."""
    table = "\n".join(summary(rows))
    page = f"""# Scoreboard: planted faults and their healthy counterparts

Written by `python benchmarks/scoreboard.py FOLDER --write`. Every fault of `tests/faults/corpus` was planted with the
real tools. A healthy counterpart, as similar as possible, was built the same way. Both were judged by the gate, and by
what people look at today. `false alarm`: the judge also reports the healthy counterpart.

{table}

## Fault by fault

{chr(10).join(details(rows))}
"""
    (_ROOT / "docs" / "scoreboard.md").write_text(page, encoding="utf-8")


def main() -> int:
    """Judge all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    store = given.folder.resolve() / "store"
    with tempfile.TemporaryDirectory(dir=_make_folder(given.folder)) as place:
        factory = Factory(Store(store), Path(place))
        chosen = [fault for fault in FAULTS if not given.only or any(part in str(fault) for part in given.only)]
        cases: list[tuple[Fault, Planted, bool]] = []
        for fault in chosen:
            if fault.lacks():
                print(f"left out {fault}: {fault.lacks()}")
                continue
            pair = fault.build(factory)
            cases += [(fault, pair.fault, True), (fault, pair.twin, False)]
        with ThreadPoolExecutor(given.jobs) as pool:
            # Many faults share a healthy counterpart, which is judged a single time.
            unique = {tuple(planted.arguments()): planted for _, planted, _ in cases}
            judged = pool.map(lambda planted: judge(planted, store), unique.values())
            verdicts = dict(zip(unique, judged, strict=True))
        rows = [compare(*case, verdicts[tuple(case[1].arguments())]) for case in cases]
    print("\n".join([*summary(rows), "", *details(rows)]))
    bad = [row for row in rows if row.mismatch or row.reported[PLUGIN] != row.is_fault]
    for row in bad:
        print(f"WRONG {row.fault}{'' if row.is_fault else ' (healthy)'}: {row.mismatch}")
    if given.write:
        write(rows)
    return int(bool(bad))


@cache
def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
