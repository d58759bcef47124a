"""Float models that are exported again for one variant, with a separate proof.

Calibration in train mode changes the network, and BatchNorms that MNN does not fold are exported in another form. The
variant is then not quantized from the float model that `prepare` proved.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.measurements.conversion import CALIBRATED, VARIANTS_FLOAT, Step, describe_disagreement
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.agreement import Agreement, is_same
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.quantize.conversion_proof import compare_outputs, name_outputs, proof_samples
from pytest_mnnquant.quantize.prepare_pytorch import export_float
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.sources.pytorch import ExportOptions
from pytest_mnnquant.sources.spec import SourceError

_PROOF: Final = "proof.json"
_OWNER: Final = "the network's"


def re_export_float(network: Any, source: Prepared, data: Dataset, folder: Path, choices: Choices, label: str) -> Model:
    """The float model of `network`, proven on some of the data; `label` names the variant.

    Raises `SourceError` if their outputs differ: the exporter or the converter is at fault.
    """
    from pytest_mnnquant.sources import pytorch

    name, timeout = source.spec.text, choices.timeout
    samples = data.first(proof_samples(data))
    options = ExportOptions(name, choices.exporter, source.batched, source.axes, source.outputs)
    model = export_float(network, data, folder, options, timeout)
    expected = pytorch.outputs(network, samples, name, source.axes.outputs, source.outputs)
    ran = run(model, samples.inputs, source.options(timeout))
    try:
        named = name_outputs(model, expected, source.outputs)
        proof = compare_outputs(named, ran.outputs)
    except ValueError as error:
        raise SourceError(f"{name}: exported again for {label}: {error}") from None
    for array, (output, item) in zip(named.values(), proof.items(), strict=True):
        # If calibration made the network itself compute NaN, the export is not at fault.
        if not is_same(item) and np.isfinite(array).all():
            disagreement = describe_disagreement(item, _OWNER)
            raise SourceError(
                f"{name}: exported again for {label}, output {output!r} of the float .mnn {disagreement}: "
                "the export or the conversion to float is at fault, before anything is quantized"
            )
    figures = {output: dataclasses.asdict(item) for output, item in proof.items()}
    (folder / _PROOF).write_text(json.dumps(figures), encoding="utf-8")
    return model


def load_chain(folder: Path) -> tuple[Step, ...]:
    """The step from the calibrated network to its float model; empty if it was not exported again."""
    if not (folder / _PROOF).is_file():
        return ()
    figures = json.loads((folder / _PROOF).read_text(encoding="utf-8"))
    return (Step(CALIBRATED, VARIANTS_FLOAT, {output: Agreement(**item) for output, item in figures.items()}),)
