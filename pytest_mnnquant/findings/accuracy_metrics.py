"""What the accuracy check measured: of each output, of the task, of layers, and of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.check_metrics import IN_BENCHMARK, IN_JUNIT, Metrics
from pytest_mnnquant.findings.dataclass_json import OPTIONAL, key
from pytest_mnnquant.findings.language_metrics import LanguageMetrics


@dataclass(frozen=True)
class OutputMetrics:
    """One output against the float model's; see `metrics.agreement.Agreement`.

    `worst_part_sqnr_db` is the SQNR of the worst part about the mean of the samples, `detail_sqnr_db` the mean SQNR of
    what the network adds to an input, `iou` the intersection over union of identifiers; absent if they do not apply.
    """

    sqnr_db: float
    centred_sqnr_db: float
    cosine: float | None
    max_error: float
    mean_error: float
    relative_error: float
    top1_agreement: float | None
    top5_agreement: float | None
    equal: float | None
    worst_part_sqnr_db: float | None = field(default=None, metadata=OPTIONAL)
    detail_sqnr_db: float | None = field(default=None, metadata=OPTIONAL)
    iou: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class TaskMetrics:
    """The task metric of both models, in its own unit.

    `drop` is by how much the variant is worse; its 95 % interval is `drop_low` to `drop_high`. `lost` samples are right
    in the float model and wrong in the variant, `won` the reverse. `ratio` is the share of the float model's value that
    is left. `samples_needed`: about this number of samples would decide.
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
class StepError:
    """The SQNR of an output at one step (counted from 1) of the `sequences` that are as long, in dB."""

    step: int
    sqnr_db: float
    sequences: int


@dataclass(frozen=True)
class AsRun:
    """What this host computes although its kernels are known to be wrong: the task metric and the lowest cosine.

    `samples` is the number of samples, the first ones, that show it.
    """

    task: float | None
    cosine: float | None
    samples: int = 0


@dataclass(frozen=True)
class OperatorDifference:
    """One operator with the same input on the host and on the target: the largest output difference, in steps.

    `unlike` of its `values` differ; `moves` is by how many steps this difference alone moves an output of the network.
    """

    name: str
    op: str
    steps: float
    unlike: int
    values: int
    moves: float | None


@dataclass(frozen=True)
class TargetDifference:
    """The largest difference of outputs on the target from the host's, in steps, and the compared operators."""

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
    """Another way to quantize that was tried: the options that request it, and its result.

    `figure` is the accuracy in words; `quality` a number that is higher if it is better; `size_ratio` is float bytes /
    quantized bytes; `float_share` is the share of the weights that stays float, in [0, 1]. `trade_off` says what
    another recipe loses.
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
    """Outputs against the float model's. Absent: not measured, since an output is broken or the task is unknown."""

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
    language: LanguageMetrics | None = field(default=None, metadata=OPTIONAL)
    error_over_steps: Mapping[str, tuple[StepError, ...]] = field(default_factory=dict, metadata=OPTIONAL)

    @property
    def cosine(self) -> float | None:
        """The lowest mean cosine of an output to the float model's."""
        cosines = (output.cosine for output in self.outputs.values())
        return min((cosine for cosine in cosines if cosine is not None), default=None)
