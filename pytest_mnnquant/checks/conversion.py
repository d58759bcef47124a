"""Conversion: the float model is the source, and the quantized file is a model of the same network."""

from __future__ import annotations

from pytest_mnnquant.checks.finding import Finding, Result, judge
from pytest_mnnquant.metrics.agreement import SAME, Agreement, is_same
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.storage import Storage

_FLOATS = (Storage.FLOAT32, Storage.SPARSE_FLOAT)


def check_conversion(
    float_model: Model, proof: dict[str, Agreement] | None, unproven: str, match: Match, given: bool
) -> Result:
    """Judge the float conversion by its proof (see `Prepared`), and the variant by the layers it shares with it."""
    findings: list[Finding] = []
    low_bit = [op for op in float_model.layers if any(weights.storage not in _FLOATS for weights in op.weights)]
    if low_bit:
        findings.append(
            Finding(
                "MNQ104",
                f"{len(low_bit)} of {len(float_model.layers)} layers of {float_model.path.name} are quantized already",
                low_bit[0].name,
                remedy="give the float model (or the .onnx, or the PyTorch callable) as --mnn-model",
            )
        )
    if proof is None:
        findings.append(Finding("MNQ111", f"the float model is not compared with its source: {unproven}"))
    findings += [_differs(name, item) for name, item in (proof or {}).items() if not is_same(item)]
    findings += _network(float_model, match, given)
    worst = max((item.relative_error for item in (proof or {}).values()), default=None)
    metrics = {
        "outputs_compared": len(proof or {}),
        "worst_relative_error": worst,
        "layers_matched": len(match.pairs),
        "layers_missing": len(match.missing),
    }
    return judge("conversion", findings, metrics)


def _differs(name: str, item: Agreement) -> Finding:
    if item.equal is not None:
        what = f"has {item.equal:.1%} of the source's integers"
    else:
        cosine = "-" if item.cosine is None else format(item.cosine, ".4f")
        what = f"is off by {item.relative_error:.2g} of its range, {SAME:g} allowed (cosine {cosine})"
    return Finding(
        "MNQ110",
        f"output {name!r} of the float .mnn {what}, on {item.samples} samples",
        remedy="try the other exporter (--mnn-exporter), then report the model to MNN: the error is there before "
        "anything is quantized",
    )


def _network(float_model: Model, match: Match, given: bool) -> list[Finding]:
    total = len(match.pairs) + len(match.missing)
    if not total:
        return [Finding("MNQ001", f"{float_model.path.name} has no layer with weights")]
    if not match.missing and not match.extra:
        return []
    missing = ", ".join(f"{op.name} {list(op.shape)}" for op in match.missing[:4])
    extra = ", ".join(f"{op.name} {list(op.shape)}" for op in match.extra[:4])
    return [
        Finding(
            "MNQ203",
            f"{len(match.missing)} of the source's {total} layers are not in the quantized model"
            + (f" ({missing})" if missing else "")
            + (f"; it has {len(match.extra)} that the source lacks ({extra})" if extra else ""),
            (match.missing or match.extra)[0].name,
            cause="the file was made from another network, or from another version of this one" if given else "",
            remedy="convert this source again and give its output as --mnn-quantized" if given else "",
        )
    ]
