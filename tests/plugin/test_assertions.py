"""Each check of the catalogue has one assertion."""

from __future__ import annotations

import inspect

import pytest

import pytest_mnnquant
from pytest_mnnquant.findings.catalogue import CHECK_NAMES, CHECKS
from pytest_mnnquant.findings.check import Check
from pytest_mnnquant.plugin import assertions

FUNCTIONS = dict(inspect.getmembers(assertions, inspect.isfunction))
WRITTEN = {name: function for name, function in FUNCTIONS.items() if name.startswith("assert_")}


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_NAMES)
def test_a_check_has_the_assertion_that_its_entry_names(check: Check) -> None:
    assertion = getattr(pytest_mnnquant, check.assertion_name)
    assert assertion.__name__ == check.assertion_name
    required = [closed.cell_contents for closed in assertion.__closure__ or ()] or assertion.__code__.co_consts
    assert check.name in required


def test_an_assertion_is_written_only_for_a_check_that_names_it() -> None:
    assert set(WRITTEN) == set(pytest_mnnquant.__all__) <= {check.assertion_name for check in CHECKS}
    assert "assert_memory" not in WRITTEN  # Its entry alone makes it.


@pytest.mark.parametrize("name", ["assert_nothing", "nothing"])
def test_no_other_name_is_an_assertion(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(pytest_mnnquant, name)
