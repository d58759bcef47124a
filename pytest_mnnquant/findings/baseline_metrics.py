"""What the baseline check compared, and what an update of the baseline accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.check_metrics import Metrics
from pytest_mnnquant.findings.dataclass_json import OPTIONAL


@dataclass(frozen=True)
class Compared:
    """One metric: accepted, and measured now."""

    accepted: float | None
    now: float | None


@dataclass(frozen=True)
class Measured:
    """The metrics of a variant that an update of the baseline accepts; see `findings.figures.Figures`."""

    source: str
    size: int | None
    float_size: int | None
    coverage: float | None
    accuracy: float | None
    metric: str
    lower_is_better: bool
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    memory: int | None
    float_memory: int | None
    sha256: str
    float_sha256: str


@dataclass(frozen=True)
class BaselineMetrics(Metrics):
    """Accepted and measured values, and all that an update of the baseline needs."""

    compared: Mapping[str, Compared] | None = field(default=None, metadata=OPTIONAL)
    stored_otherwise: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    paired_ratio: float | None = field(default=None, metadata=OPTIONAL)
    paired_ratio_low: float | None = field(default=None, metadata=OPTIONAL)
    paired_ratio_high: float | None = field(default=None, metadata=OPTIONAL)
    measured: Measured | None = field(default=None, metadata=OPTIONAL)
    failed: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    versions: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    host: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    unmeasured: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
