"""What a target reports of itself."""

from __future__ import annotations

import pytest

from pytest_mnnquant.measurements.host import Host, TargetMachine

HOST = Host("board", "aarch64", "", ("dotprod",), ("dotprod",))


@pytest.mark.parametrize(
    ("mnn", "traces"),
    [("3.2.4", True), ("3.10", True), ("4.0.0", True), ("3.2.3", False), ("3.0.0", False), ("", False), ("3.x", False)],
)
def test_the_trace_shows_int8_operators_from_a_version_on(mnn: str, traces: bool) -> None:
    assert TargetMachine(HOST, mnn, "2.0", "3.11").traces_int8 is traces
