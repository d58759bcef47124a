"""What the checks of calibration and of runs measured, except the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_mnnquant.findings.check_metrics import IN_BENCHMARK, IN_JUNIT, Metrics
from pytest_mnnquant.findings.dataclass_json import OPTIONAL

# MNN's number for the memory mode that keeps weights of 8 bits and fewer in their stored form.
_LOW: Final = 2


@dataclass(frozen=True)
class ExecutionMetrics(Metrics):
    """Operators in the trace; for variants that run in int8, the layers that ran in int8 and their share of weights.

    Of a language model: the KL divergence, in nats per token, of MNN's predictions from those of the decoded weights,
    for whole texts and token by token, and for whole texts in memory mode 0 if that was measured.
    """

    ops: int
    int8_ops: int
    casts: int
    int8_weight_share: float | None = field(default=None, metadata=OPTIONAL)
    int8_layers: int | None = field(default=None, metadata=OPTIONAL)
    kl: float | None = field(default=None, metadata=OPTIONAL)
    kl_of_steps: float | None = field(default=None, metadata=OPTIONAL)
    kl_in_normal_mode: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class InputStatistics:
    """Values of one input over all samples, in its own unit."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class InputMetrics:
    """One input in the calibration and in the evaluation data."""

    calibration: InputStatistics
    evaluation: InputStatistics | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class CalibrationMetrics(Metrics):
    """How a variant was calibrated, and how its scales fit held-out data.

    `range_movement` is the share of its width by which the worst range moves if the batches are resampled, and
    `range_movement_middle` the median of all ranges. `clipped_energy` and `rounded_energy` are shares of a tensor's
    energy, `clipped_values` a share of its values.
    """

    samples: int | None
    observer: str | None
    batches: int | None
    inputs: Mapping[str, InputMetrics] | None = field(default=None, metadata=OPTIONAL)
    range_movement: float | None = field(default=None, metadata=OPTIONAL)
    range_movement_tensor: str | None = field(default=None, metadata=OPTIONAL)
    range_movement_middle: float | None = field(default=None, metadata=OPTIONAL)
    tensors: int = 0
    tensors_measured: int = 0
    clipped_energy: float | None = field(default=None, metadata=OPTIONAL)
    clipped_values: float | None = field(default=None, metadata=OPTIONAL)
    clipped_tensor: str | None = field(default=None, metadata=OPTIONAL)
    rounded_energy: float | None = field(default=None, metadata=OPTIONAL)
    rounded_tensor: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class TimingConditions:
    """How models ran when they were timed; see `measurements.timing.TimingSettings`."""

    threads: int
    precision: str
    memory_mode: int
    batch: int


@dataclass(frozen=True)
class HostFacts:
    """The machine that ran a model; see `measurements.host.Host`."""

    machine: str
    processor: str
    features: tuple[str, ...]
    int8: tuple[str, ...]


@dataclass(frozen=True)
class LatencyMetrics(Metrics):
    """Times of pairs of runs; all fields except `pairs` are absent if there were too few pairs.

    `latency_ratio` is quantized / float, the median of the pairs, with its 95 % interval. `drift` is the relative
    change from the first to the second half of the pairs; `slowest_over_median` says how noisy the host was.
    Language models have tokens per second: of reading a prompt, and of generation. With a reference export their ratios
    are export / reference: `latency_ratio` and the seconds are those of a generated token, `prompt_latency_ratio` is
    that of a prompt.
    """

    latency_ratio: float | None = field(default=None, metadata=OPTIONAL | IN_JUNIT | IN_BENCHMARK)
    latency_ratio_low: float | None = field(default=None, metadata=OPTIONAL | IN_JUNIT | IN_BENCHMARK)
    latency_ratio_high: float | None = field(default=None, metadata=OPTIONAL | IN_JUNIT | IN_BENCHMARK)
    pairs: int = field(default=0, metadata=IN_BENCHMARK)
    float_seconds: float | None = field(default=None, metadata=OPTIONAL)
    quantized_seconds: float | None = field(default=None, metadata=OPTIONAL)
    ratio_quantiles: Mapping[str, float] | None = field(default=None, metadata=OPTIONAL)
    outliers: int | None = field(default=None, metadata=OPTIONAL | IN_BENCHMARK)
    drift: float | None = field(default=None, metadata=OPTIONAL | IN_BENCHMARK)
    slowest_over_median: float | None = field(default=None, metadata=OPTIONAL)
    settings: TimingConditions | None = field(default=None, metadata=OPTIONAL)
    host: HostFacts | None = field(default=None, metadata=OPTIONAL)
    note: str | None = field(default=None, metadata=OPTIONAL)
    prompt_tokens_per_second: float | None = field(default=None, metadata=OPTIONAL)
    tokens_per_second: float | None = field(default=None, metadata=OPTIONAL)
    prompt_latency_ratio: float | None = field(default=None, metadata=OPTIONAL)
    prompt_latency_ratio_low: float | None = field(default=None, metadata=OPTIONAL)
    prompt_latency_ratio_high: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class MemoryMetrics(Metrics):
    """Bytes of MNN's session, and by how much its process grew at most; `_low` in memory mode 2, the others in mode 0.

    None: the model could not run in this mode, or the system does not report it. `memory_ratio` is quantized / float in
    `memory_mode`.
    """

    memory_mode: int
    session_bytes: int | None = field(metadata=IN_BENCHMARK)
    peak_bytes: int | None = field(metadata=IN_BENCHMARK)
    session_bytes_low: int | None
    peak_bytes_low: int | None
    float_session_bytes: int | None = field(metadata=IN_BENCHMARK)
    float_peak_bytes: int | None = field(metadata=IN_BENCHMARK)
    float_session_bytes_low: int | None
    float_peak_bytes_low: int | None
    memory_ratio: float | None = field(default=None, metadata=OPTIONAL | IN_JUNIT)
    note: str | None = field(default=None, metadata=OPTIONAL)

    @property
    def session(self) -> int | None:
        """Bytes of the variant's session in `memory_mode`."""
        return self.session_bytes_low if self.memory_mode == _LOW else self.session_bytes

    @property
    def float_session(self) -> int | None:
        """Bytes of the float model's session in `memory_mode`."""
        return self.float_session_bytes_low if self.memory_mode == _LOW else self.float_session_bytes
