"""Conversion: the float model computes what the source computes, and the quantized file holds the same network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.checks.conversion.batches import differs_in_batches
from pytest_mnnquant.checks.conversion.steps import differs
from pytest_mnnquant.checks.convert_again import convert_again
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ConversionMetrics, StepMetrics, StepOutput
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.fix_command import ConvertCommand
from pytest_mnnquant.measurements.conversion import BatchDifference, Step
from pytest_mnnquant.metrics.agreement import Agreement, is_same
from pytest_mnnquant.mnnfile.matching import Match
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.storage import Storage
from pytest_mnnquant.mnnfile.structure import Difference
from pytest_mnnquant.recipes.recipe import Recipe

_AGAIN = "convert again from this source"
#: The fix for a source that is quantized.
FLOAT_SOURCE = "give the float model (or the .onnx, or the PyTorch callable) as --mnn-model"
_FLOATS = (Storage.FLOAT32, Storage.SPARSE_FLOAT)


@dataclass(frozen=True)
class ConversionEvidence:
    """How the float model and the variant were converted.

    `proof` compares the float model's outputs with the source's; None if that was not possible, and `unproven` says
    why. `given`: the variant is a finished file. `chain` are the measured steps from the source to the float models;
    `unchained` says why one is missing. `repeated` holds, for each model that was converted twice, where the second one
    differs. `otherwise` are the operators of the variant whose attributes or connections differ from the float model's.
    `casts` counts its quantizing operators if none of its layers is int8 (see `foreign_casts`). `batches` is an output
    that several samples at once change. `signatures` are those of the source that the converter leaves out.
    """

    float_model: Model
    proof: Mapping[str, Agreement] | None = None
    unproven: str = ""
    given: bool = False
    chain: tuple[Step, ...] = ()
    unchained: str = ""
    repeated: Mapping[str, str] = field(default_factory=dict)
    otherwise: tuple[Difference, ...] = ()
    casts: Mapping[str, int] = field(default_factory=dict)
    batches: BatchDifference | None = None
    signatures: tuple[str, ...] = ()


def check_conversion(
    conversion: ConversionEvidence,
    match: Match,
    recipe: Recipe | None = None,
    convert_command: ConvertCommand | None = None,
) -> Result:
    """Judge the float conversion by its proof, and the variant by the layers it shares with the float model.

    `convert_command` names the files in the commands of fixes.
    """
    float_model, proof = conversion.float_model, conversion.proof
    findings: list[Finding] = []
    low_bit = [op for op in float_model.layers if any(weights.storage not in _FLOATS for weights in op.weights)]
    if low_bit:
        findings.append(
            Finding(
                "MNQ104",
                f"{len(low_bit)} of {len(float_model.layers)} layers of {float_model.path.name} are already quantized",
                max(low_bit, key=lambda op: op.weight_count).name if len(low_bit) < len(float_model.layers) else "",
                fix=FLOAT_SOURCE,
            )
        )
    if proof is None:
        findings.append(Finding("MNQ111", f"the float model was not compared with its source: {conversion.unproven}"))
    findings += [
        differs(name, item, conversion.chain, conversion.unchained)
        for name, item in (proof or {}).items()
        if not is_same(item)
    ]
    if conversion.batches is not None:
        findings.append(differs_in_batches(conversion.batches))
    if conversion.signatures:
        findings.append(_left_out(conversion.signatures))
    findings += [_unstable(title, where) for title, where in conversion.repeated.items() if where]
    again = convert_again(convert_command, recipe, _AGAIN)
    findings += (
        _foreign(conversion.casts)
        or _network(float_model, match, conversion.given, again)
        or [_otherwise(difference, again) for difference in conversion.otherwise]
    )
    worst = max((item.relative_error for item in (proof or {}).values()), default=None)
    metrics = ConversionMetrics(
        outputs_compared=len(proof or {}),
        worst_relative_error=worst,
        chain=tuple(_step(step) for step in conversion.chain),
        chain_lacks=conversion.unchained or None,
        converted_twice=tuple(sorted(conversion.repeated)),
        layers_matched=len(match.pairs),
        layers_missing=len(match.missing),
    )
    return Result.from_findings("conversion", findings, metrics)


def _step(step: Step) -> StepMetrics:
    outputs = {
        name: StepOutput(item.relative_error, item.cosine, item.sqnr_db, item.top1, item.equal)
        for name, item in step.outputs.items()
    }
    return StepMetrics(step.before, step.after, outputs)


def _left_out(signatures: tuple[str, ...]) -> Finding:
    names = ", ".join(map(repr, signatures))
    fix = "write each signature to a file of its own (TFLiteConverter.from_concrete_functions), and convert each"
    return Finding("MNQ115", f"not in the model: {names}; MNN converts only the first subgraph of the file", fix=fix)


def _unstable(title: str, where: str) -> Finding:
    return Finding(
        "MNQ113",
        f"two conversions of the same file with the same flags differ, in the {title}: {where}",
        cause=Cause(
            "conversion-not-deterministic",
            "MNN's converter reads uninitialized memory, or its threads race; this test judges one of several possible "
            "models",
        ),
        fix="ship exactly the file that was tested (--mnn-quantized), and report the model to MNN",
    )


def _otherwise(difference: Difference, again: str) -> Finding:
    if difference.is_minor:
        return Finding(
            "MNQ204",
            difference.text,
            difference.operator,
            cause=Cause(
                "other-input-size",
                "the declared input size differs from the float model's; the computation is identical",
            ),
            fix="if this size is intended, give the source with this size",
            as_warning=True,
        )
    return Finding(
        "MNQ204",
        difference.text,
        difference.operator,
        cause=Cause(
            "other-version-of-network",
            "quantization changes only weights and scales: this file was made from another version of the network, or "
            "was changed after it was made",
        ),
        fix=again,
    )


def _foreign(casts: Mapping[str, int]) -> list[Finding]:
    if not casts:
        return []
    casts_text = " and ".join(f"{count} {kind}" for kind, count in casts.items())
    return [
        Finding(
            "MNQ203",
            f"the file has {casts_text} operators, but none of its layers is int8",
            cause=Cause(
                "quantized-by-other-tool",
                "it was converted from an ONNX model that another tool quantized (QuantizeLinear and "
                "DequantizeLinear): MNN can't import such models, and loses weights",
            ),
            fix="convert the float ONNX model, and quantize with MNN's tools or with --mnn-recipe=int8",
        )
    ]


def _network(float_model: Model, match: Match, given: bool, again: str) -> list[Finding]:
    total = len(match.pairs) + len(match.missing)
    if not total:
        return [Finding("MNQ001", f"{float_model.path.name} has no layer with weights")]
    if not match.missing and not match.extra:
        return []
    gone, more = (sorted(ops, key=lambda op: -op.weight_count) for ops in (match.missing, match.extra))
    missing = ", ".join(f"{op.name} {list(op.shape)}" for op in gone[:4])
    extra = ", ".join(f"{op.name} {list(op.shape)}" for op in more[:4])
    cause = Cause("network-mismatch", "the file was made from another network, or from another version of this one")
    if not match.pairs and not match.extra:
        cause = Cause(
            "model-is-empty",
            "the file holds no layer: MNN's converter makes an empty model from a source that is truncated or "
            "unreadable",
        )
    return [
        Finding(
            "MNQ203",
            f"{len(match.missing)} of the source's {total} layers are not in the quantized model"
            + (f" ({missing})" if missing else "")
            + (f"; {len(match.extra)} of its layers are not in the source ({extra})" if extra else ""),
            (gone or more)[0].name if match.pairs else "",
            cause=cause if given else None,
            fix=again if given else "",
        )
    ]
