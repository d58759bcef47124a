"""Models of every shape are judged: inputs, outputs, sequences, sizes and batches of all kinds."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.config.settings import model_settings
from pytest_mnnquant.evidence.check_runner import run_check
from pytest_mnnquant.evidence.source import FixtureValues, SourceUnderTest
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.finding import PASSED, Result
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import TIMEOUT, quietly
from tests.results import known, measured

Arrays = dict[str, npt.NDArray[Any]]


def images(count: int = 40, size: int = 12, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 1, size, size)).astype(np.float32)


class ManyEnds(nn.Module):
    """Two inputs of other kinds; a dictionary of outputs of other ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.count = nn.Conv2d(1, 8, 3), nn.Linear(6, 8)
        self.scores, self.offset = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, image: torch.Tensor, sums: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = torch.relu(self.see(image))
        both = seen.mean((2, 3)) + torch.relu(self.count(sums))
        return {"map": seen, "scores": self.scores(both), "offset": self.offset(both)}


class Steps(nn.Module):
    """Sequences in, a vector a step out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(steps)[0])
        return out


class Tokens(nn.Module):
    """Integers in; logits and the class itself, an integer, out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(30, 16), nn.Linear(16 * 5, 7)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.head(torch.relu(self.table(tokens)).flatten(1))
        return logits, logits.argmax(1)


class OneAtATime(nn.Module):
    """A batch of one is written into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.conv(x)).reshape(1, 8, -1).mean(2)
        out: torch.Tensor = self.head(seen)
        return out


class AnySize(nn.Module):
    """Convolutions alone, for images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


class Causal(nn.Module):
    """Attention with a mask that is a constant of the model."""

    def __init__(self, hidden: float) -> None:
        super().__init__()
        self.attention, self.mask = nn.MultiheadAttention(6, 2, batch_first=True), torch.full((9, 9), hidden).triu(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]
        return out


def rows(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((40, 9, 6)).astype(np.float32)


def tokens(seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 30, (200, 5))


def judged(case: VariantUnderTest, *names: str) -> dict[str, Result]:
    results = {name: run_check(case, name) for name in names or ("conversion", "coverage", "accuracy")}
    assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(results, PASSED), results
    return results


def built(network: nn.Module, data: list[Arrays], recipe: str, store: Store, tmp_path: Path) -> VariantUnderTest:
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.4, 0.4)
    settings = model_settings("net", "net", tmp_path, {"timeout": TIMEOUT, "skip_layer": ("*table*", "*Gather*")})
    calibration, evaluation = data
    gate = SourceUnderTest(
        settings,
        Spec("net", "net"),
        store,
        quietly,
        FixtureValues(model=network.eval(), calibration=calibration, evaluation=evaluation),
    )
    return variant_under_test(gate, recipe, "eval" if recipe == "int8" else None)


@pytest.mark.parametrize("recipe", ["int8", "w8"])
def test_several_inputs_and_outputs_of_all_ranks(recipe: str, store: Store, tmp_path: Path) -> None:
    many = np.random.default_rng(1).standard_normal((800, 6)).astype(np.float32)
    data: list[Arrays] = [{"image": images(400, seed=s), "sums": many[s::2]} for s in (0, 1)]
    outputs = measured(AccuracyMetrics, judged(built(ManyEnds(), data, recipe, store, tmp_path))["accuracy"]).outputs
    assert {name for name, figures in outputs.items() if figures.top1_agreement is not None} == {"scores"}
    assert {name for name, figures in outputs.items() if figures.cosine is not None} == {"map", "scores"}


@pytest.mark.parametrize("recipe", ["int8", "w8"])
def test_sequences(recipe: str, store: Store, tmp_path: Path) -> None:
    case = built(Steps(), [{"steps": rows(s)} for s in (1, 2)], recipe, store, tmp_path)
    judged(case)
    assert case.runs.run.outputs["output"].shape == (40, 9, 3)


@pytest.mark.parametrize(("recipe", "hidden"), [("w8", -math.inf), ("fp16", torch.finfo(torch.float32).min)])
def test_masks_that_hide_places(recipe: str, hidden: float, store: Store, tmp_path: Path) -> None:
    judged(built(Causal(hidden), [{"x": rows(s)} for s in (1, 2)], recipe, store, tmp_path), "conversion", "weights")


@pytest.mark.parametrize("recipe", ["int8", "w8"])
def test_integers_in_and_out(recipe: str, store: Store, tmp_path: Path) -> None:
    data: list[Arrays] = [{"tokens": tokens(s)} for s in (1, 2)]
    outputs = measured(AccuracyMetrics, judged(built(Tokens(), data, recipe, store, tmp_path))["accuracy"]).outputs
    assert known(outputs["output1"].equal) > 0.95
    assert outputs["output1"].cosine is None


@pytest.mark.parametrize("recipe", ["int8", "w8"])
def test_a_batch_of_one_alone(recipe: str, store: Store, tmp_path: Path) -> None:
    case = built(OneAtATime(), [{"x": images(seed=s)} for s in (1, 2)], recipe, store, tmp_path)
    judged(case)
    assert not case.source.prepared.batched
    assert case.runs.run.outputs["output"].shape == (40, 4)
    losses = case.runs.losses(None)
    assert losses is not None
    assert all(layer.errors.measured for layer in losses.layers)


@pytest.mark.parametrize("recipe", ["int8", "w8"])
@pytest.mark.parametrize("size", [8, 20])
def test_other_sizes_than_the_export_had(recipe: str, size: int, store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "any.onnx"
    axes = {"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n", 2: "h", 3: "w"}}
    names: Any = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes, "dynamo": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(AnySize().eval(), (torch.zeros(2, 1, 12, 12),), str(path), **names)
    settings = model_settings("any.onnx", "any", tmp_path, {"timeout": TIMEOUT})
    data = {"x": images(size=size, seed=1)}
    gate = SourceUnderTest(
        settings, parse_spec("any.onnx", tmp_path), store, quietly, FixtureValues(calibration=data, evaluation=data)
    )
    case = variant_under_test(gate, recipe, None)
    judged(case)
    assert case.runs.run.outputs["y"].shape == (40, 2, size, size)
