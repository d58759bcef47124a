"""TFLite models as sources: their layout, the types of their weights, and the proof by TFLite's own runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import ModelSettings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.variant import variant_under_test
from pytest_mnnquant.findings.finding import FAILED
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, TFLITE
from pytest_mnnquant.quantize.conversion_proof import is_proven
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.source_runtime import LITERT
from pytest_mnnquant.sources.spec import QuantizedSource, parse_spec
from pytest_mnnquant.sources.tflite_file import takes_any_tflite_batch
from tests.conftest import TIMEOUT, quietly
from tests.tflite_nets import INPUT, NETS, Graph

needs_litert = pytest.mark.skipif(not LITERT.is_installed, reason="LiteRT is not installed (extra tflite)")


def written(path: Path, draw: Callable[[Graph, int], int], any_batch: bool = False) -> Path:
    """A network of one convolution of 4 to 6 channels, and what `draw` makes of it."""
    torch.manual_seed(0)
    graph = Graph(any_batch=any_batch)
    x = graph.tensor(INPUT, (1, 8, 8, 4))
    return graph.write(path, [draw(graph, graph.conv(x, nn.Conv2d(4, 6, 3, padding=1), "conv"))])


def rows(path: Path) -> Path:
    """A detector: one row of 6 numbers per pixel."""
    return written(path, lambda graph, x: graph.rows(x, "rows"))


def images(count: int) -> dict[str, np.ndarray]:
    return {INPUT: np.random.default_rng(0).standard_normal((count, 8, 8, 4)).astype(np.float32)}


def prepared(path: Path, store: Store, data: dict[str, np.ndarray]) -> Prepared:
    choices = Choices(path.parent, evaluation=data, timeout=TIMEOUT)
    return prepare(parse_spec(path.name, path.parent), choices, store, quietly)


def test_outputs_with_channels_last_keep_their_order(tmp_path: Path, store: Store) -> None:
    """MNN's Session API moves the values of such a tensor if it is copied into one with channels first."""
    source = prepared(rows(tmp_path / "rows.tflite"), store, images(3))
    session, module = (
        run(source.model, images(3), RunOptions(TIMEOUT, batched=False, through_module=through)).outputs["rows"]
        for through in (False, True)
    )
    assert session.shape == (3, 64, 6)
    np.testing.assert_allclose(session, module, atol=1e-6)


@needs_litert
def test_litert_proves_the_conversion(tmp_path: Path, store: Store) -> None:
    source = prepared(rows(tmp_path / "rows.tflite"), store, images(3))
    assert source.proof is not None
    assert source.proof["rows"].relative_error < 1e-5
    assert source.proof["rows"].samples == 3
    assert [(step.before, step.after) for step in source.chain] == [(TFLITE, FLOAT_MNN)]


@needs_litert
@pytest.mark.parametrize("any_batch", [False, True])
def test_litert_takes_the_batches_that_the_model_declares(tmp_path: Path, any_batch: bool) -> None:
    path = written(tmp_path / "net.tflite", lambda graph, x: graph.pool(x, 2, "pool"), any_batch)
    alone, together = (
        LITERT.run(path, images(5), RunOptions(TIMEOUT, batched=batched))["pool"] for batched in (False, True)
    )
    assert alone.shape == (5, 4, 4, 6)
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert takes_any_tflite_batch(path) == any_batch


def test_without_litert_the_conversion_is_not_proven(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(LITERT, packages=("no_such_package",))
    monkeypatch.setattr("pytest_mnnquant.quantize.prepare_file.RUNTIMES", {".tflite": absent})
    source = prepared(rows(tmp_path / "rows.tflite"), store, images(3))
    assert (source.proof, source.unproven, source.chain) == (None, LITERT.not_installed, ())


def test_weights_of_16_bits_are_float(tmp_path: Path, store: Store) -> None:
    net = NETS["mlp"]
    data = net.evaluation()
    few = {INPUT: data[INPUT][:20]}
    source = prepared(net.write(tmp_path / "half.tflite", "float16"), store, few)
    assert [op.weights[0].storage.value for op in source.model.layers] == ["float32"] * 3
    (outputs,) = run(source.model, few, RunOptions(TIMEOUT, batched=False)).outputs.values()
    np.testing.assert_allclose(outputs, net.expected(few[INPUT]), atol=0.02)
    if LITERT.is_installed:
        assert source.proof is not None
        assert is_proven(source.proof)


@pytest.mark.parametrize(("name", "operators"), [("mlp", "3 FULLY_CONNECTED of int8"), ("cnn", "2 CONV_2D of int8")])
def test_quantized_models_are_refused(tmp_path: Path, store: Store, name: str, operators: str) -> None:
    path = NETS[name].write(tmp_path / "net.tflite", "int8")
    with pytest.raises(QuantizedSource, match=operators):
        prepared(path, store, NETS[name].calibration(2))


def test_custom_operators_are_named(tmp_path: Path, store: Store) -> None:
    path = written(tmp_path / "net.tflite", lambda graph, x: graph.unknown(x, "Landmarks"))
    with pytest.raises(NativeFailure, match="custom operator Landmarks") as error:
        prepared(path, store, images(2))
    assert (error.value.kind, error.value.operator) == (FailureKind.CRASHED, "Landmarks")


def test_signatures_that_mnn_leaves_out_are_reported(tmp_path: Path, store: Store) -> None:
    graph = Graph(signatures=("serving_default", "encode"))
    torch.manual_seed(0)
    x = graph.tensor(INPUT, (1, 8, 8, 4))
    graph.write(tmp_path / "net.tflite", [graph.conv(x, nn.Conv2d(4, 6, 3, padding=1), "conv")])
    np.save(tmp_path / "data.npy", images(4)[INPUT])
    settings = ModelSettings("net", "net.tflite", tmp_path, evaluation="data.npy", timeout=TIMEOUT)
    source = SourceUnderTest(settings, parse_spec("net.tflite", tmp_path), store, quietly)
    result = run_check(variant_under_test(source, "w8", None), "conversion")
    assert result.outcome != FAILED
    (finding,) = [finding for finding in result.findings if finding.code == "MNQ115"]
    assert (finding.severity, "'encode'" in finding.message) == (Severity.WARNING, True)
    assert prepared(rows(tmp_path / "rows.tflite"), store, images(3)).signatures == ()
