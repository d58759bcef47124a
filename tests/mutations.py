"""Damage to bytes, as hypothesis strategies."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import strategies as st

Edit = Callable[[bytearray], None]


def _truncate(share: float) -> Edit:
    def edit(data: bytearray) -> None:
        del data[int(share * len(data)) :]

    return edit


def _flip(share: float, bit: int) -> Edit:
    def edit(data: bytearray) -> None:
        if data:
            data[int(share * len(data))] ^= 1 << bit

    return edit


def _word(share: float, value: int) -> Edit:
    """Overwrite an aligned word: in a flatbuffer that is an offset, a length or a number."""

    def edit(data: bytearray) -> None:
        at = int(share * len(data)) // 4 * 4
        if at + 4 <= len(data):
            struct.pack_into("<I", data, at, value)

    return edit


def _splice(source: float, target: float, size: int) -> Edit:
    """Copy a piece of the data over another place."""

    def edit(data: bytearray) -> None:
        start, at = int(source * len(data)), int(target * len(data))
        piece = data[start : start + size]
        data[at : at + len(piece)] = piece

    return edit


def _drop(share: float, size: int) -> Edit:
    def edit(data: bytearray) -> None:
        start = int(share * len(data))
        del data[start : start + size]

    return edit


_shares = st.floats(0, 1, exclude_max=True)
_words = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 0x7F800000, 0xFF7FFFFF, 0x7FC00000]),
)
edits = st.lists(
    st.one_of(
        st.builds(_truncate, _shares),
        st.builds(_flip, _shares, st.integers(0, 7)),
        st.builds(_word, _shares, _words),
        st.builds(_splice, _shares, _shares, st.integers(1, 64)),
        st.builds(_drop, _shares, st.integers(1, 8)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, changes: list[Edit]) -> bytes:
    """A damaged copy."""
    copy = bytearray(data)
    for change in changes:
        change(copy)
    return bytes(copy)
