"""MNN's offline tool, fed with our data: every method on networks of many kinds; what it would ruin is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pytest_mnnquant.measurements.dataset import Dataset
from pytest_mnnquant.metrics.agreement import agreement
from pytest_mnnquant.mnnfile.model import Model, read_model
from pytest_mnnquant.mnnfile.pooling import write_exact_copy
from pytest_mnnquant.quantize import mnnquant as quantize_mnnquant
from pytest_mnnquant.quantize import mnnquant_samples
from pytest_mnnquant.quantize.mnnquant import quantize_offline
from pytest_mnnquant.quantize.mnnquant_samples import as_text
from pytest_mnnquant.recipes.recipe import MnnquantRecipe
from pytest_mnnquant.runtime.inference import run
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.mnnquant import mnnquant
from pytest_mnnquant.runtime.options import RunOptions
from pytest_mnnquant.sources.spec import DataError, SourceError
from tests.conftest import TIMEOUT
from tests.smallnets import TwoWays, Words
from tests.workshop import Workshop

METHODS = ("KL", "ADMM", "EMA")
SAMPLES = 16


def quantized(
    model: Model, data: Dataset | dict[str, Any], output: Path, batched: bool = True, **changes: Any
) -> tuple[Model, dict[str, Any]]:
    skip = changes.pop("skip", ())
    feature, weight = changes.pop("feature", "KL"), changes.pop("weight", "MAX_ABS")
    name = f"mnnquant-{feature.lower()}" + ("-admm" if weight == "ADMM" else "")
    recipe = MnnquantRecipe(name=name, feature=feature, weight=weight)
    assert not changes
    data, options = data if isinstance(data, Dataset) else Dataset(data), RunOptions(TIMEOUT, batched=batched)
    facts = quantize_offline(model, data, output / "out.mnn", recipe, skip, options)
    return read_model(output / "out.mnn"), facts


def cosine(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> float:
    found = agreement(*(values.reshape(len(reference), -1) for values in (reference, candidate))).cosine
    assert found is not None
    return found


def noise(random: np.random.Generator, *shape: int) -> Any:
    return random.standard_normal((SAMPLES, *shape)).astype(np.float32)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


class Sequence(nn.Module):
    """Conv1d twice, a mean over time, a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 16, 3, padding=1), nn.Conv1d(16, 24, 5, stride=2)
        self.head = nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean(2))
        return out


@dataclasses.dataclass(frozen=True)
class Net:
    model: Model
    data: Dataset


@pytest.fixture(scope="module")
def nets(workshop: Workshop) -> dict[str, Net]:
    """Networks of several kinds with real or made-up data."""
    random = np.random.default_rng(0)
    found = {}
    for name in ("digits_cnn", "mobile_net", "tiny_transformer"):
        source = workshop.prepared(name)
        assert source.calibration is not None
        found[name] = Net(source.model, Dataset(source.calibration.head(SAMPLES)))
    torch.manual_seed(0)
    made: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "mlp": (mlp(), {"input": noise(random, 20)}),
        "conv1d": (Sequence().eval(), {"x": noise(random, 4, 40)}),
        "two inputs": (TwoWays().eval(), {"image": noise(random, 2, 8, 8), "extra": 2 * noise(random, 5)}),
        "words": (Table().eval(), {"tokens": random.integers(0, 50, (SAMPLES, 7))}),
    }
    for name, (network, data) in made.items():
        found[name] = Net(workshop.floats(network, Dataset(data)), Dataset(data))
    return found


