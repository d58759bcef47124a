"""`pytest-mnnquant history`: what it says of made-up runs, and its exit status."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Result
from tests.golden_text import check_golden
from tests.history.past import HOST, OTHER, sha, store

Tool = Callable[..., Result]


@pytest.fixture
def past(tmp_path: Path, random: np.random.Generator) -> Path:
    """40 commits with two runs each: the size moves at 10, the ratio at 20, the machine at 30."""
    folder = tmp_path / "kept"
    for number in range(40):
        for run in range(2):
            ratio = (0.62 if number < 20 else 0.68) * (1 if number < 30 else 0.8) * (1 + 0.01 * random.normal())
            store(
                folder, number, day=number + 0.1 + run / 20, machine=HOST if number < 30 else OTHER, ratio=ratio,
                size=163_456 if number < 10 else 171_200, coverage=1.0, accuracy=0.9967, metric="top1",
                failed=("size",) if number == 39 else (), dirty=number == 39,
            )  # fmt: skip
    return folder


def sentences(text: str) -> str:
    """The text with every run of blanks as one."""
    return " ".join(text.split())


def beneath(text: str) -> str:
    """What is written above and below the rows of the runs."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("  2026-"))


def test_runs_are_listed_and_steps_are_named_beneath(tool: Tool, past: Path) -> None:
    found = tool("history", "--storage", past)
    assert (found.status, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0] == "net int8-eval"
    assert sum(line.startswith("  2026-") for line in lines) == 80
    assert all(len(line) <= 80 for line in lines if " on " not in line)
    assert sentences(found.out).count("since commit") == 2
    check_golden("history/steps-and-machines", beneath(found.out))


def test_rows_tell_machine_failures_and_uncommitted_changes(tool: Tool, past: Path) -> None:
    text = tool("history", "--storage", past).out
    assert re.findall(r"^  ([AB]): (\w+) CPU", text, re.MULTILINE) == [("A", "Some"), ("B", "Other")]
    (row, _) = (line for line in text.splitlines() if "00000027" in line and line.startswith("  2026"))
    assert row.split()[2] == "00000027+"
    assert row.endswith("B; failed: size")


def test_the_last_runs_of_a_figure_are_chosen(tool: Tool, past: Path) -> None:
    found = tool("history", "--storage", past, "--last", 3, "--figure", "size")
    assert sum(line.startswith("  2026-") for line in found.out.splitlines()) == 3
    check_golden("history/three-runs-of-a-figure", found.out)
    assert "since commit 0000000a" in found.out  # steps are sought in all
    assert "ratio" not in found.out


def test_figures_are_drawn(tool: Tool, past: Path) -> None:
    found = tool("history", "--storage", past, "--plot")
    lines = found.out.splitlines()
    assert found.status == 0
    assert all(len(line) <= 80 for line in lines)
    check_golden("history/a-figure-that-never-changed", next(line for line in lines if "coverage" in line))
    start = lines.index("  size, 80 runs from 2026-09-01 to 2026-10-10")
    top, bottom, under = lines[start + 1], lines[start + 9], lines[start + 11]
    assert top.startswith("    171,200 |  ")
    assert bottom.startswith("    163,456 |ooooo")
    assert under.strip() == "^"
    assert under.index("^") == top.index("o")


def test_steps_are_there_for_programs(tool: Tool, past: Path) -> None:
    (found,) = json.loads(tool("history", "--storage", past, "--json", "--last", 1).out)
    assert len(found["runs"]) == 1
    size, ratio = found["steps"]
    assert (size["figure"], size["commit"]["name"], size["previous"]["name"]) == ("size", sha(10), sha(9))
    assert (size["before"], size["after"], size["p"]) == (163_456, 171_200, None)
    assert (ratio["figure"], ratio["commit"]["name"], ratio["commit"]["runs"]) == ("ratio", sha(20), 2)
    assert ratio["p"] < 1e-4
    assert [change["figure"] for change in found["machine_changes"]] == ["ratio"]


