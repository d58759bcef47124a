"""The runs of a variant on a target."""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from functools import cached_property

from pytest_mnnquant.evidence.attempt import Attempt
from pytest_mnnquant.evidence.source import Say
from pytest_mnnquant.evidence.steps import StepFailed, step
from pytest_mnnquant.evidence.variant_runs import VariantRuns
from pytest_mnnquant.measurements.host import Host, TargetMachine
from pytest_mnnquant.measurements.run import Run
from pytest_mnnquant.metrics.blocks import are_equal
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.pooling import is_max_pool, pools_right
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.targets.target import NO_TRACE, Target, TargetFailure


class TargetRuns(VariantRuns):
    """The runs of one variant on a target; `on_host` are its runs on this host."""

    def __init__(self, on_host: VariantRuns, target: Target, say: Say) -> None:
        super().__init__(on_host.source, on_host.files, say, target.send)
        self._on_host = on_host
        self._target = target.name

    @property
    def run(self) -> Run:
        """The variant on the same inputs as the float model. A failed run is not repeated."""
        return self._attempt.value

    @cached_property
    def _attempt(self) -> Attempt[Run]:
        self.say("running")

        def run_variant() -> Run:
            with step("run the variant on the target"):
                return self._run_with_names(self.variant.model)

        return Attempt.of(run_variant, NativeFailure, StepFailed)

    @property
    def failed(self) -> bool:
        """Whether the variant does not run on the target."""
        return self._attempt.error is not None

    @property
    def crashed(self) -> bool:
        """Whether the variant crashes the target's MNN."""
        error = self._attempt.error
        return isinstance(error, TargetFailure) and error.kind is FailureKind.CRASHED

    def _run_model(self, model: Model, samples: int | None = None) -> Run:
        result = super()._run_model(model, samples)
        return result if _machine(result).traces_int8 else dataclasses.replace(result, trace=None)

    @property
    def machine(self) -> TargetMachine:
        """What the target reported about itself with the run."""
        return _machine(self.run)

    @property
    def host(self) -> Host:
        """The machine that the variant runs on, as reported with the run."""
        return self.machine.host

    @property
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run itself: the target's results are final."""
        return self.run, ()

    @property
    def uncovered_pools(self) -> tuple[str, ...]:
        """None: the target's results are final."""
        return ()

    def arm_equivalent(self) -> AbstractContextManager[tuple[Model, tuple[str, ...]]]:
        """The model itself: what the target computes is what counts."""
        return contextlib.nullcontext((self.variant.model, ()))

    @property
    def wrong_pools(self) -> tuple[str, ...]:
        """MaxPool operators of the model if the target pools int8 wrongly."""
        model = self.variant.model
        return () if pools_right(self.host.machine) else tuple(op.name for op in model.ops if is_max_pool(op))

    @property
    def untraced(self) -> str:
        """Why the target's MNN gave no trace; empty if the model is the reason."""
        return "" if self.machine.traces_int8 else NO_TRACE.format(mnn=self.machine.mnn)

    def float_run(self) -> Run:
        """The float model on the target. Raises `NativeFailure`."""
        return self.source.float_run_on(self._target, self._run_model)

    @cached_property
    def runs_float(self) -> bool:
        """Whether the float model runs on the target."""
        try:
            self.float_run()
        except NativeFailure:
            return False
        return True

    @cached_property
    def same_as_float(self) -> bool | None:
        """Whether all outputs equal the float model's on the target; None if a trace shows it, or it means nothing."""
        if self.variant.recipe.activations or self._on_host.same_as_float is None:
            return None
        reference = self.float_run().outputs
        return all(are_equal(array, reference[name]) for name, array in self.run.outputs.items())


def _machine(run: Run) -> TargetMachine:
    assert run.machine is not None  # Every target reports its machine.
    return run.machine
