"""What the machine can do that int8 needs, by MNN's own word where it gives one, and by the operating system's."""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.measurements.host import Host

# As Linux spells them in /proc/cpuinfo, and what they are called here.
_FLAGS: Final = {
    "avx2": "avx2",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve2": "sve2",
}
# MNN prints what its ARM kernels use: "The device supports: i8sdot:1, fp16:1, i8mm: 0, sve2: 0".
_SUPPORTS: Final = re.compile(rb"The device supports:([^\n]*)")
_NAMES: Final = {"i8sdot": "dotprod", "i8mm": "i8mm"}


def host_facts(log: Path | None = None) -> Host:
    """This machine; `log` is what MNN printed when a session was made."""
    facts = _facts(platform.node(), platform.machine(), _cpu_info(), platform.processor())
    return facts if log is None else dataclasses.replace(facts, used=features_used(log))


def host_told(told: Mapping[str, Any], log: Path) -> Host:
    """Another machine, by what the runner told of it there (`runner.place`)."""
    facts = _facts(told["node"], told["machine"], told["cpu"], "")
    return dataclasses.replace(facts, used=features_used(log))


def features_used(log: Path) -> tuple[str, ...]:
    """The instructions that MNN's int8 kernels use, by what it printed when a session was made."""
    found = _SUPPORTS.search(log.read_bytes() if log.is_file() else b"")
    told = dict(re.findall(r"(\w+)\s*:\s*(\d)", found[1].decode("ascii", "replace"))) if found else {}
    return tuple(ours for theirs, ours in _NAMES.items() if told.get(theirs) == "1")


@cache
def _cpu_info() -> str:
    """As `runner.cpu_info` has it, which is another program."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return ""


@cache
def _facts(name: str, machine: str, cpu: str, processor: str) -> Host:
    """A machine, by what Linux tells of its processors."""
    lines = dict(re.findall(r"^([^\n:]+?)\s*:[ \t]*([^\n]*)$", cpu, re.MULTILINE))
    flags = set((lines.get("flags") or lines.get("Features") or "").split())
    features = tuple(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in flags))
    return Host(name, machine, lines.get("model name") or lines.get("CPU part") or processor, features, ())
