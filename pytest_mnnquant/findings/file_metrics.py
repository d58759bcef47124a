"""What the checks of files measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.check_metrics import IN_BENCHMARK, IN_JUNIT, Metrics
from pytest_mnnquant.findings.dataclass_json import key


@dataclass(frozen=True)
class StepOutput:
    """The agreement of one output before and after a step of the conversion; see `metrics.agreement.Agreement`."""

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
    """Names of the files that must be deployed together, and the bytes of the model with its external weights."""

    files: tuple[str, ...]
    bytes: int
