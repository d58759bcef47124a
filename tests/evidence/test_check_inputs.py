"""What checks are called with: each parameter of a registered check is evidence of the right type."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest

from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.check_inputs import CheckInputs, held_limits
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.evidence.variant_costs import VariantCosts
from pytest_mnnquant.evidence.variant_files import VariantFiles
from pytest_mnnquant.evidence.variant_runs import VariantRuns
from pytest_mnnquant.findings.catalogue import CHECK_NAMES, CHECKS
from pytest_mnnquant.findings.check import Check, load
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.measurements.chart_samples import ChartSamples

each_check = pytest.mark.parametrize("check", CHECKS, ids=CHECK_NAMES)
OWNERS = (CheckInputs, VariantUnderTest, VariantFiles, VariantRuns, VariantCosts, Limits)
PARAMETERS = [(check.name, name) for check in CHECKS for name in inspect.signature(check.load_function()).parameters]


def provided_type(name: str) -> Any:
    """The type of the evidence of this name: of a property what it returns, of a method the method's own type."""
    owner = next(owner for owner in OWNERS if hasattr(owner, name))
    if owner is Limits:
        return typing.get_type_hints(Limits)[name]
    member = inspect.getattr_static(owner, name)
    if isinstance(member, property):
        return typing.get_type_hints(member.fget)["return"]
    if isinstance(member, cached_property):
        return typing.get_type_hints(member.func)["return"]
    *taken, made = typing.get_type_hints(member).values()
    return Callable[taken, made]


def is_assignable(given: Any, wanted: Any) -> bool:
    """Whether a value of the first type can stand for one of the second."""
    if given == wanted or wanted is Any:
        return True
    if typing.get_origin(given) in (typing.Union, types.UnionType):
        return all(is_assignable(one, wanted) for one in typing.get_args(given))
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return any(is_assignable(given, one) for one in typing.get_args(wanted))
    origins = [typing.get_origin(one) or one for one in (given, wanted)]
    arguments = [typing.get_args(one) for one in (given, wanted)]
    if not issubclass(origins[0], origins[1]):
        return False
    if origins[1] is typing.get_origin(Callable[..., Any]):
        (taken, made), (fed, used) = arguments
        return is_assignable(made, used) and len(taken) == len(fed) and all(map(is_assignable, fed, taken))
    parts = zip(*(tuple(one for one in of if one is not Ellipsis) for of in arguments), strict=True)
    return all(is_assignable(*pair) for pair in parts)


@pytest.mark.parametrize(("check", "name"), PARAMETERS, ids=".".join)
def test_each_parameter_of_a_check_is_evidence_of_its_type(check: str, name: str) -> None:
    function = next(one for one in CHECKS if one.name == check).load_function()
    assert is_assignable(provided_type(name), typing.get_type_hints(function)[name])


@each_check
def test_a_check_returns_a_result_and_a_chart_returns_samples(check: Check) -> None:
    assert typing.get_type_hints(check.load_function())["return"] is Result
    if check.chart:
        hints = typing.get_type_hints(load(check.chart))
        assert list(hints.values()) == [VariantUnderTest, ChartSamples]


def test_checks_that_hold_a_limit_are_known_by_their_parameters() -> None:
    held = {check.name: held_limits(check.load_function()) for check in CHECKS}
    assert {name: limits for name, limits in held.items() if limits} == {
        "coverage": ("min_coverage",),
        "size": ("min_size_ratio",),
        "latency": ("max_latency_ratio",),
    }


def test_a_parameter_that_is_no_evidence_is_an_error() -> None:
    def check_phase_of_the_moon(moon: int) -> Result:
        raise AssertionError(moon)

    inputs = CheckInputs(None, Limits(), False, lambda _: Result.skipped("size", "no"))  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="moon"):
        inputs.arguments(check_phase_of_the_moon)


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        (tuple[int, ...], Sequence[int], True),
        (Sequence[int], tuple[int, ...], False),
        (tuple[int, ...], Sequence[str], False),
        (dict[str, int], Mapping[str, int | None], True),
        (int | None, int, False),
        (int, int | None, True),
        (Callable[[int], bool], Callable[[bool], int], True),
        (Callable[[bool], int], Callable[[int], int], False),
    ],
)
def test_types_fit_as_a_type_checker_has_it(given: Any, wanted: Any, fits: bool) -> None:
    assert is_assignable(given, wanted) is fits
