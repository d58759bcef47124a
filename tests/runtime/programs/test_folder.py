"""The folder of programs runs by itself wherever it is copied to, with nothing else of this package."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mnnquant.runtime.command import PROGRAMS
from pytest_mnnquant.runtime.jobs import FailureKind
from pytest_mnnquant.runtime.programs import failures
from tests.conftest import TIMEOUT

#: What a program may import from elsewhere, each inside of the function that needs it.
FOREIGN = {
    "MNN",
    "_tools",
    "numpy",
    "onnx",
    "onnxruntime",
    "ai_edge_litert",
    "tflite_runtime",
    "PIL",
    "torch",
    "transformers",
}
MODULES = sorted(path.name for path in PROGRAMS.glob("*.py"))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A copy without the package around it."""
    return Path(shutil.copytree(PROGRAMS, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__")))


def run_example(programs: Path, *words: str) -> str:
    """Run a job with a copy of the programs, in another folder; returns what it printed."""
    folder = programs.parent / "job"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"protocol": 1, "task": "example"}))
    command = [sys.executable, "-I", str(programs), str(folder / "job.json"), *words]
    ended = subprocess.run(command, cwd="/", check=True, timeout=TIMEOUT, capture_output=True, text=True)
    assert json.loads((folder / "result.json").read_text()).keys() == {"peak_mb"}
    assert (folder / "example.mnn").stat().st_size > 100
    return ended.stdout


def test_a_copy_elsewhere_does_jobs(programs: Path) -> None:
    run_example(programs)


def test_its_modules_shadow_no_others(programs: Path) -> None:
    """Neither by their names (`session`) nor by the folder, which Python puts first on the path."""
    module = programs / "inference.py"
    loaded = "import sys; print([name for name in sys.argv[2:] if name in sys.modules], sys.path)"
    module.write_text(module.read_text().replace("    x = MNN", f"    {loaded}\n    x = MNN"))
    names = [Path(name).stem for name in MODULES if not name.startswith("__")]
    (printed,) = [line for line in run_example(programs, *names).splitlines() if line.startswith("[")]
    assert printed.startswith("[] [")
    assert str(programs) not in printed


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_nothing_of_the_package_around_it(name: str) -> None:
    for node in ast.walk(ast.parse((PROGRAMS / name).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            roots = {module.partition(".")[0] for module in names}
            assert roots <= FOREIGN | sys.stdlib_module_names


def test_what_it_reports_are_kinds_of_failures() -> None:
    reported = {failures.RAISED, failures.REFUSED, failures.MISSING_PACKAGE, failures.WRONG_VERSION}
    assert reported <= {kind.value for kind in FailureKind}
