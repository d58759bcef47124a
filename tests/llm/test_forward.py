"""The forward pass computes what transformers computes, from a checkpoint and from what an export stores."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.llm.architecture import UnknownArchitecture, architecture_of
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.forward import Network
from pytest_mnnquant.llm.tensors import EMBEDDING, MixedTensors, SourceTensors, StoredTensors
from tests.llm.conftest import DATA, EXPORTS, ROPES, change_json

_EXPECTED = dict(np.load(DATA / "logits.npz"))
_IDS = _EXPECTED["ids"]


def logits(network: Network, ids: npt.NDArray[np.int64] = _IDS) -> npt.NDArray[np.float32]:
    out = np.full((*ids.shape, 320), np.nan, np.float32)
    network.logits(ids, out)
    return out


def source(path: Path) -> Network:
    checkpoint = read_checkpoint(path)
    return Network(architecture_of(checkpoint.config), SourceTensors(checkpoint))


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama"])
def test_the_forward_pass_computes_what_transformers_computes(name: str) -> None:
    np.testing.assert_allclose(logits(source(DATA / name))[:, ::4], _EXPECTED[name], atol=2e-5)


@pytest.mark.parametrize("name", ROPES)
def test_rotations_of_longer_texts_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DATA / "llama", tmp_path / "llama"))
    change_json(copy / "config.json", rope_theta=None, **ROPES[name])
    np.testing.assert_allclose(logits(source(copy))[:, ::4], _EXPECTED[name], atol=2e-5)
    assert np.abs(_EXPECTED[name] - _EXPECTED["llama"]).max() > 0.01


def test_a_window_hides_what_is_further_away(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DATA / "qwen3", tmp_path / "qwen3"))
    change_json(copy / "config.json", layer_types=["sliding_attention"], sliding_window=4, use_sliding_window=True)
    windowed, whole = source(copy), source(DATA / "qwen3")
    assert windowed.architecture.windows == (4,)
    # With one layer, a token sees its window alone: the same tokens without those before give other positions.
    np.testing.assert_allclose(logits(windowed, _IDS[:, :4]), logits(whole, _IDS[:, :4]), atol=2e-5)
    changed = _IDS.copy()
    changed[:, 0] += 1
    first, second = logits(windowed), logits(windowed, changed)
    np.testing.assert_array_equal(first[:, 4:], second[:, 4:])
    assert np.abs(first[:, 3] - second[:, 3]).max() > 1e-4
    assert np.abs(logits(whole)[:, 4:] - logits(whole, changed)[:, 4:]).max() > 1e-4


def test_texts_are_computed_each_by_itself() -> None:
    network = source(DATA / "qwen3")
    both = np.concatenate([_IDS[:, :24], _IDS[:, 24:]])
    np.testing.assert_allclose(logits(network, both)[1:], logits(network, _IDS[:, 24:]), atol=2e-5)


def test_hidden_states_lead_to_the_logits() -> None:
    network = source(DATA / "qwen2")
    states = network.states(_IDS)
    out = np.empty((*_IDS.shape, 320), np.float32)
    network.head(states[-1], out)
    assert len(states) == 3
    np.testing.assert_allclose(out, logits(network), atol=1e-6)
    np.testing.assert_allclose(network.layer(1, states[1]), states[2], atol=1e-6)


def test_an_export_in_16_bits_computes_what_its_source_computes() -> None:
    stored = Network(source(DATA / "qwen2").architecture, StoredTensors(read_folder(EXPORTS / "qwen2-fp16")))
    np.testing.assert_allclose(logits(stored), logits(source(DATA / "qwen2")), atol=0.01)


@pytest.mark.parametrize("name", ["qwen2-w4", "qwen2-w4-head", "qwen2-gptq", "qwen3-w4-embedding8", "llama-w4-old"])
def test_an_export_in_4_bits_is_near_its_source(name: str) -> None:
    network = source(DATA / name.split("-")[0])
    stored = Network(network.architecture, StoredTensors(read_folder(EXPORTS / name)))
    difference = logits(stored) - logits(network)
    assert 0.01 < np.sqrt(np.mean(difference**2)) < 0.6


def test_tensors_are_taken_from_two_models() -> None:
    network = source(DATA / "qwen2")
    stored = StoredTensors(read_folder(EXPORTS / "qwen2-w4"))
    none, head = (
        logits(Network(network.architecture, MixedTensors(network.tensors, stored, names)))
        for names in ((), ("lm_head",))
    )
    np.testing.assert_array_equal(none, logits(network))
    assert 0.01 < np.abs(head - none).max() < 1.0
    ids = _IDS[:, :3]
    mixed = MixedTensors(network.tensors, stored, (EMBEDDING,))
    np.testing.assert_array_equal(mixed.embedded(ids), stored.embedded(ids))


def test_gptq_checkpoints_are_decoded() -> None:
    network, codes = source(DATA / "qwen2"), source(DATA / "qwen2-gptq")
    difference = logits(codes) - logits(network)
    assert 0.01 < np.sqrt(np.mean(difference**2)) < 0.6


@pytest.mark.parametrize(
    "changes",
    [{"model_type": "gemma2"}, {"activation": "gelu"}, {"rope_type": "yarn"}, {"heads": 3}, {"head_size": 15}],
)
def test_other_architectures_are_not_computed(changes: dict[str, Any]) -> None:
    config = read_checkpoint(DATA / "llama").config
    with pytest.raises(UnknownArchitecture):
        architecture_of(dataclasses.replace(config, **changes))
