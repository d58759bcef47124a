"""Where accuracy was lost: the layer that adds most of the error, and by what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.accuracy_metrics import LayerLossMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.measurements.layer_errors import LayerErrors, OperatorErrors

# An operator without weights that multiplies the error of its inputs by this factor is at fault itself.
_OWN_FAULT: Final = 8.0
# Noise below this share of the signal (-30 dB) is harmless, however much it grew.
_QUIET: Final = 1e-3
# A part that makes at least this share of a layer's error is named as its cause.
_MOST: Final = 0.5
_CLIPPED: Final = 0.005
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """One layer: the error that it adds itself, and what the model loses when this layer alone is quantized.

    `module` is the name of its PyTorch module, if known. `alone` is the noise / signal at the worst output with this
    layer alone quantized, `alone_metric` the task metric then; None if that was not measured. `joins` names the
    operator that joins several tensors into its input; empty if none does.
    """

    name: str
    module: str
    errors: LayerErrors
    alone: float | None = None
    alone_metric: float | None = None
    joins: str = ""

    @property
    def title(self) -> str:
        """The user's name for the layer, and MNN's."""
        return f"{self.module} ({self.name})" if self.module and self.module != self.name else self.name

    @property
    def cost(self) -> float:
        """Noise / signal at the worst output with this layer alone quantized; if not measured, at the layer's output.

        Infinite if it outputs NaN or infinity for exact inputs.
        """
        added = self.errors.own
        return added if self.alone is None or not math.isfinite(added) else self.alone

    @property
    def metrics(self) -> LayerLossMetrics:
        """The layer's entry in the report, with SQNR in dB."""
        errors = self.errors
        return LayerLossMetrics(
            name=self.name,
            module=self.module or None,
            weights_sqnr_db=decibels(errors.weights),
            input_sqnr_db=decibels(errors.input),
            own_sqnr_db=decibels(errors.own),
            reached_sqnr_db=decibels(errors.reached),
            clipped_in=errors.clipped_in,
            clipped_out=errors.clipped_out,
            alone_sqnr_db=None if self.alone is None else decibels(self.alone),
            alone_metric=self.alone_metric,
        )


@dataclass(frozen=True, slots=True)
class OperatorLoss:
    """One operator without weights of this `kind`; `alone` and `alone_metric`: see `LayerLoss`."""

    name: str
    kind: str
    errors: OperatorErrors
    alone: float | None = None
    alone_metric: float | None = None


@dataclass(frozen=True)
class Losses:
    """All layers and all operators without weights, in the order of execution."""

    layers: tuple[LayerLoss, ...]
    operators: tuple[OperatorLoss, ...] = ()
    metric_label: str = ""
    exact_metric: float | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """The layer (or operator) at fault and why; `others` are the next worst layers.

    `noise` is the error it adds to the model's output (an operator that computes otherwise: to its own output), as a
    share of the signal. `is_layer`: a layer with weights, which can stay float.
    """

    layer: str
    cause: Cause
    others: tuple[str, ...] = ()
    noise: float = 0.0
    is_layer: bool = False


def decibels(noise: float) -> float:
    """SQNR of noise given as a share of the signal's energy."""
    return math.inf if noise == 0 else -math.inf if not math.isfinite(noise) else -10 * math.log10(noise)


def ranked(losses: Losses) -> tuple[LayerLoss, ...]:
    """The layers, the most harmful first: by the error of the output with each quantized alone, else by added error.

    Layers that output NaN or infinity for exact inputs come first, in order of execution.
    """
    seen = [layer for layer in losses.layers if layer.errors.measured and layer.errors.own > 0]
    broken = [layer for layer in seen if not math.isfinite(layer.errors.own)]
    measured = [layer for layer in seen if math.isfinite(layer.errors.own)]
    ranked_alone = sorted((layer for layer in measured if layer.alone is not None), key=lambda layer: -layer.cost)
    rest = sorted((layer for layer in measured if layer.alone is None), key=lambda layer: -layer.errors.own)
    return (*broken, *ranked_alone, *rest)


