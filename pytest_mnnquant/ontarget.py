"""A variant on a target: what ran there, and whether it computed what this machine does."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.case import Case
from pytest_mnnquant.checks.elsewhere import ROUNDING, ElsewhereEvidence, OpDifference, differences
from pytest_mnnquant.gate import Unusable
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.pooling import SHAPE_ONLY
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.child import NativeFailure
from pytest_mnnquant.runtime.execute import Run
from pytest_mnnquant.runtime.host import Host
from pytest_mnnquant.runtime.operators import lone_operators, run_operators, tensor_samples
from pytest_mnnquant.targets.target import NO_TRACE, Target

# So many samples, those that differ most, are looked at operator by operator, in so many bytes.
_SAMPLES: Final = 8
_HELD: Final = 256e6


class OnTarget(Case):
    """A variant that runs elsewhere: that of `home`, the case of this machine, which is asked for the rest."""

    def __init__(self, home: Case, target: Target) -> None:
        super().__init__(home.gate, home.recipe, home.mode)
        self.home = home
        self._place = target
        self.target = target.name
        self.send = target.send
        self.label = f"{home.label}@{target.name}"

    @cached_property
    def _variant(self) -> Variant | Unusable:
        return self.home._variant

    @property
    def run(self) -> Run:
        """The variant on the same inputs as the float model, there. What fails once is not tried again."""
        if isinstance(self._ran_there, NativeFailure):
            raise self._ran_there
        return self._ran_there

    @property
    def is_lost(self) -> bool:
        """Whether it does not run there; the execution check says why."""
        return not self.is_unusable and isinstance(self._ran_there, NativeFailure)

    @cached_property
    def _ran_there(self) -> Run | NativeFailure:
        self.say("running")
        try:
            return self._ran(self.model)
        except NativeFailure as error:
            return error

    def _run(self, model: Model) -> Run:
        found = super()._run(model)
        return found if self._place.place.tells_int8 else dataclasses.replace(found, trace=None)

    @property
    def host(self) -> Host:
        """The machine that it runs on; known when something has run there."""
        if self._place.place.host is None:
            self.run  # noqa: B018
        assert self._place.place.host is not None
        return self._place.place.host

    @property
    def exact_run(self) -> tuple[Run, tuple[str, ...]]:
        """The run as it is: what it computes there is what counts."""
        return self.run, ()

    @property
    def untraced(self) -> str:
        """Why MNN gave no trace there; empty where that is the model's own fault."""
        place = self._place.place
        return "" if place.tells_int8 else NO_TRACE.format(mnn=place.mnn)

    @cached_property
    def same_as_float(self) -> bool | None:
        """Whether all outputs equal the float model's there; asked where the trace does not tell it."""
        if self.recipe.activations or self.home.same_as_float is None:
            return None
        floats: dict[str, Run] = self.gate.float_runs
        if self.target not in floats:
            floats[self.target] = self._run(self.gate.prepared.model)
        theirs = floats[self.target].outputs
        return all(np.array_equal(array, theirs[name]) for name, array in self.run.outputs.items())

    @cached_property
    def elsewhere(self) -> ElsewhereEvidence:
        """The difference to this machine, looked at operator by operator where it is more than rounding."""
        here, there = self.home.exact_run[0].outputs, self.run.outputs
        evidence = ElsewhereEvidence(self.target, here, there, _scales(self.model, here))
        if max(evidence.steps.values(), default=0.0) <= ROUNDING:
            return evidence
        try:
            operators, ops = self._operators(_worst(here, there))
            missed = {op.name for op in ops} - {one.name for one in operators}
            return dataclasses.replace(evidence, operators=operators, uncompared=sorted(missed))
        except NativeFailure as error:  # What was found stands, whoever makes it.
            return dataclasses.replace(evidence, unlooked=error.what)

    def _operators(self, samples: npt.NDArray[np.int64]) -> tuple[list[OpDifference], list[Op]]:
        """What operators make of the same values here and there, on these samples, and which there are.

        Raises `NativeFailure`.
        """
        self.say("looking for the operator that computes otherwise there")
        inputs, timeout = {name: array[samples] for name, array in self.gate.inputs.items()}, self.gate.settings.timeout
        with self.home.as_arm() as (model, _):
            batched = self.gate.prepared.batched
            values = tensor_samples(model, inputs, timeout=timeout, held=_HELD, batched=batched)
            ops, count = lone_operators(model, values), len(next(iter(values.values())))
            few = {name: array[:count] for name, array in inputs.items()}
            here = run_operators(model, ops, values, few, timeout=timeout)
        there = run_operators(self.model, ops, values, few, timeout=timeout, send=self._place.send)
        quants = self.model.tensor_quants
        scales = {op.name: quants[op.outputs[0]].scale for op in ops if op.outputs[0] in quants}
        int8 = frozenset(op.name for op in self.home.run.trace or () if op.int8)
        return differences(ops, here, there, scales, int8), ops

    @property
    def place(self) -> Mapping[str, Any]:
        """What the target told of itself, for the report."""
        return {"name": self.target, "emulated": self._place.emulated, **self._place.place.as_json()}

    @cached_property
    def as_json(self) -> dict[str, Any]:
        """The variant in the report; its layers are told once, with the case of this machine."""
        return {**self.home.as_json, "target": self.target, "layers": []}


def on_target(home: Case, target: Target) -> OnTarget:
    """A variant on a target, always the same object."""
    cases: dict[tuple[str, str | None, str], OnTarget] = home.gate.kept_elsewhere
    return cases.setdefault((home.recipe.name, home.mode, target.name), OnTarget(home, target))


def _scales(model: Model, outputs: Collection[str]) -> dict[str, float]:
    """The scales of outputs that are codes, or are codes in another shape."""
    made = {output: op for op in model.ops if not op.subgraph for output in op.outputs}
    found = {}
    for name in outputs:
        tensor = model.tensor_names.index(name) if name in model.tensor_names else -1
        while tensor not in model.tensor_quants and tensor in made and made[tensor].kind in SHAPE_ONLY:
            tensor = made[tensor].inputs[0]
        if tensor in model.tensor_quants:
            found[name] = model.tensor_quants[tensor].scale
    return found


def _worst(here: Mapping[str, npt.NDArray[Any]], there: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """The samples whose first output differs most, in their order."""
    ours, theirs = next((array, there[name]) for name, array in here.items() if name in there)
    if ours.shape != theirs.shape:
        return np.arange(min(_SAMPLES, len(ours)))
    off = np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(1)
    return np.sort(np.argsort(-np.nan_to_num(off, nan=np.inf), kind="stable")[:_SAMPLES])
