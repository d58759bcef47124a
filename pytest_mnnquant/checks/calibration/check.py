"""Calibration: whether it used enough of the right data, and whether its scales fit held-out data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_mnnquant.checks.calibration.clipping import HeldOut, is_scale, judge_fit, with_fit
from pytest_mnnquant.checks.calibration.constant_inputs import judge_constant_inputs
from pytest_mnnquant.checks.calibration.overlap import judge_overlap
from pytest_mnnquant.checks.calibration.ranges import (
    LEAST,
    Batches,
    judge_number,
    judge_order,
    movement,
    spans,
    with_movement,
)
from pytest_mnnquant.checks.calibration.samples import judge_samples
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.findings.run_metrics import CalibrationMetrics
from pytest_mnnquant.measurements.calibration import Observations, Record
from pytest_mnnquant.measurements.dataset import Dataset

# Changes of a model up to this are rounding in float32.
_ROUNDING: Final = 1e-5
# A scale that changes by this factor after calibration clips half of a tensor's range, or costs a bit.
_MOVED, _MOVED_A_LITTLE = 2.0, 1.05

# Ranges are equal within this share of their width; no observer widens them by this factor.
_SAME, _OTHER = 0.05, 4.0
_CLIPPING: Final = re.compile(r"(percentile|histogram|kl)[\d.]*|mnnquant-.*")


@dataclass(frozen=True)
class CalibrationEvidence:
    """What is known of a variant's calibration.

    `record` is None for finished files. `floats` names the inputs that take floats. `batches` gives the ranges of
    tensors by batch, or by sample if there are few; empty if unknown. `tensors` are the quantized tensors; without
    evaluation data they have no losses. `quantized_inputs` gives a layer that reads the codes of each input;
    `output_shapes` are the shapes of a sample's outputs.
    """

    mode: str | None
    record: Record | None
    calibration: Dataset | None
    evaluation: Dataset | None
    floats: tuple[str, ...] = ()
    batches: Mapping[str, Batches] = field(default_factory=dict)
    tensors: tuple[HeldOut, ...] = ()
    quantized_inputs: Mapping[str, str] = field(default_factory=dict)
    output_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def samples_used(record: Record | None, data: Dataset | None) -> int | None:
    """How many samples were used for calibration; None if unknown."""
    if record is None:
        return None
    observations = record.observations
    if observations is None:
        return record.samples
    if (observations.handed_out == 0) != (observations.forwards == 0):
        return None  # The pipeline ran on its own data, or gave the data to another tool.
    # A pipeline may leave its loop early.
    return min(record.samples, min(observations.handed_out, observations.forwards) * record.batch)


def check_calibration(calibration: CalibrationEvidence) -> Result:
    """Judge how a variant was calibrated, the data it was calibrated on, and its scales on held-out data."""
    record, data = calibration.record, calibration.calibration
    observer = record.observer if record else "minmax"
    samples = samples_used(record, data)
    seen = spans(record.batches if record and record.batches else calibration.batches)
    fit = judge_fit(calibration.tensors, seen)
    if _CLIPPING.fullmatch(observer):  # These observers cut ranges on purpose: only harmful clipping is reported.
        fit = [finding for finding in fit if finding.severity is Severity.ERROR]
    moved = movement(calibration.batches, observer)
    batches = len(next(iter(record.batches.values()))) if record and record.batches else None
    metrics = CalibrationMetrics(samples, observer if record else None, batches)
    findings = _pipeline(record.observations, calibration, fit) if record and record.observations else []
    if samples == 0 and not findings:
        findings.append(_nothing("no sample was used for calibration"))
    elif data is not None and not _has_error(findings):
        of_data, inputs = judge_samples(data, calibration.evaluation, calibration.floats)
        findings, metrics = findings + of_data, dataclasses.replace(metrics, inputs=inputs)
        if not of_data:
            quantized, outputs = calibration.quantized_inputs, calibration.output_shapes
            findings += judge_constant_inputs(data, calibration.evaluation, quantized, outputs)
            findings += judge_overlap(data, calibration.evaluation) if calibration.evaluation else []
    if data is not None and (record is None or record.observations) and not _has_error(findings):
        findings += _other_values(calibration, data)
    of_order = judge_order(record.batches, observer) if record else []
    # MNN's own tool may use a part of its samples: ADMM needs all of them at once.
    is_enough = observer.startswith("mnnquant-") and data is not None and data.samples >= LEAST
    if samples and not is_enough and not _has_error(findings):
        # If the first batch decides alone, resampling moves the ranges too.
        findings += judge_number(samples, None if of_order else moved, observer)
    findings += of_order
    if _has_error(findings):
        findings = _with_consequence(findings, fit, calibration.tensors)
    else:
        findings += fit
    if calibration.evaluation is not None and not any(tensor.losses for tensor in calibration.tensors):
        findings.append(_unmeasured(calibration.tensors))
    return Result.from_findings("calibration", findings, with_fit(with_movement(metrics, moved), calibration.tensors))


def _has_error(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _with_consequence(findings: list[Finding], fit: list[Finding], tensors: tuple[HeldOut, ...]) -> list[Finding]:
    """Report a root cause and its effect on the tensors as one error."""
    if not any(tensor.losses for tensor in tensors) or not fit:
        return findings
    place = next(number for number, finding in enumerate(findings) if finding.severity is Severity.ERROR)
    worst = max(tensors, key=lambda tensor: max(tensor.clipped, tensor.rounded))
    lost = max(worst.clipped, worst.rounded)
    how = "clipping" if worst.clipped >= worst.rounded else "rounding"
    message = f"{findings[place].message}. In tensor {worst.tensor!r} {how} removes {lost:.0%} of the held-out energy"
    return [*findings[:place], dataclasses.replace(findings[place], message=message), *findings[place + 1 :]]


def _unmeasured(tensors: tuple[HeldOut, ...]) -> Finding:
    why = "none of the quantized tensors appeared in the float model's run" if tensors else "no tensor is quantized"
    return Finding(
        "MNQ003",
        f"{why}: whether the scales fit held-out data is unknown",
        fix="see the coverage check for the stored layers",
    )


def _other_values(evidence: CalibrationEvidence, data: Dataset) -> list[Finding]:
    """A finding if an input's codes were made for wider values than the calibration data (narrower ones saturate)."""
    for name in evidence.floats:
        low, high = (float(end) for end in (data.inputs[name].min(), data.inputs[name].max()))
        width = max(high, 0.0) - min(low, 0.0)
        for tensor in evidence.tensors:
            rows = evidence.batches.get(tensor.tensor)
            if rows is None or not width or not is_scale(tensor.scale):
                continue
            # The tensor of the input itself has the range of the data, unless few samples were run.
            holds = abs(rows[:, 0].min() - low) + abs(rows[:, 1].max() - high) < _SAME * width
            factor = (tensor.high - tensor.low) / width
            if holds and factor >= _OTHER:
                codes, values = f"{tensor.low:.3g} to {tensor.high:.3g}", f"{low:.3g} to {high:.3g}"
                message = f"input {name!r}: its codes cover {codes}, the calibration data span {values}"
                cause = Cause(
                    "calibrated-on-other-values",
                    "calibration ran on other values: with other preprocessing (mean, normalize), or an example input",
                )
                fix = "feed the given calibration data unmodified"
                return [Finding("MNQ530", message, tensor.layer, cause, fix)]
    return []


