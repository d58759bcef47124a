"""The check that the page for contributors adds: added as it says, to a copy of the package, it does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIXTURES, ROOT
from tests.docs.book import blocks, differs
from tests.docs.conftest import page

LONGEST = 30


def patched(text: str, diff: str) -> str:
    """The text with the hunks of a diff for one file applied; each is found by its own lines."""
    for hunk in diff.split("@@\n")[1:]:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(before) == 1, before
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


OWN_TEST = """
from pytest_mnnquant import assert_balance

def test_no_layer_is_most(mnn_quantized):
    assert_balance(mnn_quantized)
"""


def test_thirty_lines_in_two_files_add_a_check(tmp_path: Path) -> None:
    shown = list(blocks(page("docs/contributing.md")))
    diff, module = (next(block for block in shown if block.language == kind) for kind in ("diff", "python"))
    added = [line for line in diff.text.splitlines() if re.match(r"\+(?!\+\+)", line)]
    assert len(added) + len([line for line in module.text.splitlines() if line.strip()]) <= LONGEST

    shutil.copytree(ROOT / "pytest_mnnquant", tmp_path / "pytest_mnnquant")
    (tmp_path / module.title).write_text(module.text)
    hunks = re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff.text, re.MULTILINE | re.DOTALL)
    ((name, changes),) = hunks  # This file, and that of the check.
    path = tmp_path / name
    path.write_text(patched(path.read_text(), changes))

    for name in ("garment_classifier.py", "digits_data.py", "digits.npz"):
        shutil.copy(FIXTURES / name, tmp_path)
    shutil.copytree(FIXTURES / "weights", tmp_path / "weights")
    (tmp_path / "test_own.py").write_text(OWN_TEST)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV", "GITHUB_"))}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "mnn_balance or not mnn", "--mnn-model=net=garment_classifier.py:build",
         "--mnn-recipe=w8", "--mnn-report=report.json", "-p", "no:cacheprovider", "test_own.py"],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(tmp_path), "COLUMNS": "80"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    output = next(block for block in shown if block.language == "text")
    assert not differs(["...", *output.text.splitlines(), "..."], run.stdout), run.stdout
    assert re.search(r"^FAILED test_own\.py::test_no_layer_is_most", run.stdout, re.MULTILINE), run.stdout
    assert "2 failed" in run.stdout.splitlines()[-1]
    (model,) = json.loads((tmp_path / "report.json").read_text())["models"]
    (check,) = model["variants"][0]["checks"]
    assert (check["check"], check["outcome"]) == ("balance", "failed")
    assert check["metrics"]["largest_share"] == pytest.approx(0.7, abs=0.05)
