"""A variant on a target, and how its results differ from this host's."""

from __future__ import annotations

import dataclasses
from functools import cached_property

from pytest_mnnquant.checks.target.check import ROUNDING, TargetEvidence
from pytest_mnnquant.checks.target.mnn_versions import Runtimes
from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.caches import TargetKey, VariantKey
from pytest_mnnquant.evidence.operator_differences import compare_operators, output_scales
from pytest_mnnquant.evidence.steps import step_property
from pytest_mnnquant.evidence.target_runs import TargetRuns
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.evidence.variant_costs import VariantCosts
from pytest_mnnquant.evidence.variant_files import VariantFiles
from pytest_mnnquant.findings.accuracy_metrics import TargetFacts
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.report.variant_report import VariantReport
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.runtime.operator_outputs import LOOPS
from pytest_mnnquant.targets.target import Target, installed_mnn


class TargetVariant(VariantUnderTest):
    """A variant that runs on a target, with the files of `on_host`."""

    def __init__(self, on_host: VariantUnderTest, target: Target) -> None:
        super().__init__(on_host.source, on_host.recipe, on_host.mode, on_host.skip)
        self.on_host = on_host
        self.target = target.name
        self.label = f"{on_host.label}@{target.name}"
        self._target = target

    @cached_property
    def _variant(self) -> Attempt[Variant]:
        return self.on_host._variant

    @cached_property
    def files(self) -> VariantFiles:
        """The contents of the variant's files. Raises `Unusable`."""
        return self.on_host.files

    @cached_property
    def runs(self) -> TargetRuns:
        """The variant's runs on the target. Raises `Unusable`."""
        return TargetRuns(self.on_host.runs, self._target, self.say)

    @cached_property
    def costs(self) -> VariantCosts:
        """The variant's times and memory on the target. Raises `Unusable`."""
        return VariantCosts(self.source, self.model, self.say, self.target, self._target.send)

    def on_same_target(self, other: VariantUnderTest) -> TargetVariant:
        """Another variant of the source on this target."""
        return TargetVariant(other, self._target)

    @property
    def is_lost(self) -> bool:
        """Whether the variant does not run on the target; the execution check reports why."""
        return not self.is_unusable and self.runs.failed

    @property
    def runtimes(self) -> Runtimes:
        """The MNN versions on the target and on this host, and of the model's converter."""
        return Runtimes(self._target.mnn, installed_mnn(), self.model.version, self.recipe.symmetric_name)

    @step_property("compare the target with this host")
    def difference_evidence(self) -> TargetEvidence:
        """The difference from this host, operator by operator if it is more than rounding."""
        host, target = self.on_host.runs.exact_run[0].outputs, self.runs.run.outputs
        scales = output_scales(self.model, host)
        evidence = TargetEvidence(self.target, host, target, scales, runtimes=self.runtimes)
        if max(evidence.steps.values(), default=0.0) <= ROUNDING:
            return evidence
        if self.model.has_subgraphs:
            return dataclasses.replace(evidence, unlooked=LOOPS)
        try:
            self.say("searching for the operator that differs on the target")
            with self.on_host.runs.arm_equivalent() as (model, _):
                compared = compare_operators(evidence, self.source, model, self.model, self._target.send)
            return dataclasses.replace(compared, wrongly_pooled=self._wrong_pools())
        except NativeFailure as error:  # The difference is reported without its operator.
            return dataclasses.replace(evidence, unlooked=error.what)

    def _wrong_pools(self) -> set[str]:
        """The MaxPool operators, if the target's MNN computes them wrong."""
        if pools_right(self.runs.host.machine):
            return set()
        return {op.name for op in self.model.ops if is_max_pool(op)}

    @property
    def facts(self) -> TargetFacts:
        """What the target reported about itself."""
        return self._target.facts(self.runs.machine)

    @cached_property
    def report(self) -> VariantReport:
        """The variant in the report; its layers are listed once, with the variant on this host."""
        return dataclasses.replace(self.on_host.report, target=self.target, layers=())


def on_target(on_host: VariantUnderTest, target: Target) -> TargetVariant:
    """A variant on a target, always the same object."""
    key = TargetKey(VariantKey(on_host.recipe.name, on_host.mode), target.name)
    return on_host.source.variants.on_target(key, lambda: TargetVariant(on_host, target))
