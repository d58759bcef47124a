"""Who finds the planted faults, and who accuses their healthy twins: we, and what people look at today.

    python benchmarks/scoreboard.py FOLDER [--only SLUG ...] [--jobs N] [--write]

Every pair of tests/faults/corpus is built in FOLDER and judged by the tool's exit status; by its file being smaller, or
3 times smaller; by MNN's own `mnnconvert --testdir` (log, not exit status); by the overlap of the 5 largest outputs, at
least one half, as in MNN's testPTQ.py; by a mean cosine of 0.99; by the uuids of model and params file being equal; and
by a run of our plugin. With --write the tables go to docs/scoreboard.md. The exit status is 1 where we
miss a fault or accuse a twin.
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
OURS: Final = "pytest-mnnquant"
#: Sections of faults that were made up after the rules: edited files, and mixtures of others.
UNLISTED: Final = "UV"
Values = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Artifacts:
    """What other judges look at: files of one case, and outputs of both models where both run. None: not there."""

    planted: Planted
    float_model: Model | None
    quantized: Path | None
    params: Path | None

    @property
    def ratio(self) -> float:
        """How many times smaller the quantized file is; 0 where there is none."""
        if self.float_model is None or self.quantized is None or not self.quantized.is_file():
            return 0.0
        return self.float_model.size / max(1, self.quantized.stat().st_size)

    @property
    def outputs(self) -> tuple[Values, Values] | None:
        """Outputs of the float and of the quantized model on the evaluation data, or on noise where there are none."""
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
            return {one.name: arrays[one.name][:SAMPLES] for one in model.inputs}
    random = np.random.default_rng(0)
    shapes = {one.name: [max(1, size) for size in one.shape[1:]] for one in model.inputs}
    return {name: random.random((8, *shape)).astype(np.float32) for name, shape in shapes.items()}


def _ran(model: Model, inputs: Mapping[str, npt.NDArray[Any]]) -> Values:
    try:
        return run(model, inputs, RunOptions(TIMEOUT)).outputs
    except NativeFailure:
        return run(model, inputs, RunOptions(TIMEOUT, batched=False)).outputs


def _is_unlike(case: Artifacts, good: Callable[[npt.NDArray[Any], npt.NDArray[Any]], bool]) -> bool:
    if case.outputs is None:
        return True
    ours, theirs = case.outputs
    flat = {name: array.reshape(len(array), -1).astype(np.float64) for name, array in ours.items()}
    return not all(
        name in theirs and theirs[name].size == one.size and good(one, theirs[name].reshape(one.shape))
        for name, one in flat.items()
    )


def _cosine(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return bool((np.einsum("ij,ij->i", ours, theirs) / np.maximum(norms, 1e-30)).mean() >= COSINE)


def _overlap(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    most = min(TOP, ours.shape[1])
    pairs = zip(np.argsort(-ours)[:, :most], np.argsort(-theirs)[:, :most], strict=True)
    return all(len(set(one) & set(other)) >= OVERLAP * most for one, other in pairs)


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
    """Whether the model does not carry the uuid of the params file; without one there is nothing to hold against it."""
    if case.params is None:
        return False
    try:
        assert case.quantized is not None
        return read_params(case.params).uuid != read_model(case.quantized).uuid
    except (AssertionError, BadModel, BadParams, OSError):
        return True


#: Who accuses a case, by the head of the column.
JUDGES: Final[dict[str, Callable[[Artifacts], bool]]] = {
    "exit status": lambda case: case.planted.status != 0,
    "smaller": lambda case: case.ratio <= 1,
    "3x smaller": lambda case: case.ratio < 3,
    "--testdir": _testdir,
    "top-5 overlap": lambda case: _is_unlike(case, _overlap),
    "cosine 0.99": lambda case: _is_unlike(case, _cosine),
    "uuid": _uuids,
}


def ours(planted: Planted, store: Path) -> tuple[bool, dict[str, Any]]:
    """Whether our plugin fails it, and the report."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not latency"]
        command += [f"--mnn-cache-dir={store}", f"--mnn-report={report}", *planted.arguments()]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        found = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.returncode == 1, found


