"""The outputs of single operators for given inputs, and the network's outputs if one operator's output is replaced."""

from __future__ import annotations

import re
from typing import Any

from .batches import batches, report_progress, sample_count
from .session import Session, integer_outputs


def run_observed(session: Session, enter: Any, leave: Any) -> None:
    """Run a session and call `enter(operator, inputs)` and `leave(operator, outputs, int8)` for each operator.

    An operator is identified by its name in the file, its kind and the number of such operators that ran before. MNN
    numbers the parts of one operator, and their number differs between processors.
    """
    ran: dict[tuple[str, str], int] = {}

    def identify(info: Any) -> tuple[str, str]:
        return re.sub(r"_raster_\d+$", "", info.getName()), info.getType().partition("[")[0].strip()

    def before(tensors: Any, info: Any) -> bool:
        which = identify(info)
        ran[which] = ran.get(which, -1) + 1
        enter((*which, ran[which]), tensors)
        return True

    def after(tensors: Any, info: Any) -> bool:
        which = identify(info)
        leave((*which, ran[which]), tensors, "DT_INT8" in info.getType())
        return True

    session.run_with_callbacks(before, after)


class Observation:
    """The inputs and outputs of a session's operators, in the order of execution.

    `given` holds replacement inputs, named by the number of the operator in `operators` and the number of the input.
    Operators that did not accept them are `unset`. Without `given`, the real inputs are kept.
    """

    def __init__(self, session: Session, operators: Any, given: Any) -> None:
        self.session = session
        self.given = given
        self.numbers = {tuple(operator): number for number, operator in enumerate(operators)}
        self.clear()

    def clear(self) -> None:
        """Delete the kept arrays."""
        self.reached: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        self.ran: list[Any] = []
        self.unset: set[int] = set()

    def run(self, batch: dict[str, Any]) -> None:
        """Run one batch."""
        self.session.feed(batch)
        run_observed(self.session, self._enter, self._leave)

    @property
    def nbytes(self) -> int:
        """The bytes of the kept arrays."""
        return sum(array.nbytes for array in (*self.reached.values(), *self.made.values()))

    def _enter(self, operator: Any, tensors: Any) -> None:
        for number, tensor in enumerate(tensors):
            name = f"{self.numbers.get(operator)}.{number}"
            if self.given is None:
                self.reached[f"{len(self.ran)}.{number}"] = self.session.read(tensor)
            elif name not in self.given or not self.session.overwrite(tensor, self.given[name]):
                self.unset.add(len(self.ran))

    def _leave(self, operator: Any, tensors: Any, int8: bool) -> None:
        for number, tensor in enumerate(tensors):
            self.made[f"{len(self.ran)}.{number}"] = self.session.read(tensor)
        self.ran.append([*operator, int8])


def operators(job: dict[str, Any]) -> dict[str, Any]:
    """Write each operator's inputs and outputs on the first batch: `reached.npz` and `made.npz`.

    A file `job["given"]` holds the inputs of `job["operators"]` on another machine. With it, each operator gets these
    inputs, so that no error propagates; operators that did not accept them are `unset`. Arrays are named by the
    operator's number in the list and their own number. If all arrays exceed `job["held"]` bytes, only the first samples
    in `job["order"]` are used.
    """
    import numpy as np

    session = Session(job, job["model"])
    given = np.load(job["given"]) if "given" in job else None
    observation = Observation(session, job.get("operators", []), given)
    samples = list(range(min(sample_count(job), job["batch"])))
    if "order" in job:
        observation.run(next(iter(batches({**job, "batch": 1}))))
        samples = sorted(job["order"][: max(1, int(job["held"] / max(observation.nbytes, 1)))])
        observation.clear()
    observation.run(next(iter(batches(job, samples))))
    np.savez("reached.npz", **observation.reached)
    np.savez("made.npz", **observation.made)
    return {"operators": observation.ran, "unset": sorted(observation.unset), "samples": samples}


def splice_outputs(job: dict[str, Any]) -> dict[str, Any]:
    """Write a network's outputs with the output of one operator at a time replaced: `outputs.npz`.

    Each of `job["operators"]` in turn, on the first batch; the file `job["given"]` holds the replacements. Arrays are
    named by the operator's number in the list and the number of the output.
    """
    import numpy as np

    session, batch, integers = Session(job, job["model"]), next(iter(batches(job))), integer_outputs(job["model"])
    spliced: dict[str, Any] = {}
    names: list[str] = []
    with np.load(job["given"]) as file:
        given = dict(file)
    for place, chosen in enumerate(job["operators"]):

        def leave(operator: Any, tensors: Any, _: bool, place: int = place, chosen: Any = tuple(chosen)) -> None:
            for number, tensor in enumerate(tensors if operator == chosen else ()):
                session.overwrite(tensor, given[f"{place}.{number}"])

        report_progress(place, len(job["operators"]), "operators")
        session.feed(batch)
        run_observed(session, lambda *_: None, leave)
        outputs = session.outputs(integers)
        spliced.update({f"{place}.{number}": array for number, array in enumerate(outputs.values())})
        names = list(outputs)
    np.savez("outputs.npz", **spliced)
    return {"outputs": names}
