"""A check, as the catalogue describes it. Its functions are loaded when they are called."""

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
    """Where a check judges a variant, besides this host."""

    HOST = "this host alone"
    TARGET = "each target"
    DEVICE = "each target that is a device"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a variant.

    `function` judges the variant; the names of its parameters select the evidence that it gets (see
    `evidence.check_inputs`). `metrics` is the class of its metrics, `chart` the function that collects the data of its
    charts; empty: none. `assertion` is the name of its assertion in tests, if that is not `assert_` and its own
    name. `is_static`: it judges only files, so it can run at any time and costs little. `after` are
    the checks that run before it if they are selected, since they may find the cause. `restated_by` are the checks that
    run with it if their errors may describe its errors more completely. `is_timed`: it measures times, so nothing else
    may run at the same time.
    `meaning` says what is true if it passes, `rules` are the codes that it reports, or prefixes of them, without those
    that every check reports. `options` are the names of the options that concern it.
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
    meaning: str = ""
    rules: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def reports(self, code: str) -> bool:
        """Whether it reports the rule of this code; False for rules that every check reports."""
        return code.startswith(self.rules)

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
        """The class of its metrics."""
        kind: type[Metrics] | None = load(self.metrics) if self.metrics else None
        return kind

    def is_run_on(self, *, is_device: bool) -> bool:
        """Whether it judges what runs on a target."""
        return self.runs_on is RunsOn.TARGET or (self.runs_on is RunsOn.DEVICE and is_device)


def load(name: str) -> Any:
    """The object that `module:name` of this package names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"pytest_mnnquant.{module}"), attribute)
