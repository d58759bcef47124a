"""PyTorch models of every kind become proven float models, with outputs by their names; so do files with graphs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm

from pytest_mnnquant.cache.store import Store
from pytest_mnnquant.quantize.conversion_proof import is_proven
from pytest_mnnquant.quantize.float_model import prepare
from pytest_mnnquant.quantize.prepared import Choices, Prepared
from pytest_mnnquant.sources.pytorch import suppress_output
from pytest_mnnquant.sources.spec import Spec, parse_spec
from tests.conftest import TIMEOUT, quietly


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 12, 12)).astype(np.float32)


class Many(nn.Module):
    """Computed weights, half precision, lazy and scripted layers, keyword inputs and named outputs in one network."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.first = weight_norm(nn.Conv2d(3, 8, 3, 2, 1))
            self.second = spectral_norm(nn.Conv2d(8, 8, 3, 2, 1))
            self.gate: Any = torch.jit.script(nn.Sigmoid())
        self.head: Any = None
        self.last: Any = None

    def forward(self, *, pixels: torch.Tensor, scale: torch.Tensor, other: Any = None) -> dict[str, Any]:
        features = torch.relu(self.second(torch.relu(self.first(pixels))))
        if self.head is None:
            self.head = nn.Linear(8, 4).to(features.dtype)
        self.last = self.head(features.mean((2, 3)))
        scores = [self.last * scale, None, self.gate(self.last)]
        return {"pixels": features, "scores": scores, "nothing": features[:, :0]}


def make_many() -> nn.Module:
    torch.manual_seed(0)
    model = Many().half()
    with torch.no_grad():
        model(pixels=torch.from_numpy(images()).half(), scale=torch.ones(6, 4).half())
    return model


def prepared(spec: Spec, data: dict[str, Any], store: Store, model: Any = None) -> Prepared:
    source = prepare(spec, Choices(Path(), evaluation=data, timeout=TIMEOUT), store, quietly, given=model)
    assert source.proof is not None
    assert is_proven(source.proof)
    assert source.batched
    return source


def test_a_network_of_many_kinds_is_proven(store: Store) -> None:
    data = {"scale": np.full((6, 4), 2, np.float32), "pixels": images()}
    source = prepared(Spec("net", "net"), data, store, make_many())
    assert source.outputs == ("pixels_output", "scores", "scores1", "nothing")
    assert source.proof is not None
    assert set(source.proof) == {"pixels_output", "scores", "scores1"}
    assert [item.name for item in source.model.inputs] == ["pixels", "scale"]
    assert source.network is not None


def test_files_with_graphs_are_proven(tmp_path: Path, store: Store) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).eval()
    few = torch.from_numpy(images(2))
    with suppress_output():
        torch.jit.script(net).save(str(tmp_path / "net.pt"))  # type: ignore[no-untyped-call]
        exported = torch.export.export(net, (few,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(exported, str(tmp_path / "net.pt2"))
    for name in ("net.pt", "net.pt2"):
        assert prepared(parse_spec(name, tmp_path), {"input": images()}, store).network is None


class Selects(nn.Module):
    """An expert takes the rows that a condition selects; the results are put in the order of their values."""

    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        chosen = x[:, 0] > -100
        mixed = x.new_zeros(len(x), 5)
        mixed[chosen] = self.expert(x[chosen])
        values, places = mixed.topk(3)
        return {"values": values, "places": places}


def test_selected_rows_are_proven(store: Store) -> None:
    torch.manual_seed(0)
    data = {"x": np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)}
    source = prepare(Spec("net", "net"), Choices(Path(), evaluation=data, timeout=TIMEOUT), store, quietly, Selects())
    assert source.proof is not None
    assert set(source.proof) == {"values", "places"}
    assert is_proven(source.proof)
