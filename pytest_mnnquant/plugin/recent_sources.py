"""Keeps the evidence of the models that ran last, so that memory and open files do not grow with the number of models.

What is forgotten is made again from the cache if another check needs it.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Final

import pytest

from pytest_mnnquant.evidence.source import SourceUnderTest

#: The number of models whose evidence is kept.
LIMIT: Final = 16
_RECENT: Final = pytest.StashKey[dict[int, SourceUnderTest]]()


def note_use(session: pytest.Session, source: SourceUnderTest) -> None:
    """Note that a check of a source ran, and forget the evidence of sources that ran before the last `LIMIT` ones."""
    recent = session.stash.setdefault(_RECENT, {})
    recent.pop(id(source), None)
    recent[id(source)] = source
    while len(recent) > LIMIT:
        oldest = recent.pop(next(iter(recent)))
        for case in oldest.variants:
            forget(case)
        forget(oldest)


def forget(instance: object) -> None:
    """Delete the values of all cached properties of an object."""
    for name in list(vars(instance)):
        if isinstance(inspect.getattr_static(type(instance), name, None), cached_property):
            del vars(instance)[name]
    vars(instance).pop("_step_failures", None)
