"""The weights that cost most are named; other forms of weights are rounded as exporters round them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mnnquant.llm.architecture import architecture_of
from pytest_mnnquant.llm.binding import short_name
from pytest_mnnquant.llm.blame import blame
from pytest_mnnquant.llm.blas import one_blas_thread
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.forward import Chunk, Network, Tensors
from pytest_mnnquant.llm.options import LayerRequest
from pytest_mnnquant.llm.requantized import RequantizedTensors, rounded
from pytest_mnnquant.llm.sampling import random_ids, sample_of
from pytest_mnnquant.llm.tensors import SourceTensors, StoredTensors
from tests.llm.conftest import DATA, EXPORTS

_CHECKPOINT = read_checkpoint(DATA / "qwen2")
_NETWORK = Network(architecture_of(_CHECKPOINT.config), SourceTensors(_CHECKPOINT))
_IDS = np.random.default_rng(1).integers(0, 320, (1, 40))


class Noisy(SourceTensors):
    """The tensors of the source, one of them with noise."""

    def __init__(self, name: str) -> None:
        super().__init__(_CHECKPOINT)
        self._name = name

    def chunks(self, name: str) -> Iterator[Chunk]:
        for start, read in super().chunks(name):
            rows = read()
            noise = np.random.default_rng(0).normal(scale=0.1, size=rows.shape) if name == self._name else 0.0
            yield start, partial((rows + noise).astype, np.float32)


def first_rows(tensors: Tensors, name: str) -> npt.NDArray[np.float32]:
    _, read = next(tensors.chunks(name))
    return read()


@pytest.mark.parametrize(
    ("name", "blamed"),
    [("1.mlp.up_proj", "layers.1.mlp.up_proj"), ("0.self_attn.v_proj", "layers.0.self_attn.v_proj"), ("lm_head",) * 2],
)
def test_the_layer_that_differs_is_the_first(name: str, blamed: str) -> None:
    costs = blame(_NETWORK, Noisy(name), _IDS, seconds=60.0)
    assert costs[0].name == blamed
    assert costs[0].kl > 0.01
    assert all(cost.kl < 1e-9 for cost in costs[1:])


def test_the_search_ends_in_time() -> None:
    assert blame(_NETWORK, Noisy("lm_head"), _IDS, seconds=0.0) == ()


def test_forms_are_rounded_as_exporters_round_them() -> None:
    folder = read_folder(EXPORTS / "qwen2-w4")
    stored = StoredTensors(folder)
    for matrix in folder.graph.matrices:
        name = short_name(matrix.name)
        source, decoded = first_rows(_NETWORK.tensors, name), first_rows(stored, name)
        steps = np.abs(rounded(source, LayerRequest(4, 32, False)) - decoded).max() / np.abs(source).max()
        assert steps < 0.005, name  # Scales are stored in 16 bits.
    request = LayerRequest(8, 0, True)
    stored = StoredTensors(read_folder(EXPORTS / "qwen2-w8-sym"))
    source, decoded = first_rows(_NETWORK.tensors, "lm_head"), first_rows(stored, "lm_head")
    np.testing.assert_allclose(rounded(source, request), decoded, atol=1e-5)
    np.testing.assert_allclose(rounded(source, LayerRequest(16, 0, False)), source, rtol=1e-3, atol=1e-7)


def test_requests_of_layers_and_of_the_embedding() -> None:
    requests = {"lm_head": LayerRequest(2, 32, False)}
    tied, untied = (
        RequantizedTensors(_NETWORK.tensors, requests, LayerRequest(16, 0, False), is_tied=is_tied)
        for is_tied in (True, False)
    )
    plain = _NETWORK.tensors.embedded(_IDS)
    np.testing.assert_allclose(untied.embedded(_IDS), plain, rtol=1e-3, atol=1e-7)
    assert np.abs(tied.embedded(_IDS) - plain).max() > 0.01
    assert tied.rows("lm_head") == 320


def test_larger_models_are_computed_on_fewer_tokens() -> None:
    small, large = sample_of(1_000_000, 2_048), sample_of(500_000_000, 152_000)
    assert small.texts * small.length == 2048
    assert large.texts * large.length == 256
    assert random_ids(large, 1000).shape == (4, 64)
    np.testing.assert_array_equal(random_ids(large, 1000), random_ids(large, 1000))
    ids = random_ids(large, 10, without=(3, 4))
    assert set(ids.ravel()) == {0, 1, 2, 5, 6, 7, 8, 9}


def test_products_are_computed_with_one_thread() -> None:
    left = np.ones((4, 4), np.float32)
    with one_blas_thread():
        assert (left @ left == 4).all()
