"""How like the float model's outputs the variant's are, where no label tells what is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.criteria import CONFIDENCE, Criteria, Verdict, doubt_finding, limit_for, verdict
from pytest_mnnquant.checks.finding import Finding
from pytest_mnnquant.checks.outputs import Outputs
from pytest_mnnquant.metrics import confidence
from pytest_mnnquant.metrics.agreement import SILENT, Agreement, agreement, cosines, same_maximum, sqnr_db
from pytest_mnnquant.metrics.confidence import Estimate

Array = npt.NDArray[Any]
# Integer outputs are classes or indexes: quantization may flip the close ones.
_MIN_EQUAL: Final = 0.95
# As like as this an output is the other one.
_SWAPPED: Final = 0.95
_TINY: Final = 1e-300


def figures(item: Agreement) -> dict[str, float | int | None]:
    """One output's figures in the report."""
    return {
        "sqnr_db": item.sqnr_db,
        "centred_sqnr_db": item.centred_sqnr_db,
        "cosine": item.cosine,
        "max_error": item.max_error,
        "mean_error": item.mean_error,
        "relative_error": item.relative_error,
        "top1_agreement": item.top1,
        "top5_agreement": item.top5,
        "equal": item.equal,
    }


def unlike(
    reference: Outputs, outputs: Outputs, compared: dict[str, Agreement], decided: str | None, criteria: Criteria
) -> list[Finding]:
    """Findings on outputs that are not like the float model's. `decided` is the output that a task metric judges."""
    findings = []
    for name, item in compared.items():
        if item.equal is None and item.range <= SILENT:
            message = f"output {name!r} spans {item.range:.2g} on these {item.samples} samples, which is rounding noise"
            findings.append(Finding("MNQ003", message, remedy="evaluate on data like the real ones"))
            continue
        if item.top1 is None and isinstance(criteria.min_agreement, Mapping) and name in criteria.min_agreement:
            findings.append(_no_classes(name, reference[name]))
        demands = list(_demands(item, _flat(reference[name]), _flat(outputs[name]), name, name == decided, criteria))
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
    item: Agreement, exact: Array, ours: Array, name: str, is_decided: bool, criteria: Criteria
) -> Iterator[_Demand]:
    """What is asked of one output; both arrays have shape [samples, elements]."""

    def at_least(limit: float, estimate: Estimate, text: str) -> _Demand:
        return _Demand(text, verdict(estimate, limit, at_least=True, strict=criteria.strict))

    least = limit_for(criteria.min_cosine, name)
    usual = criteria.usual_cosine if least is None else least
    if is_decided:
        pass
    elif item.equal is not None:
        hits = confidence.share(int((exact == ours).sum()), exact.size, CONFIDENCE)
        text = f"{item.equal:.1%} of its integers equal the float model's, at least {_MIN_EQUAL:.0%} wanted"
        yield at_least(_MIN_EQUAL, hits, text)
    elif item.cosine is not None:
        text = f"mean cosine {item.cosine:.4f} to the float model's, at least {usual:g} wanted"
        text += f", SQNR {item.sqnr_db:.1f} dB"
        yield at_least(usual, confidence.mean(cosines(exact, ours), CONFIDENCE), text)
    else:
        decibels = _as_sqnr_db(usual)
        text = f"SQNR {item.centred_sqnr_db:.1f} dB about its mean, at least {decibels:.1f} dB wanted (as cosine "
        text += f"{usual:g}: it has one element)"
        yield at_least(decibels, _noise(exact - exact.mean(0), ours - exact.mean(0)), text)
    if (limit := limit_for(criteria.min_agreement, name)) is not None and item.top1 is not None:
        hits = confidence.share(int(same_maximum(exact, ours).sum()), len(exact), CONFIDENCE)
        yield at_least(limit, hits, f"{item.top1:.2%} have the float model's class, at least {limit:.2%} wanted")
    if (limit := limit_for(criteria.min_sqnr, name)) is not None and item.equal is None:
        yield at_least(limit, _noise(exact, ours), f"SQNR {item.sqnr_db:.1f} dB, at least {limit:g} dB wanted")


def _noise(exact: Array, ours: Array) -> Estimate:
    """SQNR in dB, with its bounds."""
    signal, noise = np.square(exact).sum(1), np.square(exact - ours).sum(1)
    whole = sqnr_db(exact, ours)
    if not math.isfinite(whole) or len(exact) < 2:
        return Estimate(whole, whole, whole, len(exact), 0.0)

    def decibels(chosen: npt.NDArray[np.int64]) -> float:
        return 10 * math.log10(max(signal[chosen].sum(), _TINY) / max(noise[chosen].sum(), _TINY))

    return confidence.resampled(decibels, len(exact), confidence=CONFIDENCE)


def _flat(array: Array) -> Array:
    flat = array.reshape(len(array), -1)
    return flat if array.dtype.kind in "iub" else flat.astype(np.float64)


def _as_sqnr_db(cosine: float) -> float:
    """The SQNR that independent noise leaves at this cosine: signal / noise = c^2 / (1 - c^2)."""
    cosine = min(max(cosine, 1e-6), 1 - 1e-9)
    return 10 * math.log10(cosine**2 / (1 - cosine**2))


def _no_classes(name: str, array: Array) -> Finding:
    message = f"output {name!r} {list(array.shape)} gives no classes that differ from sample to sample"
    return Finding("MNQ003", message, remedy="leave --mnn-min-agreement out for it")


def swapped(name: str, reference: Outputs, outputs: Outputs) -> str:
    """Which other output of the float model this one equals, if it does: exporters may change their order."""
    ours = outputs[name]
    for other, exact in reference.items():
        if other != name and exact.shape == ours.shape and exact.dtype.kind == "f":
            alike = agreement(exact, ours)
            if alike.range > SILENT and alike.centred_sqnr_db > _as_sqnr_db(_SWAPPED):
                return (
                    f"it holds the values of output {other!r}: the outputs are in another order than the float model's"
                )
    return ""
