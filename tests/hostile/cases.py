"""Hostile inputs, always the same ones: values, texts and bytes that no part of the package may trip over."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

#: With this variable all cases run; otherwise the first ones of each suite.
WHOLE: Final = "MNNQUANT_HOSTILE"
_SHARE: Final = 10


def count(whole: int) -> int:
    """How many of `whole` cases this run has."""
    return whole if os.environ.get(WHOLE) else max(10, whole // _SHARE)


TEXTS: Final = (
    "", " ", "\0", "a\0b", "x" * 300, "x" * 5000, "x/" * 3000, "../../..", "/", "/dev/zero", "/dev/null",
    "/proc/self/mem", "\x1b[31m", "a\nb", "a\r\nb", "::", "a::b", "a=b", "=", "==x", "[", "]", "[]", "a[1]",
    "a[train]", "*", "**", "?", "{}", "{0}", "%s", "%(x)s", "$(id)", "`id`", "; id", "'", '"', "\\", "\u202e",
    "\ufeff", "\u2028", "é", "模型", "\U0001f600", "\ud800", "-", "--", "-x", "--mnn-model", "nan", "inf", "-inf",
    "1e400", "-1e400", "1e999999", "0x10", "1_000", "٣", "1" * 5000, "-0", "1.5", "None", "null", "true", "false",
    "~", "~root", "net.py", "net.py:", ":build", "net.py:build", "net.py:build()", "net.py:no", "net.onnx",
    "x.mnn", "x.tflite", "x.pt2", "int8", "int8-kl", "int8-kl99", "int8-percentile99.9999999999", "w8", "w99",
    "w4b0", "w4b" + "9" * 5000, "w4b32-hqq-sym", "fp16", "fp16@", "a.py:b@c", "a.py:b@a.py:b", "MNQ", "MNQ7",
    "MNQ999999", "MNQ٣", "host", "aarch64", "ssh://", "ssh://-x", "ssh://a b",
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 2, 10**9, 10**18, 10**30, 10**400, -(10**400), 1 << 20000, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e308,
    float("inf"), float("-inf"), float("nan"), True, False,
)  # fmt: skip


def value(chooser: random.Random, depth: int = 0) -> Any:
    """A value of any kind."""
    kinds: list[Callable[[], Any]] = [lambda: chooser.choice(TEXTS), lambda: chooser.choice(NUMBERS)]
    if depth < 3:
        kinds += [
            lambda: [value(chooser, depth + 1) for _ in range(chooser.randrange(4))],
            lambda: {chooser.choice(TEXTS): value(chooser, depth + 1) for _ in range(chooser.randrange(3))},
        ]
    return chooser.choice(kinds)()


def damaged(data: bytes, seed: int) -> bytes:
    """A copy of a file with one kind of damage."""
    chooser = random.Random(seed)
    changed = bytearray(data)
    kind = seed % 6
    if kind == 0:
        return bytes(changed[: chooser.randrange(len(changed))])
    if kind == 1:
        start = chooser.randrange(len(changed))
        del changed[start : start + chooser.randrange(1, 64)]
    elif kind == 2:
        start = chooser.randrange(len(changed))
        changed[start:start] = chooser.randbytes(chooser.randrange(1, 64))
    else:
        for _ in range(chooser.choice((1, 1, 2, 8, 64))):
            place = chooser.randrange(len(changed))
            changed[place] = chooser.choice((0, 1, 127, 128, 255, changed[place] ^ (1 << chooser.randrange(8))))
    return bytes(changed)


def seeds(whole: int) -> Iterator[int]:
    """The seeds of this run's cases."""
    return iter(range(count(whole)))


def require_line(text: str, *names: str) -> None:
    """An error is one line that can be printed, and names one of these."""
    assert text.strip(), "an error without a text"
    assert "\n" not in text, text
    assert "Traceback" not in text, text
    assert not names or any(name in text for name in names), text