@pytest.mark.parametrize("name", ["runs.csv", "runs.json"])
def test_runs_are_exported(tool: Tool, past: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert tool("history", "--storage", past, "--export", path).status == 0
    rows: list[dict[str, Any]]
    if name.endswith("csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = json.loads(path.read_text())[0]["runs"]
    assert len(rows) == 80
    assert (rows[0]["commit"], str(rows[0]["size"]), rows[0]["cpu"]) == (sha(0), "163456", "Some CPU")
    assert str(rows[-1]["dirty"]) == "True"


def test_runs_without_a_repository_are_told_by_their_time(tool: Tool, tmp_path: Path) -> None:
    for day, size in enumerate((0.0, 10.0)):
        store(tmp_path, 1, day=day, git=False, accuracy=size)
    text = sentences(tool("history", "--storage", tmp_path).out)
    check_golden("history/without-a-repository", text)
    assert tool("history", "--storage", tmp_path, "--plot").status == 0


def test_branches_are_told_where_there_are_several(tool: Tool, tmp_path: Path) -> None:
    for number, (branch, size) in enumerate([("main", 1000), ("feature", 1200), ("feature", 1300), ("main", 1000)]):
        store(tmp_path, number, branch=branch, size=size)
    store(tmp_path, 4, branch="(detached head)", size=1000)
    found = tool("history", "--storage", tmp_path)
    rows = [line.split()[-2:] for line in found.out.splitlines() if line.startswith("  2026")]
    assert rows == [
        ["branch", "main"],
        ["branch", "feature"],
        ["branch", "feature"],
        ["branch", "main"],
        ["no", "branch"],
    ]
    text = sentences(found.out)
    assert text.count("since commit") == 1
    check_golden("history/branches", beneath(found.out))
    alone = tool("history", "--storage", tmp_path, "--branch", "main").out
    assert "branch" not in alone
    assert alone.endswith("  no steps\n")
    (json_,) = json.loads(tool("history", "--storage", tmp_path, "--json").out)
    assert (json_["steps"][0]["branch"], json_["branches"]) == ("feature", ["", "feature", "main"])
    assert [run["branch"] for run in json_["runs"]] == ["main", "feature", "feature", "main", ""]
    none = tool("history", "--storage", tmp_path, "--branch", "fix")
    assert none.status == 1
    check_golden("history/no-such-branch", none.err, storage=tmp_path)


def test_runs_with_uncommitted_changes_alone_are_told_as_no_evidence(tool: Tool, tmp_path: Path) -> None:
    for number, size in enumerate((1000, 1200)):
        store(tmp_path, number, dirty=True, size=size, coverage=1.0)
    text = sentences(tool("history", "--storage", tmp_path).out)
    check_golden("history/uncommitted-changes-alone", text)
    store(tmp_path, 2, size=1300)
    text = sentences(tool("history", "--storage", tmp_path, "--figure", "size").out)
    assert "uncommitted" not in text
    assert text.endswith("no steps")


def test_few_runs_are_no_proof_of_a_steady_ratio(tool: Tool, tmp_path: Path) -> None:
    for number in range(3):
        store(tmp_path, number, ratio=0.6, size=1)
    text = tool("history", "--storage", tmp_path).out
    check_golden("history/few-runs", text)
    assert "too few" not in tool("history", "--storage", tmp_path, "--figure", "size").out


def test_a_last_commit_that_stands_out_is_possible(tool: Tool, tmp_path: Path, random: np.random.Generator) -> None:
    for number in range(15):
        store(tmp_path, number, ratio=(0.6 if number < 14 else 0.9) * (1 + 0.01 * random.normal()))
    text = sentences(tool("history", "--storage", tmp_path).out)
    assert "since commit 0000000e" in text
    check_golden("history/a-last-commit-that-stands-out", beneath(tool("history", "--storage", tmp_path).out))


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_empty_storage_is_status_1_and_names_the_folder(tool: Tool, tmp_path: Path, prefix: str) -> None:
    found = tool("history", "--storage", f"{prefix}{tmp_path}/none")
    assert (found.status, found.out) == (1, "")
    check_golden("history/an-empty-storage", found.err, storage=tmp_path)


def test_the_usual_storage_is_pytest_benchmark_s(
    tool: Tool, past: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past.rename(tmp_path / ".benchmarks")
    monkeypatch.chdir(tmp_path)
    assert tool("history").out.startswith("net int8-eval\n")


def test_a_variant_that_is_not_there_is_status_1_and_those_there_are_named(tool: Tool, past: Path) -> None:
    found = tool("history", "--storage", past, "--variant", "w4")
    assert found.status == 1
    check_golden("history/no-such-variant", found.err, storage=past)


def test_a_figure_that_no_run_has_is_status_1_and_those_there_are_named(tool: Tool, tmp_path: Path) -> None:
    store(tmp_path, 1, size=1000, coverage=1.0)
    found = tool("history", "--storage", tmp_path, "--figure", "accuracy")
    assert (found.status, found.out) == (1, "")
    check_golden("history/no-such-figure", found.err, storage=tmp_path)
    store(tmp_path, 2, variant="w8", accuracy=0.9, metric="top1")
    found = tool("history", "--storage", tmp_path, "--figure", "accuracy")
    assert (found.status, found.err) == (0, "")
    assert "w8" in found.out
    assert "int8" not in found.out  # An empty table says nothing.


def test_a_damaged_file_is_named_and_the_rest_is_told(tool: Tool, past: Path) -> None:
    (past / "Linux-CPython-3.11-64bit" / "0001_bad.json").write_text("{")
    found = tool("history", "--storage", past)
    assert found.status == 0
    check_golden("history/a-damaged-file", found.err.partition(": Expecting")[0], storage=past)
    assert found.err.count("\n") == 1


def test_a_storage_that_is_no_folder_is_refused(tool: Tool) -> None:
    found = tool("history", "--storage", "elasticsearch+http://host/index")
    assert found.status == 2
    check_golden("history/a-storage-that-is-no-folder", found.err)


@pytest.mark.parametrize("wrong", [("--last", "0"), ("--last", "x"), ("--export", "a.txt"), ("--figure", "speed")])
def test_wrong_arguments_are_status_2(tool: Tool, past: Path, wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool("history", "--storage", past, *wrong)
    assert stopped.value.code == 2


def test_an_export_that_can_not_be_written_is_one_line(tool: Tool, past: Path, tmp_path: Path) -> None:
    found = tool("history", "--storage", past, "--export", tmp_path / "none" / "a.csv")
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "No such file" in found.err
