"""Bundle: all files that must be deployed together exist and belong together."""

from __future__ import annotations

from pytest_mnnquant.checks.params.evidence import ParamsEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import BundleMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.mnnfile.model import Model


def check_bundle(model: Model, params: ParamsEvidence | None, params_applied: bool = False) -> Result:
    """Judge the files: external weights exist and are complete; model and params file come from one conversion.

    `params_applied`: the model holds all values of the params file, so it was made with it. Then the uuids may differ:
    a conversion from .mnn keeps the uuid of the float model.
    """
    findings = []
    files = [model.path.name]
    if model.external_path is not None:
        files.append(model.external_path.name)
    if model.external_missing:
        findings.append(
            Finding(
                "MNQ803",
                _missing_weights(model),
                cause=Cause(
                    "external-weights-not-shipped",
                    "the weights of the model are in this file (--saveExternalData, or a model of more than 2 GB); "
                    "without it MNN fails or computes garbage",
                ),
                fix="ship this file in the same folder as the .mnn, under this name, or convert without "
                "--saveExternalData (mnnquant's EMA can't use a .mnn.weight file)",
            )
        )
    if params is not None and params.params is not None and params.path is not None:
        files.append(params.path.name)
        if not params_applied and params.params.uuid and params.params.uuid != model.uuid:
            findings.append(
                Finding(
                    "MNQ804",
                    f"uuid {model.uuid or 'empty'} in the model, {params.params.uuid} in the params file",
                    cause=Cause(
                        "uuid-not-carried",
                        "the converter did not read this params file, or a tool (such as mnnquant's EMA) dropped the "
                        "uuid",
                    ),
                    fix="deploy the model with the params file that it was made with",
                )
            )
    return Result.from_findings("bundle", findings, BundleMetrics(tuple(files), model.size))


def _missing_weights(model: Model) -> str:
    if model.external_missing == model.external_needed:
        return (
            f"{model.external_path} is missing or empty; {model.path.name} needs {model.external_needed:,} bytes of it"
        )
    missing = f"{model.external_missing:,} of the {model.external_needed:,} bytes"
    return f"{model.external_path}: {missing} that {model.path.name} needs are missing"
