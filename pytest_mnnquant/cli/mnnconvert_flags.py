"""The flags of MNN's converter, and a command line read exactly as the converter reads it.

The effects of flags were measured with MNN 3.6.1 and read in tools/converter/source/common/cli.cpp. The parser is
tools/converter/include/cxxopts.hpp: it drops unknown flags and stray words, reads a malformed number as 0, and reads
a boolean as true only if it is written `=1`.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


class Refused(Exception):
    """A command that MNN would not execute as written; `reasons` holds one line per error."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


class Kind(enum.Enum):
    """The kind of a flag's value. A switch has none: MNN checks only whether the flag occurs, so `=0` enables it."""

    TEXT = "a string"
    PATH = "a path"
    INTEGER = "an integer"
    NUMBER = "a number"
    SWITCH = "no value"
    TRUTH = "=1 or =0"


class Role(enum.Enum):
    """The purpose of a flag."""

    PLACE = "names the source or the output"
    STRUCTURE = "decides the graph"
    COMPRESSION = "decides how weights are stored"
    QUESTION = "makes MNN print information instead of converting"


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of the converter. `allowed` is the range of an integer: `low` to `high`, both included."""

    name: str
    kind: Kind
    role: Role = Role.STRUCTURE
    allowed: tuple[int, int] | None = None


_BIT: Final = (0, 1)
FLAGS: Final = {
    flag.name: flag
    for flag in (
        Flag("framework", Kind.TEXT, Role.PLACE),
        Flag("modelFile", Kind.PATH, Role.PLACE),
        Flag("MNNModel", Kind.PATH, Role.PLACE),
        Flag("JsonFile", Kind.PATH, Role.PLACE),
        Flag("prototxt", Kind.PATH),
        Flag("bizCode", Kind.TEXT),
        Flag("authCode", Kind.TEXT),
        Flag("batch", Kind.INTEGER, allowed=(1, 1 << 30)),
        Flag("keepInputFormat", Kind.TRUTH),
        Flag("optimizeLevel", Kind.INTEGER, allowed=(0, 2)),
        Flag("optimizePrefer", Kind.INTEGER, allowed=(0, 2)),
        Flag("benchmarkModel", Kind.SWITCH),
        Flag("debug", Kind.SWITCH),
        Flag("forTraining", Kind.SWITCH),
        Flag("saveStaticModel", Kind.SWITCH),
        Flag("targetVersion", Kind.NUMBER),
        Flag("customOpLibs", Kind.TEXT),
        Flag("inputConfigFile", Kind.PATH),
        Flag("testdir", Kind.TEXT),
        Flag("testconfig", Kind.TEXT),
        Flag("thredhold", Kind.NUMBER),
        Flag("alignDenormalizedValue", Kind.INTEGER, allowed=_BIT),
        Flag("saveExternalData", Kind.SWITCH),
        Flag("useGeluApproximation", Kind.INTEGER, allowed=_BIT),
        Flag("convertMatmulToConv", Kind.INTEGER, allowed=_BIT),
        Flag("transformerFuse", Kind.SWITCH),
        Flag("transformerFuseC4", Kind.INTEGER, allowed=_BIT),
        Flag("transformerFuseQkvProj", Kind.INTEGER, allowed=_BIT),
        Flag("transformerFuseGateUpProj", Kind.INTEGER, allowed=_BIT),
        Flag("transformerFuseLnProj", Kind.INTEGER, allowed=_BIT),
        Flag("groupConvNative", Kind.SWITCH),
        Flag("allowCustomOp", Kind.SWITCH),
        Flag("useOriginRNNImpl", Kind.SWITCH),
        Flag("splitBlockQuant", Kind.SWITCH),
        Flag("dumpPass", Kind.SWITCH),
        Flag("fp16", Kind.SWITCH, Role.COMPRESSION),
        Flag("weightQuantBits", Kind.INTEGER, Role.COMPRESSION, (2, 8)),
        Flag("weightQuantAsymmetric", Kind.TRUTH, Role.COMPRESSION),
        Flag("weightQuantBlock", Kind.INTEGER, Role.COMPRESSION, (-1, 1 << 30)),
        Flag("weightQuantScaleBit", Kind.INTEGER, Role.COMPRESSION),
        Flag("hqq", Kind.SWITCH, Role.COMPRESSION),
        Flag("detectSparseSpeedUp", Kind.SWITCH, Role.COMPRESSION),
        Flag("compressionParamsFile", Kind.PATH, Role.COMPRESSION),
        Flag("help", Kind.SWITCH, Role.QUESTION),
        Flag("version", Kind.SWITCH, Role.QUESTION),
        Flag("OP", Kind.SWITCH, Role.QUESTION),
        Flag("info", Kind.SWITCH, Role.QUESTION),
    )
}
_SHORT: Final = {"f": "framework", "h": "help", "v": "version"}  # With one dash or two.
_OFF: Final = ("0", "false", "off", "no")
_ON: Final = ("1", "true", "on", "yes")
# MNN reads all of `--flag`, `--flag=true` and `--flag 1` as false: it parses booleans as numbers.
_TRUTHS: Final = {
    "keepInputFormat": "write --keepInputFormat=1 to keep the input's layout (which MNN does anyway), "
    "--keepInputFormat=0 to change it",
    "weightQuantAsymmetric": "remove it for asymmetric weights (MNN's default), write --weightQuantAsymmetric=0 for "
    "symmetric ones",
}


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """` (did you mean ...?)` for a mistyped name, or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), 1, 0.5)
    return f"; did you mean {prefix}{by_lower[matches[0]]}?" if matches else ""