def located(losses: Losses) -> Located | None:
    """The layer or operator that lost most of the accuracy; None if none adds any error."""
    order = ranked(losses)
    operator = _operator(losses.operators)
    if operator is not None and (not order or operator.errors.left > 4 * order[0].cost):
        entered, left = operator.errors.entered, operator.errors.left
        text = (
            f"operator {operator.name} lowers SQNR from {decibels(entered):.1f} dB at its input to "
            f"{decibels(left):.1f} dB at its output: it computes something else than in the float model (no layer's "
            "weights or ranges cause this)"
        )
        return Located(operator.name, Cause("operator-computes-otherwise", text), noise=left)
    costly = max(losses.operators, key=_cost_alone, default=None)
    if costly is not None and _cost_alone(costly) > (order[0].cost if order else 0.0):
        others = tuple(layer.name for layer in order[:_NAMED])
        return Located(costly.name, _operator_cause(costly, losses), others, _cost_alone(costly))
    if not order:
        return None
    worst = order[0]
    others = tuple(layer.name for layer in order[1 : 1 + _NAMED])
    if not math.isfinite(worst.errors.own):
        return Located(worst.name, _not_finite(worst), others, worst.cost, is_layer=True)
    text = f"layer {worst.title} adds most of the error: {_own(worst)}{_alone(worst, losses)}; {_why(worst)}"
    first = next((layer for layer in losses.layers if layer.errors.own >= worst.errors.own / 2), worst)
    if first is not worst:
        text += (
            f"; the first layer that adds at least half as much is {first.title} ({decibels(first.errors.own):.1f} dB)"
        )
    return Located(worst.name, Cause("layer-adds-error", text), others, worst.cost, is_layer=True)


def _cost_alone(operator: OperatorLoss) -> float:
    return operator.alone or 0.0


def _operator_cause(worst: OperatorLoss, losses: Losses) -> Cause:
    errors = worst.errors
    text = (
        f"operator {worst.name} ({worst.kind}, without weights) adds most of the error: in int8 with exact inputs its "
        f"output SQNR is {decibels(errors.own):.1f} dB"
    )
    if errors.entered > 0:
        reached, inherited = decibels(errors.left), decibels(errors.entered)
        text += f" ({reached:.1f} dB with its real inputs, which have {inherited:.1f} dB)"
    return Cause("operator-adds-error", text + _alone(worst, losses))


def _operator(operators: Iterable[OperatorLoss]) -> OperatorLoss | None:
    """The first operator without weights that multiplies the error of its inputs."""
    return next(
        (
            operator
            for operator in operators
            if operator.errors.left > _QUIET * 10
            and operator.errors.left > _OWN_FAULT * max(operator.errors.entered, _QUIET)
        ),
        None,
    )


def _not_finite(worst: LayerLoss) -> Cause:
    errors = worst.errors
    part = "its weights or its bias" if not math.isfinite(errors.weights) else "the scale of its input"
    if math.isfinite(errors.input):
        part = "the scale of its output"
    text = f"layer {worst.title} outputs NaN or infinity for the float model's input, because of {part}"
    return Cause("layer-makes-not-finite", text)


def _own(worst: LayerLoss) -> str:
    errors = worst.errors
    text = f"with exact inputs its output SQNR is {decibels(errors.own):.1f} dB"
    if errors.inherited > 0:
        reached, inherited = decibels(errors.reached), decibels(errors.inherited)
        text += f" ({reached:.1f} dB with its real inputs, which have {inherited:.1f} dB)"
    return text


def _alone(worst: LayerLoss | OperatorLoss, losses: Losses) -> str:
    if worst.alone is None:
        return ""
    what = "layer" if isinstance(worst, LayerLoss) else "operator"
    text = f"; quantizing this {what} alone lowers the output SQNR to {decibels(worst.alone):.1f} dB"
    if worst.alone_metric is not None and worst.alone_metric != losses.exact_metric:
        text += f" and changes {losses.metric_label} to {worst.alone_metric:.4f} (float {losses.exact_metric:.4f})"
    return text


def _why(worst: LayerLoss) -> str:
    """Which part of the layer's own error is the largest: its weights, its input or its output."""
    errors = worst.errors
    weights, entering = errors.weights, max(0.0, errors.input - errors.weights)
    leaving = max(0.0, errors.own - errors.input)
    whole = max(errors.own, 1e-30)
    if weights >= _MOST * whole:
        return f"the error comes from its weights ({decibels(weights):.1f} dB with only them quantized)"
    if entering >= leaving:
        joined = f", which {worst.joins} joins under one scale" if worst.joins else ""
        return f"the error comes from its input quantization: {_clipping(errors.clipped_in)}{joined}"
    return f"the error comes from its output quantization: {_clipping(errors.clipped_out)}"


def _clipping(share: float) -> str:
    if share >= _CLIPPED:
        return f"{share:.1%} of the values lie outside the range"
    return "the steps are too coarse for the values"