class Table(nn.Module):
    """An embedding before two Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.second = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.relu(self.first(self.table(tokens))).mean(1))
        return out


@pytest.mark.parametrize("feature", METHODS)
@pytest.mark.parametrize(
    "name", ["digits_cnn", "mobile_net", "tiny_transformer", "mlp", "conv1d", "two inputs", "words"]
)
def test_every_convolution_is_full_int8_and_right(
    nets: dict[str, Net], tmp_path: Path, name: str, feature: str
) -> None:
    model, data = nets[name].model, nets[name].data
    if feature == "ADMM":
        data = Dataset(data.head(3))  # it takes its time
    found, facts = quantized(model, data, tmp_path, feature=feature)
    assert all(op.weights[0].full_int8 for op in found.convolutions)
    assert len(found.convolutions) == len(model.convolutions)
    assert facts["samples"] == facts["given"] == data.samples
    ran = run(found, data.inputs, RunOptions(TIMEOUT))
    pools = [op.name for op in ran.trace or () if op.int8 and op.kind == "Pooling"]
    if write_exact_copy(found, pools, tmp_path / "exact.mnn"):
        ran = run(read_model(tmp_path / "exact.mnn"), data.inputs, RunOptions(TIMEOUT))
    for output, values in run(model, data.inputs, RunOptions(TIMEOUT)).outputs.items():
        assert cosine(values, ran.outputs[output]) > 0.99


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_text_holds_the_same_bits(values: list[float]) -> None:
    array = np.array(values, np.float32)
    parsed = np.array([float(word) for word in as_text(array).split()], np.float32)
    np.testing.assert_array_equal(parsed.view(np.int32), array.view(np.int32))


def test_text_holds_the_same_bits_whatever_they_are(random: np.random.Generator) -> None:
    array = random.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    array = array[np.isfinite(array)]
    parsed = np.array(as_text(array).split(), np.float64).astype(np.float32)
    np.testing.assert_array_equal(parsed.view(np.int32), array.view(np.int32))
    whole = np.arange(-(2**24), 2**24, 12347)
    np.testing.assert_array_equal(np.array(as_text(whole).split(), np.float64), whole)


def input_scale(model: Model, name: str) -> float:
    return model.tensor_quants[model.tensor_names.index(name)].scale


def test_each_input_gets_its_own_data(nets: dict[str, Net], tmp_path: Path) -> None:
    found, facts = quantized(nets["two inputs"].model, nets["two inputs"].data, tmp_path)
    for name, values in nets["two inputs"].data.inputs.items():
        assert input_scale(found, name) == pytest.approx(np.abs(values).max() / 127, rel=1e-3)
    assert facts["config"]["inputs"] == [{"name": "image", "shape": [1, 2, 8, 8]}, {"name": "extra", "shape": [1, 5]}]


def test_an_input_may_share_the_scale_of_another(nets: dict[str, Net], tmp_path: Path) -> None:
    """KL gives all that is concatenated one scale, however small some of it is."""
    data = dict(nets["two inputs"].data.inputs)
    data["extra"] = data["extra"] / 1000
    found, _ = quantized(nets["two inputs"].model, data, tmp_path)
    assert input_scale(found, "extra") > 100 * np.abs(data["extra"]).max() / 127


@pytest.mark.parametrize("feature", METHODS)
@pytest.mark.parametrize("sample", [0, SAMPLES - 1])
def test_every_sample_counts(nets: dict[str, Net], tmp_path: Path, feature: str, sample: int) -> None:
    """In MNN's own form ADMM would see the last sample alone, EMA hardly more than the first."""
    model, data = nets["mlp"].model, nets["mlp"].data.inputs["input"].copy()
    before, _ = quantized(model, {"input": data}, tmp_path, feature=feature)
    data[sample] *= 5
    after, _ = quantized(model, {"input": data}, tmp_path, feature=feature)
    entry = model.convolutions[0].input_names[0]
    assert input_scale(after, entry) > 1.1 * input_scale(before, entry)


def test_a_model_that_takes_one_sample_at_a_time(nets: dict[str, Net], tmp_path: Path) -> None:
    for feature, samples in (("KL", SAMPLES), ("EMA", SAMPLES), ("ADMM", 1)):
        found, facts = quantized(nets["mlp"].model, nets["mlp"].data, tmp_path, feature=feature, batched=False)
        assert facts["samples"] == samples
        assert all(op.weights[0].full_int8 for op in found.convolutions)


