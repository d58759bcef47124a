"""Outputs that change if samples are fed together: an error of the conversion, or a warning about the model's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.checks.conversion.batches import differs_in_batches
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.quantize.batch_difference import batch_difference
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import TIMEOUT, quietly

DATA = {"x": np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)}


def normalizing(path: Path, opset: int, batch: str | int = "batch") -> None:
    """y = x W / |x W|, with the axes of the norm as an input from opset 18 on."""
    weight = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    axes = {"axes": [1]} if opset < 18 else {}
    inputs = ["h", "axes"] if opset >= 18 else ["h"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceL2", inputs, ["n"], keepdims=1, **axes),
        helper.make_node("Div", ["h", "n"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([1]), "axes")][: 1 + (opset >= 18)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)


class Mixes(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x + x.mean(0, keepdim=True))
        return result


def prepared(store: Store, spec: Spec, model: Any = None) -> Prepared:
    return prepare(spec, Choices(Path(), evaluation=DATA, timeout=TIMEOUT), store, quietly, given=model)


@pytest.mark.parametrize(("opset", "batch", "is_error"), [(18, "batch", True), (17, "batch", False), (18, 1, False)])
def test_a_norm_that_mnn_computes_over_the_batch_is_an_error(
    opset: int, batch: str | int, is_error: bool, tmp_path: Path, store: Store
) -> None:
    normalizing(tmp_path / "net.onnx", opset, batch)
    source = prepared(store, parse_spec("net.onnx", tmp_path))
    assert source.proof is not None
    assert (source.batches is not None) == is_error
    if source.batches is not None:
        finding = differs_in_batches(source.batches)
        assert (finding.code, finding.severity, source.batches.in_source) == ("MNQ114", Severity.ERROR, True)
        assert source.batches.alone.relative_error < 1e-3 < 1e-2 < source.batches.together.relative_error


def test_a_network_that_mixes_samples_is_a_warning(store: Store) -> None:
    torch.manual_seed(0)
    source = prepared(store, Spec("net", "net"), Mixes())
    assert source.batches is not None
    assert not source.batches.in_source
    assert differs_in_batches(source.batches).severity is Severity.WARNING
    assert not source.batched


def test_only_outputs_that_are_right_one_by_one_count() -> None:
    right, wrong = np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    assert batch_difference({"y": right}, {"y": right}, {"y": right}) is None
    assert batch_difference({"y": right}, {"y": wrong}, {"y": wrong}) is None
    assert batch_difference({"y": right}, {"y": right}, {"y": wrong[:1]}) is None
    found = batch_difference({"y": right, "z": right}, {"y": right, "z": right}, {"y": right, "z": wrong})
    assert found is not None
    assert (found.output, found.in_source) == ("z", False)
