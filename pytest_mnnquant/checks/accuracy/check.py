"""Accuracy: the variant's outputs are good enough for the task."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.checks.accuracy import causes
from pytest_mnnquant.checks.accuracy.causes import KnownCauses
from pytest_mnnquant.checks.accuracy.layers import Located, Losses, located
from pytest_mnnquant.checks.accuracy.limits import Criteria
from pytest_mnnquant.checks.accuracy.output_measures import measure_outputs
from pytest_mnnquant.checks.accuracy.outputs import Outputs, broken
from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence
from pytest_mnnquant.checks.accuracy.parts import lost_parts
from pytest_mnnquant.checks.accuracy.similarity import unlike
from pytest_mnnquant.checks.accuracy.task_metric import Compared, below_floor, judge_task
from pytest_mnnquant.checks.operator_faults import X86_MAX_POOL
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, AsRun, TaskMetrics
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import FAILED, Finding, Result
from pytest_mnnquant.findings.fix_command import skip_option
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.metrics.blocks import is_true_of_all
from pytest_mnnquant.metrics.task import MetricError, by_sequence, metric_named, output_for, scores

# The codes of lost accuracy or similarity, and of unusable outputs.
_LOST: Final = ("MNQ701", "MNQ702", "MNQ712")
_BROKEN: Final = ("MNQ703", "MNQ704", "MNQ706")
# The codes that add nothing once the float model itself fails.
_SUPERSEDED: Final = ("MNQ709", "MNQ723", "MNQ730")
_AT_CHANCE_FIX: Final = (
    "check that the labels belong to these samples, use the model's class numbers and cover several classes"
)
# A layer is at fault if it makes at least this share of an output's noise; for a broken output, if its noise is at
# least this share of the output's signal.
_LEAST_SHARE: Final = 1e-3
_BREAKS: Final = 0.5


@dataclass(frozen=True)
class AccuracyEvidence:
    """Outputs on the evaluation data, samples first. `labels` has shape [samples, ...] or is None.

    `as_run` holds the variant's outputs as this host computes them, if `outputs` come from a copy whose MaxPool
    operators `pools` are exact; it is empty if the model was judged unmodified. `inputs` are the inputs of these
    samples; `parts` are what the float model's operators join into its outputs. `lengths`: samples are steps, and this
    counts those of each sequence. `classes` is the number of classes of the data, if they are named; else 0.
    """

    reference: Outputs
    outputs: Outputs
    labels: npt.NDArray[Any] | None = None
    as_run: Outputs = dataclasses.field(default_factory=dict)
    pools: tuple[str, ...] = ()
    suspects: KnownCauses = dataclasses.field(default_factory=KnownCauses)
    inputs: Outputs = dataclasses.field(default_factory=dict)
    parts: PartEvidence = dataclasses.field(default_factory=PartEvidence)
    lengths: tuple[int, ...] = ()
    classes: int = 0


def check_accuracy(evidence: AccuracyEvidence, criteria: Criteria) -> Result:
    """Fail on broken outputs, on a drop of the task metric if labels match an output, on low similarity of the rest."""
    everything, evidence = evidence, _without_empty(evidence)
    reference, outputs = evidence.reference, evidence.outputs
    if not reference or not all(map(len, reference.values())):
        return Result.from_findings("accuracy", [Finding("MNQ001", "no output or no sample was compared")])
    if findings := broken(reference, outputs):
        return Result.from_findings("accuracy", findings)
    measured = measure_outputs(reference, outputs, evidence.inputs, evidence.parts)
    metrics = AccuracyMetrics(
        samples=next(iter(measured.values())).agreement.samples,
        outputs={name: item.metrics for name, item in measured.items()},
    )
    is_custom = criteria.metric is not None and criteria.metric.call is not None
    compared, output, findings = compare(everything if is_custom else evidence, criteria)
    if compared is not None and not compared.below_chance:
        task_findings, task = judge_task(compared, criteria)
        findings += task_findings
        metrics = _with_task(metrics, task)
    else:
        findings += [*(below_floor(compared, criteria) if compared else ()), *_unjudged(compared, criteria, findings)]
    if compared is not None and compared.at_chance:
        findings.append(_at_chance(compared))
        output = None
    decides_all = compared is not None and compared.metric.call is not None
    decided = tuple(reference) if decides_all else (output,) if output else ()
    findings += lost_parts(measured, evidence.parts.scales, decided, criteria)
    findings += unlike(reference, outputs, measured, decided, criteria)
    if any(finding.code == "MNQ708" for finding in findings):  # If the float model fails, the rest says little.
        findings = [finding for finding in findings if finding.code not in _SUPERSEDED]
    findings += _identical_samples(evidence)
    if evidence.pools:
        as_run, on_arm = _shown_results(evidence, compared, output)
        findings.append(_pool_note(evidence.pools, as_run, on_arm, compared, metrics.samples))
        metrics = dataclasses.replace(metrics, as_run=as_run)
    return Result.from_findings("accuracy", [_with_cause(finding, evidence.suspects) for finding in findings], metrics)


def _identical_samples(evidence: AccuracyEvidence) -> list[Finding]:
    """A finding if all samples are copies of one, which decides little."""
    arrays = evidence.inputs.values()
    count = min(map(len, arrays), default=0)
    if count < 2 or evidence.lengths or not all(map(_is_repeated, arrays)):
        return []
    message = f"all {count} samples of the evaluation data are identical, so only one was judged"
    return [Finding("MNQ003", message, fix="give different samples (--mnn-evaluation)")]


def _is_repeated(array: npt.NDArray[Any]) -> bool:
    """Whether all samples are equal."""
    first = array[:1]
    return is_true_of_all(lambda block: block == first, array)


def _without_empty(evidence: AccuracyEvidence) -> AccuracyEvidence:
    """The evidence without the outputs that are empty in both models, such as detections of a model without any."""
    filled = {
        name: array
        for name, array in evidence.reference.items()
        if array.size or name not in evidence.outputs or evidence.outputs[name].shape != array.shape
    }
    return dataclasses.replace(evidence, reference=filled)


def compare(evidence: AccuracyEvidence, criteria: Criteria) -> tuple[Compared | None, str | None, list[Finding]]:
    """The task metric of both models and the output that it judges; or the findings that say why it is unknown."""
    metric, labels = criteria.metric, evidence.labels
    chosen = metric or metric_named("top1")
    if metric is None and labels is None:
        return None, None, []
    assert chosen is not None
    try:
        name = None if chosen.call else output_for(chosen, evidence.reference, labels)
        _require_classes(evidence, name)
        before, after = (scores(chosen, of, name or "", labels) for of in (evidence.reference, evidence.outputs))
        if evidence.lengths:
            before, after = by_sequence(before, evidence.lengths), by_sequence(after, evidence.lengths)
        return Compared(chosen, before, after), name, []
    except MetricError as error:
        if metric is not None:
            message = f"--mnn-metric={metric.name}: {error}"
            fix = error.fix or "give outputs and labels in the form of the metric: pytest-mnnquant explain MNQ721"
            return None, None, [Finding("MNQ721", message, fix=fix)]
        assert labels is not None
        return None, None, [_unused_labels(labels, error, _limiting_options(criteria))]


def _require_classes(evidence: AccuracyEvidence, name: str | None) -> None:
    """Raise `MetricError` if names of folders gave the labels, and the output has another number of classes."""
    output = evidence.reference[name] if name and evidence.classes else None
    if output is None or output.dtype.kind != "f" or output.ndim != 2 or output.shape[1] in (1, evidence.classes):
        return
    raise MetricError(
        f"the data have {evidence.classes} classes by the names of folders, output {name!r} has {output.shape[1]}",
        'list the names of all classes in the order of the output: preprocess = {classes = ["...", ...], ...}',
    )


def _limiting_options(criteria: Criteria) -> list[str]:
    """The given options that set a limit on the task metric."""
    limits = {
        "--mnn-max-accuracy-drop": criteria.max_drop,
        "--mnn-min-accuracy-ratio": criteria.min_ratio,
        "--mnn-min-float-accuracy": criteria.min_float,
    }
    return [flag for flag, limit in limits.items() if limit is not None]


def _unjudged(compared: Compared | None, criteria: Criteria, findings: Sequence[Finding]) -> list[Finding]:
    """Limits on a task metric that is not known, unless `findings` report it already.

    A float model below chance still meets or fails its own limit.
    """
    judged = ("--mnn-min-float-accuracy",) if compared else ()
    given = [flag for flag in _limiting_options(criteria) if flag not in judged]
    if not given or findings:
        return []
    if compared:
        why, fix = "the float model is no better than a constant", _AT_CHANCE_FIX
    else:
        why = "the evaluation data have no labels"
        fix = "add an array named `labels` to the evaluation data, or leave the option out for this model"
    return [unjudged_limits(given, why, fix)]


def unjudged_limits(flags: Sequence[str], why: str, fix: str) -> Finding:
    """Limits that were given, for which there is nothing to judge."""
    return Finding("MNQ723", f"{', '.join(flags)} could not be judged: {why}", fix=fix)


def without_data(criteria: Criteria) -> Result | None:
    """The failure of limits that were given without evaluation data; None if none was given."""
    others = {
        "--mnn-metric": criteria.metric,
        "--mnn-min-cosine": criteria.min_cosine,
        "--mnn-min-sqnr": criteria.min_sqnr,
        "--mnn-min-agreement": criteria.min_agreement,
    }
    flags = [*_limiting_options(criteria), *(flag for flag, limit in others.items() if limit is not None)]
    if not flags:
        return None
    fix = "give evaluation data (--mnn-evaluation), or remove the option"
    return Result.from_findings("accuracy", [unjudged_limits(flags, "no evaluation data were given", fix)])


def _with_task(metrics: AccuracyMetrics, task: TaskMetrics) -> AccuracyMetrics:
    """The metrics with the task metric; top-1 also under its own keys of the report."""
    metrics = dataclasses.replace(metrics, task=task)
    if task.metric != "top1":
        return metrics
    return dataclasses.replace(metrics, float_top1=task.reference, top1=task.quantized, top1_drop=task.drop)


def _unused_labels(labels: npt.NDArray[Any], why: MetricError, options: Sequence[str]) -> Finding:
    """An error if `options` set limits that need labels, else a warning."""
    span = f", {labels.min():g} to {labels.max():g}" if labels.dtype.kind in "iuf" and labels.size else ""
    message = f"the labels ({labels.dtype}, shape {list(labels.shape)}{span}) could not be used as classes: {why}"
    usual = "name their metric with --mnn-metric, or give one class number per sample, counted from 0, as `labels`"
    fix = why.fix or usual
    if options:
        return Finding("MNQ721", f"{' and '.join(options)} can't be judged: {message}", fix=fix)
    return Finding("MNQ720", f"{message}; output similarity is judged instead", fix=fix)


def _at_chance(compared: Compared) -> Finding:
    before = compared.before
    return Finding(
        "MNQ709",
        f"{compared.metric.label} of the float model is {before.value:.4f}, a constant answer reaches "
        f"{before.baseline:.4f}: this metric decides nothing, so output similarity is judged too",
        fix=_AT_CHANCE_FIX,
    )


def _with_cause(finding: Finding, suspects: KnownCauses) -> Finding:
    if finding.code not in _LOST:
        return finding
    return dataclasses.replace(
        finding,
        cause=finding.cause or causes.cause(suspects),
        fix=finding.fix or causes.fix(suspects),
    )


def _shown_results(evidence: AccuracyEvidence, compared: Compared | None, decided: str | None) -> tuple[AsRun, AsRun]:
    """The metrics of what this host computes, if an exact copy was judged instead, and the copy's on the same samples.

    Few samples may be none that a metric can be computed of.
    """
    count = len(next(iter(evidence.as_run.values())))
    reference = {name: array[:count] for name, array in evidence.reference.items()}
    labels = None if evidence.labels is None else evidence.labels[:count]

    def shown(outputs: Outputs) -> AsRun:
        results = {name: outputs[name][:count] for name in reference}
        cosines = [agreement(array, results[name]).cosine for name, array in reference.items()]
        score = None
        if compared is not None and decided is not None:
            with contextlib.suppress(MetricError):
                score = scores(compared.metric, results, decided, labels).value
        return AsRun(score, min((cosine for cosine in cosines if cosine is not None), default=None), count)

    return shown(evidence.as_run), shown(evidence.outputs)


def _pool_note(
    pools: Sequence[str], as_run: AsRun, on_arm: AsRun, compared: Compared | None, samples: int | None
) -> Finding:
    figures = []
    if compared is not None and as_run.task is not None and on_arm.task is not None:
        figures.append(f"{compared.metric.label} {as_run.task:.4f} on this host, {on_arm.task:.4f} on ARM")
    if as_run.cosine is not None and on_arm.cosine is not None:
        figures.append(f"cosine {as_run.cosine:.4f} on this host, {on_arm.cosine:.4f} on ARM")
    return Finding(
        "MNQ710",
        "; ".join(figures) + ("" if as_run.samples == samples else f" (first {as_run.samples} samples)"),
        ", ".join(pools),
        cause=X86_MAX_POOL,
        fix="nothing to do for phones; do not serve this int8 model on x86",
    )


def can_be_located(result: Result) -> bool:
    """Whether a single layer may have caused this failure."""
    return result.outcome == FAILED and any(item.code in (*_LOST, *_BROKEN) for item in result.findings)


def unlocated(result: Result, why: str) -> Result:
    """The result, with the reason why it names no layer."""
    cause = Cause("layer-not-located", f"the layer at fault could not be determined: {why.splitlines()[0]}")
    findings = (
        dataclasses.replace(finding, cause=joined(finding.cause, cause))
        if finding.code in (*_LOST, *_BROKEN)
        else finding
        for finding in result.findings
    )
    return dataclasses.replace(result, findings=tuple(findings))


def with_location(result: Result, losses: Losses | None) -> Result:
    """A failed result that names the layer which lost the accuracy, if the losses show one."""
    place = located(losses) if losses is not None and result.outcome == FAILED else None
    if losses is None or place is None:
        return result
    codes = _BROKEN if place.noise >= _BREAKS else ()
    if place.noise >= _LEAST_SHARE * _noise(metrics_of(AccuracyMetrics, [result])):
        codes = (*codes, *_LOST)
    if not any(finding.code in codes for finding in result.findings):
        return result
    findings = []
    for finding in result.findings:
        if finding.code in codes and not finding.layer:
            cause, fix = joined(finding.cause, place.cause), _with_skip(finding.fix, place)
            finding = dataclasses.replace(finding, layer=place.layer, cause=cause, fix=fix)
        findings.append(finding)
    metrics = dataclasses.replace(
        metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics(),
        layers=tuple(layer.metrics for layer in losses.layers),
        suspect=place.layer,
        next_suspects=place.others,
    )
    return dataclasses.replace(result, findings=tuple(findings), metrics=metrics)


def _with_skip(fix: str, place: Located) -> str:
    """A fix, and the option that keeps the layer at fault float."""
    if not place.is_layer:
        return fix
    return "; ".join(filter(None, (fix, f"to keep this layer float, add {skip_option(place.layer)}")))


def _noise(metrics: AccuracyMetrics | None) -> float:
    """The noise / signal of the worst output; 0 if outputs were not compared, or are constant."""
    outputs = metrics.outputs if metrics else {}
    decibels = (output.centred_sqnr_db for output in outputs.values() if output.equal is None)
    return max((10 ** (-sqnr / 10) for sqnr in decibels if math.isfinite(sqnr)), default=0.0)