def test_what_is_fed_is_limited_and_spread_evenly(
    nets: dict[str, Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnnquant_samples, "_MOST_VALUES", {"KL": 80})
    data = np.repeat(np.arange(1, SAMPLES + 1, dtype=np.float32)[:, None], 20, axis=1)
    found, facts = quantized(nets["mlp"].model, {"input": data}, tmp_path)
    assert (facts["samples"], facts["given"], facts["config"]["used_sample_num"]) == (4, SAMPLES, 4)
    assert input_scale(found, "input") == pytest.approx(15 / 127, rel=1e-3)  # the 3rd, 7th, 11th and 15th


@pytest.mark.parametrize("feature", ["KL", "ADMM"])
def test_layers_stay_float(nets: dict[str, Net], tmp_path: Path, feature: str) -> None:
    model = nets["mlp"].model
    skipped = model.convolutions[1].name
    found, _ = quantized(model, nets["mlp"].data, tmp_path, feature=feature, skip=(skipped,))
    assert {op.name for op in found.convolutions if not op.weights[0].full_int8} == {skipped}


def test_admm_moves_the_weights(nets: dict[str, Net], tmp_path: Path) -> None:
    plain, _ = quantized(nets["mlp"].model, nets["mlp"].data, tmp_path)
    before = [plain.decoded(op) for op in plain.convolutions]
    moved, _ = quantized(nets["mlp"].model, nets["mlp"].data, tmp_path, weight="ADMM")
    assert all(not np.array_equal(old, moved.decoded(op)) for old, op in zip(before, moved.convolutions, strict=True))


def test_channels_last_inputs_are_fed_as_they_are(tmp_path: Path) -> None:
    """Only EMA takes them for channels first."""
    subprocess.run([sys.executable, "-c", _CHANNELS_LAST, str(tmp_path / "net.mnn")], check=True, capture_output=True)
    model = read_model(tmp_path / "net.mnn")
    assert model.inputs[0].layout == "NHWC"
    random = np.random.default_rng(0)
    data = {"image": noise(random, 8, 9, 3) * np.array([1, 5, 0.1], np.float32)}
    found, _ = quantized(model, data, tmp_path, feature="EMA")
    expected, ran = (run(some, data, RunOptions(TIMEOUT)).outputs["out"] for some in (model, found))
    assert cosine(expected, ran) > 0.999


_CHANNELS_LAST = """
import sys
import MNN
import numpy as np
expr, random = MNN.expr, np.random.default_rng(0)
x = expr.placeholder([1, 8, 9, 3], expr.NHWC, expr.float)
x.name = "image"
weight = expr.const(random.standard_normal((6, 3, 3, 3)).astype("f"), [6, 3, 3, 3], expr.NCHW)
bias = expr.const(np.zeros(6, "f"), [6], expr.NCHW)
y = expr.relu(expr.conv2d(expr.convert(x, expr.NC4HW4), weight, bias, padding=(1, 1)))
y = expr.convert(y, expr.NHWC)
y.name = "out"
expr.save([y], sys.argv[1])
"""


# What the tool would ruin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", METHODS)
def test_loops_are_refused(workshop: Workshop, tmp_path: Path, feature: str) -> None:
    data = Dataset({"tokens": np.arange(24).reshape(4, 6)})
    model = workshop.floats(Words().eval(), data)
    with pytest.raises(SourceError, match=r"mnnquant-\w+: mnnquant crashes on While ") as error:
        quantized(model, data, tmp_path, feature=feature)
    assert error.value.operator == next(op.name for op in model.ops if op.kind == "While")
    assert error.value.fix == "--mnn-recipe=int8+w8"


def test_low_bits_are_refused(nets: dict[str, Net], workshop: Workshop, tmp_path: Path) -> None:
    for flags in (("--weightQuantBits", "8"), ("--fp16",)):
        with pytest.raises(SourceError, match=r"give the float model"):
            quantized(workshop.quantized(nets["mlp"].model, *flags), nets["mlp"].data, tmp_path)


def test_what_ema_would_not_do_is_refused(nets: dict[str, Net], workshop: Workshop, tmp_path: Path) -> None:
    model, data = nets["mlp"].model, nets["mlp"].data
    with pytest.raises(SourceError, match=r"mnnquant-ema: .*=mnnquant-kl"):
        quantized(model, data, tmp_path, feature="EMA", skip=(model.convolutions[0].name,))
    with pytest.raises(SourceError, match=r"mnnquant-ema-admm: .* ignores ADMM; use --mnn-recipe=mnnquant-ema"):
        quantized(model, data, tmp_path, feature="EMA", weight="ADMM")
    apart = workshop.quantized(model, "--saveExternalData")
    with pytest.raises(SourceError, match=r"mnnquant-ema: .* quantized\.mnn\.weight,.*=mnnquant-kl"):
        quantized(apart, data, tmp_path, feature="EMA")
    assert all(op.weights[0].full_int8 for op in quantized(apart, data, tmp_path)[0].convolutions)


def test_a_method_that_the_tool_would_exchange_is_refused(nets: dict[str, Net], tmp_path: Path) -> None:
    model = nets["mlp"].model
    norm = dataclasses.replace(model.ops[-1], kind="BatchNorm", name="norm")
    with pytest.raises(SourceError, match=r"BatchNorm operator \(norm\),.*=mnnquant-ema"):
        quantized(dataclasses.replace(model, ops=(*model.ops, norm)), nets["mlp"].data, tmp_path)


def test_integers_that_the_tool_would_round_are_refused(nets: dict[str, Net], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="array 'tokens' holds integers above 16777216, which mnnquant rounds"):
        quantized(nets["words"].model, {"tokens": np.full((2, 7), 2**24 + 1)}, tmp_path)


@pytest.mark.parametrize(
    ("feature", "name", "kind", "fix"),
    [
        ("KL", "mean", "Reduction", "--mnn-recipe=mnnquant-ema or --mnn-recipe=int8"),
        ("KL", "resize", "Interp", "--mnn-recipe=mnnquant-ema or --mnn-recipe=int8"),
        ("KL", "mlp", "", "--mnn-recipe=mnnquant-ema or --mnn-recipe=int8"),
        ("EMA", "mlp", "", "--mnn-recipe=int8"),
    ],
)
def test_a_crash_names_its_operator_if_known(
    nets: dict[str, Net], workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str, name: str,
    kind: str, fix: str,
) -> None:  # fmt: skip
    def crashing(source: Path, *_: Any, **__: Any) -> Model:
        raise NativeFailure(FailureKind.CRASHED, f"mnnquant on {source.name}: MNN crashed with SIGSEGV", "its log")

    data = nets["mlp"].data
    model = nets["mlp"].model
    if name != "mlp":
        last = Mean() if name == "mean" else nn.Upsample(scale_factor=2)
        data = Dataset({"input": np.ones((2, 1, 8, 8), np.float32)})
        model = workshop.floats(nn.Sequential(nn.Conv2d(1, 4, 3), last).eval(), data)
    monkeypatch.setattr(quantize_mnnquant, "mnnquant", crashing)
    with pytest.raises(NativeFailure) as error:
        quantized(model, data, tmp_path, feature=feature)
    assert error.value.operator == next((op.name for op in model.ops if op.kind == kind), "")
    assert (error.value.fix, error.value.log) == (fix, "its log")


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


# What the tool did --------------------------------------------------------------------------------------------------


def test_a_tensor_without_a_range_is_told(nets: dict[str, Net], tmp_path: Path) -> None:
    with pytest.raises(NativeFailure, match=r"mnnquant-ema: mnnquant wrote the scale nan for tensor .*=int8"):
        quantized(nets["mlp"].model, {"input": np.zeros((4, 20), np.float32)}, tmp_path, feature="EMA")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("feature", "factor"), [("KL", 1e9), ("KL", 1e-9), ("EMA", 1e9)])
def test_scales_of_other_data_than_were_fed_are_told(
    nets: dict[str, Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str, factor: float
) -> None:
    """As from memory that was never written: what the tool reads where a file of values is missing."""
    monkeypatch.setattr(mnnquant_samples, "as_text", lambda values: as_text(values * np.float32(factor)))
    with pytest.raises(NativeFailure, match=r"the scale \S+ for the input 'input'"):
        quantized(nets["mlp"].model, nets["mlp"].data, tmp_path, feature=feature)
    assert not list(tmp_path.iterdir())


def test_a_model_that_stayed_float_is_told(
    nets: dict[str, Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy(source: Path, output: Path, config: Any, *, timeout: float) -> Model:
        names = [op.name for op in read_model(source).convolutions]
        return mnnquant(source, output, {**config, "skip_quant_op_names": names}, timeout=timeout)

    monkeypatch.setattr(quantize_mnnquant, "mnnquant", lazy)
    with pytest.raises(NativeFailure, match="ended without an error"):
        quantized(nets["mlp"].model, nets["mlp"].data, tmp_path)
