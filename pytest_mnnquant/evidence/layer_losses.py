"""Finds where a variant loses its accuracy: compares it with the float model, layer by layer, on evaluation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence, compare
from pytest_mnnquant.checks.accuracy.layers import LayerLoss, Losses, OperatorLoss
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.task_metric import Compared
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.task import TaskMetric
from pytest_mnnquant.mnnfile.commands import joining_operator
from pytest_mnnquant.mnnfile.data_sizes import data_sized_outputs
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.quantize.variant import Variant
from pytest_mnnquant.recipes.mnn_support import can_observe
from pytest_mnnquant.runtime.layer_errors import LayerRun, layer_errors
from pytest_mnnquant.runtime.options import RunOptions

_SAMPLES: Final = 64
# How many of the layers that add most error are quantized alone, to measure what each costs.
_ALONE: Final = 8
Pair = tuple[Op, Op]
Outputs = dict[str, npt.NDArray[Any]]


def layer_losses(
    source: Prepared, variant: Variant, judged: Model, pairs: Sequence[Pair], metric: TaskMetric | None, timeout: float
) -> Losses | None:
    """What each layer adds and costs; None if MNN does not expose it (While and If bodies), or without layers or data.

    `judged` is the variant's model, or the copy that was judged instead; `pairs` are layers of both models.
    """
    data = source.evaluation
    layers = [(layer, stored) for layer, stored in pairs if can_observe(layer) and can_observe(stored)]
    is_measurable = not (variant.base.has_subgraphs or judged.has_subgraphs or data_sized_outputs(variant.base))
    if data is None or not layers or not is_measurable:
        return None
    samples = data.spread(_SAMPLES)
    options = source.options(timeout)
    result = layer_errors(variant.base, judged, layers, samples.inputs, options, alone=_ALONE)
    labels = None if samples.labels is None else samples.labels[list(result.samples)]
    modules = variant.modules or _modules(source, variant.base, [layer for layer, _ in layers], data, options)
    joins = {layer.name: joining_operator(variant.base, layer) for layer, _ in layers}
    order = {op.name: place for place, op in enumerate(variant.base.ops)}
    names = sorted(result.layers, key=lambda name: order.get(name, 0))
    figures = {name: _alone(result, name, labels, metric) for name in result.alone}
    kinds = {op.name: op.kind for op in variant.base.ops}
    exact = _compared(result.exact, result.exact, labels, metric)

    def figures_of(name: str) -> tuple[float | None, float | None]:
        return figures.get(name, (None, None))

    return Losses(
        layers=tuple(
            LayerLoss(name, modules.get(name, ""), result.layers[name], *figures_of(name), joins.get(name, ""))
            for name in names
        ),
        operators=tuple(
            OperatorLoss(name, kinds.get(name, ""), errors, *figures_of(name))
            for name, errors in result.operators.items()
        ),
        metric_label=exact.metric.label if exact else "",
        exact_metric=exact.after.value if exact else None,
    )


def _modules(source: Prepared, base: Model, layers: list[Op], data: Dataset, options: RunOptions) -> dict[str, str]:
    if source.network is None:
        return {}
    from pytest_mnnquant.quantize.tensor_binding import bind_tensors

    return bind_tensors(source.network, base, tuple(layers), data, options).modules


def _alone(
    result: LayerRun, name: str, labels: npt.NDArray[Any] | None, metric: TaskMetric | None
) -> tuple[float, float | None]:
    outputs = result.alone[name]
    noises = [_noise(exact, outputs[output]) for output, exact in result.exact.items()]
    compared = _compared(result.exact, outputs, labels, metric)
    return max(noises, default=0.0), compared.after.value if compared else None


def _noise(exact: npt.NDArray[Any], output: npt.NDArray[Any]) -> float:
    """Noise as a share of the output's variable part, so a constant part hides nothing; for integers, share unequal."""
    if exact.dtype.kind != "f":
        return float((exact != output).mean())
    reference, values = exact.astype(np.float64), output.astype(np.float64)
    signal = float(np.square(reference - reference.mean(0)).sum()) or float(np.square(reference).sum())
    noise = float(np.square(reference - values).sum())
    if not np.isfinite(noise):
        return np.inf
    return noise / signal if signal else float(noise > 0)


def _compared(
    exact: Outputs, outputs: Outputs, labels: npt.NDArray[Any] | None, metric: TaskMetric | None
) -> Compared | None:
    """The task metric of both; None if these labels have none, or it is below chance."""
    compared, _, _ = compare(AccuracyEvidence(exact, outputs, labels), Criteria(metric=metric))
    return None if compared is None or compared.below_chance else compared
