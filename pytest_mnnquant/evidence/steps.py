"""The steps in which evidence is gathered, and the errors that prevent one.

An error of a model, its data or MNN is one of `UNUSABLE`. Any other exception inside a step becomes `StepFailed`, which
names the step, so that one exception is one finding: checks that need the same step get the same error.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.step_clock import timed_step
from pytest_mnnquant.sources.spec import SourceError, describe
from pytest_mnnquant.sources.user_code import UserCodeExit

T = TypeVar("T")
_FRAMES: Final = 4
_ISSUES: Final = "report it with the command and the model: https://github.com/pytest-mnnquant/pytest-mnnquant/issues"


class Unusable(Exception):
    """No variant can be judged; `finding` is the reason."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class NothingToJudge(Exception):
    """A check has nothing to judge; the text is the reason. `not_applicable`: this is so for all uses of the recipe."""

    def __init__(self, reason: str, not_applicable: bool = False) -> None:
        super().__init__(reason)
        self.not_applicable = not_applicable


class StepFailed(Exception):
    """A step raised an exception that no part of the package expects; `step` is its name, in lower-case words."""

    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(f"the step '{step}' raised {describe(error)}")
        self.step = step
        self.error = error

    @property
    def finding(self) -> Finding:
        """The finding. Its cause identifies the step."""
        frames = traceback.extract_tb(self.error.__traceback__)[-_FRAMES:]
        calls = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        cause = Cause(re.sub(r"[^a-z]+", "-", self.step).strip("-"), f"calls, the last one raised it: {calls}")
        return Finding(INTERNAL, str(self), cause=cause, fix=_ISSUES)

    @property
    def line(self) -> str:
        """The error in one line, for errors outside of checks."""
        return f"{INTERNAL}: {self}; {_ISSUES}"


#: The code of a finding of `StepFailed`.
INTERNAL: Final = "MNQ004"
#: Errors of a model, its data, MNN or a step.
UNUSABLE: Final = (SourceError, NativeFailure, BadModel, OSError, UserCodeExit, StepFailed)


@contextlib.contextmanager
def step(name: str, *expected: type[Exception]) -> Iterator[None]:
    """Raise `StepFailed` for an unexpected exception inside; `UNUSABLE` and `expected` errors pass unchanged."""
    known: tuple[type[Exception], ...] = (*UNUSABLE, Unusable, NothingToJudge, *expected)
    try:
        with timed_step(name):
            yield
    except known:
        raise
    except Exception as error:
        raise StepFailed(name, error) from error


class StepProperty(cached_property[T]):
    """A cached property that is one step: its error is cached too, and is always the same object."""

    def __init__(self, function: Callable[[Any], T], name: str) -> None:
        super().__init__(function)
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> StepProperty[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> StepProperty[T] | T:
        """The value. Raises the error of the first access."""
        if instance is None:
            return self
        failures: dict[str | None, Exception] = instance.__dict__.setdefault("_step_failures", {})
        if self.attrname in failures:
            raise failures[self.attrname]
        try:
            with step(self._name):
                return super().__get__(instance, owner)
        except Exception as error:
            failures[self.attrname] = error
            raise


def step_property(name: str) -> Callable[[Callable[[Any], T]], StepProperty[T]]:
    """Make a method a `StepProperty`; `name` is the step, in lower-case words."""
    return lambda function: StepProperty(function, name)
