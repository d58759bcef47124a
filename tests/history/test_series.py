"""From runs to steps with names: by commit, by machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pytest_mnnquant.findings.metric import SIZE
from pytest_mnnquant.history.series import VariantHistory, histories
from pytest_mnnquant.history.storage import Machine, read_runs
from tests.history.past import HOST, OTHER, sha, store


def only(folder: Path, **wanted: Any) -> VariantHistory:
    """The history of the only variant."""
    (found,) = histories(read_runs(folder), **wanted)
    return found


def ratios(folder: Path, levels: dict[int, float], random: np.random.Generator, **more: Any) -> None:
    """Three runs of each commit."""
    for number, level in levels.items():
        for run in range(3):
            ratio = level * (1 + 0.01 * random.normal())
            store(folder, number, day=number + 0.1 + run / 50, ratio=ratio, **more)


def test_the_commit_that_moved_a_figure_is_named(tmp_path: Path, random: np.random.Generator) -> None:
    ratios(tmp_path, {number: 0.6 if number < 12 else 0.66 for number in range(20)}, random)
    (step,) = only(tmp_path).steps
    assert (step.metric.key, step.commit.name, step.previous.name) == ("ratio", sha(12), sha(11))
    assert len(step.commit.values) == 3
    assert only(tmp_path, metrics=(SIZE,)).steps == ()


def test_an_old_commit_measured_late_goes_to_its_place(tmp_path: Path) -> None:
    for number in range(6):
        store(tmp_path, number, size=1000 if number < 3 else 1100)
    store(tmp_path, 1, day=30, size=1000)
    (step,) = only(tmp_path).steps
    assert step.commit.name == sha(3)


def test_uncommitted_changes_blame_no_commit(tmp_path: Path) -> None:
    store(tmp_path, 1, size=1000)
    store(tmp_path, 1, day=1.5, dirty=True, size=1200)
    store(tmp_path, 2, size=1000)
    assert only(tmp_path).steps == ()  # Neither the commit before nor the one after it.
    assert len(only(tmp_path).rows) == 3
    store(tmp_path, 3, dirty=True, size=1000, machine=Machine("x86_64", "Other CPU", "def", "3.7.0"))
    store(tmp_path, 4, size=1000, machine=Machine("x86_64", "Other CPU", "def", "3.7.0"))
    assert only(tmp_path).machines == ()


def test_a_branch_is_no_step_of_another(tmp_path: Path) -> None:
    for number in range(5):
        branch, size = ("feature", 8560) if number % 2 else ("main", 5920)
        store(tmp_path, number, branch=branch, size=size)
    assert only(tmp_path).steps == ()
    store(tmp_path, 5, branch="feature", size=5920)
    store(tmp_path, 6, branch="main", size=5920)
    (step,) = only(tmp_path).steps
    assert (step.branch, step.commit.name, step.previous.name) == ("feature", sha(5), sha(3))
    assert only(tmp_path, branch="main").steps == ()
    assert len(only(tmp_path, branch="ma*").rows) == 4


def test_ratios_of_branches_are_no_series(tmp_path: Path, random: np.random.Generator) -> None:
    ratios(tmp_path, dict.fromkeys(range(12), 0.6), random)
    ratios(tmp_path, dict.fromkeys(range(12, 20), 0.7), random, branch="feature", machine=OTHER)
    found = only(tmp_path)
    assert (found.steps, found.possible, found.machines) == ((), (), ())
    ratios(tmp_path, dict.fromkeys(range(20, 28), 0.8), random, branch="feature", machine=OTHER)
    assert [(one.branch, one.commit.name) for one in only(tmp_path).steps] == [("feature", sha(20))]


def test_runs_of_no_branch_are_a_series_of_their_own(tmp_path: Path) -> None:
    for number, (branch, size) in enumerate([("main", 1000), ("(detached head)", 1100), ("main", 1000)]):
        store(tmp_path, number, branch=branch, size=size)
    assert only(tmp_path).steps == ()
    store(tmp_path, 3, branch="(detached head)", size=1200)
    assert [(one.branch, one.commit.name) for one in only(tmp_path).steps] == [("", sha(3))]


def test_without_a_repository_every_run_stands_for_itself(tmp_path: Path) -> None:
    for number, size in enumerate((1000, 1000, 1200)):
        store(tmp_path, number, day=number, git=False, size=size)
    (step,) = only(tmp_path).steps
    assert (step.commit.name, step.step.index) == ("", 2)


def test_another_machine_is_no_step(tmp_path: Path, random: np.random.Generator) -> None:
    ratios(tmp_path, dict.fromkeys(range(10), 0.6), random, machine=HOST)
    ratios(tmp_path, dict.fromkeys(range(10, 20), 0.8), random, machine=OTHER)
    found = only(tmp_path)
    assert found.steps == ()
    (change,) = found.machines
    assert (change.before, change.after, change.metric.key) == (HOST, OTHER, "ratio")
    assert round(change.level_before, 1) == 0.6
    assert round(change.level_after, 1) == 0.8


def test_machines_that_take_turns_are_judged_each_by_itself(tmp_path: Path, random: np.random.Generator) -> None:
    for number in range(40):
        machine, level = (HOST, 0.6) if number % 2 else (OTHER, 0.8)
        ratios(tmp_path, {number: level * (1.1 if number >= 21 else 1)}, random, machine=machine)
    found = only(tmp_path)
    assert {(step.machine, step.commit.name) for step in found.steps} == {(HOST, sha(21)), (OTHER, sha(22))}
    assert len(found.machines) == 1


def test_no_processor_changes_a_size_but_another_mnn_may(tmp_path: Path) -> None:
    store(tmp_path, 1, size=1000, machine=HOST)
    store(tmp_path, 2, size=1100, machine=OTHER)
    assert [step.commit.name for step in only(tmp_path).steps] == [sha(2)]
    store(tmp_path, 3, size=1200, machine=Machine("x86_64", "Other CPU", "def", "3.7.0"))
    found = only(tmp_path)
    assert len(found.steps) == 1
    assert [change.after.mnn for change in found.machines] == ["3.7.0"]


def test_gaps_are_passed_over(tmp_path: Path) -> None:
    for number in range(6):
        store(tmp_path, number, size=None if number in (2, 3) else 1000 if number < 4 else 1200, coverage=1.0)
    (step,) = only(tmp_path).steps
    assert (step.commit.name, step.previous.name) == (sha(4), sha(1))


def test_accuracies_of_other_metrics_are_no_series(tmp_path: Path) -> None:
    for number, (metric, value) in enumerate([("top1", 0.9), ("cosine", 0.999), ("top1", 0.9), ("top1", 0.8)]):
        store(tmp_path, number, accuracy=value, metric=metric)
    assert [step.commit.name for step in only(tmp_path).steps] == [sha(3)]


def test_only_the_newest_commit_is_told_as_possible(tmp_path: Path, random: np.random.Generator) -> None:
    levels = {number: 0.6 if number < 12 else 0.9 for number in range(13)}
    ratios(tmp_path, levels, random)
    assert [one.commit.name for one in only(tmp_path).possible] == [sha(12)]
    ratios(tmp_path, dict.fromkeys(range(13, 15), 0.6), random, machine=OTHER)
    assert only(tmp_path).possible == ()


def test_variants_are_chosen_by_name_and_glob(tmp_path: Path) -> None:
    for model, variant in (("net", "int8-eval"), ("net", "w8"), ("other", "w8")):
        store(tmp_path, 1, model=model, variant=variant, size=1)

    def names(model: str = "*", variant: str = "*") -> list[tuple[str, str]]:
        return [(one.model, one.variant) for one in histories(read_runs(tmp_path), model, variant)]

    assert names() == [("net", "int8-eval"), ("net", "w8"), ("other", "w8")]
    assert names(variant="int8-eval") == names(variant="int8*") == [("net", "int8-eval")]
    assert names(model="o*") == [("other", "w8")]


def test_impossible_ratios_are_passed_over(tmp_path: Path, random: np.random.Generator) -> None:
    ratios(tmp_path, {number: 0.6 if number < 12 else 0.66 for number in range(20)}, random)
    store(tmp_path, 4, ratio=0.0)
    store(tmp_path, 40, ratio=0.0)
    assert [step.commit.name for step in only(tmp_path).steps] == [sha(12)]
