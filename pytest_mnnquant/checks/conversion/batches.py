"""Outputs that change if several samples are fed at once."""

from __future__ import annotations

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.conversion import BatchDifference
from pytest_mnnquant.metrics.agreement import Agreement


def differs_in_batches(batches: BatchDifference) -> Finding:
    """The finding, with the metrics of both. A warning if the source itself does not compute the same for both."""
    if batches.in_source:
        cause = Cause(
            "converter-mixes-samples",
            "MNN's converter or its operators: the source computes the same for both. MNN 3.6.1 ignores the axes of "
            "ReduceL2 (normalize, norm) in ONNX models of opset 18 and newer",
        )
        fix = "export with opset 17 or older, or feed one sample at a time in the app (then --mnn-ignore=MNQ114)"
    else:
        cause = Cause("model-mixes-samples", "the model's own code or its export holds for one sample at a time")
        fix = "feed one sample at a time in the app"
    return Finding(
        "MNQ114",
        f"output {batches.output!r} is right for single samples ({_figure(batches.alone)}) and wrong for several at "
        f"once ({_figure(batches.together)}), on {batches.together.samples} samples; judged one sample at a time",
        cause=cause,
        fix=fix,
        as_warning=not batches.in_source,
    )


def _figure(item: Agreement) -> str:
    return f"{item.equal:.1%} equal" if item.equal is not None else f"differs by {item.relative_error:.2g} of its range"
