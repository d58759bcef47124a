"""What an export stores is bound to the tensors of its source, decoded and compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.binding import Binding, bind
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_checkpoint
from pytest_mnnquant.llm.comparison import MatrixError, compare_matrix, compare_vector, find_source
from pytest_mnnquant.llm.folder import ExportFolder, read_folder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import read_bias
from tests.llm.checkpoints import Tensors, random_tensors, write_safetensors
from tests.llm.conftest import DATA, EXPORTS, HEALTHY, Copy, change_byte
from tests.llm.make_exports import make_config

#: Exports whose weights were rounded to the nearest code.
ROUNDED = [name for name in HEALTHY if "gptq" not in name and "hqq" not in name]


def bound(name: str) -> tuple[ExportFolder, Checkpoint, Binding]:
    folder, source = read_folder(EXPORTS / name), read_checkpoint(DATA / name.split("-")[0])
    return folder, source, bind(folder, source)


def errors(folder: ExportFolder, source: Checkpoint) -> dict[str, MatrixError]:
    return {item.stored.name: compare_matrix(folder, source, item) for item in bind(folder, source).matrices}


@pytest.mark.parametrize("name", HEALTHY)
def test_every_matrix_and_every_norm_is_bound(name: str) -> None:
    folder, source, binding = bound(name)
    assert (binding.unbound, binding.missing) == ((), ())
    assert len(binding.matrices) == len(folder.graph.matrices) + 1
    norms = {tensor for tensor in source.tensors if "norm" in tensor and not tensor.startswith("visual.")}
    assert {vector.source for vector in binding.vectors} == norms
    assert len({vector.stored.name for vector in binding.vectors}) == len(binding.vectors)


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_weights_are_within_half_a_step(name: str) -> None:
    folder, source, _ = bound(name)
    for error in errors(folder, source).values():
        assert (error.beyond, error.lost_rows) == (0, 0)
        # Exporters compute in the type of the source: 8 bits of a brain float are less than 8 bits of codes.
        assert error.noise < (2.1 if name.startswith("qwen3") else 1.2)
        assert error.correlation > (0.97 if "w3" in name else 0.99)


@pytest.mark.parametrize("name", HEALTHY)
def test_norms_and_biases_are_the_sources(name: str) -> None:
    folder, source, binding = bound(name)
    for vector in binding.vectors:
        error = compare_vector(vector.stored.name, vector.source, vector.stored.values, source.rows(vector.source))
        assert error.relative < 1e-6
    for item in binding.matrices:
        if item.source.bias in source.tensors:
            stored = read_bias(item.stored, folder.data(item.stored.file))
            assert compare_vector("", "", stored, source.rows(item.source.bias)).relative < 1e-6


def test_gptq_moves_weights_by_more_than_half_a_step() -> None:
    folder, source, _ = bound("qwen2-gptq")
    found = errors(folder, source)
    layers = [error for name, error in found.items() if name.startswith("/layers")]
    assert all(error.beyond and error.zero_minima for error in layers)
    assert max(error.noise for error in layers) < 2.5


def test_hqq_moves_the_lowest_code() -> None:
    folder, source, _ = bound("llama-hqq")
    shifts = [error.minimum_shift for name, error in errors(folder, source).items() if name != "embedding"]
    assert min(shifts) > 0.2
    plain = read_folder(EXPORTS / "llama-w4-old")
    assert max(error.minimum_shift for error in errors(plain, source).values()) < 0.05


def test_one_changed_byte_of_codes_is_one_or_two_weights(copied: Copy) -> None:
    path = copied("qwen2-w4")
    matrix = read_folder(path).graph.matrices[4]
    change_byte(path / "llm.mnn.weight", matrix.codes.offset + matrix.header + 700, 0x80)
    found = errors(read_folder(path), read_checkpoint(DATA / "qwen2"))
    wrong = {name: (error.beyond, error.first_beyond) for name, error in found.items() if error.beyond}
    assert wrong == {matrix.name: (1, 700 * 2 // matrix.columns)}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("bad-config-symmetric", {"/layers.1/self_attn/q_proj/Linear"}),
        ("bad-gptq-scales", None),
        ("bad-skip-weight", None),
    ],
)
def test_broken_weights_are_seen(name: str, layers: set[str] | None) -> None:
    folder, source = read_folder(EXPORTS / name), read_checkpoint(DATA / "qwen2")
    lost = set()
    for item in bind(folder, source).matrices:
        try:
            error = compare_matrix(folder, source, item)
        except BadExport:
            continue
        if error.noise > 4 and item.stored.name.startswith("/layers"):
            lost.add(item.stored.name)
    assert lost == (layers or {matrix.name for matrix in folder.graph.matrices if "lm_head" not in matrix.name})


def test_the_layer_whose_weights_are_there_instead_is_found(tmp_path: Path) -> None:
    tensors = random_tensors(make_config("qwen2"), 0)
    first, second = (f"model.layers.{number}.mlp.up_proj.weight" for number in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]
    source = write(tmp_path, tensors)
    folder = read_folder(EXPORTS / "qwen2-w4")
    by_name = {item.stored.name: item for item in bind(folder, source).matrices}
    assert find_source(folder, source, by_name["/layers.0/mlp/up_proj/Linear"]) == second
    assert find_source(folder, source, by_name["/layers.0/mlp/gate_proj/Linear"]) == ""


def test_a_transposed_matrix_is_found(tmp_path: Path) -> None:
    tensors = random_tensors(make_config("qwen2"), 0)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    source = write(tmp_path, tensors)
    folder = read_folder(EXPORTS / "qwen2-w4")
    item = next(item for item in bind(folder, source).matrices if item.source.weight == name)
    assert find_source(folder, source, item) == f"{name} (transposed)"


def test_sources_that_hold_matrices_together_are_bound_by_rows(tmp_path: Path) -> None:
    tensors = random_tensors(make_config("llama"), 2)
    for layer, names in (("self_attn.qkv_proj", "qkv"), ("mlp.gate_up_proj", ("gate", "up"))):
        stem = f"model.layers.0.{layer.split('.')[0]}."
        parts = [tensors.pop(f"{stem}{name}_proj.weight") for name in names]
        tensors[f"model.layers.0.{layer}.weight"] = np.concatenate(parts)
    source = write(tmp_path, tensors, "llama")
    folder = read_folder(EXPORTS / "llama-w4-old")
    binding = bind(folder, source)
    assert (binding.unbound, binding.missing) == ((), ())
    assert max(compare_matrix(folder, source, item).noise for item in binding.matrices) < 1.5


def test_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(make_config("qwen2"), 0)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-1].copy()
    source = write(tmp_path, tensors)
    folder = read_folder(EXPORTS / "qwen2-w4")
    item = next(item for item in bind(folder, source).matrices if item.stored.name == "embedding")
    with pytest.raises(BadExport) as caught:
        compare_matrix(folder, source, item)
    assert caught.value.key == "embedding"


def test_what_the_export_lacks_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(make_config("qwen2"), 0)
    tensors["model.layers.2.self_attn.q_proj.weight"] = tensors["model.layers.1.self_attn.q_proj.weight"]
    del tensors["model.layers.0.mlp.gate_proj.weight"]
    binding = bind(read_folder(EXPORTS / "qwen2-w4"), write(tmp_path, tensors))
    assert binding.missing == ("model.layers.2.self_attn.q_proj",)
    assert [matrix.name for matrix in binding.unbound] == ["/layers.0/mlp/gate_proj/Linear"]


def test_a_vector_of_another_length_is_infinitely_wrong() -> None:
    one, two = np.ones(3, np.float32), np.ones(4, np.float32)
    assert compare_vector("a", "b", one, two).relative == math.inf
    assert compare_vector("a", "b", one * np.float32("nan"), one).relative == math.inf


def write(path: Path, tensors: Tensors, name: str = "qwen2") -> Checkpoint:
    write_safetensors(path / "model.safetensors", tensors)
    (path / "config.json").write_text(json.dumps(make_config(name)))
    return read_checkpoint(path)
