"""Which step from the source to the float model broke an output: the export or the conversion."""

from __future__ import annotations

from typing import Final

from pytest_mnnquant.findings.cause import Cause, Explanation
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.measurements.conversion import (
    FLOAT_MNN,
    MNN_SOURCE,
    ONNX,
    PYTORCH,
    TFLITE,
    Step,
    describe_disagreement,
)
from pytest_mnnquant.metrics.agreement import Agreement, is_same

_OTHER: Final = "export with the other exporter (--mnn-exporter)"
_REPORT: Final = "report the ONNX model to MNN"
_BEFORE: Final = "the error exists before anything is quantized"
_SOURCES: Final = "the source's"


def differs(name: str, item: Agreement, chain: tuple[Step, ...], unchained: str) -> Finding:
    """The finding on an output of the float model that differs from the source's; the chain shows the broken step."""
    steps = {(step.before, step.after): step.outputs[name] for step in chain if name in step.outputs}
    exported = steps.get((PYTORCH, ONNX))
    source = next((kind for kind in (TFLITE, MNN_SOURCE) if (kind, FLOAT_MNN) in steps), ONNX)
    converted = steps.get((source, FLOAT_MNN))
    if exported is not None and converted is not None:
        if is_same(converted) and not is_same(exported):
            return _export_differs(name, exported, converted)
        explained = _conversion_differs(exported, converted)
    elif converted is not None:
        text = f"MNN's converter or its operators: the source is the {source} model itself"
        explained = Explanation(Cause("converter", text), f"report the {source} model to MNN")
    else:
        text = f"the export or MNN's converter; the test can't show which: {unchained}"
        cause = Cause("export-or-converter", text) if unchained else None
        explained = Explanation(cause, f"{_OTHER}; if that does not help, report the model to MNN")
    message = f"output {name!r} of the float .mnn {describe_disagreement(item, _SOURCES)}, on {item.samples} samples"
    return Finding("MNQ110", message, cause=explained.cause, fix=f"{explained.fix}; {_BEFORE}")


def _export_differs(name: str, exported: Agreement, converted: Agreement) -> Finding:
    disagreement = describe_disagreement(exported, _SOURCES)
    return Finding(
        "MNQ112",
        f"output {name!r} of the ONNX export {disagreement}, on {exported.samples} samples; the float .mnn agrees with "
        f"the export ({_figure(converted)})",
        cause=Cause(
            "exporter",
            "the exporter. It records one run on an example: numbers that Python code takes from tensors (float(), "
            ".item(), numpy), and the branches that depend on them, become constants in the export",
        ),
        fix=f"{_OTHER}, or keep such values as tensors (torch.where, torch.clamp); {_BEFORE}",
    )


def _conversion_differs(exported: Agreement, converted: Agreement) -> Explanation:
    figures = f"PyTorch to ONNX {_figure(exported)}, ONNX to .mnn {_figure(converted)}"
    if is_same(exported) and not is_same(converted):
        text = f"MNN's converter or its operators; the export is right: {figures}"
        return Explanation(Cause("converter", text), _REPORT)
    both = f"{_OTHER}; if that does not help, {_REPORT}"
    if not is_same(exported):
        return Explanation(Cause("export-and-converter", f"both steps differ by more than allowed: {figures}"), both)
    return Explanation(Cause("no-single-step", f"no single step differs by more than allowed: {figures}"), both)


def _figure(item: Agreement) -> str:
    return f"{item.equal:.1%} equal" if item.equal is not None else f"differs by {item.relative_error:.2g} of its range"
