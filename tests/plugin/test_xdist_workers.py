"""Which of xdist's workers could not be started, by what went wrong."""

from __future__ import annotations

import execnet
import pytest

from pytest_mnnquant.plugin.xdist_workers import _being_started


def setup_node(spec: execnet.XSpec) -> None:
    """As xdist's own, where ssh has ended before all was written to it."""
    raise BrokenPipeError(32, "Broken pipe", str(spec))


def test_a_worker_is_known_by_where_its_start_broke_off() -> None:
    with pytest.raises(BrokenPipeError) as error:
        setup_node(execnet.XSpec("ssh=far//python=python3"))
    assert _being_started(error.value).ssh == "far"


def test_what_breaks_elsewhere_is_no_worker_that_could_not_be_started() -> None:
    with pytest.raises(BrokenPipeError) as error:
        raise BrokenPipeError
    assert _being_started(error.value) is None
