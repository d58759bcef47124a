"""What the machine can do, by MNN's word and by the system's."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.runtime.host import host_facts

ARM_LOG = b"load ok\nThe device supports: i8sdot:1, fp16:1, i8mm: 0, sve2: 0, sme2: 0\nmore\n"


def test_this_machine_is_told_by_its_architecture() -> None:
    host = host_facts()
    assert host.machine == platform.machine()
    assert host.keys[-1] == platform.machine()
    assert platform.node() not in str(host.facts)


@pytest.mark.parametrize(
    ("log", "used"),
    [(ARM_LOG, ("dotprod",)), (ARM_LOG.replace(b"i8mm: 0", b"i8mm: 1"), ("dotprod", "i8mm")), (b"", ())],
)
def test_int8_instructions_are_those_that_mnn_uses(log: bytes, used: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(log)
    host = host_facts(tmp_path / "log.txt")
    assert host.used == used
    assert host.is_fast_in_int8 == bool(used)


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert host_facts(tmp_path / "log.txt").used == ()


def test_the_most_special_name_comes_first() -> None:
    host = Host("pixel", "aarch64", "", ("dotprod", "i8mm"), ("i8mm",))
    assert host.keys == ("pixel", "i8mm", "dotprod", "i8mm", "aarch64")
