"""Picks the samples on which a variant is worst, by the error that the accuracy check judges, and draws them small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.task_metric import Compared
from pytest_mnnquant.evidence.chart_samples import layer_loss_samples
from pytest_mnnquant.evidence.output_form import Shown
from pytest_mnnquant.evidence.panels import panels_of
from pytest_mnnquant.evidence.steps import UNUSABLE, Unusable
from pytest_mnnquant.evidence.variant import VariantUnderTest
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.measurements.sample_views import SampleView
from pytest_mnnquant.metrics.task import MetricError, metric_named, output_for, scores
from pytest_mnnquant.sources.metric import load_metric

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
_MOST: Final = 4
_CHANNELS: Final = (1, 3)
_LEAST_SIDE: Final = 8


@dataclass(frozen=True)
class Ranked:
    """An output, how bad each of its samples is [samples], and the same in words."""

    output: str
    errors: npt.NDArray[np.float64]
    words: tuple[str, ...]


def accuracy_samples(case: VariantUnderTest) -> ChartSamples:
    """The charts of the accuracy check: the worst samples, and the error that each layer adds."""
    if case.source.prepared.evaluation is None:
        return layer_loss_samples(case)
    views = ChartSamples(views=worst_samples(case))
    try:
        return views.with_parts_of(layer_loss_samples(case))
    except (*UNUSABLE, Unusable) as error:
        return views.with_parts_of(ChartSamples(unavailable={"accuracy": str(error)}))


def worst_samples(case: VariantUnderTest) -> tuple[SampleView, ...]:
    """The worst samples of the evaluation data, as on ARM; none if the outputs can't be compared."""
    data = case.source.prepared.evaluation
    assert data is not None
    reference, outputs = case.source.float_run.outputs, case.runs.exact_run[0].outputs
    comparable = [
        name
        for name, array in reference.items()
        if name in outputs and outputs[name].shape == array.shape and len(array) == data.samples and array.size
    ]
    if not comparable:
        return ()
    reference, outputs = ({name: pair[name] for name in comparable} for pair in (reference, outputs))
    ranked = _by_task(case, reference, outputs, data.labels) or by_difference(reference, outputs)
    return tuple(
        SampleView(
            sample,
            ranked.output,
            ranked.words[sample],
            panels_of(shown_of(ranked.output, sample, data.inputs, reference, outputs)),
        )
        for sample in worst_of(ranked.errors)
    )


def worst_of(errors: npt.NDArray[np.float64]) -> list[int]:
    """The numbers of the samples with the largest errors; NaN is the largest."""
    order = np.argsort(-np.nan_to_num(errors, nan=np.inf, posinf=np.inf), kind="stable")
    return [int(number) for number in order[:_MOST]]


def _by_task(case: VariantUnderTest, reference: Outputs, outputs: Outputs, labels: Array | None) -> Ranked | None:
    """By what each sample loses of the task metric; None if the check does not judge samples one by one by it."""
    settings = case.source.settings
    name = settings.limits.metric
    metric = load_metric(name, settings.base) if name else metric_named("top1")
    if metric is None or labels is None or metric.call is not None:
        return None
    try:
        output = output_for(metric, reference, labels)
        pair = [scores(metric, arrays, output, labels) for arrays in (reference, outputs)]
    except MetricError:
        return None
    compared = Compared(metric, *pair)
    if compared.before.each is None or compared.after.each is None or compared.at_chance:
        return None
    before, after = compared.before.each, compared.after.each
    lost = (after - before) if metric.lower_is_better else (before - after)
    words = [f"{compared.label} {first:.4g} to {second:.4g}" for first, second in zip(before, after, strict=True)]
    # Among samples that lose alike, those that differ most from the float model come first.
    ties = by_difference({output: reference[output]}, outputs).errors
    span = float(np.ptp(np.nan_to_num(ties, posinf=0))) or 1.0
    small = 1e-6 * (float(np.ptp(lost)) or 1.0) * np.nan_to_num(ties, posinf=span) / span
    return Ranked(output, lost + small, tuple(words))


def by_difference(reference: Outputs, outputs: Outputs) -> Ranked:
    """By the difference from the float model, in the output that differs most.

    Of numbers, the square of the difference, as a share of what varies over the samples; of integers, the share of
    values that differ.
    """
    ranked = [_differences(name, array, outputs[name]) for name, array in reference.items()]
    return max(ranked, key=lambda item: float(np.nan_to_num(item.errors, nan=np.inf).mean()))


def _differences(name: str, reference: Array, output: Array) -> Ranked:
    first, second = (array.reshape(len(array), -1) for array in (reference, output))
    if reference.dtype.kind in "iub":
        errors = (first != second).mean(1)
        return Ranked(name, errors, tuple(f"{error:.1%} of the values differ" for error in errors))
    first, second = first.astype(np.float64), second.astype(np.float64)
    common = first.mean(0) if len(first) > 1 else np.zeros(first.shape[1])
    energy = float(np.square(first - common).sum(1).mean()) or 1.0
    errors = np.square(second - first).sum(1) / energy
    return Ranked(name, errors, tuple(f"error {100 * error:.3g} % of the signal" for error in errors))


def shown_of(name: str, sample: int, inputs: Outputs, reference: Outputs, outputs: Outputs) -> Shown:
    """One sample, with its input picture, and the scores that belong to boxes in another output."""
    picture = next((array[sample] for array in inputs.values() if _is_picture(array)), None)
    others = [other for other in reference if other != name]
    pair = reference[name][sample], outputs[name][sample]
    if picture is not None and len(others) == 1:
        beside = reference[others[0]][sample], outputs[others[0]][sample]
        for boxes, scored in ((pair, beside), (beside, pair)):
            if 4 in np.squeeze(boxes[0]).shape and 4 not in np.squeeze(scored[0]).shape:
                return Shown(*boxes, picture, scored)
    return Shown(*pair, picture)


def _is_picture(array: Array) -> bool:
    """Whether an input holds pictures: [samples, channels, height, width], or with channels last."""
    if array.ndim != 4 or array.dtype.kind not in "fu":
        return False
    sides = array.shape[2:] if array.shape[1] in _CHANNELS else array.shape[1:3] if array.shape[3] in _CHANNELS else ()
    return bool(sides) and min(sides) >= _LEAST_SIDE
