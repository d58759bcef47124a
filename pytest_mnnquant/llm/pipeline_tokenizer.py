"""The binary form of a tokenizer, `tokenizer.mtok`: the steps of a `tokenizer.json`, its vocabulary and merges.

Written by `LlmTokenizer.export_mtok` (transformers/llm/export/utils/tokenizer.py), read by `tokenizer.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.llm.byte_cursor import ByteCursor
from pytest_mnnquant.llm.tokenizer import AddedToken, Header, Step, Tokenizer

_DEEPEST: Final = 8
#: Where the text stands in the program around it.
TEXT: Final = -1


def parse_pipeline(file: str, data: bytes, header: Header) -> Tokenizer:
    """Read what follows the header, to the last byte. Raises `BadExport`."""
    cursor = ByteCursor(file, data, header.end)
    steps = {
        "normalizer": _step(cursor, "normalizer", _normalizer, 0),
        "pre_tokenizer": _step(cursor, "pre_tokenizer", _pre_tokenizer, 0),
    }
    tokens, merges, steps["model"] = _model(cursor)
    steps["decoder"] = _step(cursor, "decoder", _decoder, 0)
    cursor.section = "added_tokens"
    added = tuple(_added(cursor) for _ in range(cursor.count(9)))
    cursor.section = "chat_template"
    template, eos = cursor.long_string(), cursor.string()
    cursor.section = "bos_token"
    bos, single = "", tuple[int, ...]()
    if cursor.rest:  # Exporters of MNN 3.5 and later.
        cursor.u8()
        bos = cursor.string()
    cursor.section = "post_processor"
    if cursor.rest:  # Exporters of MNN 3.6 and later.
        single = tuple(_program(cursor))
    if cursor.rest:
        raise cursor.fault(f"{cursor.rest:,} bytes follow its end")
    ids = header.special_ids, header.stop_ids, header.prefix_ids
    return Tokenizer(file, "pipeline", *ids, tokens, merges, added, steps, template, bos, eos, single)


def _program(cursor: ByteCursor) -> Iterator[int]:
    for _ in range(cursor.u16()):
        yield cursor.u32() if cursor.u8() else TEXT


def _added(cursor: ByteCursor) -> AddedToken:
    number, special, left, right = cursor.u32(), *map(bool, cursor.take(3))
    return AddedToken(number, cursor.string(), special, left, right)


def _step(cursor: ByteCursor, section: str, read: Callable[[ByteCursor, int, int], Step], depth: int) -> Step:
    cursor.section = section
    if depth > _DEEPEST:
        raise cursor.fault("its steps are nested too deeply")
    return read(cursor, cursor.u8(), depth)


def _sequence(cursor: ByteCursor, read: Callable[[ByteCursor, int, int], Step], depth: int) -> Step:
    return ("Sequence", *(_step(cursor, cursor.section, read, depth + 1) for _ in range(cursor.count(1))))


def _table(cursor: ByteCursor) -> None:
    for _ in range(cursor.count(6)):
        cursor.u32()
        cursor.take(cursor.u16())


def _normalizer(cursor: ByteCursor, kind: int, depth: int) -> Step:
    if kind in (0, 1):
        return ("Table",) if kind else ()
    if kind == 2:
        return "Prepend", cursor.string()
    if kind == 3:
        return "Replace", cursor.string(), cursor.string()
    if kind == 4:
        return _sequence(cursor, _normalizer, depth)
    if kind in (5, 7):
        step = ("Bert", *cursor.take(4))
        if kind == 7:
            _table(cursor)
        return step
    if kind == 6:
        _table(cursor)
        return ("Table",)
    if kind == 8:
        return ("Strip", *cursor.take(2))
    raise cursor.fault(f"{kind} is not the number of a step")


def _pre_tokenizer(cursor: ByteCursor, kind: int, depth: int) -> Step:
    if kind in (0, 5):
        return ("Bert",) if kind else ()
    if kind in (1, 2):
        return "ByteLevel" if kind == 1 else "Digits", cursor.u8()
    if kind == 3:
        return "Metaspace", cursor.string(), cursor.u8()
    if kind == 4:
        return "Split", cursor.string(), *cursor.take(2)
    if kind == 6:
        return _sequence(cursor, _pre_tokenizer, depth)
    raise cursor.fault(f"{kind} is not the number of a step")


def _decoder(cursor: ByteCursor, kind: int, depth: int) -> Step:
    if kind in (0, 1, 4):
        return ({0: "ByteLevel", 1: "ByteFallback", 4: "Fuse"}[kind],)
    if kind in (2, 3):
        return {2: "Metaspace", 3: "WordPiece"}[kind], cursor.string(), cursor.u8()
    if kind == 5:
        return "Replace", cursor.string(), cursor.string()
    if kind == 6:
        return "Strip", cursor.string(), cursor.u32(), cursor.u32()
    if kind == 7:
        return _sequence(cursor, _decoder, depth)
    raise cursor.fault(f"{kind} is not the number of a step")


def _model(cursor: ByteCursor) -> tuple[dict[str, int], tuple[tuple[int, int], ...], Step]:
    """Tokens, merges in order of rank, and the settings of the model."""
    cursor.section = "model"
    kind = cursor.u8()
    size = cursor.count(6)
    if kind == 0:
        settings: Step = ("BPE", cursor.u8(), cursor.u8())
        count = cursor.count(12)
        tokens = _tokens(cursor, size, 0)
        table = cursor.u32_array(count, 3)
        ordered = table[np.argsort(table[:, 2], kind="stable")][:, :2]
        return tokens, tuple(map(tuple, ordered.tolist())), settings
    if kind == 1:
        settings = ("WordPiece", cursor.string(), cursor.string(), cursor.u32())
        return _tokens(cursor, size, 0), (), settings
    if kind == 2:
        settings = ("Unigram", cursor.u32(), cursor.u8())
        return _tokens(cursor, size, 8), (), settings
    raise cursor.fault(f"{kind} is not the number of a model")


def _tokens(cursor: ByteCursor, size: int, score_bytes: int) -> dict[str, int]:
    cursor.section = "vocabulary"
    tokens = {}
    for _ in range(size):
        text = cursor.string()
        tokens[text] = cursor.u32()
        cursor.take(score_bytes)
    return tokens
