"""Similarity of the variant's outputs to the float model's, for outputs that labels do not judge."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.limits import Criteria, doubt_finding, limit_for
from pytest_mnnquant.checks.accuracy.output_demands import Pair, as_sqnr_db, output_demands
from pytest_mnnquant.checks.accuracy.output_measures import OutputMeasures
from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.metrics.agreement import SILENT, Agreement, agreement
from pytest_mnnquant.metrics.blocks import largest_of

Array = npt.NDArray[Any]
# From this cosine on, an output holds the values of another output.
_SWAPPED: Final = 0.95
# The relative error that int8 may have on a constant output.
_COARSE: Final = 0.05


def unlike(
    reference: Outputs,
    outputs: Outputs,
    measured: Mapping[str, OutputMeasures],
    decided: Collection[str],
    criteria: Criteria,
) -> list[Finding]:
    """Findings on outputs that differ from the float model's; `decided` names those that a task metric judges."""
    findings = _idle_limits({name: item.agreement for name, item in measured.items()}, criteria)
    for name, measures in measured.items():
        item = measures.agreement
        pair = Pair(name, reference[name], outputs[name], measures)
        if item.equal is None and (item.range <= SILENT or (pair.is_still and name not in decided)):
            findings.append(_silent(name, item, reference[name]))
            continue
        demands = list(output_demands(pair, name in decided, criteria))
        if broken := [demand for demand in demands if demand.fails]:
            texts = "; ".join(demand.text for demand in broken)
            doubts = next((f"; {demand.verdict.doubt}" for demand in broken if demand.verdict.is_unsure), "")
            cause = swapped(name, reference, outputs)
            message = f"output {name!r}: {texts} ({item.samples} samples{doubts})"
            findings.append(Finding("MNQ702", message, cause=cause))
        else:
            findings += [
                doubt_finding(f"output {name!r}: {demand.text}", demand.verdict, criteria.strict)
                for demand in demands
                if demand.is_doubtful(criteria.strict)
            ]
    return findings


def _silent(name: str, item: Agreement, reference: Array) -> Finding:
    """A constant output can't be judged, unless the variant's output is far from it."""
    constant = largest_of(reference)
    if item.max_error > max(_COARSE * constant, SILENT):
        message = (
            f"output {name!r} is always {constant:.4g} in the float model; the variant is off by {item.max_error:.4g}"
        )
        return Finding("MNQ702", message)
    message = f"output {name!r} spans {item.range:.2g} on these {item.samples} samples, which is rounding noise"
    return Finding("MNQ003", message, fix="evaluate on representative data (--mnn-evaluation)")


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
            if similarity.range > SILENT and similarity.centred_sqnr_db > as_sqnr_db(_SWAPPED):
                text = (
                    f"it holds the values of output {other!r}: the order of the outputs differs from the float model's"
                )
                return Cause("outputs-reordered", text)
    return None
