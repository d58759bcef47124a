"""A value that is made once, or the error that prevented it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """The result of an attempt to make something: the value, or the error, which is raised at each access."""

    _value: T | None
    error: Exception | None = None

    @classmethod
    def of(cls, make: Callable[[], T], *errors: type[Exception]) -> Attempt[T]:
        """Call `make`, and remember an exception of the given kinds. Others pass through."""
        try:
            return cls(make())
        except errors as error:
            return cls(None, error)

    @property
    def value(self) -> T:
        """The value. Raises the error of the attempt, always the same object."""
        if self.error is not None:
            raise self.error
        return cast("T", self._value)
