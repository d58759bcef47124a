"""Runs the gate in environments of the declared versions: `python benchmarks/matrix.py build/matrix [NAME ...]`.

Each cell is a virtual environment with the wheel of this repository, in which `matrix_smoke.py` runs. Pythons that are
not installed are skipped, with the reason. Environments are kept in the folder for the next run. Exit status 1 if a
cell fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "benchmarks" / "matrix_smoke.py"
PLUGINS = (
    "pytest-asyncio", "pytest-clarity", "pytest-cov", "pytest-custom-exit-code", "pytest-env", "pytest-forked",
    "pytest-html", "pytest-instafail", "pytest-metadata", "pytest-mock", "pytest-order", "pytest-randomly",
    "pytest-repeat", "pytest-rerunfailures", "pytest-split", "pytest-subtests", "pytest-sugar", "pytest-timeout",
    "pytest-xdist",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """An environment: the version of Python, and the requirements besides the wheel. `extras` are the wheel's."""

    name: str
    python: str
    requirements: tuple[str, ...] = ()
    extras: str = ""


CELLS = (
    Cell("lowest", "3.10", ("MNN==3.4.0", "numpy==1.26.0", "pytest==8.4.0", "tomli==2.0.0", "pytest-benchmark==5.0.1")),
    Cell("newest", "3.13", ("pytest-xdist",), "[report]"),
    Cell("pytest-8.4", "3.12", ("pytest==8.4.0", "pytest-xdist==3.7.0", "pytest-benchmark==5.0.1", "numpy==2.0.0")),
    Cell("torch", "3.11", ("torch==2.13.0", "onnx==1.17.0", "onnxscript==0.6.0"), "[torch]"),
    Cell("no-extras", "3.12"),
    Cell("MNN-3.4.0", "3.12", ("MNN==3.4.0",)),
    Cell("MNN-3.5.0", "3.12", ("MNN==3.5.0",)),
    Cell("MNN-3.6.0", "3.12", ("MNN==3.6.0",)),
    Cell("other-plugins", "3.12", PLUGINS),
)


def python_of(version: str) -> str | None:
    """An installed Python of this version, on the path or in pyenv's folder; None if there is none."""
    root = Path(os.environ.get("PYENV_ROOT", ""))
    places = [shutil.which(f"python{version}"), *map(str, root.glob(f"versions/{version}.*/bin/python"))]
    for place in filter(None, places):
        found = subprocess.run([place, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if found.returncode == 0 and found.stdout.strip() == str(tuple(map(int, version.split(".")))):
            return place
    return None


def run(cell: Cell, wheel: Path, folder: Path) -> str:
    """Run the smoke script in the environment of a cell; returns what happened, `ok` if all went well."""
    python = python_of(cell.python)
    if python is None:
        return f"skipped: Python {cell.python} is not installed"
    place = folder / cell.name
    shutil.rmtree(place / "work", ignore_errors=True)
    log = folder / f"{cell.name}.log"
    with log.open("w") as output:
        for words in (
            *install_commands(cell, python, wheel, place),
            [*_inside(place), str(SMOKE), str(place / "work")],
        ):
            ended = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=_environment(), cwd=folder)
            if ended.returncode:
                return f"FAILED: {' '.join(words[1:4])} (see {log})"
        (place / "installed").write_text(_contents(cell))
    return "ok"


def install_commands(cell: Cell, python: str, wheel: Path, place: Path) -> list[list[str]]:
    """The commands that make a cell's environment; an environment of the same requirements gets the wheel only."""
    install = [*_inside(place), "-m", "pip", "install", "--quiet"]
    mark = place / "installed"
    if mark.exists() and mark.read_text() == _contents(cell):
        return [[*install, "--force-reinstall", "--no-deps", str(wheel)]]
    shutil.rmtree(place, ignore_errors=True)
    return [[python, "-m", "venv", str(place / "venv")], [*install, f"{wheel}{cell.extras}", *cell.requirements]]


def _contents(cell: Cell) -> str:
    """What decides an environment: the cell, and the dependencies of the wheel."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return f"{cell}\n{project.partition('[tool.')[0]}"


def _inside(place: Path) -> list[str]:
    return [str(place / "venv" / "bin" / "python")]


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CI")}


def main(folder: Path, names: list[str]) -> int:
    """Run the cells of these names, or all; returns the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    wheel = max(folder.glob("pytest_mnnquant-*.whl"), key=lambda path: path.stat().st_mtime).resolve()
    failed = 0
    for cell in CELLS:
        if names and cell.name not in names:
            continue
        start = time.monotonic()
        result = run(cell, wheel, folder.resolve())
        failed += result.startswith("FAILED")
        print(f"{cell.name:<16}Python {cell.python:<6}{time.monotonic() - start:5.0f} s  {result}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
