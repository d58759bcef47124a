"""How well steps are found: simulated histories of 60 commits, with steps of 3, 5 and 10 %, and without any.

    python benchmarks/history_steps.py [--histories N] [--drift D] [--noise W ...] [--runs K ...] [--write]

The noise. A stored ratio is level * exp(drift + noise). The noise of a run is Student's t of 4 degrees of freedom, as
wide as `noise` says (1.4826 times the median absolute deviation). The drift is the machine's: all runs of a commit
share it, and it is like the last commit's (autoregressive, correlation 0.8, standard deviation `DRIFT`).

What that is like: 79 processes, one every 5 s, that each timed a fixture model's int8 form against its float form in
150 pairs, on 2 shared cores with other work, had stored ratios with a width of 1.2, 2.1 and 4.1 %
(garment_classifier, digits_cnn, mobile_net), a kurtosis of 2.9 to 6.8 (normal: 3), runs up to 10 % off, and a
correlation of neighbours of 0.1 to 0.4, gone after 50 s. Commits are hours apart: the drift is on the pessimistic side.

Each history with steps has one of each size, up or down, in random order, at random places with at least 8 commits
between and around them. A reported step matches a true step of the same direction within 5 commits; any other is
invented. `--write` puts the table into docs/history.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.history.change_points import Step, noisy_steps

COMMITS: Final = 60
SIZES: Final = (0.03, 0.05, 0.10)
NOISES: Final = (0.015, 0.02, 0.03, 0.04)
RUNS: Final = (1, 3, 5)
APART: Final = 8
DRIFT: Final = 0.005
_LIKE: Final = 0.8
_NEAR: Final = 5
#: 1.4826 times the median absolute value of Student's t of 4 degrees of freedom.
_WIDTH: Final = 1.4826 * 0.7407
_LEVEL: Final = 0.6
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "history.md"
Array = npt.NDArray[Any]


@dataclass
class Score:
    """What became of the true steps of one size."""

    true: int = 0
    exact: int = 0
    near: int = 0
    later: int = 0
    held: int = 0

    @property
    def found(self) -> int:
        """Found within 5 commits."""
        return self.exact + self.near + self.later


def history(random: np.random.Generator, noise: float, runs: int, drift: float, *, still: bool) -> tuple[Array, Array]:
    """The values of each commit and run, and the logarithm of the true level of each commit."""
    levels = np.zeros(COMMITS)
    for place, size in zip((() if still else places(random)), random.permutation(SIZES), strict=False):
        levels[place:] += np.log1p(size) * random.choice((-1, 1))
    moved = np.empty(COMMITS)
    moved[0] = random.normal()
    for commit in range(1, COMMITS):
        moved[commit] = _LIKE * moved[commit - 1] + np.sqrt(1 - _LIKE**2) * random.normal()
    shaken = random.standard_t(4, (COMMITS, runs)) * noise / _WIDTH
    return _LEVEL * np.exp(levels[:, None] + drift * moved[:, None] + shaken), levels


def places(random: np.random.Generator) -> Array:
    """Random commits for the steps, far enough from each other and from both ends."""
    while True:
        found = np.sort(random.integers(APART, COMMITS - APART + 1, len(SIZES)))
        if (np.diff(found) >= APART).all():
            return found


def judge(steps: tuple[Step, ...], levels: Array, scores: dict[float, Score]) -> int:
    """Count what was found of each true step; returns how many steps are invented."""
    left = list(steps)
    for place in (np.flatnonzero(np.diff(levels)) + 1).tolist():
        height = levels[place] - levels[place - 1]
        score = scores[min(SIZES, key=lambda size: abs(np.log1p(size) - abs(height)))]
        score.true += 1
        fitting = [step for step in left if (step.after > step.before) == (height > 0)]
        step = min(fitting, key=lambda step: abs(step.index - place), default=None)
        off = _NEAR + 1 if step is None else abs(step.index - place)
        if step is None or off > _NEAR:
            continue
        left.remove(step)
        score.exact += off == 0
        score.near += off == 1
        score.later += off > 1
        score.held += step.earliest <= place <= step.latest
    return len(left)


def rows(count: int, drift: float, noises: Sequence[float], many: Sequence[int]) -> Iterator[str]:
    """The table, each row as soon as it exists."""
    yield "| noise | runs a commit | step | at the commit | within one | further | missed | range holds it | invented |"
    yield "|---" * 9 + "|"
    for noise in noises:
        for runs in many:
            random = np.random.default_rng(0)
            scores, invented, of_none = {size: Score() for size in SIZES}, 0, 0
            for _ in range(count):
                values, levels = history(random, noise, runs, drift, still=False)
                invented += judge(noisy_steps(values.tolist()).steps, levels, scores)
            for _ in range(count):
                values, _ = history(random, noise, runs, drift, still=True)
                of_none += len(noisy_steps(values.tolist()).steps)
            for size, score in scores.items():
                shares = (score.exact, score.near, score.later, score.true - score.found)
                cells = [f"{noise:.1%}", f"{runs}", f"{size:.0%}", *(f"{share / score.true:.0%}" for share in shares)]
                cells.append(f"{score.held / score.found:.0%}" if score.found else "")
                cells.append(f"{invented / count:.3f}" if size == SIZES[0] else "")
                yield "| " + " | ".join(cells) + " |"
            blank = " | ".join(["", "", "", "", ""])
            yield f"| {noise:.1%} | {runs} | none | {blank} | {of_none / count:.3f} |"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--histories", type=int, default=400)
    parser.add_argument("--drift", type=float, default=DRIFT)
    parser.add_argument("--noise", type=float, nargs="+", default=NOISES)
    parser.add_argument("--runs", type=int, nargs="+", default=RUNS)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    start, lines = time.process_time(), []
    for line in rows(given.histories, given.drift, given.noise, given.runs):
        print(line, flush=True)
        lines.append(line)
    print(f"\n{given.histories} histories a row, seed 0; {time.process_time() - start:.0f} s of processor time")
    if given.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- steps -->\n")
        _, mark, after = rest.partition("<!-- /steps -->")
        if not mark:
            raise SystemExit(f"{PAGE}: the marks <!-- steps --> and <!-- /steps --> are missing")
        PAGE.write_text(f"{before}<!-- steps -->\n" + "\n".join(lines) + f"\n{mark}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
