"""What each check measured: one frozen dataclass per check, in the form and order of the JSON report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol, TypeVar

from pytest_mnnquant.findings import dataclass_json
from pytest_mnnquant.findings.dataclass_json import OPTIONAL, key

#: Metadata of fields that the properties of JUnit files, and pytest-benchmark's results, show beside the report.
IN_JUNIT: Final = {"junit": True}
IN_BENCHMARK: Final = {"benchmark": True}

# MNN's number for the memory mode that keeps weights of 8 bits and fewer as they are stored.
_LOW: Final = 2


@dataclass(frozen=True)
class Metrics:
    """What one check measured of one variant."""

    def as_json(self) -> dict[str, Any]:
        """The form it has in the report, and in records that travel from xdist workers."""
        found: dict[str, Any] = dataclass_json.as_json(self)
        return found

    @classmethod
    def from_json(cls: type[M], value: Mapping[str, Any]) -> M:
        """The metrics whose JSON form this is. Raises `TypeError` when a key is missing."""
        found: M = dataclass_json.from_json(cls, value)
        return found

    def marked(self, mark: Mapping[str, bool]) -> dict[str, Any]:
        """The fields marked as `IN_JUNIT` or `IN_BENCHMARK` that were measured, in the form of the report."""
        (flag,) = mark
        names = [field.name for field in fields(self) if field.metadata.get(flag)]
        return {name: value for name, value in self.as_json().items() if name in names}


M = TypeVar("M", bound=Metrics)


class _Measured(Protocol):
    @property
    def metrics(self) -> Metrics | None: ...


def metrics_of(kind: type[M], results: Iterable[_Measured]) -> M | None:
    """The metrics of this kind among the results of a variant; None when none of them has any."""
    return next((result.metrics for result in results if isinstance(result.metrics, kind)), None)


# Conversion ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepOutput:
    """How well one output agrees before and after a step of the conversion; see `metrics.agreement.Agreement`."""

    relative_error: float
    cosine: float | None
    sqnr_db: float
    top1_agreement: float | None
    equal: float | None


@dataclass(frozen=True)
class StepMetrics:
    """One step of the conversion, by the names of both models, and each output."""

    before: str = field(metadata=key("from"))
    after: str = field(metadata=key("to"))
    outputs: Mapping[str, StepOutput]


@dataclass(frozen=True)
class ConversionMetrics(Metrics):
    """`worst_relative_error` is a share of an output's range; `chain_lacks` says why a step is missing."""

    outputs_compared: int
    worst_relative_error: float | None
    chain: tuple[StepMetrics, ...]
    chain_lacks: str | None
    converted_twice: tuple[str, ...]
    layers_matched: int
    layers_missing: int


# What is stored ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParamsMetrics(Metrics):
    """Layers of the params file: all, those bound to a layer of the model, and those that name no tensor."""

    entries: int
    bound: int
    misnamed: int


@dataclass(frozen=True)
class CoverageMetrics(Metrics):
    """`coverage` is the share of weight bytes stored as requested, in [0, 1]; the others count layers."""

    coverage: float = field(metadata=IN_JUNIT | IN_BENCHMARK)
    layers: int
    quantized_layers: int
    skipped_layers: int


@dataclass(frozen=True)
class WeightsMetrics(Metrics):
    """The worst layer: SQNR of its weights in dB, their mean error in steps, the relative error of a vector."""

    layers_compared: int
    worst_sqnr_db: float | None
    worst_drift: float | None
    worst_vector_error: float | None


@dataclass(frozen=True)
class SizeMetrics(Metrics):
    """Sizes of the files in bytes; `size_ratio` is float / quantized."""

    float_bytes: int
    quantized_bytes: int
    size_ratio: float = field(metadata=IN_JUNIT | IN_BENCHMARK)
    expected_bytes: int


@dataclass(frozen=True)
class BundleMetrics(Metrics):
    """Names of the files to be deployed together, and the bytes of the model and its external weights."""

    files: tuple[str, ...]
    bytes: int


# What runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExecutionMetrics(Metrics):
    """Operators in the trace; for variants that run in int8 the layers that did, and their share of all weights."""

    ops: int
    int8_ops: int
    casts: int
    int8_weight_share: float | None = field(default=None, metadata=OPTIONAL)
    int8_layers: int | None = field(default=None, metadata=OPTIONAL)


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

    `range_movement` is by what share of its width the worst range moves when batches are drawn again, and
    `range_movement_middle` the median of all. `clipped_energy` and `rounded_energy` are shares of a tensor's energy,
    `clipped_values` a share of its values.
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


# Accuracy ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputMetrics:
    """One output against the float model's; see `metrics.agreement.Agreement`."""

    sqnr_db: float
    centred_sqnr_db: float
    cosine: float | None
    max_error: float
    mean_error: float
    relative_error: float
    top1_agreement: float | None
    top5_agreement: float | None
    equal: float | None


