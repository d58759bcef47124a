"""Runs independent work on the processors that there are: numpy releases the interpreter while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
#: More threads need more memory, and share its bandwidth.
_MOST: Final = 4


def in_threads(function: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """The answers of a function for some items, in their order. Raises what the function raises for the first item."""
    work = list(items)
    count = min(_MOST, os.cpu_count() or 1, len(work))
    if count < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, work))
