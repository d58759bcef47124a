"""Outputs of one step as inputs of the next step, for models with states."""

from __future__ import annotations

from typing import Any


class Feedback:
    """Feeds outputs back within each sequence of `job["sequences"]`; without it, nothing.

    A sequence starts from the states in the data. Each batch is one step.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        sequences = job.get("sequences") or {"states": {}, "lengths": []}
        self.states = sequences["states"]
        self.starts = set()
        place = 0
        for length in sequences["lengths"]:
            self.starts.add(place)
            place += length
        self.step = 0
        self.last: dict[str, Any] = {}

    def enter(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the next step."""
        if self.states and self.step not in self.starts:
            for name, output in self.states.items():
                given = batch[name]
                batch[name] = self.last[output].reshape(given.shape).astype(given.dtype)
        self.step += 1
        return batch

    def leave(self, outputs: dict[str, Any]) -> None:
        """Keep the outputs of this step."""
        if self.states:
            self.last = {output: outputs[output] for output in self.states.values()}
