"""The data of a variant's charts: distributions, timed pairs, the error that each layer adds, the worst samples.

The data are small, since xdist workers send them with the records: a histogram has a few dozen integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.accuracy_metrics import LayerLossMetrics
from pytest_mnnquant.findings.dataclass_json import OPTIONAL
from pytest_mnnquant.measurements.sample_views import SampleView


@dataclass(frozen=True, slots=True)
class WeightHistogram:
    """The weights of one layer from `low` to `high`: parts per 100,000 in bins of equal width.

    `source` counts the values of the float model, `stored` the decoded values of the variant.
    """

    low: float
    high: float
    source: tuple[int, ...]
    stored: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorHistogram:
    """The values of one tensor in the float model from `low` to `high`: parts per 100,000 in bins of equal width.

    `codes` is the range that the variant's codes cover; None if the tensor is not quantized.
    """

    low: float
    high: float
    source: tuple[int, ...]
    codes: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class ChartSamples:
    """The data that checks gathered about one variant; parts that no check gathered are empty.

    `weights` are by layer, `tensors` by tensor; `ends` names input and output tensor of each layer. `losses` are in
    the order of execution, `ratios` (quantized / float latency of timed pairs) in the order of measurement. `views` are
    the samples with the largest error, the worst first.
    `unavailable` gives the reason by check if data are missing.
    """

    weights: Mapping[str, WeightHistogram] = field(default_factory=dict, metadata=OPTIONAL)
    tensors: Mapping[str, TensorHistogram] = field(default_factory=dict, metadata=OPTIONAL)
    ends: Mapping[str, tuple[str, str]] = field(default_factory=dict, metadata=OPTIONAL)
    losses: tuple[LayerLossMetrics, ...] = field(default=(), metadata=OPTIONAL)
    ratios: tuple[float, ...] = field(default=(), metadata=OPTIONAL)
    views: tuple[SampleView, ...] = field(default=(), metadata=OPTIONAL)
    unavailable: Mapping[str, str] = field(default_factory=dict, metadata=OPTIONAL)

    def with_parts_of(self, other: ChartSamples) -> ChartSamples:
        """These samples, and those of another check of the same variant."""
        return ChartSamples(
            weights={**self.weights, **other.weights},
            tensors={**self.tensors, **other.tensors},
            ends={**self.ends, **other.ends},
            losses=self.losses or other.losses,
            ratios=self.ratios or other.ratios,
            views=self.views or other.views,
            unavailable={**self.unavailable, **other.unavailable},
        )
