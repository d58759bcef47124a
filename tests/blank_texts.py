"""A pytest plugin (`-p tests.blank_texts`) that puts "x" for every text: messages, causes, fixes, reasons, errors.

What is decided by a text is decided otherwise then.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from typing import Any, Final

from pytest_mnnquant.baseline.file import BadBaseline
from pytest_mnnquant.baseline.models import BadArtifact
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.json_fields import BadField
from pytest_mnnquant.metrics.task import MetricError
from pytest_mnnquant.mnnfile.flatbuffer import BadModel
from pytest_mnnquant.mnnfile.wire import BadParams
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.spec import SourceError

BLANK: Final = "x"
_ERRORS: Final = (BadArtifact, BadBaseline, BadField, BadModel, BadParams, MetricError, SourceError, Unusable)


def blank(text: str) -> str:
    """No text stays empty."""
    return BLANK if text else text


def _blank_arguments(kind: type[Any], *names: str) -> None:
    """Put "x" for these fields of all instances of a class, of those that modules hold and of those to come."""
    for known in (instance for instance in gc.get_objects() if type(instance) is kind):
        for name in names:
            object.__setattr__(known, name, blank(getattr(known, name)))
    make, signature = kind.__init__, inspect.signature(kind.__init__)

    def make_blank(*args: Any, **more: Any) -> None:
        given = signature.bind(*args, **more)
        given.arguments.update({name: blank(given.arguments[name]) for name in names if name in given.arguments})
        make(*given.args, **given.kwargs)

    kind.__init__ = make_blank


def _with_subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _with_subclasses(below)


def pytest_configure() -> None:
    """Blank all texts from now on."""
    _blank_arguments(Cause, "text")
    _blank_arguments(Finding, "message", "fix")
    _blank_arguments(Result, "reason")
    _blank_arguments(NativeFailure, "what", "log", "fix")
    for error in _ERRORS:
        for kind in _with_subclasses(error):
            kind.__str__ = lambda _self: BLANK  # type: ignore[method-assign]
