"""Similarity of the variant's outputs to the float model's, for outputs that labels do not judge."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import CONFIDENCE, Criteria, Verdict, doubt_finding, limit_for, verdict
from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.findings.accuracy_metrics import OutputMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.agreement import SILENT, Agreement, agreement, cosines, same_maximum, sqnr_db
from pytest_mnnquant.statistics import intervals
from pytest_mnnquant.statistics.intervals import Estimate

Array = npt.NDArray[Any]
# Integer outputs are classes or indexes: quantization may flip the close ones.
_MIN_EQUAL: Final = 0.95
# From this cosine on, an output holds the values of another output.
_SWAPPED: Final = 0.95
_TINY: Final = 1e-300
# The relative error that int8 may have on a constant output.
_COARSE: Final = 0.05


def output_metrics(item: Agreement) -> OutputMetrics:
    """One output's metrics for the report."""
    return OutputMetrics(
        sqnr_db=item.sqnr_db,
        centred_sqnr_db=item.centred_sqnr_db,
        cosine=item.cosine,
        max_error=item.max_error,
        mean_error=item.mean_error,
        relative_error=item.relative_error,
        top1_agreement=item.top1,
        top5_agreement=item.top5,
        equal=item.equal,
    )


def unlike(
    reference: Outputs, outputs: Outputs, compared: dict[str, Agreement], decided: Collection[str], criteria: Criteria
) -> list[Finding]:
    """Findings on outputs that differ from the float model's; `decided` names those that a task metric judges."""
    findings = _idle_limits(compared, criteria)
    for name, item in compared.items():
        if item.equal is None and item.range <= SILENT:
            findings.append(_silent(name, item, reference[name]))
            continue
        if item.equal is None and item.samples > 1 and item.centred_sqnr_db < 0 and name not in decided:
            findings.append(_lost(name, item, swapped(name, reference, outputs)))
            continue
        demands = list(_demands(item, _flat(reference[name]), _flat(outputs[name]), name, name in decided, criteria))
        broken = [demand for demand in demands if demand.verdict.fails]
        if broken:
            texts = "; ".join(demand.text for demand in broken)
            doubts = next((f"; {demand.verdict.doubt}" for demand in broken if demand.verdict.is_unsure), "")
            cause = swapped(name, reference, outputs)
            message = f"output {name!r}: {texts} ({item.samples} samples{doubts})"
            findings.append(Finding("MNQ702", message, cause=cause))
        else:
            findings += [
                doubt_finding(f"output {name!r}: {demand.text}", demand.verdict, criteria.strict)
                for demand in demands
                if demand.verdict.is_unsure
            ]
    return findings


@dataclass(frozen=True, slots=True)
class _Demand:
    text: str
    verdict: Verdict


def _demands(
    item: Agreement, reference: Array, output: Array, name: str, is_decided: bool, criteria: Criteria
) -> Iterator[_Demand]:
    """What is required of one output; both arrays have shape [samples, elements]."""

    def at_least(limit: float, estimate: Estimate, text: str) -> _Demand:
        return _Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))

    least = limit_for(criteria.min_cosine, name)
    usual = criteria.usual_cosine if least is None else least
    if is_decided:
        pass
    elif item.equal is not None:
        hits = intervals.share(int((reference == output).sum()), reference.size, CONFIDENCE)
        text = f"{item.equal:.1%} of its integers equal the float model's, required {_MIN_EQUAL:.0%}"
        yield at_least(_MIN_EQUAL, hits, text)
    elif item.cosine is not None:
        text = f"mean cosine {item.cosine:.4f} to the float model's, required {usual:g} (SQNR {item.sqnr_db:.1f} dB)"
        yield at_least(usual, intervals.mean(cosines(reference, output), CONFIDENCE), text)
    else:
        decibels = _as_sqnr_db(usual)
        text = f"SQNR {item.centred_sqnr_db:.1f} dB about its mean, required {decibels:.1f} dB (cosine {usual:g}, "
        text += "converted: the output has one element)"
        yield at_least(decibels, _noise(reference - reference.mean(0), output - reference.mean(0)), text)
    if (limit := limit_for(criteria.min_agreement, name)) is not None and item.top1 is not None:
        hits = intervals.share(int(same_maximum(reference, output).sum()), len(reference), CONFIDENCE)
        yield at_least(limit, hits, f"{item.top1:.2%} of samples keep the float model's class, required {limit:.2%}")
    if (limit := limit_for(criteria.min_sqnr, name)) is not None and item.equal is None:
        yield at_least(limit, _noise(reference, output), f"SQNR {item.sqnr_db:.1f} dB, required {limit:g} dB")


