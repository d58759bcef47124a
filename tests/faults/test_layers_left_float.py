"""Conversions that say Success and leave some layers in float32: names that don't match, layers that are not listed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pytest_mnnquant.mnnfile.params import read_params, write_params
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.job import PARAMS_NAME
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.spec import Spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.faults.conftest import JUDGED, Judge
from tests.faults.factory import FIRST, HIDDEN, NET, SECOND, Factory

GARMENT = "garment_classifier"
FC1, FC2 = "/fc1/Gemm_output_0__matmul_converted", "/fc2/Gemm_output_0__matmul_converted"


@pytest.fixture(scope="module")
def dynamo(factory: Factory) -> Prepared:
    """The net as the other exporter writes it."""
    return factory.prepared(NET, exporter="dynamo")


def test_params_of_the_other_exporter_fail_with_both_names(factory: Factory, judge: Judge, dynamo: Prepared) -> None:
    params = factory.params(dynamo)
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    assert verdict.layers("MNQ304") == verdict.layers("MNQ401") == {FIRST, SECOND, HIDDEN}
    verdict.tells("MNQ304", where=HIDDEN, fix="--compressionParamsFile")
    verdict.tells("MNQ401", where=HIDDEN, fix="--compressionParamsFile")
    assert verdict.metrics("params")["misnamed"] == 3

    onnx = dynamo.model.path.with_name("float.onnx")
    healthy = judge(onnx, factory.convert(dynamo.model.path, "--compressionParamsFile", params), params=params)
    assert healthy.status == 0, healthy.text
    assert healthy.passed == JUDGED


def test_params_with_the_names_of_the_onnx_graph_fail_naming_the_linear_layers(factory: Factory, judge: Judge) -> None:
    healthy = factory.params(GARMENT)
    params = factory.fresh("from_onnx.bin")
    names = {"output__matmul_converted": "output"}
    for entry, name in zip(read_params(healthy).layers[2:4], ("/Relu_2_output_0", "/Relu_3_output_0"), strict=True):
        names[entry.name] = name
    write_params(read_params(healthy).renamed(names), params)
    model, data = (
        factory.convert(factory.float(GARMENT), "--compressionParamsFile", params),
        factory.evaluation(GARMENT),
    )
    verdict = judge(factory.onnx(GARMENT), model, params=params, data=data)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    assert verdict.layers("MNQ401") == {FC1, FC2}
    verdict.tells("MNQ304", where=FC1, why="'ConvertTensor18'", fix="--compressionParamsFile")
    verdict.tells("MNQ401", where=f"{FC2}: ", fix="--compressionParamsFile")
    assert 0.07 < verdict.metrics("coverage")["coverage"] < 0.08
    assert verdict.metrics("accuracy")["top1_drop"] == 0  # because it is still float


def test_params_with_the_names_of_mnn_pass(factory: Factory, judge: Judge) -> None:
    verdict = judge(
        factory.onnx(GARMENT), factory.int8(GARMENT), params=factory.params(GARMENT), data=factory.evaluation(GARMENT)
    )
    assert verdict.status == 0, verdict.text
    assert verdict.passed == JUDGED


def test_params_beside_the_model_are_found(factory: Factory, judge: Judge) -> None:
    model = factory.copy(factory.int8())
    assert judge(factory.float(), model, "-k", "params", still=True).skipped == {"int8::params"}
    model.with_name(PARAMS_NAME).write_bytes(factory.params().read_bytes()[:200])
    verdict = judge(factory.float(), model, "-k", "params", still=True)
    assert verdict.status == 1
    verdict.tells("MNQ302", where=str(model.with_name(PARAMS_NAME)))


def test_one_layer_without_params_fails_naming_it(factory: Factory, judge: Judge) -> None:
    params = factory.params(skip=[SECOND])
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, params=params)
    assert verdict.status == 1
    assert verdict.failed == {"int8::params", "int8::coverage", "int8::size"}
    assert verdict.layers("MNQ306") == verdict.layers("MNQ401") == {SECOND}
    verdict.tells("MNQ306", where="'/features/features.6/Relu_output_0'", fix="--mnn-skip-layer")
    verdict.tells("MNQ401", where=SECOND, fix=f"--mnn-skip-layer={SECOND}")


def test_a_layer_meant_to_stay_float_may(factory: Factory, judge: Judge) -> None:
    params = factory.params(skip=[SECOND])
    model = factory.convert(factory.float(), "--compressionParamsFile", params)
    verdict = judge(factory.float(), model, "--mnn-skip-layer", "/features/features.4/*", params=params)
    assert verdict.status == 0, verdict.text
    assert verdict.passed == JUDGED
    assert verdict.metrics("coverage")["skipped_layers"] == 1
    other = judge(factory.float(), model, "--mnn-skip-layer", FIRST, "-k", "coverage", params=params, still=True)
    assert other.status == 1
    assert other.layers("MNQ401") == {SECOND}


def test_a_large_linear_quantized_straight_from_onnx_fails(factory: Factory, judge: Judge) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    digits = {"input": factory.module(NET).evaluation()["x"][:100]}
    data = factory.fresh("inputs.npz")
    np.savez(data, **digits)
    choices = Choices(FIXTURES, digits, digits, timeout=TIMEOUT)
    source = prepare(Spec("wide", "wide"), choices, factory.store, quietly, net.eval())
    onnx, params, layer = source.model.path.with_name("float.onnx"), factory.params(source), source.model.layers[0]
    assert layer.weight_count == 65_536
    verdict = judge(onnx, factory.convert(onnx, "--compressionParamsFile", params), params=params, data=data)
    assert verdict.status == 1
    assert verdict.failed == JUDGED - {"int8::conversion", "int8::bundle", "int8::calibration"}
    assert verdict.layers("MNQ403") == {layer.name}
    verdict.tells("MNQ403", where="4.0 bytes", why="65,536", fix="--compressionParamsFile")
    healthy = judge(
        onnx, factory.convert(source.model.path, "--compressionParamsFile", params), params=params, data=data
    )
    assert healthy.status == 0, healthy.text
    assert healthy.passed == JUDGED
