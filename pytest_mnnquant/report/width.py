"""Text for terminals: Chinese characters are two columns wide, and line breaks do not split names."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# The beginnings of lines that are shell commands.
_COMMANDS: Final = ("pytest ", "pytest-mnnquant convert -", "pytest-mnnquant calibrate ", "python -c ")
# A word of a shell command, which may be quoted.
_SHELL_WORD: Final = re.compile(r"(?:'[^']*'|\S)+")
# GitHub takes what follows these at the beginning of a line for a command, and `##[` anywhere.
_GITHUB: Final = re.compile(r"^:(?=:)|(?<=##)\[")
# A word longer than this is too long to be a copyable name.
_LONGEST: Final = 240


def width(text: str) -> int:
    """The number of columns that a text takes."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def end_of(text: str, columns: int) -> int:
    """The column after a text that a terminal with `columns` columns breaks into rows; `columns` if a row is full."""
    column = 0
    for character in text:
        needed = _columns(character)
        column = needed if column + needed > columns else column + needed
    return column


def pad(text: str, columns: int) -> str:
    """The text, padded with blanks to this width."""
    return text + " " * (columns - width(text))


def cut(text: str, columns: int) -> str:
    """The text, with its middle cut if it is wider than this."""
    if width(text) <= columns:
        return text
    head = (columns - 3) // 2
    return _fitting(text, head) + "..." + _fitting(text[::-1], columns - 3 - head)[::-1]


def _fitting(text: str, columns: int) -> str:
    end = used = 0
    for end, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return text[:end]
    return text


def shown(text: str) -> str:
    """The text with escaped control characters: a name neither moves the cursor nor commands GitHub."""
    plain = "".join(character if character.isprintable() else _escape(character) for character in text)
    return _GITHUB.sub(lambda match: f"\\x{ord(match[0]):02x}", plain)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def wrapped(first: str, text: str, columns: int, indent: int = 6) -> list[str]:
    """The lines of a text that begins with `first`, broken at blanks only, so that names and commands can be copied."""
    lines: list[str] = []
    for part in text.splitlines() or [""]:
        line = " " * indent if lines else first
        begun, end, words = False, "", part.split()
        if part.startswith(_COMMANDS):
            end, words = " \\", _SHELL_WORD.findall(part)
        for word in (cut(shown(word), _LONGEST) for word in words):
            if begun and width(line) + 1 + width(word) + width(end) > columns:
                lines.append(line + end)
                line, begun = " " * indent, False
            line += f" {word}" if begun else word
            begun = True
        lines.append(line.rstrip())
    return lines
