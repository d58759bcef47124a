"""Accuracy: the variant's outputs are good enough for the task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.execution import ADD_RELU, ADD_RELU_REMEDY, INT8_SCALE, INT8_SCALE_REMEDY
from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.metrics.agreement import SILENT, Agreement, accuracy, agreement
from pytest_mnnquant.quantize.recipes import Maker, Recipe

# A BatchNorm mean that calibration moved by this many standard deviations makes another model of it.
_MUCH_DRIFT: Final = 0.5
# Integer outputs are classes or indexes: quantization may flip the close ones.
_MIN_EQUAL: Final = 0.95
Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class AccuracyEvidence:
    """Outputs on the evaluation data, samples first. `labels` has shape [samples] or is None.

    `as_run` are the variant's outputs as this host computes them, where `outputs` come from a copy whose MaxPool
    operators `pools` are exact; empty where the model was judged as it is. `drift`: see `Variant`; `clamping` and
    `scales`: see `check_execution`. `recipe` is None where no recipe of ours was asked.
    """

    reference: Outputs
    outputs: Outputs
    labels: npt.NDArray[Any] | None
    as_run: Outputs
    pools: tuple[str, ...]
    drift: float
    clamping: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    recipe: Recipe | None = None


def check_accuracy(evidence: AccuracyEvidence, max_drop: float, min_cosine: float) -> Result:
    """Fail on broken outputs, on the drop of top-1 where there are labels for an output, on the others' likeness."""
    if not evidence.reference or any(array.size == 0 for array in evidence.reference.values()):
        return judge("accuracy", [Finding("MNQ001", "no output or no sample was compared")], {})
    findings = _broken(evidence)
    if findings:
        return judge("accuracy", findings, {})
    compared = {name: agreement(array, evidence.outputs[name]) for name, array in evidence.reference.items()}
    metrics: dict[str, Any] = {
        "samples": next(iter(compared.values())).samples,
        "outputs": {name: _figures(item) for name, item in compared.items()},
    }
    classes = _classifier(evidence)
    if classes is not None and evidence.labels is not None:
        before = accuracy(evidence.reference[classes], evidence.labels)
        after = accuracy(evidence.outputs[classes], evidence.labels)
        metrics |= {"float_top1": before, "top1": after, "top1_drop": before - after}
        # The tolerance is for the rounding of the subtraction: a drop of exactly the limit is allowed.
        if before - after > max_drop + 1e-9:
            findings.append(_drop(before, after, max_drop, metrics["samples"], evidence))
    elif evidence.labels is not None:
        findings.append(_unused_labels(evidence, evidence.labels))
    findings += _unlike({name: compared[name] for name in compared if name != classes}, min_cosine, evidence)
    if evidence.pools:
        findings.append(_pool_note(evidence, classes))
    return judge("accuracy", findings, metrics)


def _figures(item: Agreement) -> dict[str, float | None]:
    return {
        "sqnr_db": item.sqnr_db,
        "centred_sqnr_db": item.centred_sqnr_db,
        "cosine": item.cosine,
        "max_error": item.max_error,
        "relative_error": item.relative_error,
        "top1_agreement": item.top1,
        "equal": item.equal,
    }


def _classifier(evidence: AccuracyEvidence) -> str | None:
    """The output that the labels are for: the only one of shape [samples, classes], or else of one integer a sample."""
    labels = evidence.labels
    if labels is None or labels.dtype.kind not in "iu" or labels.size != len(labels) or labels.min() < 0:
        return None
    outputs = evidence.reference.items()
    scores = [name for name, array in outputs if _is_scores(array) and array.shape[1] > max(1, int(labels.max()))]
    classes = [name for name, array in outputs if array.dtype.kind in "iu" and array.size == len(labels)]
    fitting = scores or classes
    return fitting[0] if len(fitting) == 1 else None


def _is_scores(array: npt.NDArray[Any]) -> bool:
    return array.ndim == 2 and array.dtype.kind == "f"


def _unused_labels(evidence: AccuracyEvidence, labels: npt.NDArray[Any]) -> Finding:
    shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in evidence.reference.items())
    return Finding(
        "MNQ720",
        f"the labels ({labels.dtype}, shape {list(labels.shape)}, {labels.min():g} to {labels.max():g}) are classes of "
        f"no output: {shapes}; judged by the likeness of outputs instead",
        remedy="give one class number a sample, counted from 0, as `labels`; leave labels of another kind out",
    )


def _broken(evidence: AccuracyEvidence) -> list[Finding]:
    findings = []
    for name, reference in evidence.reference.items():
        output = evidence.outputs.get(name)
        if output is None or output.shape != reference.shape:
            shape = "no such output" if output is None else str(list(output.shape))
            findings.append(
                Finding("MNQ705", f"output {name!r}: {shape}, the float model gives {list(reference.shape)}")
            )
        elif not np.isfinite(reference).all():
            findings.append(Finding("MNQ703", f"output {name!r}: the float model's own values are not all finite"))
        elif output.dtype.kind == "f" and (not np.isfinite(output).all() or np.abs(output).max() > 1e30):
            bad = ~np.isfinite(output) | (np.abs(output) > 1e30)
            share = float(bad.mean())
            findings.append(
                Finding("MNQ703", f"output {name!r}: {share:.0%} of the values are not finite (or above 1e30)")
            )
        elif len(output) > 1 and (output == output[:1]).all() and not (reference == reference[:1]).all():
            message = f"output {name!r} is the same for all {len(output)} samples; the float model's is not"
            findings.append(Finding("MNQ704", message))
    return findings


