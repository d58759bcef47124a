"""Whether two runs tell the same of the same models, but for what no two runs, or no two hosts, have alike.

Left out are
- where files lie (`path`, `file`) and whose host made them (`worker`), and in JUnit files the name of the machine;
- `uuid`, which MNN draws anew at each conversion, and with it the `sha256` of models and params files;
- all of the `latency` check, which is not measured under xdist, and elsewhere never twice alike;
- what each check cost (`steps`);
- the `memory` check's peaks, which are the process's;
- in JUnit files all times, and the order of tests.

Other numbers must agree in 6 digits: sums of floats in threads don't in more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

_PLACES: Final = ("path", "file", "worker")
_OF_A_FILE: Final = ("uuid", "sha256")
_COSTS: Final = ("steps",)
_PEAKS: Final = ("peak_bytes", "peak_bytes_low", "float_peak_bytes", "float_peak_bytes_low")
_DIGITS: Final = 1e-6


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two JSON reports, or what `junit` read, differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**_compared(one), **_compared(other)}:
            yield from differences(one.get(key), other.get(key), f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list):
        pair = [_unless_timed(one), _unless_timed(other)]
        if len(pair[0]) != len(pair[1]):
            yield f"{where}: {len(pair[0])} entries, and {len(pair[1])}"
        for at, (left, right) in enumerate(zip(*pair, strict=False)):
            yield from differences(left, right, f"{where}/{at}")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=_DIGITS):
            yield f"{where}: {one}, and {other}"
    elif one != other:
        yield f"{where}: {one!r}, and {other!r}"


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    left_out = [*_PLACES, *_PEAKS, *_COSTS, *(_OF_A_FILE if "path" in found else ())]
    return {key: value for key, value in found.items() if key not in left_out}


def _unless_timed(found: list[Any]) -> list[Any]:
    return [one for one in found if not (isinstance(one, dict) and one.get("check") == "latency")]


def junit(path: Path) -> dict[str, Any]:
    """The tests of a JUnit file: how each ended, why, and its properties."""
    tests = ElementTree.parse(path).iter("testcase")
    found: dict[str, dict[str, Any]] = {
        f"{test.get('classname')}::{test.get('name')}": {
            "ended": [(child.tag, child.get("message")) for child in test if child.tag != "properties"],
            "properties": {str(one.get("name")): one.get("value") for one in test.iter("property")},
        }
        for test in tests
    }
    return {name: test for name, test in found.items() if test["properties"].get("mnn.check") != "latency"}
