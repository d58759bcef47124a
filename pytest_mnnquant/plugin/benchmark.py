"""Runs checks for tests. Timed ones run only undisturbed, and are recorded among pytest-benchmark's results."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.cache.manifest import file_digest
from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.check_inputs import held_limits, timing_of
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.catalogue import check_named
from pytest_mnnquant.findings.check_metrics import IN_BENCHMARK, metrics_of
from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.run_metrics import LatencyMetrics
from pytest_mnnquant.measurements.timing import PairedTimes
from pytest_mnnquant.plugin.session import session_of

# The name of the timer in pytest-benchmark's results.
_TIMER: Final = "perf_counter in a child process"
#: pytest-benchmark's extra info of each timed variant; the metrics of later checks are added to it.
_RECORDS: Final = pytest.StashKey[dict[int, dict[str, Any]]]()


def run_and_record(
    node: pytest.Item,
    case: VariantUnderTest,
    name: str,
    limits: Limits,
    strict: bool,
    selected: Collection[str] = (),
) -> Result:
    """Like `run_undisturbed`, and record timings with pytest-benchmark."""
    result = run_undisturbed(node.config, case, name, limits, strict, selected)
    if was_timed(result):
        _record(node, case, case.costs.times(timing_of(case, limits)), result)
    return result


def run_undisturbed(
    config: pytest.Config,
    case: VariantUnderTest,
    name: str,
    limits: Limits,
    strict: bool,
    selected: Collection[str] = (),
) -> Result:
    """Run a check as `check_runner.run_check` does, but time only if the run is undisturbed.

    If timing is not possible (xdist, --benchmark-disable), a check with a limit is inconclusive, never passed.
    """
    check = check_named(name)
    reason = why_not_timed(config) if check.is_timed else ""
    if not reason:
        return run_check(case, name, limits, strict, selected)
    if all(getattr(limits, limit) is None for limit in held_limits(check.load_function())):
        return Result.skipped(name, f"not measured: {reason}")
    command = shlex.join(["pytest", *session_of(config).arguments, "-k", name, "-p", "no:xdist"])
    fix = f"run the {name} checks without workers: {command}"
    return Result.from_findings(name, [Finding("MNQ003", f"not measured: {reason}", fix=fix)])


def was_timed(result: Result) -> bool:
    """Whether this result of the latency check has a ratio, which requires enough pairs of runs."""
    metrics = metrics_of(LatencyMetrics, [result])
    return metrics is not None and metrics.latency_ratio is not None


def why_not_timed(config: pytest.Config) -> str:
    """Why this run can't time anything; empty if it can."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return "parallel workers (-n) disturb the timing"
    if config.getoption("benchmark_disable", False) or config.getoption("benchmark_skip", False):
        return "benchmarks are disabled (--benchmark-disable)"
    return ""


def benchmark_session(config: pytest.Config) -> Any:
    """pytest-benchmark's own state of this run, with its results; None without pytest-benchmark."""
    return config.pluginmanager.getplugin("pytest-benchmark")


def suppress_tables(config: pytest.Config) -> None:
    """Hide pytest-benchmark's tables if they show variants only: the summary shows these in 80 columns.

    The tables stay if the user compares runs, requests a histogram or chooses columns.
    """
    session = benchmark_session(config)
    are_requested = any(config.getoption(f"benchmark_{name}", None) for name in ("compare", "histogram", "columns"))
    if session is not None and not are_requested:
        session.quiet = session.quiet or all(timed.options.get("timer") == _TIMER for timed in session.benchmarks)


class _Replay:
    """A clock that advances by durations that were measured in a child process."""

    def __init__(self, durations: npt.NDArray[np.float64]) -> None:
        self.now = 0.0
        self._durations = iter(durations.tolist())

    def step(self) -> None:
        self.now += next(self._durations)

    def target(self) -> float:
        return self.now


def _record(node: pytest.Item, case: VariantUnderTest, times: PairedTimes, result: Result) -> None:
    config = node.config
    session = benchmark_session(config)
    records = config.stash.setdefault(_RECORDS, {})
    if session is None or id(times) in records:  # -p no:benchmark, or another test has already recorded these times.
        return
    from pytest_benchmark.fixture import BenchmarkFixture

    name = case.source.settings.name
    for label, durations in (("float", times.reference), (case.label, times.candidate)):
        replay = _Replay(durations)
        fixture = BenchmarkFixture(
            node,
            add_stats=session.benchmarks.append,
            logger=session.logger,
            warner=node.warn,
            disabled=session.disabled,
            group=f"{name} {case.label}",
            **{**session.options, "timer": replay, "cprofile": False},
        )
        fixture.name = f"{name}::{label}"
        fixture.fullname = f"{node.nodeid}::{label}"
        fixture.extra_info.update(_extra_info(case, label, result))
        records[id(times)] = fixture.extra_info  # The last key is the variant's; the case keeps the times alive.
        fixture.pedantic(replay.step, rounds=len(durations))
        # The clock can't be pickled and means nothing in a stored result; a text describes what it replays.
        fixture.stats.options["timer"] = _TIMER


def add_figures(config: pytest.Config, case: VariantUnderTest, result: Result) -> None:
    """Add the metrics of a check to pytest-benchmark's extra info of a variant that was timed before."""
    records = config.stash.get(_RECORDS, {})
    times = None if case.is_unusable else case.costs.known_times
    if times is not None and id(times) in records:
        records[id(times)].update(_figures(result))


def _figures(result: Result) -> dict[str, Any]:
    return result.metrics.marked(IN_BENCHMARK) if result.metrics else {}


def _extra_info(case: VariantUnderTest, label: str, result: Result) -> dict[str, Any]:
    """The metrics for pytest-benchmark's results, of all checks that have run."""
    is_float = label == "float"
    model = case.variant.base if is_float else case.model
    timed = metrics_of(LatencyMetrics, [result]) or LatencyMetrics()
    info: dict[str, Any] = {
        "model": case.source.settings.name,
        "recipe": "float" if is_float else case.recipe.name,
        "mode": None if is_float else case.mode,
        "target": case.target,
        "bytes": model.size,
        "sha256": file_digest(model.path),
        "settings": as_json(timed.settings),
        "host": as_json(timed.host),
    }
    if is_float:
        return info
    info |= timed.marked(IN_BENCHMARK)
    for known in case.results:
        info |= _figures(known) if known.check != result.check else {}
    return info
