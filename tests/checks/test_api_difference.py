"""Outputs through both APIs: rounding passes, more is an error that names the operator."""

from __future__ import annotations

import pytest

from pytest_mnnquant.checks.api_difference import ApiDifference, check_apis
from pytest_mnnquant.findings.cause import Cause, Explanation


@pytest.mark.parametrize("difference", [None, ApiDifference("y", 0.0, 4), ApiDifference("y", 1.0, 4)], ids=str)
def test_rounding_and_what_one_api_alone_runs_pass(difference: ApiDifference | None) -> None:
    assert check_apis(difference) == []


@pytest.mark.parametrize("steps", [1.5, 126.0, float("inf")])
def test_more_than_rounding_is_an_error_at_the_operator(steps: float) -> None:
    (finding,) = check_apis(ApiDifference("y", steps, 4, "up"))
    assert (finding.code, finding.layer, finding.cause_id) == ("MNQ630", "up", "apis-differ")


def test_an_operator_that_mnn_computes_wrongly_is_the_cause() -> None:
    why = Explanation(Cause("scale-ignores-input", "it ignores its input"), "export it in another form")
    (finding,) = check_apis(ApiDifference("y", 244.0, 4, "norm"), {"norm": why})
    assert (finding.code, finding.layer, finding.cause, finding.fix) == ("MNQ630", "norm", why.cause, why.fix)
    (finding,) = check_apis(ApiDifference("y", 244.0, 4, "other"), {"norm": why})
    assert finding.cause is not None
    assert finding.cause.id == "apis-differ"


def test_a_scale_that_depends_on_addresses_is_the_cause() -> None:
    (finding,) = check_apis(ApiDifference("y", 126.0, 4, "up", is_by_address=True))
    assert (finding.code, finding.layer, finding.cause_id) == ("MNQ630", "up", "address-dependent-scale")
    assert finding.fix
