"""Results are remembered by check, limits and strictness, which are compared as values."""

from __future__ import annotations

import pytest

from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.caches import CheckKey, ResultCache
from pytest_mnnquant.findings.finding import PASSED, Result


def _result(check: str) -> Result:
    return Result(check, PASSED)


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        (Limits(), Limits()),
        (Limits(min_cosine=0.5), Limits(min_cosine=0.5)),
        (Limits(min_cosine={"a": 0.9, "b": 0.8}), Limits(min_cosine={"b": 0.8, "a": 0.9})),
        (Limits(max_latency_ratio={"x86_64": 1}), Limits(max_latency_ratio={"x86_64": 1.0})),
    ],
)
def test_equal_limits_find_the_result(limits: Limits, same: Limits) -> None:
    cache = ResultCache()
    first = cache.get_or_run(CheckKey("accuracy", limits, False), lambda: _result("accuracy"))
    assert cache.get_or_run(CheckKey("accuracy", same, False), lambda: pytest.fail("ran again")) is first


@pytest.mark.parametrize(
    "other",
    [
        CheckKey("size", Limits(min_cosine={"a": 0.9}), False),
        CheckKey("accuracy", Limits(min_cosine={"a": 0.8}), False),
        CheckKey("accuracy", Limits(min_sqnr={"a": 0.9}), False),
        CheckKey("accuracy", Limits(min_cosine={"a": 0.9}), True),
    ],
)
def test_other_keys_do_not(other: CheckKey) -> None:
    cache = ResultCache()
    first = cache.get_or_run(CheckKey("accuracy", Limits(min_cosine={"a": 0.9}), False), lambda: _result("accuracy"))
    assert cache.get_or_run(other, lambda: _result(other.check)) is not first
    assert len(list(cache)) == 2


def test_only_checks_that_ran_by_these_limits_are_listed() -> None:
    cache = ResultCache()
    for check, strict in (("size", False), ("accuracy", True)):
        cache.get_or_run(CheckKey(check, Limits(), strict), lambda check=check: _result(check))  # type: ignore[misc]
    assert list(cache.of_checks(("size", "accuracy", "bundle"), Limits(), False)) == ["size"]
