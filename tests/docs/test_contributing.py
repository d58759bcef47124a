"""The check that the page for contributors adds: added as it says, to a copy of the package, it does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


def test_thirty_lines_add_a_check(tmp_path: Path) -> None:
    shown = list(blocks(page("docs/contributing.md")))
    diff, module = (next(block for block in shown if block.language == kind) for kind in ("diff", "python"))
    added = [line for line in diff.text.splitlines() if re.match(r"\+(?!\+\+)", line)]
    assert len(added) + len([line for line in module.text.splitlines() if line.strip()]) <= LONGEST

    shutil.copytree(ROOT / "pytest_mnnquant", tmp_path / "pytest_mnnquant")
    (tmp_path / module.title).write_text(module.text)
    for name, hunks in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff.text, re.MULTILINE | re.DOTALL):
        path = tmp_path / name
        path.write_text(patched(path.read_text(), hunks))

    for name in ("garment_classifier.py", "digits_data.py", "digits.npz"):
        shutil.copy(FIXTURES / name, tmp_path)
    shutil.copytree(FIXTURES / "weights", tmp_path / "weights")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV", "GITHUB_"))}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "mnn_balance", "--mnn-model=net=garment_classifier.py:build",
         "--mnn-recipe=w8", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**own, "PYTHONPATH": str(tmp_path), "COLUMNS": "80"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    output = next(block for block in shown if block.language == "text")
    assert not differs(["...", *output.text.splitlines(), "..."], run.stdout), run.stdout
