"""The tokenizer of an export: `tokenizer.mtok`, or `tokenizer.txt` of older exporters.

Both begin with text: `430 TYPE`, the numbers of special, stop and prefix tokens, and the ids of these. The runtime adds
the prefix before every text, and stops at a stop token (transformers/llm/engine/src/tokenizer/tokenizer.cpp).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.llm.json_object import BadExport

_MAGIC: Final = 430
PIPELINE: Final = 4
_KINDS: Final = {0: "sentencepiece", 1: "tiktoken", 2: "bert", 3: "huggingface", PIPELINE: "pipeline"}
_LARGEST: Final = 1 << 28
#: A description of one step of a tokenizer: its name, and its settings or inner steps.
Step = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for in the text before it is split."""

    id: int
    text: str
    special: bool
    strips_left: bool = False
    strips_right: bool = False


@dataclass(frozen=True)
class Tokenizer:
    """What a tokenizer file holds. `tokens` has the text of each token (of `tokenizer.txt`: its bytes as Latin-1).

    `merges` are pairs of ids in order of rank. `steps` describe normalizer, pre-tokenizer, model and decoder, in the
    terms of `tokenizer.json`; empty for `tokenizer.txt`. `single` is the program around one text: -1 for the text,
    else the id of a token.
    """

    file: str
    kind: str
    special_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    tokens: Mapping[str, int] = field(repr=False)
    merges: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    added: tuple[AddedToken, ...] = ()
    steps: Mapping[str, Step] = field(default_factory=dict)
    chat_template: str = field(default="", repr=False)
    bos: str = ""
    eos: str = ""
    single: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The largest id plus one, added tokens included."""
        ids = [*self.tokens.values(), *(token.id for token in self.added)]
        return max(ids, default=-1) + 1


@dataclass(frozen=True, slots=True)
class Header:
    """The text at the start of the file, and where the rest begins."""

    kind: int
    special_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...]
    end: int


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file. Raises `BadExport`, `OSError`."""
    from pytest_mnnquant.llm.pipeline_tokenizer import parse_pipeline

    if path.stat().st_size > _LARGEST:
        raise BadExport(path.name, "", f"{path.stat().st_size:,} bytes are too many for a tokenizer")
    data = path.read_bytes()
    header = parse_header(path.name, data)
    return parse_pipeline(path.name, data, header) if header.kind == PIPELINE else _parse_text(path.name, data, header)


def parse_header(file: str, data: bytes) -> Header:
    """The first three lines. Raises `BadExport`."""
    lines = data[: 1 << 20].split(b"\n", 3)
    if len(lines) < 4:
        raise BadExport(file, "header", "its three lines are missing")
    magic, numbers, ids = (_integers(file, line) for line in lines[:3])
    if len(magic) != 2 or magic[0] != _MAGIC or magic[1] not in _KINDS:
        raise BadExport(file, "header", f"{lines[0][:20]!r} does not begin a tokenizer of MNN")
    if len(numbers) != 3 or sum(numbers) != len(ids) or min(numbers) < 0:
        raise BadExport(file, "header", f"{len(ids)} ids follow the counts {numbers}")
    special, stop = numbers[0], numbers[0] + numbers[1]
    return Header(magic[1], ids[:special], ids[special:stop], ids[stop:], sum(len(line) + 1 for line in lines[:3]))


def _integers(file: str, line: bytes) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in line.split())
    except ValueError:
        raise BadExport(file, "header", f"numbers are expected, not {line[:20]!r}") from None


def _parse_text(file: str, data: bytes, header: Header) -> Tokenizer:
    lines = data[header.end :].split(b"\n")
    counts = _integers(file, lines[0])
    is_plain = header.kind == 3
    if len(counts) != (2 if is_plain else 1) or min(counts) < 0:
        raise BadExport(file, "vocabulary", f"its size is expected, not {lines[0][:20]!r}")
    entries = lines[1 : 1 + counts[0]]
    if len(entries) < counts[0] or (is_plain and len(lines) < 1 + sum(counts)):
        raise BadExport(file, "vocabulary", f"{sum(counts):,} lines are expected, {len(lines) - 1:,} follow")
    tokens: dict[str, int] = {}
    for number, line in enumerate(entries):
        text = line if is_plain else _decoded(file, number, line)
        tokens.setdefault(text.decode("latin-1"), number)
    kind = _KINDS[header.kind]
    return Tokenizer(file, kind, header.special_ids, header.stop_ids, header.prefix_ids, tokens)


def _decoded(file: str, number: int, line: bytes) -> bytes:
    try:
        return base64.b64decode(line.split(b" ")[0], validate=True)
    except (binascii.Error, ValueError):
        raise BadExport(file, f"token {number}", f"{line[:20]!r} is not base64") from None