# What a pipeline did -------------------------------------------------------------------------------------------------


def _pipeline(observations: Observations, evidence: CalibrationEvidence, fit: list[Finding]) -> list[Finding]:
    is_fitting = any(tensor.losses for tensor in evidence.tensors) and not fit
    if observations.forwards == 0 and (observations.handed_out == 0 or observations.observers or not is_fitting):
        return [
            _nothing(f"the model never ran before its export (the pipeline took {observations.handed_out} batches)")
        ]
    findings = []
    if observations.forwards == 0:
        # Another tool may have calibrated on these batches: the scales fit held-out data.
        message = f"the pipeline took {observations.handed_out} batches, but the model never ran on them in PyTorch"
        fix = "run the model on each batch before the export; if another tool calibrates, there is nothing to do"
        findings.append(Finding("MNQ501", message, fix=fix, as_warning=True))
    if observations.handed_out == 0:
        message = f"the pipeline took no calibration data; the model ran {observations.forwards} times on other data"
        fix = "loop over the calibration batches that the pipeline gets as its argument"
        findings.append(Finding("MNQ501", message, fix=fix, as_warning=True))
    if observations.gradients:
        findings.append(
            Finding(
                "MNQ502",
                f"the model recorded gradients while it ran {observations.forwards} times",
                fix="put the calibration loop into `with torch.no_grad():`, which is faster and needs less memory",
            )
        )
    is_other = observations.training and evidence.mode == "eval"
    if observations.drift > _ROUNDING or observations.weight_change > _ROUNDING:
        findings.append(_changed(observations, is_other))
    elif is_other:
        message = "the variant is calibrated in eval mode, but the model ran in train mode"
        fix = "call model.eval() before the calibration loop, and do not call model.train() after it"
        findings.append(Finding("MNQ503", message, fix=fix))
    return findings + _moved(observations.moved)