def _drop(before: float, after: float, allowed: float, samples: int, evidence: AccuracyEvidence) -> Finding:
    return Finding(
        "MNQ701",
        f"top-1 falls from {before:.4f} (float) to {after:.4f}: a drop of {before - after:.4f}, {allowed:g} allowed "
        f"({samples} samples)",
        cause=_cause(evidence),
        remedy=_remedy(evidence),
    )


def _unlike(compared: dict[str, Agreement], min_cosine: float, evidence: AccuracyEvidence) -> list[Finding]:
    findings = []
    for name, item in compared.items():
        if item.equal is None and item.range <= SILENT:
            message = f"output {name!r} spans {item.range:.2g} on these {item.samples} samples, which is rounding noise"
            findings.append(Finding("MNQ003", message, remedy="evaluate on data like the real ones"))
            continue
        if item.equal is not None:
            if item.equal < _MIN_EQUAL:
                share = f"{item.equal:.1%} of its integers equal the float model's"
                message = f"output {name!r}: {share}, {_MIN_EQUAL:.0%} wanted"
                findings.append(Finding("MNQ702", message, cause=_cause(evidence), remedy=_remedy(evidence)))
            continue
        if item.cosine is not None and item.cosine < min_cosine:
            findings.append(
                Finding(
                    "MNQ702",
                    f"output {name!r}: mean cosine {item.cosine:.4f} to the float model's, at least {min_cosine:g} "
                    f"wanted (SQNR {item.sqnr_db:.1f} dB, {item.samples} samples)",
                    cause=_cause(evidence),
                    remedy=_remedy(evidence),
                )
            )
        elif item.cosine is None and item.centred_sqnr_db < _as_sqnr_db(min_cosine):
            findings.append(
                Finding(
                    "MNQ702",
                    f"output {name!r} has one element: SQNR {item.centred_sqnr_db:.1f} dB about its mean, at least "
                    f"{_as_sqnr_db(min_cosine):.1f} dB wanted (as cosine {min_cosine:g}; {item.samples} samples)",
                    remedy=_remedy(evidence),
                )
            )
    return findings


def _as_sqnr_db(cosine: float) -> float:
    """The SQNR that independent noise leaves at this cosine: signal / noise = c^2 / (1 - c^2)."""
    cosine = min(max(cosine, 1e-6), 1 - 1e-9)
    return 10 * math.log10(cosine**2 / (1 - cosine**2))


def _cause(evidence: AccuracyEvidence) -> str:
    if evidence.drift >= _MUCH_DRIFT:
        return (
            f"calibration in train mode moved BatchNorm statistics by up to {evidence.drift:.2f} standard deviations, "
            "so the model itself is another one"
        )
    if evidence.scales:
        return f"{INT8_SCALE} ({', '.join(evidence.scales[:3])})"
    return f"{ADD_RELU} ({', '.join(evidence.clamping)})" if evidence.clamping else ""


def _remedy(evidence: AccuracyEvidence) -> str:
    if evidence.drift >= _MUCH_DRIFT:
        return "calibrate in eval mode (model.eval() before the calibration loop), or on data like the real ones"
    recipe = evidence.recipe
    if evidence.scales or evidence.clamping:
        if recipe is not None and recipe.maker not in (Maker.OURS, Maker.CONVERTER):
            return "use --mnn-recipe=int8 on the PyTorch source: it keeps clear of this operator"
        return INT8_SCALE_REMEDY if evidence.scales else ADD_RELU_REMEDY
    if recipe is not None and not recipe.activations:
        return "use more bits, one scale for fewer weights (w4b32), HQQ, or leave layers float (--mnn-skip-layer)"
    return "calibrate on more data like the real ones, leave sensitive layers float (--mnn-skip-layer), or use w8"


def _pool_note(evidence: AccuracyEvidence, classes: str | None) -> Finding:
    name = classes or next(iter(evidence.reference))
    raw = agreement(evidence.reference[name], evidence.as_run[name])
    judged = agreement(evidence.reference[name], evidence.outputs[name])
    figure = ""
    if classes is not None and evidence.labels is not None:
        figure = f"top-1 {accuracy(evidence.as_run[name], evidence.labels):.4f} on this host as it is, "
        figure += f"{accuracy(evidence.outputs[name], evidence.labels):.4f} as ARM computes it; "
    if raw.cosine is not None and judged.cosine is not None:
        figure += f"cosine {raw.cosine:.4f} and {judged.cosine:.4f}"
    return Finding(
        "MNQ710",
        f"{figure.rstrip('; ')}",
        ", ".join(evidence.pools),
        cause="MNN's int8 MaxPool on x86 compares offset bytes as signed numbers; ARM's does not",
        remedy="nothing to do for phones; do not serve this int8 model on x86",
    )
