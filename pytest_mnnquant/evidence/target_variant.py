"""A variant on a target: what ran there, and whether it computed what this machine does."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from pytest_mnnquant.checks.target.check import ROUNDING, TargetEvidence
from pytest_mnnquant.checks.target.mnn_versions import Runtimes
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.caches import TargetKey, VariantKey
from pytest_mnnquant.evidence.operator_differences import compare_operators, output_scales
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.accuracy_metrics import TargetFacts
from pytest_mnnquant.measurements.host import Host, TargetMachine
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.report.variant_report import VariantReport
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.operator_outputs import LOOPS
from pytest_mnnquant.targets.target import NO_TRACE, Target, TargetFailure, installed_mnn


class TargetVariant(VariantUnderTest):
    """A variant on a target. `home` is the variant on this host, which has the evidence from files."""

    def __init__(self, home: VariantUnderTest, target: Target) -> None:
        super().__init__(home.gate, home.recipe, home.mode)
        self.home = home
        self._place = target
        self.target = target.name
        self.send = target.send
        self.label = f"{home.label}@{target.name}"

    @cached_property
    def _variant(self) -> Attempt[Variant]:
        return self.home._variant

    @property
    def run(self) -> Run:
        """The variant on the same inputs as the float model, there. What fails once is not tried again."""
        return self._attempted_run.value

    @property
    def is_lost(self) -> bool:
        """Whether it does not run there; the execution check says why."""
        return not self.is_unusable and self._attempted_run.error is not None

    @cached_property
    def _attempted_run(self) -> Attempt[Run]:
        self.say("running")
        return Attempt.of(lambda: self._ran(self.model), NativeFailure)

    def _run(self, model: Model) -> Run:
        found = super()._run(model)
        return found if _machine(found).traces_int8 else dataclasses.replace(found, trace=None)

    @property
    def host(self) -> Host:
        """The machine that it runs on, as reported with the run."""
        return _machine(self.run).host

    @property
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run as it is: what it computes there is what counts."""
        return self.run, ()

    @property
    def uncovered_pools(self) -> tuple[str, ...]:
        """None: what is computed there is what counts."""
        return ()

    @property
    def untraced(self) -> str:
        """Why MNN gave no trace there; empty where that is the model's own fault."""
        machine = _machine(self.run)
        return "" if machine.traces_int8 else NO_TRACE.format(mnn=machine.mnn)

    @property
    def runtimes(self) -> Runtimes:
        """Which MNN runs there, which here, and which made the model."""
        return Runtimes(self._place.mnn, installed_mnn(), self.model.version, self.recipe.symmetric_name)

    def _float_run(self) -> Run:
        """The float model there."""
        return self.gate.float_run_on(self.target, self._run)

    @property
    def crashes(self) -> bool:
        """Whether the variant crashes the MNN there."""
        error = self._attempted_run.error
        return isinstance(error, TargetFailure) and error.kind is FailureKind.CRASHED

    @cached_property
    def runs_float(self) -> bool:
        """Whether the float model runs there."""
        try:
            self._float_run()
        except NativeFailure:
            return False
        return True

    @cached_property
    def same_as_float(self) -> bool | None:
        """Whether all outputs equal the float model's there; asked where the trace does not tell it."""
        if self.recipe.activations or self.home.same_as_float is None:
            return None
        theirs = self._float_run().outputs
        return all(np.array_equal(array, theirs[name]) for name, array in self.run.outputs.items())

    @cached_property
    def difference_evidence(self) -> TargetEvidence:
        """The difference to this machine, looked at operator by operator where it is more than rounding."""
        here, there = self.home.exact_run[0].outputs, self.run.outputs
        evidence = TargetEvidence(self.target, here, there, output_scales(self.model, here), runtimes=self.runtimes)
        if max(evidence.steps.values(), default=0.0) <= ROUNDING:
            return evidence
        if self.model.has_subgraphs:
            return dataclasses.replace(evidence, unlooked=LOOPS)
        try:
            self.say("looking for the operator that computes otherwise there")
            wrong = not pools_right(self.host.machine)
            mispooled = {op.name for op in self.model.ops if is_max_pool(op)} if wrong else ()
            with self.home.arm_equivalent() as (model, _):
                found = compare_operators(evidence, self.gate, model, self.model, self.send)
            return dataclasses.replace(found, mispooled=mispooled)
        except NativeFailure as error:  # What was found stands, whoever makes it.
            return dataclasses.replace(evidence, unlooked=error.what)

    @property
    def place(self) -> TargetFacts:
        """What the target reported about itself."""
        return self._place.facts(_machine(self.run))

    @cached_property
    def report(self) -> VariantReport:
        """The variant in the report; its layers are listed once, with the variant on the host."""
        return dataclasses.replace(self.home.report, target=self.target, layers=())


def _machine(run: Run) -> TargetMachine:
    assert run.machine is not None  # Every target reports what it is.
    return run.machine


def on_target(home: VariantUnderTest, target: Target) -> TargetVariant:
    """A variant on a target, always the same object."""
    key = TargetKey(VariantKey(home.recipe.name, home.mode), target.name)
    return home.gate.variants.on_target(key, lambda: TargetVariant(home, target))
