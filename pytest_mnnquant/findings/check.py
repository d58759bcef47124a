"""A check: what the catalogue says of it. Its functions are loaded when they are called."""

from __future__ import annotations

import enum
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mnnquant.findings.check_metrics import Metrics
    from pytest_mnnquant.findings.finding import Result


class RunsOn(enum.Enum):
    """Where a check judges a variant, beside this host."""

    HOST = "this host alone"
    TARGET = "each target"
    DEVICE = "each target that is a device"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a variant.

    `function` judges it; the evidence that it is called with is found by the names of its parameters (see
    `evidence.check_inputs`). `metrics` is the class of what it measures, `chart` the function that gathers what its
    charts show; empty: none. `assertion` is the name of its assertion in tests, if that is not `assert_` and its own
    name. `is_static`: it judges files alone, so it can run at any time, and costs little. `after`
    are the checks that run before it if they are selected, since what they find may be the cause. `restated_by` are
    those that run with it if one of its errors may be the lesser part of theirs. `is_timed`: it measures times, so it
    runs only if nothing else runs beside it.
    """

    name: str
    function: str = ""
    metrics: str = ""
    chart: str = ""
    assertion: str = ""
    runs_on: RunsOn = RunsOn.HOST
    is_static: bool = False
    is_timed: bool = False
    after: tuple[str, ...] = ()
    restated_by: tuple[str, ...] = ()

    @property
    def assertion_name(self) -> str:
        """The name of its assertion in tests."""
        return self.assertion or f"assert_{self.name}"

    def load_function(self) -> Callable[..., Result]:
        """The function that judges."""
        function: Callable[..., Result] = load(self.function)
        return function

    @property
    def metrics_kind(self) -> type[Metrics] | None:
        """The class of what it measures."""
        kind: type[Metrics] | None = load(self.metrics) if self.metrics else None
        return kind

    def is_run_on(self, *, is_device: bool) -> bool:
        """Whether it judges what runs on a target."""
        return self.runs_on is RunsOn.TARGET or (self.runs_on is RunsOn.DEVICE and is_device)


def load(name: str) -> Any:
    """What `module:name` of this package stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"pytest_mnnquant.{module}"), attribute)