def _nothing(message: str) -> Finding:
    return Finding(
        "MNQ501",
        message,
        cause=Cause("scales-never-set", "the scales have their initial values, or those of the export's example input"),
        fix="run the model on 100 to 1,000 samples before the export (--mnn-calibration)",
    )


def _changed(observations: Observations, in_other_mode: bool) -> Finding:
    parts = []
    if observations.drift > _ROUNDING:
        parts.append(f"BatchNorm statistics moved by up to {observations.drift:.3g} standard deviations")
    if observations.weight_change > _ROUNDING:
        parts.append(f"weights changed by up to {observations.weight_change:.3g} of their norm")
    cause = Cause(
        "train-mode-updates-batchnorm",
        "the model ran in train mode, in which BatchNorm updates its statistics: this changes the float model",
    )
    if not observations.training:
        cause = Cause(
            "pipeline-wrote-weights",
            "the pipeline wrote to the model's tensors: by an optimizer step, or a quantizer that shares them",
        )
    mode = " in train mode, although the variant is for eval mode" if in_other_mode else ""
    return Finding(
        "MNQ504",
        f"the pipeline changed the float model{mode}: {', '.join(parts)}",
        cause=cause,
        fix="calibrate a copy in eval mode: model = copy.deepcopy(model).eval()",
    )


def _moved(moved: Mapping[str, tuple[float, float]]) -> list[Finding]:
    factors = {name: _factor(*pair) for name, pair in moved.items()}
    far = {name: factor for name, factor in factors.items() if factor >= _MOVED_A_LITTLE}
    if not far:
        return []
    worst = max(far, key=lambda name: far[name])
    before, after = moved[worst]
    more = f"; {len(far) - 1} other scales changed too" if len(far) > 1 else ""
    return [
        Finding(
            "MNQ505",
            f"the scale of {worst!r} changed after calibration, from {before:.4g} to {after:.4g}{more}",
            cause=Cause(
                "observers-still-on",
                "the observers stayed enabled: evaluation data or the export's example input passed through them",
            ),
            fix="save the params file right after calibration, or export and evaluate a copy",
            as_warning=far[worst] < _MOVED,
        )
    ]


def _factor(before: float, after: float) -> float:
    low, high = sorted((abs(before), abs(after)))
    return high / low if low > 0 else float("inf") if high > 0 else 1.0
