"""Accuracy of models with states: what is judged of sequences, and how the error grows from step to step."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np

from pytest_mnnquant.checks.accuracy.check import AccuracyEvidence
from pytest_mnnquant.checks.accuracy.outputs import Outputs
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, StepError
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.check_metrics import metrics_of
from pytest_mnnquant.findings.finding import Result
from pytest_mnnquant.measurements.sequences import Sequences, ends_of, starts_of
from pytest_mnnquant.metrics.agreement import sqnr_db

#: The steps whose error is reported, if a sequence is that long.
STEPS: Final = (1, 10, 100)
# The codes of lost accuracy or similarity.
_LOST: Final = ("MNQ701", "MNQ702")
# A fall of the SQNR from the first reported step to the last that doubles the error.
_GROWS: Final = 6.0


def judged_steps(evidence: AccuracyEvidence, sequences: Sequences, per_sequence: bool) -> AccuracyEvidence:
    """The evidence without outputs that are fed back, unless all are: their errors show in the others.

    `per_sequence`: labels are judged by the last step of each sequence, which has seen all of it.
    """
    states = set(sequences.states.values())
    names = [name for name in evidence.reference if name not in states] or list(evidence.reference)
    steps = ends_of(sequences.lengths) if per_sequence else slice(None)

    def judged(outputs: Outputs) -> Outputs:
        return {name: outputs[name][steps] for name in names if name in outputs}

    inputs = {name: array[steps] for name, array in evidence.inputs.items()}

    return dataclasses.replace(
        evidence,
        reference=judged(evidence.reference),
        outputs=judged(evidence.outputs),
        labels=None if evidence.labels is None else evidence.labels[steps],
        as_run=judged(evidence.as_run),
        inputs=inputs,
        lengths=() if per_sequence else sequences.lengths,
    )


def error_over_steps(
    reference: Outputs, outputs: Outputs, lengths: tuple[int, ...]
) -> dict[str, tuple[StepError, ...]]:
    """The SQNR of each output at some steps, over all sequences that are as long; integers have none."""
    starts, known = starts_of(lengths), np.array(lengths)
    errors = {}
    for name, exact in reference.items():
        output = outputs.get(name)
        if output is None or output.shape != exact.shape or exact.dtype.kind != "f":
            continue
        places = {step: starts[known >= step] + step - 1 for step in STEPS}
        errors[name] = tuple(
            StepError(step, sqnr_db(exact[chosen], output[chosen]), len(chosen))
            for step, chosen in places.items()
            if len(chosen)
        )
    return errors


def with_error_over_steps(result: Result, errors: dict[str, tuple[StepError, ...]]) -> Result:
    """The result with the errors over steps; a lost accuracy names the output whose error grows most."""
    metrics = dataclasses.replace(metrics_of(AccuracyMetrics, [result]) or AccuracyMetrics(), error_over_steps=errors)
    growing = {name: _growth(steps) for name, steps in errors.items() if len(steps) > 1}
    worst = max(growing, key=lambda name: growing[name], default="")
    findings = result.findings
    if worst and growing[worst] >= _GROWS:
        text = ", ".join(f"{step.sqnr_db:.1f} dB at step {step.step}" for step in errors[worst])
        cause = Cause("error-grows-over-steps", f"the error grows while outputs are fed back: SQNR of {worst!r} {text}")
        findings = tuple(
            dataclasses.replace(finding, cause=joined(finding.cause, cause)) if finding.code in _LOST else finding
            for finding in findings
        )
    return dataclasses.replace(result, findings=findings, metrics=metrics)


def _growth(steps: tuple[StepError, ...]) -> float:
    first, last = steps[0].sqnr_db, steps[-1].sqnr_db
    return first - last if math.isfinite(last) and math.isfinite(first) else 0.0
