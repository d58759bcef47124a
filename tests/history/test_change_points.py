"""Steps are found where they are, and nowhere else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.history.change_points import FEWEST, Found, exact_steps, noisy_steps

Array = npt.NDArray[Any]


def series(random: np.random.Generator, steps: dict[int, float], runs: int = 3, commits: int = 60) -> Array:
    """Values around 0.6 with 2 % of noise; `steps` gives the factor at places."""
    levels = np.full(commits, 0.6)
    for place, factor in steps.items():
        levels[place:] *= factor
    return levels[:, None] * np.exp(0.02 / 1.1 * random.standard_t(4, (commits, runs)))


def test_steps_are_found_at_their_commits(random: np.random.Generator) -> None:
    first, second = noisy_steps(series(random, {20: 1.1, 41: 0.9}).tolist()).steps
    assert (first.index, second.index) == (20, 41)
    assert first.change == pytest.approx(0.1, abs=0.02)
    assert second.change == pytest.approx(-0.1, abs=0.02)
    for step in (first, second):
        assert step.p is not None
        assert step.p < 1e-6
        assert step.earliest <= step.index <= step.latest


def test_noise_alone_has_no_steps(random: np.random.Generator) -> None:
    assert sum(len(noisy_steps(series(random, {}, runs).tolist()).steps) for runs in (1, 3, 5) for _ in range(10)) == 0


def test_a_drifting_machine_makes_no_steps(random: np.random.Generator) -> None:
    found = 0
    for _ in range(20):
        moved = np.zeros(60)
        for commit in range(1, 60):
            moved[commit] = 0.8 * moved[commit - 1] + 0.6 * random.normal()
        found += len(noisy_steps((series(random, {}) * np.exp(0.005 * moved)[:, None]).tolist()).steps)
    assert found == 0


def test_a_step_below_the_effect_is_none(random: np.random.Generator) -> None:
    quiet = [[0.6 * (1 + 0.001 * random.normal()) * (1.015 if commit >= 30 else 1)] for commit in range(60)]
    assert noisy_steps(quiet).steps == ()
    (step,) = noisy_steps(quiet, effect=0.01).steps
    assert step.index == 30


def test_one_wild_commit_is_no_step(random: np.random.Generator) -> None:
    values = series(random, {})
    values[30] *= 1.5
    assert noisy_steps(values.tolist()) == Found()


def test_the_last_commit_alone_is_possible_and_not_confirmed(random: np.random.Generator) -> None:
    values = series(random, {59: 1.3})
    found = noisy_steps(values.tolist())
    assert found.steps == ()
    assert found.possible is not None
    assert (found.possible.index, found.possible.change > 0.2) == (59, True)
    assert noisy_steps(values[:-1].tolist()).possible is None


def test_two_commits_of_one_run_do_not_confirm_it_yet(random: np.random.Generator) -> None:
    found = noisy_steps(series(random, {38: 1.3}, runs=1, commits=40).tolist())
    assert found.steps == ()
    assert found.possible is not None
    assert found.possible.index == 38


def test_two_commits_of_several_runs_confirm_it(random: np.random.Generator) -> None:
    found = noisy_steps(series(random, {58: 1.3}).tolist())
    assert [step.index for step in found.steps] == [58]
    assert found.possible is None


@pytest.mark.parametrize("commits", [0, 1, 2, FEWEST - 1])
def test_few_runs_tell_nothing(commits: int) -> None:
    values = [[1.0 if commit < commits / 2 else 2.0] for commit in range(commits)]
    assert noisy_steps(values).steps == ()


def test_as_many_as_are_needed_do() -> None:
    (step,) = noisy_steps(
        [[1.0 + 0.001 * commit if commit < 6 else 2.0 + 0.001 * commit] for commit in range(FEWEST)]
    ).steps
    assert step.index == 6


def test_long_histories_are_judged_by_their_end(random: np.random.Generator) -> None:
    values = series(random, {5: 2.0, 1010: 1.2}, runs=1, commits=1030)
    assert [step.index for step in noisy_steps(values.tolist()).steps] == [1010]


@pytest.mark.parametrize("bad", [[[1.0], []], [[1.0], [0.0]], [[1.0], [-1.0]]])
def test_values_that_can_not_be_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        noisy_steps(bad)


@given(st.floats(1e-6, 1e6), st.integers(0, 80), st.integers(1, 4))
def test_a_constant_series_has_no_steps(value: float, commits: int, runs: int) -> None:
    groups = [[value] * runs] * commits
    assert noisy_steps(groups) == Found()
    assert exact_steps(groups) == Found()


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.integers(8, 52), st.floats(0.8, 1.25))
def test_the_unit_does_not_matter(seed: int, scale: float, place: int, factor: float) -> None:
    values = series(np.random.default_rng(seed), {place: factor}, runs=1)
    here, there = noisy_steps(values.tolist()), noisy_steps((values * scale).tolist())
    assert [step.index for step in here.steps] == [step.index for step in there.steps]
    for one, other in zip(here.steps, there.steps, strict=True):
        assert other.after == pytest.approx(one.after * scale)
        assert other.change == pytest.approx(one.change)


@given(st.integers(0, 2**32 - 1), st.integers(10, 50))
def test_what_is_found_is_in_order_and_has_two_commits(seed: int, place: int) -> None:
    steps = noisy_steps(series(np.random.default_rng(seed), {place: 1.15, place + 4: 0.9}, runs=2).tolist()).steps
    edges = [0, *(step.index for step in steps), 60]
    assert all(end - start >= 2 for start, end in itertools.pairwise(edges))
    assert all(0 < step.earliest <= step.index <= step.latest < 60 for step in steps)


# Figures that do not vary --------------------------------------------------------------------------------------------


def test_any_change_of_an_exact_figure_is_a_step_at_once() -> None:
    steps = exact_steps([[1000], [1000, 1000], [1002], [1000]]).steps
    assert [(step.index, step.before, step.after, step.p) for step in steps] == [
        (2, 1000, 1002, None),
        (3, 1002, 1000, None),
    ]


def test_rounding_is_no_step_but_what_adds_up_is() -> None:
    assert exact_steps([[1000], [1000.5], [1000]]).steps == ()
    (step,) = exact_steps([[1000], [1000.6], [1001.2], [1001.6]]).steps
    assert (step.index, step.before) == (2, 1000)


def test_a_change_from_nothing_is_infinite() -> None:
    (step,) = exact_steps([[0.0], [0.5]]).steps
    assert step.change == float("inf")
    assert exact_steps([]).steps == ()
