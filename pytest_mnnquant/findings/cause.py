"""The cause of a finding: a mechanism, with an id for the code and a sentence for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ID: Final = re.compile(r"[a-z]+(-[a-z]+)*")
#: Joins the ids of several mechanisms.
AND: Final = "+"


@dataclass(frozen=True, slots=True)
class Cause:
    """A mechanism that causes a finding.

    Findings of one rule with the same `id` have the same cause, even if their `text` differs: the id never holds a
    number or the name of a layer. `text` is what people read. Raises `ValueError` for an id that is not kebab-case.
    """

    id: str
    text: str

    def __post_init__(self) -> None:
        """Keep numbers and names out of the id."""
        if not all(_ID.fullmatch(part) for part in self.id.split(AND)):
            raise ValueError(
                f"{self.id!r} is not a valid id of a cause: expected lower-case words with hyphens between them"
            )


def joined(*causes: Cause | None) -> Cause | None:
    """Several mechanisms that work together, as one cause, in this order; None without any."""
    known = [cause for cause in causes if cause is not None]
    if len(known) < 2:
        return known[0] if known else None
    return Cause(AND.join(cause.id for cause in known), "; ".join(cause.text for cause in known))


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a finding: the cause, None if the evidence does not show one, and how to fix it."""

    cause: Cause | None = None
    fix: str = ""
