"""Runs of bytes add up to the file: gaps, overlaps, missing bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_mnnquant.llm.extents import Extent, map_file

RUNS = st.lists(st.builds(Extent, st.integers(0, 60), st.integers(0, 20)), max_size=8)


def test_adjacent_runs_leave_nothing() -> None:
    mapped = map_file("w", 10, [Extent(4, 6), Extent(0, 4)])
    assert (mapped.gaps, mapped.overlaps, mapped.missing, mapped.unused) == ((), (), 0, 0)


def test_gaps_overlaps_and_missing_bytes_are_named() -> None:
    first, second = Extent(2, 4, "a"), Extent(5, 10, "b")
    mapped = map_file("w", 12, [first, second])
    assert mapped.gaps == (Extent(0, 2),)
    assert [(overlap.first, overlap.second, overlap.length) for overlap in mapped.overlaps] == [(first, second, 1)]
    assert mapped.missing == 3


def test_what_follows_the_last_run_is_a_gap() -> None:
    assert map_file("w", 12, [Extent(0, 8)]).gaps == (Extent(8, 4),)


def test_the_same_run_twice_is_shared_and_no_overlap() -> None:
    assert map_file("w", 8, [Extent(0, 8, "a"), Extent(0, 8, "b")]).overlaps == ()


@given(RUNS, st.integers(0, 80))
def test_every_byte_is_in_a_run_or_in_a_gap(runs: list[Extent], size: int) -> None:
    mapped = map_file("w", size, runs)
    covered = {byte for run in runs for byte in range(run.offset, run.end)}
    unused = {byte for gap in mapped.gaps for byte in range(gap.offset, gap.end)}
    assert unused == set(range(size)) - covered
    assert mapped.missing == max(0, max(covered, default=-1) + 1 - size)
