"""Outputs whose rows depend on the input's values: the tensors from which they select were judged instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result


def with_sized_outputs(result: Result, sized: Mapping[str, tuple[str, ...]]) -> Result:
    """The result with a warning for each of these outputs; `sized` has the tensors that were judged in its place."""
    notes = tuple(_note(name, tensors) for name, tensors in sized.items())
    return dataclasses.replace(result, findings=(*result.findings, *notes))


def _note(name: str, tensors: tuple[str, ...]) -> Finding:
    judged = ", ".join(tensors)
    return Finding(
        "MNQ713",
        f"the rows of output {name!r} or their order depend on the input's values; "
        + (f"the tensors that it is selected from were judged instead: {judged}" if judged else "it was not judged"),
        cause=Cause(
            "size-depends-on-data",
            "NonMaxSuppression, NonZero, Unique, TopK or a computed size: a small change of a value adds, removes or "
            "moves a row, so rows of two models can't be compared one by one",
        ),
    )
