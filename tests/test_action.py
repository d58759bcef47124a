"""The shell steps of the composite action, run unmodified: the gate with its reports, and the comment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from tests.golden_text import check_golden

ROOT: Final = Path(__file__).resolve().parent.parent
SCRIPTS: Final = ROOT / "tools" / "action"
#: Stands for GitHub's CLI: lists the comments of `comments.json`, and keeps what is sent.
GH: Final = """#!/usr/bin/env bash
[ -z "${GH_FAILS:-}" ] || { echo "HTTP 403: Resource not accessible by integration" >&2; exit 1; }
echo "$*" >>gh.log
case "$*" in
    *--method*) cp mnnquant-comment.md sent.md ;;
    *--jq*) jq -r "${@: -1}" comments.json ;;
esac
"""
#: Keeps the commands that it is called with.
PYTHON: Final = '#!/usr/bin/env bash\necho "$*" >>python.log\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path


def install(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def step(workspace: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(workspace / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    variables = {
        "PATH": path,
        "HOME": str(workspace),
        "PYTHONPATH": str(ROOT),
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(workspace / "output"),
        "GITHUB_STEP_SUMMARY": str(workspace / "summary.md"),
        "GITHUB_WORKSPACE": str(workspace),
        "GITHUB_REPOSITORY": "owner/name",
        "CI": "true",
    }
    (workspace / "output").write_text("", encoding="utf-8")
    return subprocess.run(
        ["bash", str(SCRIPTS / script)],
        cwd=workspace,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def models(workspace: Path, digits: Prepared, digits_w4: Variant) -> Path:
    """A float model and a quantized one, in a folder whose name has a blank."""
    folder = workspace / "my models"
    folder.mkdir()
    shutil.copy(digits.model.path, folder / "float.mnn")
    shutil.copy(digits_w4.model.path, folder / "w4.mnn")
    assert digits.evaluation is not None
    arrays: dict[str, Any] = dict(digits.evaluation.head(20))
    np.savez(workspace / "data.npz", **arrays)
    return folder


@pytest.mark.parametrize(("recipe", "status", "verdict"), [("w4", 0, "ok"), ("int8", 1, "FAILED")])
def test_the_gate_writes_its_status_and_all_reports(
    workspace: Path, models: Path, recipe: str, status: int, verdict: str
) -> None:
    arguments = (
        f"--mnn-model=net='{models.name}/float.mnn' --mnn-quantized='{models.name}/w4.mnn' --mnn-recipe={recipe} "
        "--mnn-evaluation=data.npz -k 'coverage or size'"
    )
    (workspace / "mnnquant-report.md").write_text("of an earlier run", encoding="utf-8")
    done = step(workspace, "gate.sh", ARGUMENTS=arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace / "output").read_text() == f"status={status}\n", done.stdout
    report = json.loads((workspace / "mnnquant-report.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in report["models"]] == ["net"]
    page = (workspace / "mnnquant-report.md").read_text(encoding="utf-8")
    assert page.startswith(f"## MNN quantization: {verdict}\n")
    assert (workspace / "summary.md").read_text(encoding="utf-8").startswith("## MNN quantization: ")
    assert ("::error " in done.stdout) == bool(status)


def test_nothing_in_the_arguments_is_run(workspace: Path, models: Path) -> None:
    done = step(workspace, "gate.sh", ARGUMENTS="--mnn-model=none.mnn '$(touch ran)' `touch ran` ; touch ran")
    assert done.returncode == 0
    assert (workspace / "output").read_text() == "status=4\n"
    assert not (workspace / "ran").exists()


def test_an_open_quote_is_an_error_and_no_shorter_command(workspace: Path) -> None:
    done = step(workspace, "gate.sh", ARGUMENTS="--mnn-model=net.mnn 'open")
    assert done.returncode == 4
    assert (workspace / "output").read_text() == "status=4\n"
    assert "::error " in done.stdout
    assert not list(workspace.glob("mnnquant-report.*"))


COMMENTS: Final = {
    "first": ([], "POST repos/owner/name/issues/7/comments"),
    "other people's": ([{"id": 1, "body": "Hi"}], "POST repos/owner/name/issues/7/comments"),
    "earlier": (
        [{"id": 1, "body": "Hi"}, {"id": 22, "body": "<!-- pytest-mnnquant -->\nold"}, {"id": 23, "body": "x"}],
        "PATCH repos/owner/name/issues/comments/22",
    ),
}


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is missing")
@pytest.mark.parametrize("kind", COMMENTS)
def test_the_report_is_posted_once_and_updated_then(workspace: Path, kind: str) -> None:
    comments, request = COMMENTS[kind]
    install(workspace, "gh", GH)
    (workspace / "comments.json").write_text(json.dumps(comments), encoding="utf-8")
    report = "## MNN quantization: ok\n" + "层" * 64_000
    (workspace / "mnnquant-report.md").write_text(report, encoding="utf-8")
    done = step(workspace, "comment.sh", PULL_REQUEST="7", GH_TOKEN="token")
    assert done.returncode == 0, done.stderr
    assert "::warning" not in done.stdout
    assert request in (workspace / "gh.log").read_text().splitlines()[-1]
    assert (workspace / "sent.md").read_text(encoding="utf-8") == f"<!-- pytest-mnnquant -->\n{report}"
    assert not (workspace / "mnnquant-comment.md").exists()


def test_without_permission_or_report_the_verdict_stays_the_gates(workspace: Path) -> None:
    install(workspace, "gh", GH)
    done = step(workspace, "comment.sh", PULL_REQUEST="7", GH_TOKEN="token")
    assert (done.returncode, "::warning" in done.stdout) == (0, False)
    (workspace / "mnnquant-report.md").write_text("## MNN quantization: ok\n", encoding="utf-8")
    done = step(workspace, "comment.sh", PULL_REQUEST="7", GH_TOKEN="token", GH_FAILS="1")
    assert (done.returncode, "::warning" in done.stdout) == (0, True)
    check_golden("action/not-posted", done.stdout)


@pytest.mark.parametrize(
    ("variables", "packages"),
    [
        ({}, ["pytest-mnnquant"]),
        ({"EXTRAS": "report", "VERSION": "0.1.0"}, ["pytest-mnnquant[report]==0.1.0"]),
        ({"EXTRAS": "torch,report", "TORCH": "2.13.0", "VERSION": "."}, ["torch==2.13.0", ".[torch,report]"]),
        ({"VERSION": "/some/folder", "EXTRAS": ""}, ["/some/folder"]),
    ],
)
def test_the_requested_packages_are_installed(workspace: Path, variables: dict[str, str], packages: list[str]) -> None:
    install(workspace, "python", PYTHON)
    assert step(workspace, "install.sh", **variables).returncode == 0
    lines = (workspace / "python.log").read_text().splitlines()
    assert lines == [f"-m pip install --quiet {package}" for package in packages]