@dataclass(frozen=True)
class TaskMetrics:
    """The task metric of both models, in its own unit.

    `drop` is by how much the variant is worse, between `drop_low` and `drop_high`. `lost` samples were right before and
    are wrong now, `won` the reverse. `ratio` is what is left of the float model's value. `samples_needed` could decide.
    """

    metric: str
    label: str
    reference: float = field(metadata=key("float"))
    quantized: float
    drop: float
    drop_low: float
    drop_high: float
    lower_is_better: bool
    lost: int | None = field(default=None, metadata=OPTIONAL)
    won: int | None = field(default=None, metadata=OPTIONAL)
    p_value: float | None = field(default=None, metadata=OPTIONAL)
    ratio: float | None = field(default=None, metadata=OPTIONAL)
    ratio_low: float | None = field(default=None, metadata=OPTIONAL)
    ratio_high: float | None = field(default=None, metadata=OPTIONAL)
    samples_needed: int | None = None


@dataclass(frozen=True)
class AsRun:
    """What this host computes if its kernels are known to be wrong: the task metric and the lowest cosine."""

    task: float | None
    cosine: float | None


@dataclass(frozen=True)
class OperatorDifference:
    """One operator given the same values on the host and on the target: by how many steps its outputs differ at most.

    `unlike` of its `values` differ; `moves` is by how many steps that alone moves an output of the network.
    """

    name: str
    op: str
    steps: float
    unlike: int
    values: int
    moves: float | None


@dataclass(frozen=True)
class TargetDifference:
    """By how many steps outputs on the target differ from the host's at most, and the operators that were compared."""

    steps: float
    outputs: Mapping[str, float]
    operators: tuple[OperatorDifference, ...] | None = field(default=None, metadata=OPTIONAL)
    compared: int | None = field(default=None, metadata=OPTIONAL)
    uncompared: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class TargetFacts:
    """What a target reported about itself."""

    name: str
    emulated: bool
    machine: str
    mnn: str
    numpy: str
    python: str
    int8: tuple[str, ...]


@dataclass(frozen=True)
class LayerLossMetrics:
    """What one layer adds to the error, as SQNR in dB; see `measurements.layer_errors.LayerErrors`."""

    name: str
    module: str | None
    weights_sqnr_db: float
    input_sqnr_db: float
    own_sqnr_db: float
    reached_sqnr_db: float
    clipped_in: float
    clipped_out: float
    alone_sqnr_db: float | None
    alone_metric: float | None


@dataclass(frozen=True)
class TriedMetrics:
    """One other way to quantize that was tried: the options that say it, and what came of it.

    `figure` is the accuracy in words; `quality` a number that is higher for better; `size_ratio` is float bytes /
    quantized bytes; `float_share` is the share of the weights that stays float, in [0, 1]. `trade_off` says what of the
    recipe is lost, if it is another recipe.
    """

    options: tuple[str, ...]
    passes: bool
    figure: str
    quality: float
    size_ratio: float = field(metadata=IN_JUNIT | IN_BENCHMARK)
    float_share: float
    trade_off: str = ""


@dataclass(frozen=True)
class AccuracyMetrics(Metrics):
    """Outputs against the float model's. Absent: not measured, because an output is broken or there is no task."""

    samples: int | None = field(default=None, metadata=OPTIONAL)
    outputs: Mapping[str, OutputMetrics] = field(default_factory=dict, metadata=OPTIONAL | IN_BENCHMARK)
    task: TaskMetrics | None = field(default=None, metadata=OPTIONAL | IN_BENCHMARK)
    float_top1: float | None = field(default=None, metadata=OPTIONAL)
    top1: float | None = field(default=None, metadata=OPTIONAL)
    top1_drop: float | None = field(default=None, metadata=OPTIONAL)
    as_run: AsRun | None = field(default=None, metadata=OPTIONAL)
    difference: TargetDifference | None = field(default=None, metadata=OPTIONAL)
    note: str | None = field(default=None, metadata=OPTIONAL)
    place: TargetFacts | None = field(default=None, metadata=OPTIONAL)
    layers: tuple[LayerLossMetrics, ...] | None = field(default=None, metadata=OPTIONAL)
    suspect: str | None = field(default=None, metadata=OPTIONAL)
    next_suspects: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    tried: tuple[TriedMetrics, ...] | None = field(default=None, metadata=OPTIONAL)

    @property
    def cosine(self) -> float | None:
        """The lowest mean cosine of an output to the float model's."""
        found = (output.cosine for output in self.outputs.values())
        return min((cosine for cosine in found if cosine is not None), default=None)


# Latency and memory --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimingConditions:
    """How models were run to be timed; see `measurements.timing.TimingSettings`."""

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
    """Times of pairs of runs; all but `pairs` are absent when there were too few of them.

    `latency_ratio` is quantized / float, the median of the pairs, with its 95 % interval. `drift` is the relative
    change from the first to the second half of the pairs; `slowest_over_median` says how noisy the host was.
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


@dataclass(frozen=True)
class MemoryMetrics(Metrics):
    """Bytes of MNN's session, and by how much its process grew at most; `_low` in memory mode 2, the others in mode 0.

    None: it could not run in this mode, or the system does not report it. `memory_ratio` is quantized / float in
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


# Baseline ------------------------------------------------------------------------------------------------------------


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
    """What was accepted beside what was measured, and all that an update of the baseline needs."""

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
