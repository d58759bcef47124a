"""A rule: one way in which a variant can be wrong."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pytest_mnnquant.findings.effects import EVERYTHING, Effects, Stage


class Severity(str, enum.Enum):
    """An error fails its check, a warning is only reported, a gap leaves the check inconclusive.

    A consequence is an error that follows from another one: it fails its check too, and fixing that one fixes it.
    """

    ERROR = "error"
    CONSEQUENCE = "consequence"
    WARNING = "warning"
    GAP = "gap"


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a variant can be wrong; `since` is the first version that has the rule."""

    code: str
    name: str
    severity: Severity
    meaning: str
    effects: Effects
    since: str = "0.1.0"

    @property
    def title(self) -> str:
        """Code and name, as reports write them."""
        return f"{self.code} {self.name}"

    @property
    def stage(self) -> Stage:
        """Its stage between the source and the outputs."""
        return self.effects.stage

    @property
    def is_global(self) -> bool:
        """Whether it has consequences in other layers."""
        return bool(self.effects.explains_in_any_layer)

    def explains(self, code: str, *, in_any_layer: bool = False) -> bool:
        """Whether the rule of this code is broken as a consequence: in the same layer, or in any layer."""
        if in_any_layer:
            return self.effects.explains_in_any_layer is EVERYTHING or code in self.effects.explains_in_any_layer
        return code in self.effects.explains
