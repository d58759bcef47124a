"""From PyTorch by way of ONNX to the float model, each step has figures of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.measurements.conversion import FLOAT_MNN, ONNX, PYTORCH, Step
from pytest_mnnquant.metrics.agreement import is_same
from pytest_mnnquant.quantize import conversion_proof
from pytest_mnnquant.quantize.conversion_proof import is_proven, output_error, steps_from_pytorch
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.runtime.source_runtime import ONNXRUNTIME
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import TIMEOUT, quietly
from tests.smallnets import TwoWays
from tests.workshop import Workshop

HEALTHY = ("digits_cnn", "garment_classifier", "mobile_net", "tiny_transformer")


def prepared(network: nn.Module, data: Any, store: Store, **more: Any) -> Prepared:
    choices = Choices(Path(), evaluation=data, timeout=TIMEOUT, **more)
    return prepare(Spec("net", "net"), choices, store, quietly, given=network)


def ends(chain: tuple[Step, ...]) -> list[tuple[str, str]]:
    return [(step.before, step.after) for step in chain]


@pytest.mark.parametrize("name", HEALTHY)
def test_the_shipped_models_hold_in_every_step(workshop: Workshop, name: str) -> None:
    source = workshop.prepared(name)
    assert ends(source.chain) == [(PYTORCH, ONNX), (ONNX, FLOAT_MNN)]
    assert source.unchained == ""
    for step in source.chain:
        assert step.outputs.keys() == {"output"}
        assert step.outputs["output"].samples == 64
        assert step.outputs["output"].relative_error < 1e-4


def test_every_output_is_in_every_step(store: Store) -> None:
    images = np.random.default_rng(0).standard_normal((6, 2, 8, 8)).astype(np.float32)
    source = prepared(TwoWays(), {"extra": np.ones((6, 5), np.float32), "image": images}, store)
    assert ends(source.chain) == [(PYTORCH, ONNX), (ONNX, FLOAT_MNN)]
    for step in source.chain:
        assert step.outputs.keys() == {"output", "output1"}
        assert is_proven(step.outputs)


def test_without_onnxruntime_the_direct_comparison_decides(
    digits: Prepared, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "onnxrun" in name else find(name, *more)
    )
    assert digits.network is not None
    assert digits.data is not None
    source = prepared(digits.network, digits.data.head(5), store)
    assert ends(source.chain) == [(PYTORCH, FLOAT_MNN)]
    assert source.unchained == ONNXRUNTIME.not_installed
    assert source.proof == source.chain[0].outputs
    assert is_proven(source.proof)
    np.savez(tmp_path / "d.npz", x=digits.data.head(5)["x"])
    (tmp_path / "net.onnx").write_bytes(digits.model.path.with_suffix(".onnx").read_bytes())
    choices = Choices(tmp_path, evaluation="d.npz", timeout=TIMEOUT)
    file = prepare(parse_spec("net.onnx", tmp_path), choices, store, quietly)
    assert (file.proof, file.unproven, file.chain) == (None, ONNXRUNTIME.not_installed, ())


def test_an_export_that_onnxruntime_can_not_run_leaves_the_step_out_with_the_reason(
    digits: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "half.onnx").write_bytes(digits.model.path.with_suffix(".onnx").read_bytes()[:5000])
    assert digits.data is not None
    assert digits.sample_run is not None
    assert digits.proof is not None
    some, ran = digits.data.head(64), digits.sample_run
    chain, why = steps_from_pytorch(tmp_path / "half.onnx", some, ran.outputs, ran, digits.proof, RunOptions(TIMEOUT))
    assert ends(chain) == [(PYTORCH, FLOAT_MNN)]
    assert why.startswith("onnxruntime can't run the ONNX export: running half.onnx: ")
    assert "\n" not in why


def test_an_onnx_file_has_one_step_and_a_mnn_file_none(digits: Prepared, store: Store, tmp_path: Path) -> None:
    assert digits.data is not None
    np.savez(tmp_path / "d.npz", x=digits.data.head(40)["x"])
    chains = []
    for suffix in (".onnx", ".mnn"):
        (tmp_path / f"net{suffix}").write_bytes(digits.model.path.with_suffix(suffix).read_bytes())
        choices = Choices(tmp_path, evaluation="d.npz", timeout=TIMEOUT)
        chains.append(prepare(parse_spec(f"net{suffix}", tmp_path), choices, store, quietly).chain)
    assert [ends(chain) for chain in chains] == [[(ONNX, FLOAT_MNN)], []]
    assert is_proven(chains[0][0].outputs)


class Then(nn.Module):
    """A convolution, and something after it that an exporter or the converter gets wrong."""

    def __init__(self, wrong: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.wrong = nn.Conv2d(1, 4, 3, padding=1), wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.wrong(self.convolution(x))
        return out


WRONG_EXPORT = {
    "a floor division": lambda y: torch.floor_divide(5 * y, 2.0),
    "an integer division": lambda y: ((20 * y).to(torch.int64) // 7).float(),
    "a number taken from a tensor": lambda y: y / float(y.abs().max()),
}
WRONG_CONVERSION = {
    "a soft shrink": functional.softshrink,
    "a bicubic enlargement": lambda y: functional.interpolate(y, scale_factor=2, mode="bicubic"),
    "a remainder": lambda y: torch.fmod(5 * y, 2.0),
    "a sum by index": lambda y: torch.zeros_like(y).scatter_add(3, (y > 0).long(), y),
}


def steps_hold(wrong: Any, store: Store) -> list[bool]:
    sizes = np.arange(1, 41, dtype=np.float32).reshape(-1, 1, 1, 1)
    x = np.random.default_rng(0).standard_normal((40, 1, 8, 8)).astype(np.float32) * sizes / 20
    source = prepared(Then(wrong), {"x": x}, store)
    assert source.proof is not None
    assert not is_proven(source.proof)
    assert ends(source.chain) == [(PYTORCH, ONNX), (ONNX, FLOAT_MNN)]
    return [is_same(step.outputs["output"]) for step in source.chain]


@pytest.mark.parametrize("name", WRONG_EXPORT)
def test_what_the_exporter_gets_wrong_is_seen_in_the_first_step(name: str, store: Store) -> None:
    assert steps_hold(WRONG_EXPORT[name], store) == [False, True]


@pytest.mark.parametrize("name", WRONG_CONVERSION)
def test_what_mnn_gets_wrong_is_seen_in_the_second(name: str, store: Store) -> None:
    """Should one fail some day, MNN has mended that operator."""
    assert steps_hold(WRONG_CONVERSION[name], store) == [True, False]


def test_a_stale_float_model_is_no_fault_of_a_step(store: Store, tmp_path: Path) -> None:
    """The one in the store is made anew before any step is judged."""
    data = {"x": np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32)}
    own = Store(tmp_path)
    first = prepared(Then(torch.relu), data, own)
    first.model.path.unlink()
    first.model.path.write_bytes(prepared(Then(torch.tanh), data, store).model.path.read_bytes())
    again = prepared(Then(torch.relu), data, own)
    assert all(is_proven(step.outputs) for step in again.chain)


def test_figures_are_compared_by_name() -> None:
    with pytest.raises(ValueError, match=r"the float model has no output 'b'.*: a, c"):
        conversion_proof.compare_outputs(
            {"a": np.ones((2, 2)), "b": np.ones((2, 2))}, {"a": np.ones((2, 2)), "c": np.ones((2, 2))}
        )


def test_the_error_of_an_int8_model_is_that_of_arms_arithmetic(workshop: Workshop) -> None:
    """On x86, MNN's int8 MaxPool is wrong on tensors of both signs: there the model itself has an error of 0.02."""
    source, variant = workshop.prepared("garment_classifier"), workshop.variant("garment_classifier", "int8", "eval")
    assert source.data is not None
    assert output_error(source.model, variant.model, source.data.head(64), RunOptions(TIMEOUT)) < 1e-3
