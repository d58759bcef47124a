"""The instruction sets of a machine that matter for int8, as MNN and the operating system report them."""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pytest_mnnquant.measurements.host import Host, TargetMachine
from pytest_mnnquant.runtime.programs.machine import cpu_info

# Names in Linux's /proc/cpuinfo, and the names that this package uses.
_FLAGS: Final = {
    "avx2": "avx2",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve2": "sve2",
}
# MNN prints the instruction sets of its ARM kernels: "The device supports: i8sdot:1, fp16:1, i8mm: 0, sve2: 0".
_SUPPORTS: Final = re.compile(rb"The device supports:([^\n]*)")
_NAMES: Final = {"i8sdot": "dotprod", "i8mm": "i8mm"}


def host_facts(log: Path | None = None) -> Host:
    """This machine; `log` is MNN's output from the creation of a session."""
    facts = _facts(platform.node(), platform.machine(), cpu_info(), platform.processor())
    return facts if log is None else dataclasses.replace(facts, used=features_used(log))


def target_machine(reported: Mapping[str, str], log: Path) -> TargetMachine:
    """A target, from the runner's report (`programs.machine`) and MNN's output on the target."""
    facts = _facts(reported["node"], reported["machine"], reported["cpu"], "")
    host = dataclasses.replace(facts, used=features_used(log))
    return TargetMachine(host, reported["mnn"], reported["numpy"], reported["python"])


def features_used(log: Path) -> tuple[str, ...]:
    """The instruction sets of MNN's int8 kernels, from its output at the creation of a session."""
    line = _SUPPORTS.search(log.read_bytes() if log.is_file() else b"")
    supported = dict(re.findall(r"(\w+)\s*:\s*(\d)", line[1].decode("ascii", "replace"))) if line else {}
    return tuple(feature for name, feature in _NAMES.items() if supported.get(name) == "1")


@cache
def _facts(name: str, machine: str, cpu: str, processor: str) -> Host:
    """A machine, from Linux's information about its processors."""
    lines = dict(re.findall(r"^([^\n:]+?)\s*:[ \t]*([^\n]*)$", cpu, re.MULTILINE))
    flags = set((lines.get("flags") or lines.get("Features") or "").split())
    features = tuple(dict.fromkeys(name for flag, name in _FLAGS.items() if flag in flags))
    return Host(name, machine, lines.get("model name") or lines.get("CPU part") or processor, features, ())
