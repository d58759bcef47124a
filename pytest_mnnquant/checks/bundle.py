"""Bundle: what must be deployed together is there."""

from __future__ import annotations

from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import BundleMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.model import Model


def check_bundle(model: Model, params: ParamsEvidence | None, params_applied: bool = False) -> Result:
    """Judge the files: external weights present and long enough; model and params file of one conversion.

    `params_applied`: the model holds all that the params file says. Then it was made with it, whatever the uuids:
    converting from .mnn keeps the uuid of the float model.
    """
    findings = []
    files = [model.path.name]
    if model.external_path is not None:
        files.append(model.external_path.name)
    if model.external_missing:
        findings.append(
            Finding(
                "MNQ803",
                f"{model.external_path} lacks {model.external_missing:,} of the {model.external_needed:,} bytes that "
                f"{model.path.name} needs",
                cause=Cause(
                    "external-weights-not-shipped",
                    "the model was converted with --saveExternalData (or is above 2 GB); MNN only prints a line and "
                    "computes garbage without this file",
                ),
                fix="ship the .mnn.weight file beside the .mnn, or convert without --saveExternalData (also what is "
                "given to mnnquant: its EMA reads no such file and writes none)",
            )
        )
    if params is not None and params.params is not None and params.path is not None:
        files.append(params.path.name)
        if not params_applied and params.params.uuid and params.params.uuid != model.uuid:
            findings.append(
                Finding(
                    "MNQ804",
                    f"the model's uuid is {model.uuid or 'empty'}, the params file's {params.params.uuid}",
                    cause=Cause(
                        "uuid-not-carried",
                        "the converter did not read this params file, or a tool dropped the uuid (as mnnquant's EMA)",
                    ),
                    fix="keep the model with the params file it was made with",
                )
            )
    return Result.from_findings("bundle", findings, BundleMetrics(tuple(files), model.size))
