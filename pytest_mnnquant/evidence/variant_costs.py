"""The costs of running a variant: time and memory, compared with the float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pytest_mnnquant.evidence.source import Say, SourceUnderTest
from pytest_mnnquant.evidence.steps import step_property
from pytest_mnnquant.measurements.timing import MemoryUse, OpTime, PairedTimes, TimingSettings
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.runtime.jobs import run_job
from pytest_mnnquant.runtime.options import RunOptions, Send
from pytest_mnnquant.runtime.timing import memory_use, op_times, paired_times


class VariantCosts:
    """Times and memory of one variant, on this host unless `send` runs it on the target of that name."""

    def __init__(self, source: SourceUnderTest, model: Model, say: Say, target: str = "", send: Send = run_job) -> None:
        self.source = source
        self.model = model
        self.say = say
        self._target = target
        self._send = send
        self._times: dict[TimingSettings, PairedTimes] = {}

    def times(self, settings: TimingSettings) -> PairedTimes:
        """The variant and the float model, timed in pairs."""
        key = dataclasses.replace(settings, limit=None)
        times = self._times.get(key)
        if times is None or not times.decides(settings.limit):
            self.say("timing against float")
            times = self._times[key] = paired_times(
                self.source.prepared.model,
                self.model,
                self.source.inputs,
                settings,
                self._options,
            )
        return times

    @property
    def known_times(self) -> PairedTimes | None:
        """The pairs that a check timed last."""
        return next(reversed(self._times.values()), None)

    def op_times(self) -> tuple[OpTime, ...]:
        """The time of each of the variant's operators."""
        settings, inputs = self.source.settings, self.source.inputs
        return op_times(self.model, inputs, settings.timing, self._options)

    @property
    def _options(self) -> RunOptions:
        return dataclasses.replace(self.source.prepared.options(self.source.settings.timeout), send=self._send)

    @step_property("measure the memory")
    def memory(self) -> Mapping[int, MemoryUse]:
        """The memory of the running variant, by memory mode."""
        self.say("measuring memory")
        return self._memory_use(self.model)

    @property
    def float_memory(self) -> Mapping[int, MemoryUse]:
        """The memory of the running float model, by memory mode; measured once per target."""
        return self.source.float_memory_on(self._target, self._memory_use)

    def _memory_use(self, model: Model) -> Mapping[int, MemoryUse]:
        options = dataclasses.replace(self._options, threads=self.source.settings.timing.threads)
        return memory_use(model, self.source.inputs, options)
