"""All measures of the outputs of a variant, which verdicts and the report use."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.checks.accuracy.part_variation import PartEvidence, PartVariation, measure_parts
from pytest_mnnquant.findings.accuracy_metrics import OutputMetrics
from pytest_mnnquant.metrics.agreement import Agreement, agreement
from pytest_mnnquant.metrics.channel_groups import channel_groups
from pytest_mnnquant.metrics.decisions import Decisions, find_decisions, without_logarithms
from pytest_mnnquant.metrics.details import Detail, compare_detail
from pytest_mnnquant.metrics.identifiers import IdentifierAgreement, are_identifiers, compare_identifiers
from pytest_mnnquant.metrics.map_error import MapError, compare_maps
from pytest_mnnquant.metrics.peaks import PeakAgreement, compare_peaks
from pytest_mnnquant.metrics.persistence import Beyond, compare_beyond_last
from pytest_mnnquant.metrics.probability_channels import ProbabilityChannel, worst_channel
from pytest_mnnquant.metrics.texts import TextAgreement, compare_texts
from pytest_mnnquant.metrics.variation import Variation, variation
from pytest_mnnquant.mnnfile.output_parts import OutputParts, Part

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OutputMeasures:
    """One output of a variant against the float model's.

    `variation` is None for a single sample, for identifiers, and for an output that does not vary. `parts` is empty for
    an output of one part; `detail` is None if the output is not mostly an input; `identifiers` is None for quantities.
    `channel` is the worst channel of probabilities. `texts` is None if identifiers or decisions are not texts of CTC.
    `decisions`, whose values `identifiers` compares, `peaks`, `maps` and `beyond` are None for outputs of other kinds.
    """

    agreement: Agreement
    variation: Variation | None = None
    parts: tuple[PartVariation, ...] = ()
    detail: Detail | None = None
    identifiers: IdentifierAgreement | None = None
    decisions: Decisions | None = None
    peaks: PeakAgreement | None = None
    maps: MapError | None = None
    beyond: Beyond | None = None
    texts: TextAgreement | None = None
    channel: ProbabilityChannel | None = None

    @property
    def metrics(self) -> OutputMetrics:
        """The metrics for the report."""
        item, part = self.agreement, min((part.variation.sqnr_db for part in self.parts), default=None)
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
            worst_part_sqnr_db=part if part is None or math.isfinite(part) else None,
            detail_sqnr_db=None if self.detail is None else float(self.detail.sqnr_db.mean()),
            iou=None if self.identifiers is None else self.identifiers.iou,
        )


def measure_outputs(
    reference: Outputs, outputs: Outputs, inputs: Outputs, evidence: PartEvidence
) -> dict[str, OutputMeasures]:
    """The measures of all outputs, by name; `inputs` are those of the samples, `evidence` shows their parts."""
    parts = dict(evidence.parts)
    for name, tensors in evidence.moved.items():
        if name in reference and (groups := channel_groups(reference[name])) is not None:
            parts[name] = OutputParts(
                tuple(Part(tensors[-1], "", f"group {number}", False, tensors) for number in range(groups.max() + 1)),
                groups,
            )
    return {
        name: _measure(reference[name], outputs[name], inputs, parts.get(name), name in evidence.probabilities)
        for name in reference
    }


def _measure(
    expected: Array, actual: Array, inputs: Outputs, parts: OutputParts | None, is_probability: bool
) -> OutputMeasures:
    measures = OutputMeasures(agreement(expected, actual))
    if are_identifiers(expected, actual):
        identifiers, texts = compare_identifiers(expected, actual), compare_texts(expected, actual)
        return dataclasses.replace(measures, identifiers=identifiers, texts=texts)
    if len(expected) < 2:
        return measures
    whole = variation(*without_logarithms(expected, actual))
    measures = dataclasses.replace(
        measures,
        variation=None if whole.is_constant else whole,
        parts=() if parts is None else tuple(measure_parts(expected, actual, parts)),
        detail=compare_detail(expected, actual, inputs),
        channel=worst_channel(expected, actual, _probabilities(expected, parts, is_probability)),
    )
    if whole.is_constant or measures.parts:
        return measures
    return _with_meaning(measures, expected, actual, {} if is_probability else inputs)


def _probabilities(expected: Array, parts: OutputParts | None, is_probability: bool) -> npt.NDArray[np.bool_]:
    """Which elements of a sample are probabilities."""
    if parts is None or parts.places.size != expected[0].size:
        return np.full(expected.shape[1:], is_probability)
    numbers = [number for number, part in enumerate(parts.parts) if part.is_probability]
    return np.isin(parts.places.reshape(expected.shape[1:]), numbers)


def _with_meaning(measures: OutputMeasures, expected: Array, actual: Array, inputs: Outputs) -> OutputMeasures:
    """The measures of an output of one part, with those for the kind of its values.

    `inputs` are those that quantities may belong to: none for probabilities.
    """
    if (peaks := compare_peaks(expected, actual)) is not None:
        return dataclasses.replace(measures, peaks=peaks)
    if (decisions := find_decisions(expected, actual)) is not None:
        identifiers = compare_identifiers(decisions.reference, decisions.output)
        texts = compare_texts(decisions.reference, decisions.output)
        return dataclasses.replace(measures, decisions=decisions, identifiers=identifiers, texts=texts)
    return dataclasses.replace(
        measures, maps=compare_maps(expected, actual, inputs), beyond=compare_beyond_last(expected, actual, inputs)
    )
