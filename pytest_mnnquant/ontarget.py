"""A variant on a target: what ran there, and whether it computed what this machine does."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.case import Case
from pytest_mnnquant.checks.elsewhere import ROUNDING, ElsewhereEvidence, Scales, differences, furthest
from pytest_mnnquant.checks.outputs import Outputs
from pytest_mnnquant.checks.runtimes import Runtimes
from pytest_mnnquant.gate import Unusable
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.pooling import SHAPE_ONLY, is_max_pool, pools_right
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.runtime.child import CRASHED, NativeFailure
from pytest_mnnquant.runtime.execute import BATCH, Run
from pytest_mnnquant.runtime.host import Host
from pytest_mnnquant.runtime.operators import LOOPS, carried_on, operators_elsewhere, operators_here
from pytest_mnnquant.targets.target import NO_TRACE, Target, TargetFailure, own_mnn

# The batch that differs most is looked at operator by operator, or so many bytes of it.
_HELD: Final = 256e6
# Of so many operators it is seen what their difference alone makes of the outputs.
_CARRIED: Final = 16


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
        """The variant on the same inputs as the float model, there. A target that fails once is not asked again."""
        if isinstance(self._ran_there, TargetFailure):
            raise self._ran_there
        return self._ran_there

    @property
    def is_lost(self) -> bool:
        """Whether the target does not run it; the execution check says why."""
        return not self.is_unusable and isinstance(self._ran_there, TargetFailure)

    @cached_property
    def _ran_there(self) -> Run | TargetFailure:
        self.say("running")
        try:
            return self._ran(self.model)
        except TargetFailure as error:
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

    @property
    def runtimes(self) -> Runtimes:
        """Which MNN runs there, which here, and which made the model."""
        return Runtimes(self._place.mnn, own_mnn(), self.model.version, self.recipe.symmetrical)

    def _float_run(self) -> Run:
        """The float model there."""
        floats: dict[str, Run] = self.gate.float_runs
        if self.target not in floats:
            floats[self.target] = self._run(self.gate.prepared.model)
        return floats[self.target]

    @property
    def crashes(self) -> bool:
        """Whether the variant crashes the MNN there."""
        return isinstance(self._ran_there, TargetFailure) and CRASHED in self._ran_there.what

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
    def elsewhere(self) -> ElsewhereEvidence:
        """The difference to this machine, looked at operator by operator where it is more than rounding."""
        here, there = self.home.exact_run[0].outputs, self.run.outputs
        evidence = ElsewhereEvidence(self.target, here, there, _scales(self.model, here), runtimes=self.runtimes)
        if max(evidence.steps.values(), default=0.0) <= ROUNDING:
            return evidence
        if self.model.has_subgraphs:
            return dataclasses.replace(evidence, unlooked=LOOPS)
        try:
            return self._looked_at(evidence)
        except NativeFailure as error:  # What was found stands, whoever makes it.
            return dataclasses.replace(evidence, unlooked=error.what)

    def _looked_at(self, evidence: ElsewhereEvidence) -> ElsewhereEvidence:
        """The evidence with what operators make of the same values here and there. Raises `NativeFailure`."""
        self.say("looking for the operator that computes otherwise there")
        settings, whole = self.gate.settings, self.gate.inputs
        how: dict[str, Any] = {"timeout": settings.timeout, "memory": settings.timing.memory_mode}
        batch, order = _batch(evidence.here, evidence.there, BATCH if self.gate.prepared.batched else 1)
        inputs = {name: array[batch] for name, array in whole.items()}
        with self.home.as_arm() as (model, _):
            here, samples = operators_here(model, inputs, order.tolist(), held=_HELD, **how)
            inputs = {name: array[samples] for name, array in inputs.items()}
            there = operators_elsewhere(self.model, inputs, here, send=self.send, **how)
            scales = {op.name: _quants(self.model, op) for op in self.model.ops if not op.subgraph}
            found, uncompared = differences(here, there, scales)
            unlike = sorted((one for one in found if one.unlike), key=lambda one: -one.steps * one.unlike)[:_CARRIED]
            made = {one.which: there[one.which].made for one in unlike}
            plain, changed = carried_on(model, inputs, made, **how)
        grids = _scales(self.model, plain)
        moved = {which: furthest(plain, outputs, grids) for which, outputs in changed.items()}
        operators = [dataclasses.replace(one, moves=moved.get(one.which)) for one in found]
        wrong = not pools_right(self._place.place.machine)
        return dataclasses.replace(
            evidence,
            operators=operators,
            uncompared=uncompared,
            samples=len(samples),
            mispooled={op.name for op in self.model.ops if is_max_pool(op)} if wrong else (),
        )

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


def _quants(model: Model, op: Op) -> Scales:
    """The scales of what an operator takes and makes."""
    quants = model.tensor_quants
    taken, made = (tuple(quants[one].scale for one in ends if one in quants) for ends in (op.inputs, op.outputs))
    return Scales(taken, made)


def _batch(here: Outputs, there: Outputs, size: int) -> tuple[slice, npt.NDArray[np.int64]]:
    """The batch of the sample whose first output differs most, and its samples in the order of their difference."""
    ours, theirs = next((array, there[name]) for name, array in here.items() if name in there)
    if ours.shape != theirs.shape:
        return slice(size), np.arange(min(size, len(ours)))
    off = np.nan_to_num(np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(1), nan=np.inf)
    start = int(off.argmax()) // size * size
    return slice(start, start + size), np.argsort(-off[start : start + size], kind="stable")