def _noise(reference: Array, output: Array) -> Estimate:
    """SQNR in dB, with its bounds."""
    signal, noise = np.square(reference).sum(1), np.square(reference - output).sum(1)
    whole = sqnr_db(reference, output)
    if not math.isfinite(whole):
        return Estimate(whole, whole, whole, len(reference), 0.0)

    def decibels(chosen: npt.NDArray[np.int64]) -> float:
        return 10 * math.log10(max(signal[chosen].sum(), _TINY) / max(noise[chosen].sum(), _TINY))

    return intervals.resampled(decibels, len(reference), confidence=CONFIDENCE)


def _flat(array: Array) -> Array:
    flat = array.reshape(len(array), -1)
    return flat if array.dtype.kind in "iub" else flat.astype(np.float64)


def _as_sqnr_db(cosine: float) -> float:
    """The SQNR that independent noise leaves at this cosine: signal / noise = c^2 / (1 - c^2)."""
    cosine = min(max(cosine, 1e-6), 1 - 1e-9)
    return 10 * math.log10(cosine**2 / (1 - cosine**2))


def _silent(name: str, item: Agreement, reference: Array) -> Finding:
    """A constant output can't be judged, unless the variant's output is far from it."""
    constant = float(np.abs(reference).max())
    if item.max_error > max(_COARSE * constant, SILENT):
        message = (
            f"output {name!r} is always {constant:.4g} in the float model; the variant is off by {item.max_error:.4g}"
        )
        return Finding("MNQ702", message)
    message = f"output {name!r} spans {item.range:.2g} on these {item.samples} samples, which is rounding noise"
    return Finding("MNQ003", message, fix="evaluate on representative data (--mnn-evaluation)")


def _lost(name: str, item: Agreement, cause: Cause | None) -> Finding:
    """The output's variable part is noise; a large constant part may still raise its cosine."""
    cosine = "" if item.cosine is None else f" (its constant part raises the cosine to {item.cosine:.4f})"
    message = (
        f"output {name!r} lost the differences between samples: their SQNR is {item.centred_sqnr_db:.1f} dB{cosine}"
    )
    return Finding("MNQ702", message, cause=cause)


def _idle_limits(compared: dict[str, Agreement], criteria: Criteria) -> list[Finding]:
    """Limits that can't be applied: no output has the name, or the output does not have the metric."""
    findings = []
    classes = {name for name, item in compared.items() if item.top1 is not None}
    floats = {name for name, item in compared.items() if item.equal is None}
    for flag, limit, able in (
        ("--mnn-min-cosine", criteria.min_cosine, set(compared)),
        ("--mnn-min-agreement", criteria.min_agreement, classes),
        ("--mnn-min-sqnr", criteria.min_sqnr, floats),
    ):
        named = [name for name in limit if name != "*"] if isinstance(limit, Mapping) else []
        for name in named:
            if name not in compared:
                message = f"{flag}={name}=...: unknown output {name!r}; known: {', '.join(compared)}"
                findings.append(Finding("MNQ722", message, fix="name one of these outputs"))
        limited = [name for name in compared if limit_for(limit, name) is not None]
        for name in limited if not able & set(limited) else [name for name in named if name in set(compared) - able]:
            message = f"{flag} can't judge output {name!r}: its classes do not differ, or it holds integers"
            findings.append(Finding("MNQ723", message, fix=f"remove {flag} for this output"))
    return findings


def swapped(name: str, reference: Outputs, outputs: Outputs) -> Cause | None:
    """The other output of the float model that this one equals, if any: exporters may change their order."""
    output = outputs[name]
    for other, exact in reference.items():
        if other != name and exact.shape == output.shape and exact.dtype.kind == "f":
            similarity = agreement(exact, output)
            if similarity.range > SILENT and similarity.centred_sqnr_db > _as_sqnr_db(_SWAPPED):
                text = (
                    f"it holds the values of output {other!r}: the order of the outputs differs from the float model's"
                )
                return Cause("outputs-reordered", text)
    return None
