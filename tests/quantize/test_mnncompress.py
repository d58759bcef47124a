"""The original PyTorch quantizer: what it loses, its params file repaired, and what its users get wrong."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mnnquant.measurements.calibration import Observations
from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.measurements.sample_axes import SampleAxes
from pytest_mnnquant.mnnfile.entries import bind_by_name, repaired
from pytest_mnnquant.mnnfile.model import Model
from pytest_mnnquant.mnnfile.params import Params, read_params, write_params
from pytest_mnnquant.quantize import mnncompress_pipeline, pipeline
from pytest_mnnquant.quantize.pipeline import MNNCOMPRESS, PipelineInput, PipelineOutput, run_pipeline
from pytest_mnnquant.quantize.prepared import Prepared
from pytest_mnnquant.runtime.convert import convert
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import SourceError, Spec
from tests.conftest import TIMEOUT
from tests.workshop import Workshop

ROOT = Path(__file__).with_name("pipelines")
BATCHES = 10

pytest.importorskip("mnncompress")


@dataclass
class Shipped:
    """A model that mnncompress calibrated: converted as its users do, to float, and with its params repaired."""

    made: PipelineOutput
    params: Params
    as_it_is: Model
    float: Model
    repaired: Model


def ship(source: Prepared, folder: Path, mode: str = "eval", exporter: str = "torchscript") -> Shipped:
    assert source.network is not None
    assert source.calibration is not None
    made = run_pipeline(
        MNNCOMPRESS,
        ROOT,
        PipelineInput(source.spec, source.network, source.calibration, mode),
        folder,
        RunOptions(TIMEOUT),
        exporter=exporter,
    )
    assert made.onnx is not None
    assert made.params is not None
    assert made.quantized is None
    params = read_params(made.params)
    flags = ("--compressionParamsFile", str(made.params))
    as_it_is = convert(made.onnx, folder / "as_it_is.mnn", flags, timeout=TIMEOUT)
    base = convert(made.onnx, folder / "float.mnn", timeout=TIMEOUT)
    write_params(repaired(params, base), folder / "repaired.bin")
    flags = ("--compressionParamsFile", str(folder / "repaired.bin"))
    return Shipped(made, params, as_it_is, base, convert(base.path, folder / "repaired.mnn", flags, timeout=TIMEOUT))


def labels(model: Model) -> list[str]:
    return [op.weights[0].label for op in model.convolutions]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_linear_before_a_relu_stays_float_and_the_repaired_params_quantize_it(
    digits: Prepared, tmp_path: Path, exporter: str
) -> None:
    shipped = ship(digits, tmp_path, exporter=exporter)
    assert len(shipped.params.layers) == 4
    assert labels(shipped.as_it_is) == ["int8", "int8", "float32", "int8"]
    assert labels(shipped.repaired) == ["int8"] * 4
    assert shipped.repaired.size < 0.4 * shipped.as_it_is.size
    assert shipped.made.observations == Observations(handed_out=BATCHES, forwards=BATCHES)
    assert digits.evaluation is not None
    inputs = digits.evaluation.head(200)
    expected, found = (
        run(model, inputs, RunOptions(TIMEOUT)).outputs["output"].reshape(200, -1)
        for model in (digits.model, shipped.repaired)
    )
    assert (expected.argmax(1) == found.argmax(1)).mean() > 0.95


def test_a_mobile_net_lands_as_it_is_and_repairing_leaves_its_scales_alone(workshop: Workshop, tmp_path: Path) -> None:
    shipped = ship(workshop.prepared("mobile_net"), tmp_path)
    assert labels(shipped.as_it_is) == labels(shipped.repaired) == ["int8"] * 25
    for as_it_is, mended in zip(shipped.as_it_is.convolutions, shipped.repaired.convolutions, strict=True):
        assert as_it_is.weights[0].scale_out == mended.weights[0].scale_out
        np.testing.assert_array_equal(shipped.as_it_is.steps(as_it_is), shipped.repaired.steps(mended))


def test_train_mode_moves_the_statistics_and_they_are_what_is_exported(digits: Prepared, tmp_path: Path) -> None:
    shipped = ship(digits, tmp_path, "train")
    observations = shipped.made.observations
    assert observations.training
    assert observations.drift > 0.01
    assert (observations.weight_change, observations.moved) == (0, {})
    assert labels(shipped.repaired) == ["int8"] * 4
    first, moved = (model.decoded(model.convolutions[0]) for model in (digits.model, shipped.float))
    assert not np.allclose(first, moved, rtol=1e-3)


class Odd(nn.Module):
    """Two inputs, two outputs, an option, and layers that mnncompress does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(2, 4, 3)
        self.grow = nn.ConvTranspose2d(4, 3, 2, 2)
        self.row = nn.Conv1d(1, 2, 3, padding=1)
        self.mix = nn.Linear(10, 4)

    def forward(self, image: torch.Tensor, extra: torch.Tensor, gain: float = 1.0) -> tuple[torch.Tensor, ...]:
        return self.grow(torch.relu(self.look(image))) * gain, self.mix(self.row(extra[:, None]).flatten(1))