def artifacts(planted: Planted, report: Mapping[str, Any]) -> Artifacts:
    """What others judge; where the gate made the model, its first variant."""
    (model,) = report.get("models", [None])
    variant = model["variants"][0] if model else {}
    place = (model or {}).get("float") or {}
    path = planted.float_model or (Path(place["path"]) if place.get("path") else None)
    made = (variant.get("quantized") or {}).get("path")
    params = (variant.get("params") or {}).get("path")
    return Artifacts(
        planted,
        read_model(path) if path else None,
        planted.quantized or (Path(made) if made else None),
        planted.params or (Path(params) if params and planted.quantized is None else None),
    )


@dataclass(frozen=True)
class Row:
    """One case: who accuses it. `wrong`: what our finding should have said and did not."""

    fault: Fault
    planted: Planted
    is_fault: bool
    accused: Mapping[str, bool]
    wrong: str


@dataclass(frozen=True)
class Verdict:
    """Who accuses a case, and the (rule, layer) of each root cause that we tell."""

    accused: Mapping[str, bool]
    told: list[tuple[str, str]]


def judged(planted: Planted, store: Path) -> Verdict:
    """One case before all judges."""
    failed, report = ours(planted, store)
    case = artifacts(planted, report)
    accused = {name: judge(case) for name, judge in JUDGES.items()} | {OURS: failed}
    findings = [
        one
        for model in report.get("models", [])
        for variant in model["variants"]
        for check in variant["checks"]
        for one in check["findings"]
        if one["severity"] == "error"
    ]
    return Verdict(accused, [(one["code"], one["layer"] or "") for one in findings])


def weighed(fault: Fault, planted: Planted, is_fault: bool, verdict: Verdict) -> Row:
    """A verdict against what it should be."""
    told = sorted(verdict.told)
    wanted = fault.expected(told) if is_fault else []
    return Row(fault, planted, is_fault, verdict.accused, "" if told == wanted else f"told {told}, wanted {wanted}")


def summary(rows: list[Row]) -> list[str]:
    """The first table: faults found and healthy cases accused, by each judge.

    A twin that several faults have in common counts once.
    """
    twins = list({tuple(row.planted.arguments()): row for row in rows if not row.is_fault}.values())
    faults = [row for row in rows if row.is_fault]
    listed, other = (
        [row for row in faults if (row.fault.section in UNLISTED) == is_other] for is_other in (False, True)
    )
    heads = (f"faults found, of {len(listed)}", f"of {len(other)} on no list", f"healthy accused, of {len(twins)}")
    lines = [f"| judged by | {' | '.join(heads)} |", "|---|---|---|---|"]
    for name in (*JUDGES, OURS):
        cells = []
        for some in (listed, other, twins):
            count = sum(row.accused[name] for row in some)
            cells.append(f"{count} ({count / max(1, len(some)):.0%})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def details(rows: list[Row]) -> list[str]:
    """One line a fault: who found it, and who accused its twin."""
    heads = (*JUDGES, OURS)
    lines = [f"| fault | rule | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    pairs: dict[str, dict[bool, Row]] = {}
    for row in rows:
        pairs.setdefault(str(row.fault), {})[row.is_fault] = row
    for slug, pair in pairs.items():
        cells = []
        for name in heads:
            cell = "found" if pair[True].accused[name] else "-"
            cells.append(cell + (", twin accused" if pair[False].accused[name] else ""))
        lines.append(f"| {slug} | {pair[True].fault.code} | {' | '.join(cells)} |")
    return lines


def write(rows: list[Row]) -> None:
    """Write the page."""
    table = "\n".join(summary(rows))
    page = f"""# Scoreboard: planted faults and their healthy twins

Written by `python benchmarks/scoreboard.py FOLDER --write`. Every fault of `tests/faults/corpus` was planted with the
real tools, and so was its nearest healthy twin; all were judged by what people look at today, and by us.

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
    with tempfile.TemporaryDirectory(dir=_made(given.folder)) as place:
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
            # Many faults have a twin in common, which is judged once.
            unique = {tuple(planted.arguments()): planted for _, planted, _ in cases}
            verdicts = dict(zip(unique, pool.map(lambda one: judged(one, store), unique.values()), strict=True))
        rows = [weighed(*case, verdicts[tuple(case[1].arguments())]) for case in cases]
    print("\n".join([*summary(rows), "", *details(rows)]))
    bad = [row for row in rows if row.wrong or row.accused[OURS] != row.is_fault]
    for row in bad:
        print(f"WRONG {row.fault}{'' if row.is_fault else ' (twin)'}: {row.wrong}")
    if given.write:
        write(rows)
    return int(bool(bad))


@cache
def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
