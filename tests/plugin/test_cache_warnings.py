"""Warnings about the cache are shown, wherever they arise: a folder that can't be written, entries that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.conftest import Files, Run


def test_a_cache_that_can_not_be_written_is_a_warning(files: Files, pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    usual = (f"--mnn-model={files.float}", "--mnn-recipe=w8", "-k", "size", "-W", "ignore::pytest.PytestCacheWarning")
    result = pytester.runpytest_inprocess(*usual, "-o", "cache_dir=file/cache")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["WARNING: *can't be written*this run uses a temporary folder*"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_damaged_entries_are_warnings_of_workers_too(
    run: Run, files: Files, pytester: pytest.Pytester, workers: list[str]
) -> None:
    usual = (f"--mnn-model={files.float}", "--mnn-recipe=w8", "-k", "size", "--mnn-cache-dir=kept")
    assert run(*usual).status == 0
    for path in Path(pytester.path / "kept" / "variant").rglob("*.mnn"):
        path.write_bytes(path.read_bytes()[:-1])
    found = run(*usual, *workers)
    assert (found.status, found.passed) == (0, {"w8::size"})
    assert "is damaged and is built again" in found.text
