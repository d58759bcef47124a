"""A source becomes a float model that is proven to compute what the source computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.conversion_proof import is_proven
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.spec import SourceError, Spec, parse_spec
from tests.conftest import FIXTURES, TIMEOUT, quietly
from tests.smallnets import TwoWays
from tests.workshop import Workshop

GIVEN = Spec("net", "net")


def images(count: int = 6, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, size, size)).astype(np.float32)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def prepared(model: Any, data: Any, store: Store, **more: Any) -> Prepared:
    choices = Choices(Path(), evaluation=data, timeout=TIMEOUT, **more)
    return prepare(GIVEN, choices, store, quietly, given=model)


@pytest.mark.parametrize("name", ["digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer"])
def test_the_shipped_models_are_proven(workshop: Workshop, name: str) -> None:
    source = workshop.prepared(name)
    assert source.batched
    assert source.proof is not None
    assert is_proven(source.proof)
    assert [(item.samples, item.top1) for item in source.proof.values()] == [(64, 1.0)]
    assert source.calibration is not None
    assert source.evaluation is not None
    assert source.data is source.evaluation
    assert (source.calibration.samples, source.evaluation.samples) == (320, 600)
    assert source.calibration.origin == f"{name}.py:calibration()"
    assert all(weights.label == "float32" for op in source.model.layers for weights in op.weights)


def test_several_inputs_and_outputs_are_proven_each(store: Store) -> None:
    data = {"extra": np.ones((6, 5), np.float32), "image": images()[:, [0, 0]]}
    source = prepared(TwoWays(), data, store)
    assert source.proof is not None
    assert sorted(source.proof) == ["output", "output1"]
    assert is_proven(source.proof)


class OneByOne(nn.Module):
    """Works for a single sample only, once it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x.reshape(int(x.shape[0]), 64))
        return out


def test_a_model_that_is_exported_for_a_fixed_batch_is_fed_one_by_one(store: Store) -> None:
    source = prepared(OneByOne(), {"x": images()}, store)
    assert not source.batched
    assert source.proof is not None
    assert is_proven(source.proof)
    assert source.proof["output"].samples == 6


def stale(folder: Path, content: bytes) -> None:
    (path,) = folder.rglob("float.mnn")
    path.unlink()  # it may be mapped
    path.write_bytes(content)


def test_an_artifact_of_other_weights_or_half_of_one_is_not_believed(tmp_path: Path) -> None:
    data = {"input": images()}
    other = prepared(net(1), data, Store(tmp_path / "other")).model.path.read_bytes()
    right = prepared(net(), data, Store(tmp_path / "store"))
    for content in (other, right.model.path.read_bytes()[:-700], b""):
        stale(tmp_path / "store", content)
        again = prepared(net(), data, Store(tmp_path / "store"))
        assert again.proof is not None
        assert is_proven(again.proof)
        np.testing.assert_array_equal(
            again.model.decoded(again.model.layers[0]), right.model.decoded(right.model.layers[0])
        )


def test_one_for_a_fixed_batch_is_not_believed_either(tmp_path: Path) -> None:
    network, data, own = OneByOne(), {"x": images()}, Store(tmp_path / "store")
    first = prepared(network, data, own)
    assert not first.batched
    first.model.path.unlink()
    first.model.path.write_bytes(prepared(OneByOne(), data, Store(tmp_path / "other")).model.path.read_bytes())
    again = prepared(network, data, own)
    assert again.proof is not None
    assert is_proven(again.proof)


def test_the_second_time_nothing_is_made(digits: Prepared, store: Store) -> None:
    before = digits.model.path.stat()
    spec = parse_spec("digits_cnn.py:build", FIXTURES)
    again = prepare(spec, Choices(FIXTURES, timeout=TIMEOUT), store, quietly)
    assert again.model.path == digits.model.path
    assert again.model.path.stat() == before


def onnx_file(source: Prepared, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(source.model.path.with_suffix(".onnx").read_bytes())
    return path


@pytest.fixture
def data_file(digits: Prepared, tmp_path: Path) -> str:
    assert digits.evaluation is not None
    np.savez(tmp_path / "d.npz", x=digits.evaluation.head(40)["x"])
    return "d.npz"


def test_an_onnx_file_is_proven_with_onnxruntime(
    digits: Prepared, store: Store, tmp_path: Path, data_file: str
) -> None:
    spec = parse_spec(onnx_file(digits, tmp_path).name, tmp_path)
    source = prepare(spec, Choices(tmp_path, evaluation=data_file, timeout=TIMEOUT), store, quietly)
    assert source.proof is not None
    assert is_proven(source.proof)
    assert source.proof["output"].samples == 40
    assert source.batched
    assert source.network is None
    without = prepare(spec, Choices(tmp_path, timeout=TIMEOUT), store, quietly)
    assert without.proof is None
    assert "no data were given" in without.unproven


def test_an_mnn_file_is_its_own_source(digits: Prepared, store: Store, tmp_path: Path, data_file: str) -> None:
    path = tmp_path / "net.mnn"
    path.write_bytes(digits.model.path.read_bytes())
    spec = parse_spec("net.mnn", tmp_path)
    source = prepare(spec, Choices(tmp_path, calibration=data_file, timeout=TIMEOUT), store, quietly)
    assert source.model.path == path
    assert (source.proof, source.unproven) == ({}, "")
    assert source.data is source.calibration


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.ones((4, 1, 20, 20), np.float32), r"has shape \[4, 1, 20, 20\], the model takes \[samples, 1, 16, 16\]"),
        (np.ones((4, 16, 16), np.float32), r"has shape \[4, 16, 16\]"),
        (np.ones((4, 16, 16, 1), np.float32), r"has shape \[4, 16, 16, 1\]"),
    ],
    ids=["size", "rank", "layout"],
)
def test_data_that_do_not_fit_a_file_are_refused_before_mnn_computes_nonsense(
    digits: Prepared, store: Store, tmp_path: Path, array: np.ndarray, problem: str
) -> None:
    np.savez(tmp_path / "d.npz", x=array)
    spec = parse_spec(onnx_file(digits, tmp_path).name, tmp_path)
    with pytest.raises(SourceError, match=rf"d\.npz: array 'x' {problem}"):
        prepare(spec, Choices(tmp_path, evaluation="d.npz", timeout=TIMEOUT), store, quietly)


def test_what_can_not_be_prepared_says_why(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="net: no data to run the model on: give --mnn-calibration"):
        prepared(net(), None, store)
    with pytest.raises(SourceError, match=r"dict.*torch\.nn\.Module"):
        prepared({"state": 1}, {"x": images()}, store)
    with pytest.raises(SourceError, match=r"the model fails on the evaluation data \(input \(1, 1, 5, 5\)\)"):
        prepared(net(), {"input": images(size=5)}, store)
    (tmp_path / "broken.py").write_text("import torch\ndef build(): return torch.nn.Linear('a', 2)\n")
    spec = parse_spec("broken.py:build", tmp_path)
    with pytest.raises(SourceError, match=r"broken.py:build: build\(\) raised TypeError"):
        prepare(spec, Choices(tmp_path, timeout=TIMEOUT), store, quietly)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_float_model_of_broken_numbers_is_not_proven(digits: Prepared, bad: float) -> None:
    assert digits.proof is not None
    assert not is_proven({**digits.proof, "second": dataclasses.replace(digits.proof["output"], max_error=bad)})
