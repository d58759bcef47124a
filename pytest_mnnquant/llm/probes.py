"""Texts whose encodings are compared: pieces of the evaluation text, and some that tokenizers split differently."""

from __future__ import annotations

from typing import Final

#: Numbers, spaces, scripts, combining characters, code, capital letters.
PECULIAR: Final = (
    "Hello, world! It's 2024-06-01, and 12345.678 isn't 1e-5.",
    "  two  spaces,\ttabs\t\tand\n\n\nlines \r\n end ",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u3053\u3093\u306b\u3061\u306f \uc548\ub155 "
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440",
    "na\u00efve caf\u00e9 e\u0301 \ufb01 \u212b \u00a0\u200b\U0001f600 \u00bd",
    "def f(x):\n    return {'a': x ** 2}  # 100%",
    "CamelCase snake_case ALLCAPS don't I'LL we'Ve",
)
#: What the user says in messages that are put into the chat template.
MESSAGES: Final = ("hi there", "Was ist 2 + 2?\n\nBitte kurz.")
_PIECES: Final = 24
_LENGTH: Final = 160


def probes(text: str = "") -> tuple[str, ...]:
    """The probes for an evaluation text, of which the first 4,000 characters are used."""
    pieces = [text[start : start + _LENGTH] for start in range(0, min(len(text), _PIECES * _LENGTH), _LENGTH)]
    return (*pieces, *PECULIAR)
