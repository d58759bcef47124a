"""Plants the failure of MNN issue 2890 with the real tools: a params file whose names come from the ONNX graph.

    python demo/plant.py OUT

Calibrates `garment_classifier`, names the tensors as the ONNX graph does (as a calibration in PyTorch must), and lets
MNN's converter quantize the ONNX model with that file. The converter prints Success; two of the three Linear layers,
92 % of the weights, stay float32. OUT gets `net.onnx`, `net.mnn`, `compress_params_index.bin` and `evaluation.npz`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.mnnfile.model import Model, Op
from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import PARAMS_NAME, Job
from pytest_mnnquant.quantize.prepared import Choices
from pytest_mnnquant.quantize.variant import make_variant
from pytest_mnnquant.recipes.names import RECIPES
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.sources.spec import parse_spec

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def onnx_names(model: Model, graph: onnx.GraphProto) -> dict[str, str]:
    """{tensor name in MNN: tensor name in ONNX} of the layers whose names differ: Linear layers followed by ReLU.

    MNN calls a Linear's operator after its ONNX output, with a suffix; the ReLU is fused into it.
    """
    relu = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Relu"}

    def in_onnx(op: Op) -> str:
        own = op.name.removesuffix("__matmul_converted")
        return str(relu.get(own, own))

    known = {name for node in graph.node for name in node.output}
    return {op.output_names[0]: in_onnx(op) for op in model.convolutions if op.output_names[0] not in known}


def main(out: Path) -> None:
    """Write the four files."""
    out.mkdir(parents=True, exist_ok=True)
    choices, store = Choices(FIXTURES), Store(out / "work")
    source = prepare(parse_spec("garment_classifier.py:build", FIXTURES), choices, store, lambda _: None)
    variant = make_variant(Job(source, RECIPES["int8"], "eval", (), choices), store, lambda _: None)
    assert variant.params is not None
    assert source.evaluation is not None
    shutil.copy(source.model.path.with_name("float.onnx"), out / "net.onnx")
    names = onnx_names(source.model, onnx.load(out / "net.onnx").graph)
    write_params(read_params(variant.params).renamed(names), out / PARAMS_NAME)
    flags = ("--compressionParamsFile", str((out / PARAMS_NAME).resolve()))
    convert(out / "net.onnx", out / "net.mnn", flags, timeout=60)
    labels = source.evaluation.labels
    assert labels is not None
    np.savez(out / "evaluation.npz", labels=labels, x=source.evaluation.inputs["x"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