def test_layers_it_does_not_know_stay_missing_with_several_inputs_and_a_fixed_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    inputs = {"image": random.normal(size=(40, 2, 8, 8)), "extra": random.normal(size=(40, 5))}
    data = Dataset({name: array.astype(np.float32) for name, array in inputs.items()})
    spec, network = Spec("net", "net"), Odd().eval()
    made = run_pipeline(
        MNNCOMPRESS, ROOT, PipelineInput(spec, network, data, "eval"), tmp_path, RunOptions(TIMEOUT, batched=False)
    )
    assert made.onnx is not None
    assert made.params is not None
    model = convert(made.onnx, tmp_path / "float.mnn", timeout=TIMEOUT)
    assert {item.name: item.shape for item in model.inputs} == {"image": (1, 2, 8, 8), "extra": (1, 5)}
    assert sorted(model.output_names) == ["output", "output1"]
    assert made.observations.forwards == 2
    mended = repaired(read_params(made.params), model)
    by_name, lost = bind_by_name(mended, model)
    assert [(entry.weight.name, op.shape[:2]) for entry, op in by_name] == [
        ("look.weight", (4, 2)),
        ("mix.weight", (4, 10)),
    ]
    assert lost == []


# What its users get wrong


@pytest.fixture(scope="module")
def observations(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Observations]:
    """What each of the pipelines was seen to do; all of them ran in one process."""
    assert digits.network is not None
    assert digits.calibration is not None
    folder, data = tmp_path_factory.mktemp("users"), Dataset(digits.calibration.head(160))
    names = ["healthy", "without_a_loop", "carelessly", "evaluated_afterwards", "with_a_wild_dummy", "retrained"]
    with pytest.MonkeyPatch.context() as patch:
        child = dataclasses.replace(pipeline.CHILD, program=ROOT / "run_many.py")
        patch.setattr(pipeline, "CHILD", child)
        patch.setenv("PIPELINES", ",".join(f"{name}:eval" for name in names))
        text = f"mnncompress_users.py:{names[0]}"
        with pytest.raises(SourceError, match=r"see results.json"):
            run_pipeline(
                text, ROOT, PipelineInput(digits.spec, digits.network, data, "eval"), folder, RunOptions(TIMEOUT)
            )
    results = json.loads((folder / "results.json").read_text())
    assert {name: result["raised"] for name, result in results.items() if "raised" in result} == {}
    assert all((folder / name / "params.bin").exists() for name in names)
    return {name: Observations(**result["watched"]) for name, result in results.items()}


def test_a_healthy_pipeline_gives_no_fact_against_it(observations: dict[str, Observations]) -> None:
    assert observations["healthy"] == Observations(handed_out=6, forwards=5)


def test_no_calibration_loop_is_seen(observations: dict[str, Observations]) -> None:
    assert observations["without_a_loop"] == Observations()


def test_gradients_and_train_mode_are_seen(observations: dict[str, Observations]) -> None:
    found = observations["carelessly"]
    assert (found.gradients, found.training, found.forwards) == (True, True, 5)
    assert found.drift > 0.01


