"""Checkpoints of Hugging Face and GPTQ are read without torch; faults are one line with the file and the key."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.checkpoint import (
    Checkpoint,
    is_checkpoint,
    read_checkpoint,
    read_gptq_layer,
)
from pytest_mnnquant.llm.json_object import BadExport
from tests.llm.checkpoints import Tensors, gptq_tensors, random_tensors, write_safetensors, write_sharded
from tests.llm.conftest import DATA, change_json
from tests.llm.make_exports import MODELS, make_config


def made(name: str) -> Tensors:
    return random_tensors(make_config(name), list(MODELS).index(name))


def read(path: Path) -> BadExport:
    """What is wrong with a checkpoint."""
    with pytest.raises(BadExport) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "tolerance", "files"),
    [("qwen2", 0.0, 1), ("qwen3", 2.0**-8, 2), ("llama", 2.0**-10, 1)],
    ids=["float32", "bfloat16 in shards", "float16"],
)
def test_tensors_have_the_values_that_were_written(name: str, tolerance: float, files: int) -> None:
    checkpoint = read_checkpoint(DATA / name)
    expected = made(name)
    assert checkpoint.tensors.keys() == expected.keys()
    assert len({entry.file for entry in checkpoint.tensors.values()}) == files
    for tensor, values in expected.items():
        rows = checkpoint.rows(tensor)
        assert rows.shape == values.shape
        assert np.abs(rows - values).max() <= tolerance * np.abs(values).max()
    np.testing.assert_array_equal(checkpoint.rows("model.norm.weight", 3, 9), checkpoint.rows("model.norm.weight")[3:9])


def test_the_configuration_is_that_of_the_model() -> None:
    config = read_checkpoint(DATA / "qwen2").config
    assert (config.model_type, config.hidden_size, config.layers, config.vocabulary) == ("qwen2", 64, 2, 320)
    assert (config.heads, config.key_value_heads, config.head_size, config.tied) == (4, 2, 16, True)
    assert (config.rope_base, config.epsilon, config.eos_ids) == (10000.0, 1e-6, (2,))


def test_gptq_codes_decode_to_the_weights() -> None:
    checkpoint = read_checkpoint(DATA / "qwen2-gptq")
    source = made("qwen2")
    assert checkpoint.is_gptq
    assert (checkpoint.config.gptq_bits, checkpoint.config.gptq_group) == (4, 32)
    for name in (name for name in checkpoint.tensors if name.endswith(".qweight")):
        stem = name.removesuffix(".qweight")
        layer = read_gptq_layer(checkpoint, stem)
        assert layer.is_ordered
        assert set(np.unique(layer.zeros)) == {8.0}
        weights = source[f"{stem}.weight"]
        errors = np.abs(layer.decoded() - weights) / layer.scales[:, layer.groups]
        assert errors.max() <= 1.6
        assert np.corrcoef(layer.decoded().ravel(), weights.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_layers_of_all_bits_are_read(bits: int, tmp_path: Path) -> None:
    tensors = gptq_tensors(made("qwen2"), bits, 32)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    config = {**make_config("qwen2"), "quantization_config": {"quant_method": "gptq", "bits": bits}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = read_gptq_layer(read_checkpoint(tmp_path), "model.layers.0.mlp.up_proj")
    assert layer.codes.shape == (128, 64)
    assert layer.codes.max() == (1 << bits) - 1
    assert set(np.unique(layer.zeros)) == {float(1 << bits - 1)}


def test_inputs_in_another_order_are_seen(tmp_path: Path) -> None:
    path = Path(shutil.copytree(DATA / "qwen2-gptq", tmp_path / "gptq"))
    tensors = gptq_tensors(made("qwen2"), 4, 32)
    tensors["model.layers.0.mlp.up_proj.g_idx"] = tensors["model.layers.0.mlp.up_proj.g_idx"][::-1].copy()
    write_safetensors(path / "model.safetensors", tensors)
    checkpoint = read_checkpoint(path)
    assert not read_gptq_layer(checkpoint, "model.layers.0.mlp.up_proj").is_ordered
    assert read_gptq_layer(checkpoint, "model.layers.0.mlp.down_proj").is_ordered


@pytest.mark.parametrize("tensor", ["qweight", "scales", "qzeros", "g_idx"])
def test_gptq_tensors_that_do_not_fit_each_other_are_refused(tensor: str, tmp_path: Path) -> None:
    tensors = gptq_tensors(made("qwen2"), 4, 32)
    name = f"model.layers.0.mlp.up_proj.{tensor}"
    tensors[name] = tensors[name][..., :-3].copy()
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(make_config("qwen2")))
    checkpoint = read_checkpoint(tmp_path)
    with pytest.raises(BadExport) as caught:
        read_gptq_layer(checkpoint, "model.layers.0.mlp.up_proj")
    assert (caught.value.file, caught.value.key) == ("model.safetensors", "model.layers.0.mlp.up_proj")


def test_a_missing_shard_names_a_tensor_and_the_shard(tmp_path: Path) -> None:
    path = Path(shutil.copytree(DATA / "qwen3", tmp_path / "qwen3"))
    (path / "model-00002-of-00002.safetensors").unlink()
    error = read(path)
    assert error.file == "model.safetensors.index.json"
    assert error.key.startswith("weight_map.model.")
    assert "model-00002-of-00002.safetensors" in error.problem


def test_a_tensor_that_its_shard_does_not_hold_is_named(tmp_path: Path) -> None:
    path = Path(shutil.copytree(DATA / "qwen3", tmp_path / "qwen3"))
    index = json.loads((path / "model.safetensors.index.json").read_text())
    places = index["weight_map"]
    places["model.norm.weight"] = next(file for file in places.values() if file != places["model.norm.weight"])
    change_json(path / "model.safetensors.index.json", weight_map=places)
    assert read(path).key == "weight_map.model.norm.weight"


@pytest.mark.parametrize("files", [[], ["pytorch_model.bin"]])
def test_without_safetensors_nothing_is_read(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    assert read(tmp_path).file == str(tmp_path)


def test_a_folder_without_a_configuration_is_not_a_checkpoint(tmp_path: Path) -> None:
    assert not is_checkpoint(tmp_path)
    assert is_checkpoint(DATA / "qwen2")
    assert read(tmp_path).file == str(tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda entry: entry.update(dtype="F7"), "a"),
        (lambda entry: entry.update(shape=[3, 3]), "a"),
        (lambda entry: entry.update(shape=[-2, -2]), "a"),
        (lambda entry: entry.update(data_offsets=[4, 20]), "a"),
        (lambda entry: entry.update(data_offsets=[8]), "a"),
        (lambda entry: entry.update(data_offsets=["0", 16]), "a.data_offsets"),
        (lambda entry: entry.update(shape="2"), "a.shape"),
    ],
)
def test_a_tensor_that_is_described_wrongly_is_named(
    change: Callable[[dict[str, object]], None], key: str, tmp_path: Path
) -> None:
    entry: dict[str, object] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    change(entry)
    text = json.dumps({"a": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    (tmp_path / "config.json").write_text("{}")
    error = read(tmp_path)
    assert (error.file, error.key) == ("model.safetensors", key)


def test_cut_and_changed_files_never_crash_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a.weight": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)}, "bfloat16")
    (tmp_path / "config.json").write_text("{}")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert read(tmp_path).file == "model.safetensors"
    chances = random.Random(5)
    for _ in range(300):
        changed = bytearray(whole)
        changed[chances.randrange(len(whole) - 38)] = chances.randrange(256)
        path.write_bytes(changed)
        use(tmp_path)


def use(path: Path) -> None:
    try:
        checkpoint: Checkpoint = read_checkpoint(path)
        for name in checkpoint.tensors:
            checkpoint.rows(name)
    except BadExport as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_shards_are_written_and_read_alike(tmp_path: Path) -> None:
    write_sharded(tmp_path, made("llama"), "float32", 4)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = read_checkpoint(tmp_path)
    for name, values in made("llama").items():
        np.testing.assert_array_equal(checkpoint.rows(name), values)
