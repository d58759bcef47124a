"""What the checks that run an export judge."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mnnquant.findings.accuracy_metrics import TriedMetrics
from pytest_mnnquant.findings.language_metrics import BlamedLayer
from pytest_mnnquant.measurements.language_model import Generation
from pytest_mnnquant.metrics.divergence import Divergence


@dataclass(frozen=True)
class ExecutionEvidence:
    """MNN.llm's predictions against those of the decoded weights.

    `whole`: of whole texts, `steps`: token by token, `normal`: of whole texts in memory mode normal with
    precision high, None if that was not necessary. `memory` is the memory mode of the first two.
    """

    whole: Divergence
    steps: Divergence
    memory: str
    normal: Divergence | None = None


@dataclass(frozen=True)
class AccuracyEvidence:
    """The export's predictions against its source's.

    `weights` are the predictions of the decoded weights alone; None if they can't be computed. `bits` is the smallest
    number of bits that a large part of the weights has; `vocabulary` the number of tokens.
    """

    predictions: Divergence
    weights: Divergence | None
    bits: int
    vocabulary: int
    generation: Generation | None = None
    blamed: tuple[BlamedLayer, ...] = ()
    tried: tuple[TriedMetrics, ...] = ()


@dataclass(frozen=True)
class CostEvidence:
    """Generation in memory modes low and normal, and the mode of the export's configuration."""

    low: Generation
    normal: Generation
    is_low: bool
    threads: int
