"""Refuses what is not a text, as the evaluation data of a language model, in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pytest_mnnquant.sources.spec import SourceError

#: Bytes that are read; the rest of a long text is like them.
_READ: Final = 1 << 20
#: Fewer characters may be a single token, which predicts nothing.
_FEWEST: Final = 16
_EXPECTED: Final = "a text in UTF-8 of some thousand words is expected"


def require_text(option: str, name: str, base: Path) -> None:
    """Refuse a missing file, a folder, another encoding and an empty text. Raises `ValueError`, `SourceError`."""
    path = base / name
    if not path.exists() and ".py:" not in name:
        raise SourceError(f"{option}: {name}: no such file")
    if not path.is_file():
        raise ValueError(f"{option}: {name} is not a file; {_EXPECTED}")
    with path.open("rb") as file:
        data = file.read(_READ)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        is_cut = len(data) == _READ and len(data) - error.start < 4
        if not is_cut:
            place = f"byte {error.start:,} is 0x{data[error.start]:02x}"
            raise ValueError(f"{option}: {name} is not UTF-8 ({place}); {_EXPECTED}") from None
        text = data[: error.start].decode("utf-8")
    if "\0" in text:
        raise ValueError(f"{option}: {name} is a binary file; {_EXPECTED}")
    if len(text.strip()) < _FEWEST:
        raise ValueError(f"{option}: {name} has fewer than {_FEWEST} characters; {_EXPECTED}")
