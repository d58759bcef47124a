"""A quantized model, as the user's tests get it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_mnnquant.checks.coverage.check import coverage
from pytest_mnnquant.config.settings import Limits, ModelSettings
from pytest_mnnquant.evidence.check_inputs import timing_of
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.steps import Unusable
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.finding import FAILED, Result
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.plugin import benchmark
from pytest_mnnquant.plugin.records import attach
from pytest_mnnquant.plugin.session import session_of, start_for_fixtures
from pytest_mnnquant.report.failure import failure_text
from pytest_mnnquant.sources.spec import SourceError
from pytest_mnnquant.statistics.paired_ratio import PairedRatio, paired_ratio

T = TypeVar("T")


class Quantized:
    """One quantized model: its files, its metrics and its checks."""

    def __init__(self, case: VariantUnderTest, node: pytest.Item, limits: Limits) -> None:
        self._case = case
        self._node = node
        self.limits = limits

    def __repr__(self) -> str:
        """Model and variant."""
        return f"<{self._case.source.settings.name} {self._case.label}>"

    @property
    def _usable(self) -> VariantUnderTest:
        """The variant; fails the test with the reason if it can't be built."""
        if self._case.is_unusable:
            pytest.fail(
                failure_text(self._case.full_name, run_check(self._case, "conversion", self.limits)), pytrace=False
            )
        return self._case

    @property
    def path(self) -> Path:
        """The quantized `.mnn` file."""
        return self._usable.model.path

    @property
    def float_path(self) -> Path:
        """The float `.mnn` file that the quantized one is compared with."""
        return self._usable.source.prepared.model.path

    @property
    def params_path(self) -> Path | None:
        """The params file that the model was built with, if any."""
        return self._usable.variant.params

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return self._case.recipe.name

    @property
    def mode(self) -> str | None:
        """`train`, `eval` or None."""
        return self._case.mode

    @property
    def size_ratio(self) -> float:
        """Float bytes / quantized bytes."""
        return self._usable.variant.base.size / self._case.model.size

    @property
    def coverage(self) -> float:
        """Share of weight bytes stored as the recipe requests, in [0, 1]."""
        return coverage(self._usable.files.rows)

    def require(self, check: str, **limits: Any) -> dict[str, Any]:
        """Run a check and return its metrics; if it does not pass, fail the test with the findings as message.

        A check that has nothing to check fails too, since the test requires it. `limits` that are not None replace
        those of the options.
        """
        __tracebackhide__ = True
        given = {key: value for key, value in limits.items() if value is not None}
        chosen = _or_fail(lambda: self.limits.with_changes(given, f"assert ({check})"))
        result = self._run(check, chosen)
        attach(self._node, self._case, result)
        if not result:
            pytest.fail(failure_text(self._case.full_name, result), pytrace=False)
        return result.metrics.as_json() if result.metrics else {}

    def _run(self, check: str, limits: Limits) -> Result:
        strict = session_of(self._node.config).settings.strict
        return benchmark.run_and_record(self._node, self._case, check, limits, strict)

    def latency(self) -> PairedRatio:
        """Time against the float model; skips the test if timing is not possible (xdist, --benchmark-disable)."""
        result = self._run("latency", self.limits)
        attach(self._node, self._case, result)
        if not benchmark.was_timed(result):
            if result.outcome == FAILED:
                pytest.fail(failure_text(self._case.full_name, result), pytrace=False)
            pytest.skip(result.reason)
        times = self._case.costs.times(timing_of(self._case, self.limits))
        return paired_ratio(times.reference, times.candidate)


def source_for(node: pytest.Item, values: FixtureValues) -> SourceUnderTest:
    """The source of the fixtures' values. Fails the test if it can't be used."""
    session = start_for_fixtures(node.config)
    model = values.model
    if isinstance(model, ModelSettings):
        settings = model
        if values.calibration is None and values.evaluation is None:
            return next(source for source in session.sources if source.settings == settings)
        model = settings.source
    elif isinstance(model, str | Path):
        model, stem = str(model), Path(str(model).partition(":")[0]).stem
        settings = dataclasses.replace(session.settings.defaults, source=model, name=stem)
    elif model is None:
        pytest.fail("mnn_model: returned None; expected a torch.nn.Module or a specification", pytrace=False)
    else:
        settings = dataclasses.replace(session.settings.defaults, name=type(model).__name__)
    values = dataclasses.replace(values, model=model)
    return _or_fail(lambda: session.source_for(settings, values), "mnn_model: ")


def float_for(node: pytest.Item, values: FixtureValues) -> Model:
    """The float model for a test. Fails the test if it can't be built."""
    return _or_fail(lambda: source_for(node, values).prepared.model, "mnn_float: ")


def quantized_for(
    node: pytest.Item, values: FixtureValues, recipe: str, mode: str | None, tolerances: dict[str, Any]
) -> Quantized:
    """The variant for a test. Fails the test if the tolerances or the model can't be used."""
    source = source_for(node, values)
    limits = _or_fail(lambda: source.settings.limits.with_changes(tolerances, "mnn_tolerances"))
    return Quantized(variant_under_test(source, recipe, mode), node, limits)


def _or_fail(action: Callable[[], T], title: str = "") -> T:
    """The value of `action`; fails the test with one line if the user's model, data or limits can't be used.

    The failure is raised outside of `except`; otherwise pytest would show the first exception too.
    """
    try:
        return action()
    except (ValueError, SourceError, Unusable) as error:
        fix = ""
        if isinstance(error, Unusable):
            fix = error.finding.fix
        elif isinstance(error, SourceError):
            fix = error.fix
        problem = str(error) + (f"\nfix: {fix}" if fix else "")
    pytest.fail(title + problem, pytrace=False)