def read_flags(arguments: Sequence[str]) -> dict[str, str]:
    """{flag: value} of a command line, switches with an empty value. Raises `Refused` with all misread words."""
    given: dict[str, str] = {}
    reasons: list[str] = []
    rest = list(arguments)
    last: Flag | None = None  # The last switch, to which a stray word may belong.
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or len(word) < 2:
            reasons += _stray(word, last)
            last = None
            continue
        last = None
        if word == "--":
            reasons.append("--: MNN ignores all flags after it")
            break
        flag, value, reason = _flag(word, rest)
        if flag is None:
            reasons.append(reason)
            if rest and not rest[0].startswith("-"):
                rest.pop(0)  # The value of a flag that is refused anyway.
            continue
        if flag.kind is Kind.SWITCH and value == "":
            last = flag
        reason = reason or _wrong_value(flag, value)
        if not reason and given.get(flag.name, value) != value:
            reason = f"--{flag.name} is given twice, {given[flag.name]!r} and {value!r}; MNN uses the last one"
        if reason:
            reasons.append(reason)
        given[flag.name] = value
    if reasons:
        raise Refused(*reasons)
    return given


def _flag(word: str, rest: list[str]) -> tuple[Flag | None, str, str]:
    """The flag that begins with a word, its value (taken from `rest` as MNN does), and the error."""
    if word.startswith("--"):
        name, _, value = word[2:].partition("=")
        name = _SHORT.get(name, name)
        if name not in FLAGS:
            return None, "", f"--{name}: unknown flag, which MNN ignores{nearest(name, [*FLAGS], '--')}"
    else:
        name, value = _SHORT.get(word[1:], ""), ""
        if not name:
            meant = word[1:].partition("=")[0]
            better = f"; write --{meant}" if meant in FLAGS else "; write -f FRAMEWORK" if word[1] == "f" else ""
            return None, "", f"{word}: unknown flag{better}"
    flag = FLAGS[name]
    if flag.kind in (Kind.SWITCH, Kind.TRUTH) or value:
        return flag, value, ""
    is_flag = bool(rest) and rest[0].startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", rest[0])
    if not rest or is_flag or not rest[0]:
        instead = f", and would use {rest[0]!r}" if is_flag else ""
        return flag, "", f"--{name}: MNN requires {flag.kind.value} after it{instead}"
    return flag, rest.pop(0), ""


def _stray(word: str, switch: Flag | None) -> list[str]:
    if switch is not None and word.lower() in _ON:
        return []
    if switch is not None and word.lower() in _OFF:
        return [f"--{switch.name} {word}: MNN enables the switch with any value; remove the flag"]
    return [f"{word!r}: belongs to no flag, and MNN ignores it"]


def _wrong_value(flag: Flag, value: str) -> str:
    text = f"--{flag.name} {value}"
    if flag.kind is Kind.SWITCH and value and value.lower() not in _ON:
        return f"--{flag.name}={value}: MNN enables the switch with any value; remove the flag"
    if flag.kind is Kind.TRUTH and value not in ("0", "1", "false"):
        shown = f"--{flag.name}" + (f"={value}" if value else "")
        return f"{shown}: MNN reads this as false; {_TRUTHS[flag.name]}"
    if flag.kind is Kind.NUMBER and not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", value):
        return f"{text}: must be a number"
    if flag.kind is Kind.INTEGER:
        if not re.fullmatch(r"[+-]?\d+", value):
            return f"{text}: must be an integer (MNN reads other text as 0, and ignores text after digits)"
        low, high = flag.allowed or (-(1 << 30), 1 << 30)
        if not low <= int(value) <= high:
            bounds = f"{low} to {high}" if high < 1 << 30 else f"{low} or more"
            return f"{text}: must be {bounds}; MNN silently uses another number"
    return ""


def as_arguments(given: dict[str, str]) -> list[str]:
    """The same arguments in a form that MNN can't misread."""
    arguments: list[str] = []
    for name, value in given.items():
        kind = FLAGS[name].kind
        if kind is Kind.SWITCH:
            arguments.append(f"--{name}")
        elif kind is Kind.TRUTH:
            arguments.append(f"--{name}={value}")
        else:
            arguments += [f"--{name}", value]
    return arguments