@pytest.mark.parametrize("name", ["evaluated_afterwards", "with_a_wild_dummy"])
def test_scales_that_moved_after_the_calibration_are_seen(observations: dict[str, Observations], name: str) -> None:
    found = observations[name]
    assert len(found.moved) > 3
    assert all(key.startswith("mnn_quant_") for key in found.moved)
    assert all(after > 1.01 * before for before, after in found.moved.values())
    assert (found.gradients, found.training, found.drift, found.weight_change) == (False, False, 0, 0)


def test_weights_changed_in_place_are_seen(observations: dict[str, Observations]) -> None:
    assert observations["retrained"].weight_change == pytest.approx(0.25, rel=1e-4)
    assert observations["retrained"].moved == {}


# What it can't do


class Branching(nn.Module):
    """What torch.fx can't trace."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x)
        return out if out.sum() > 0 else -out


def test_a_model_that_torch_fx_cannot_trace_is_told(tmp_path: Path) -> None:
    data = Dataset({"x": np.ones((4, 4), np.float32)})
    told = r"^mnncompress: .* torch.fx: TraceError: .*--mnn-recipe=int8"
    with pytest.raises(SourceError, match=told):
        run_pipeline(
            MNNCOMPRESS, ROOT, PipelineInput(Spec("n", "n"), Branching(), data, "eval"), tmp_path, RunOptions(TIMEOUT)
        )


@pytest.mark.parametrize(
    ("network", "names", "told"),
    [
        (nn.Sequential(nn.Conv1d(2, 3, 3)), ("x",), "the model has no Conv2d or Linear module"),
        (
            nn.ModuleDict({"image": nn.Linear(2, 2)}),
            ("image",),
            ".* input 'image'",
        ),
        (nn.Linear(2, 2), ("x",), r"it can't be imported \(.*\): pip install 'pytest-mnnquant\[torch,mnncompress\]'$"),
    ],
    ids=["no layer it knows", "an input named like a layer", "not installed"],
)
def test_what_it_cannot_do_is_told_in_one_line(
    network: nn.Module, names: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mnncompress", None)
    calibration: Any = SimpleNamespace(names=names)
    for pipeline_of_ours in (mnncompress_pipeline.torchscript, mnncompress_pipeline.dynamo):
        with pytest.raises(SourceError, match=f"^mnncompress: {told}"):
            pipeline_of_ours(network, calibration, "eval", "")


class Quantizer:
    """Stands in for LSQQuantizer where its own failures take too long to bring about."""

    def __init__(self, model: nn.Module, mode: str) -> None:
        self._model = model

    def convert(self) -> nn.Module:
        return self._model

    def strip_qat_ops(self) -> None:
        pass

    def save_compress_params(self, _onnx: str, _params: str) -> None:
        raise AttributeError("'NoneType' object has no attribute 'shape'")  # as of a transformer, exported by dynamo


def test_what_fails_late_is_told_with_the_other_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Batches(list[tuple[torch.Tensor]]):
        names, batched, axes = ("x",), False, SampleAxes()

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unsupported: aten::nothing")

    monkeypatch.setattr(mnncompress_pipeline, "_lsq_quantizer", lambda: Quantizer)
    batches: Any = Batches([(torch.ones(4, 2),)])
    told = r"^mnncompress: it can't find its layers in the ONNX model .*: AttributeError: .*: --mnn-exporter=dynamo$"
    with pytest.raises(SourceError, match=told):
        mnncompress_pipeline.torchscript(nn.Linear(2, 2), batches, "eval", str(tmp_path))
    monkeypatch.setattr(torch.onnx, "export", failing)
    told = r"^mnncompress: the exporter failed: RuntimeError: Unsupported.* --mnn-exporter=dynamo$"
    with pytest.raises(SourceError, match=told):
        mnncompress_pipeline.torchscript(nn.Linear(2, 2), batches, "eval", str(tmp_path))


def test_a_blank_batch_is_named_as_what_makes_its_scales_nan(digits: Prepared, tmp_path: Path) -> None:
    assert digits.network is not None
    assert digits.calibration is not None
    images = digits.calibration.head(64)["x"].copy()
    images[:32] = 0
    given = PipelineInput(digits.spec, digits.network, Dataset({"x": images}), "eval")
    with pytest.raises(SourceError, match=r"scale is NaN: .*calibration data"):
        run_pipeline(MNNCOMPRESS, ROOT, given, tmp_path, RunOptions(TIMEOUT))
