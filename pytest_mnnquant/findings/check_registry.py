"""The checks: each is registered here once, and its marker, its items, its metrics and its charts follow from that.

Loading this module loads no check: an entry names its functions as `module:function` of this package.
"""

from __future__ import annotations

import enum
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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
    charts show; empty: none. `is_static`: it judges files alone, so it can run at any time, and costs little. `after`
    are the checks that run before it if they are selected, since what they find may be the cause. `is_timed`: it
    measures times, so it runs only if nothing else runs beside it.
    """

    name: str
    function: str = ""
    metrics: str = ""
    chart: str = ""
    runs_on: RunsOn = RunsOn.HOST
    is_static: bool = False
    is_timed: bool = False
    after: tuple[str, ...] = ()

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


#: The checks of a variant, in order of dependence.
CHECKS: Final = (
    Check(
        "conversion",
        "checks.conversion.check:check_conversion",
        "findings.check_metrics:ConversionMetrics",
        is_static=True,
    ),
    Check("params", "checks.params.check:check_params", "findings.check_metrics:ParamsMetrics", is_static=True),
    Check("coverage", "checks.coverage.check:check_coverage", "findings.check_metrics:CoverageMetrics", is_static=True),
    Check(
        "weights",
        "checks.weights.check:check_weights",
        "findings.check_metrics:WeightsMetrics",
        chart="evidence.chart_samples:weight_samples",
        is_static=True,
    ),
    Check(
        "execution",
        "checks.execution:check_execution",
        "findings.check_metrics:ExecutionMetrics",
        runs_on=RunsOn.TARGET,
    ),
    Check("size", "checks.size:check_size", "findings.check_metrics:SizeMetrics", is_static=True),
    Check("bundle", "checks.bundle:check_bundle", "findings.check_metrics:BundleMetrics", is_static=True),
    Check(
        "calibration",
        "checks.calibration.check:check_calibration",
        "findings.check_metrics:CalibrationMetrics",
        chart="evidence.chart_samples:activation_samples",
    ),
    Check(
        "accuracy",
        "evidence.accuracy_check:judge_accuracy",
        "findings.check_metrics:AccuracyMetrics",
        chart="evidence.chart_samples:layer_loss_samples",
        runs_on=RunsOn.TARGET,
        after=("execution", "calibration"),
    ),
    Check(
        "latency",
        "checks.latency:check_latency",
        "findings.check_metrics:LatencyMetrics",
        chart="evidence.chart_samples:timed_pairs",
        runs_on=RunsOn.DEVICE,
        is_timed=True,
    ),
    Check("memory", "checks.memory:check_memory", "findings.check_metrics:MemoryMetrics", runs_on=RunsOn.DEVICE),
)

#: Their names, in the same order.
CHECK_NAMES: Final = tuple(check.name for check in CHECKS)
#: If a baseline file is in use, the last check of each variant, and the check of the file itself.
BASELINE: Final = "baseline"
ENTRIES: Final = "entries"
_ALL: Final = {
    check.name: check
    for check in (*CHECKS, Check(BASELINE, metrics="findings.check_metrics:BaselineMetrics"), Check(ENTRIES))
}
#: The names of all checks that a report may hold.
ALL_NAMES: Final = tuple(_ALL)


def check_named(name: str) -> Check:
    """The check of this name, `baseline` and `entries` among them. Raises `KeyError`."""
    return _ALL[name]
