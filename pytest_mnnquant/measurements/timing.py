"""Times and memory of a float model and a variant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.findings.defaults import BATCH, LATENCY_TIME, PRECISION, THREADS
from pytest_mnnquant.findings.run_metrics import TimingConditions
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.statistics.paired_ratio import FEWEST, paired_ratio

#: MNN's numbers for `precision`; MNN ignores unknown texts.
PRECISIONS: Final = {"normal": 0, "high": 1, "low": 2}


#: MNN's memory modes: normal, and low, which keeps weights of 8 bits and fewer quantized. MNN ignores texts.
NORMAL = 0


LOW = 2


MEMORY_MODES: Final = (NORMAL, LOW)


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How models are run to be timed; part of the record.

    `batch` copies of the first sample make one inference. At least `pairs` pairs are run (of slow models as many as fit
    into `enough` seconds, but enough to judge), then more until half of the 95 % interval is at most `width` of the
    ratio and `limit` lies outside the interval; at most `budget` seconds and `most` pairs.
    """

    threads: int = THREADS
    precision: str = PRECISION
    memory_mode: int = 0
    batch: int = BATCH
    pairs: int = 150
    enough: float = 3.0
    most: int = 1500
    width: float = 0.02
    budget: float = LATENCY_TIME
    limit: float | None = None

    @property
    def conditions(self) -> TimingConditions:
        """The conditions that decide the times, for records."""
        return TimingConditions(self.threads, self.precision, self.memory_mode, self.batch)


@dataclass(frozen=True)
class PairedTimes:
    """Seconds per inference of two models, measured in turn; both have shape [pairs].

    `starts` are the pairs before which the models were loaded again. Each time is the mean of `loops` inferences.
    """

    reference: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]
    loops: int = 1
    starts: tuple[int, ...] = (0,)
    settings: TimingSettings = field(default_factory=TimingSettings)
    host: Host | None = None

    def decides(self, limit: float | None) -> bool:
        """Whether these pairs are enough to decide about a limit."""
        if limit is None or limit == self.settings.limit or len(self.reference) < FEWEST:
            return True
        ratio = paired_ratio(self.reference, self.candidate)
        return not ratio.low <= limit <= ratio.high


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of MNN's session, and the largest growth of its process (None if the system does not report it).

    `error` is the reason why the model could not run in this mode.
    """

    session: int = 0
    peak: int | None = None
    error: str = ""

    @property
    def known_session(self) -> int | None:
        """The session's bytes; None if the model could not run."""
        return None if self.error else self.session


@dataclass(frozen=True, slots=True)
class OpTime:
    """The median time of an operator in one inference, in seconds."""

    name: str
    kind: str
    seconds: float
    is_int8: bool = False
