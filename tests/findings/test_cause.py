"""Causes: the id is for the code, the text for people."""

from __future__ import annotations

import pytest

from pytest_mnnquant.findings.cause import Cause, joined

STALE, CLIPPED = Cause("stale-output", "the file is old"), Cause("weights-clipped", "3 scales are too small")


@pytest.mark.parametrize("id", ["", "Stale", "stale output", "int8-scale", "/conv1", "layer-a+", "-"])
def test_an_id_holds_no_number_and_no_name(id: str) -> None:
    with pytest.raises(ValueError, match="is not a valid id of a cause"):
        Cause(id, "text")


def test_mechanisms_that_work_together_are_one_cause() -> None:
    assert joined() is joined(None, None) is None
    assert joined(None, STALE) is STALE
    both = joined(STALE, None, CLIPPED)
    assert both == Cause("stale-output+weights-clipped", "the file is old; 3 scales are too small")
    assert joined(both, STALE) is not None
