"""Wording is held in `tests/golden/messages/`: one file per family of messages, many entries each.

A test asserts codes, layers, numbers and keys, and gives the message itself to `check_golden`. To write the entries
again after a message was changed, run the tests concerned with MNNQUANT_WRITE_GOLDEN=1, with or without `-n`, and read
the difference that git shows. Entries that no test names any more fail tests/test_golden_text.py.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MESSAGES: Final = Path(__file__).resolve().parent / "golden" / "messages"
WRITE: Final = "MNNQUANT_WRITE_GOLDEN"
_INDENT: Final = "    "
_written: dict[str, str] = {}
_KEY: Final = re.compile(r"([a-z0-9-]+)/([^\s/]+)")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


def check_golden(key: str, text: str, /, **values: object) -> None:
    """Compare a text with the entry `family/name`. Raises `AssertionError` with the difference.

    `values` are what differs from host to host, such as a folder: each whole word stands in the entry as `<name>`.
    """
    found = _KEY.fullmatch(key)
    assert found, f"{key!r}: family/name expected"
    path, name = MESSAGES / f"{found[1]}.txt", found[2]
    for value, actual in sorted(values.items(), key=lambda item: -len(str(item[1]))):
        text = re.sub(rf"(?<!\w){re.escape(str(actual))}(?!\w)", f"<{value}>", text)
    text = text.strip("\n")
    if os.environ.get(WRITE):
        assert _written.setdefault(key, text) == text, f"two texts for {key}"
        _write(path, name, text)
        return
    entries = read_entries(path)
    assert name in entries, f"no entry {key}; {WRITE}=1 writes it\n{text}"
    if text != entries[name]:
        difference = difflib.ndiff(entries[name].splitlines(), text.splitlines())
        raise AssertionError(
            f"not the golden text {key}; if this is intended, run the test with {WRITE}=1\n" + "\n".join(difference)
        )


def without_numbers(text: str) -> str:
    """A text with N for each number: for what is measured on a host."""
    return _NUMBER.sub("N", text)


def read_entries(path: Path) -> dict[str, str]:
    """The entries of a family by name; none if there is no such file."""
    if not path.exists():
        return {}
    entries: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith(_INDENT):
            assert line not in entries, f"{path.name}: {line!r} twice"
            entries[line] = lines = []
        elif entries:
            lines.append(line.removeprefix(_INDENT))
    return {name: "\n".join(lines).strip("\n") for name, lines in entries.items()}


def format_entries(entries: Mapping[str, str]) -> str:
    """What a family's file holds: names in order, the texts indented below them."""
    return "\n".join(f"{name}\n{_indented(entries[name])}\n" for name in sorted(entries))


def _indented(text: str) -> str:
    return "\n".join(_INDENT + line if line else "" for line in text.split("\n"))


def _write(path: Path, name: str, text: str) -> None:
    """Put one entry into its file, one process after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        content = format_entries({**read_entries(path), name: text})
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            part = path.with_suffix(".part")
            part.write_text(content, encoding="utf-8")
            part.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
