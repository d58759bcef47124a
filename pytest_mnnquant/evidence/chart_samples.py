"""What the HTML report shows beside the findings: distributions, timed pairs, the error that each layer adds.

Gathered only where such a report was asked for, by the check that has looked at the same thing anyway. Plain data, kept
small, since it travels from xdist workers with the records: a histogram has `BINS` whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.layers import Losses
from pytest_mnnquant.checks.calibration.samples import spread
from pytest_mnnquant.evidence.source import UNUSABLE, Unusable
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.findings.dataclass_json import as_json
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.mnnfile.model import BadModel, Op
from pytest_mnnquant.mnnfile.storage import Floats
from pytest_mnnquant.runtime.inference import tensor_histograms, tensor_ranges
from pytest_mnnquant.runtime.options import RunOptions

BINS: Final = 48
#: Bars are per so many values; one value in a bin shows.
WHOLE: Final = 100_000
_MOST_WEIGHTS: Final = 1 << 16
_MOST_SAMPLES: Final = 32
_MOST_PAIRS: Final = 500
# Seconds for what no check needs: a passing variant is not run layer by layer otherwise.
_AFFORDABLE: Final = 60.0


def portrait(case: VariantUnderTest, check: str) -> dict[str, Any]:
    """What belongs to this check of a variant; `unavailable` says why there is nothing."""
    gather = _PARTS.get(check)
    if gather is None or case.is_unusable:
        return {}
    try:
        return gather(case)
    except (*UNUSABLE, Unusable) as error:  # A picture that can't be drawn fails no check.
        return {"unavailable": str(error)}


def _weights(case: VariantUnderTest) -> dict[str, Any]:
    """Weights of each layer, as the float model has them and as they are stored: of large layers a random part."""
    base, model, found = case.variant.base, case.model, {}
    for layer, stored in case.match.pairs:
        if len(layer.weights) != 1 or len(stored.weights) != 1:
            continue
        try:
            ours, theirs = base.decoded(layer).reshape(-1), model.decoded(stored).reshape(-1)
        except BadModel:
            continue
        both = [values[np.isfinite(values)] for values in map(_some, (ours, theirs))]
        if all(values.size for values in both):
            low, high = (float(end(values)) for end, values in ((min, _ends(both)), (max, _ends(both))))
            bars = [np.histogram(values, BINS, _bounds(low, high))[0] for values in both]
            found[layer.name] = _bars(low, high, float=bars[0], stored=bars[1])
    return {"weights": found}


def _some(values: Floats) -> Floats:
    if values.size <= _MOST_WEIGHTS:
        return values
    return values[np.random.default_rng(0).integers(0, values.size, _MOST_WEIGHTS)]


def _ends(arrays: list[Floats]) -> list[float]:
    return [float(end) for values in arrays for end in (values.min(), values.max())]


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Ends of a histogram; of one value, a width around it."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bars(low: float, high: float, **counts: npt.NDArray[Any]) -> dict[str, Any]:
    low, high = (float(f"{end:.6g}") for end in _bounds(low, high))
    return {"low": low, "high": high, **{name: _shares(bars) for name, bars in counts.items()}}


def _shares(counts: npt.NDArray[Any]) -> list[int]:
    whole = counts.sum() or 1
    return [int(max(1, round(count * WHOLE / whole))) if count else 0 for count in counts.tolist()]


def _activations(case: VariantUnderTest) -> dict[str, Any]:
    """Values of each layer's input and output in the float model, with the range that the variant's codes hold."""
    source, variant = case.gate.prepared, case.variant
    data = source.evaluation or source.calibration
    layers = [(layer, stored) for layer, stored in case.match.pairs if _is_watched(layer) and _is_watched(stored)]
    if data is None:
        return {"unavailable": "no calibration or evaluation data were given"}
    if not layers:
        return {}
    ops, some = [layer for layer, _ in layers], _samples(data)
    options = RunOptions(min(_AFFORDABLE, case.gate.settings.timeout), batched=source.batched)
    ranges = tensor_ranges(variant.base, ops, some, options)
    with np.errstate(invalid="ignore"):
        bounds = np.stack([np.fmin.reduce(ranges[..., 0]), np.fmax.reduce(ranges[..., 1])], -1)
    bounds[~np.isfinite(bounds).all(-1)] = 0
    counts = tensor_histograms(variant.base, ops, bounds, BINS, some, options)
    names, quants = variant.base.tensor_names, variant.model.tensor_quants
    tensors: dict[str, Any] = {}
    ends: dict[str, list[str]] = {}
    for number, (layer, stored) in enumerate(layers):
        sides = ((layer.inputs[0], stored.inputs[0]), (layer.outputs[0], stored.outputs[0]))
        ends[layer.name] = [names[tensor] for tensor, _ in sides]
        for side, (tensor, index) in enumerate(sides):
            if counts[number, side].any() and names[tensor] not in tensors:
                quant = quants.get(index)
                codes = [(code - quant.zero) * quant.scale for code in (quant.low, quant.high)] if quant else None
                bars = _bars(*bounds[number, side].tolist(), float=counts[number, side])
                tensors[names[tensor]] = {**bars, "codes": codes}
    return {"tensors": tensors, "ends": ends}


def _is_watched(op: Op) -> bool:
    return bool(op.is_convolution and op.inputs and op.outputs and not op.subgraph)


def _samples(data: Dataset) -> dict[str, npt.NDArray[Any]]:
    chosen = spread(data.samples, _MOST_SAMPLES)
    return {name: array[chosen] for name, array in data.inputs.items()}


def _losses(case: VariantUnderTest) -> dict[str, Any]:
    """The error that each layer adds, in the order of execution."""
    if case.gate.prepared.evaluation is None:
        return {"unavailable": "no evaluation data were given"}
    found = case.known_losses or case.losses(None, _AFFORDABLE)
    if found is None:
        return {"unavailable": "MNN lets nobody look into this model while it runs"}
    return {"metric": found.metric_label, "losses": _added(found)}


def _added(losses: Losses) -> list[Mapping[str, Any]]:
    return [as_json(layer.metrics) for layer in losses.layers if layer.errors.measured]


def _pairs(case: VariantUnderTest) -> dict[str, Any]:
    """Timed pairs in the order of the run, thinned out evenly where there are many."""
    times = case.known_times
    if times is None:
        return {}
    ratios = times.candidate / times.reference
    return {"ratios": [float(f"{ratio:.4g}") for ratio in ratios[spread(len(ratios), _MOST_PAIRS)].tolist()]}


_PARTS: Final[dict[str, Callable[[VariantUnderTest], dict[str, Any]]]] = {
    "weights": _weights,
    "calibration": _activations,
    "accuracy": _losses,
    "latency": _pairs,
}
