"""What exporters renamed is bound by its content; the decoded weights become a checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.architecture import UnknownArchitecture, architecture_of
from pytest_mnnquant.llm.binding import bind
from pytest_mnnquant.llm.bound import SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint, read_checkpoint
from pytest_mnnquant.llm.content_binding import bind_by_content, part_of
from pytest_mnnquant.llm.decoded_checkpoint import write_decoded
from pytest_mnnquant.llm.folder import ExportFolder, read_folder
from pytest_mnnquant.llm.forward import Network, Tensors
from pytest_mnnquant.llm.matrix import decode_rows
from pytest_mnnquant.llm.tensors import SourceTensors, StoredTensors
from tests.llm.conftest import DATA, EXPORTS


@pytest.fixture
def folder() -> ExportFolder:
    return read_folder(EXPORTS / "qwen2-w4")


def renamed(checkpoint: Checkpoint, old: str, new: str) -> Checkpoint:
    """The same checkpoint with other names of tensors."""
    tensors = {name.replace(old, new): entry for name, entry in checkpoint.tensors.items()}
    return dataclasses.replace(checkpoint, tensors=tensors)


@pytest.mark.parametrize(("old", "new"), [("o_proj", "dense"), ("up_proj", "w3"), ("input_layernorm", "ln_1")])
def test_other_names_of_one_layer_are_bound_by_content(old: str, new: str, folder: ExportFolder) -> None:
    binding = bind(folder, renamed(read_checkpoint(DATA / "qwen2"), old, new))
    assert (binding.unbound, binding.missing) == ((), ())
    pairs = {item.stored.name: item.source.stem for item in binding.matrices}
    pairs |= {item.stored.name: item.source for item in binding.vectors}
    places = {name: stem for name, stem in pairs.items() if new in stem}
    assert len(places) == 2
    assert all(f"s.{number}/" in name or f"/layers.{number}/" in name for number, name in enumerate(sorted(places)))


def test_an_unlike_tensor_of_the_same_shape_is_not_bound(folder: ExportFolder) -> None:
    source = read_checkpoint(DATA / "qwen2")
    stored = next(item for item in folder.graph.matrices if "layers.0/mlp/up_proj" in item.name)
    free = {f"0.{name}": f"model.layers.1.mlp.{name}" for name in ("up_proj", "gate_proj")}
    result = bind_by_content(folder, source, [stored], [], free)
    assert (result.matrices, result.unbound) == ((), (stored,))


def test_rows_of_a_matrix_are_decoded_as_one(folder: ExportFolder) -> None:
    stored = next(item for item in folder.graph.matrices if "layers.0/mlp/up_proj" in item.name)
    data = folder.data(stored.file)
    whole = decode_rows(stored, data, 0, stored.rows)
    part = part_of(stored, 48, stored.rows)
    np.testing.assert_array_equal(decode_rows(part, data, 0, part.rows), whole[48:])


def test_an_expert_holds_two_tensors(folder: ExportFolder) -> None:
    source = read_checkpoint(DATA / "qwen2")
    stored = next(item for item in folder.graph.matrices if "layers.0/self_attn/q_proj" in item.name)
    expert = dataclasses.replace(stored, name="/expert/0_3/gate_up_proj_linear")
    free = {
        "0.mlp.experts.3.gate_proj": "model.layers.0.self_attn.k_proj",
        "0.mlp.experts.3.up_proj": "model.layers.0.self_attn.v_proj",
    }
    result = bind_by_content(folder, source, [expert], [], free)
    assert [item.source for item in result.matrices] == [SourceRows(stem, 0, 32) for stem in free.values()]
    assert [item.stored.rows for item in result.matrices] == [32, 32]


@pytest.mark.parametrize("name", ["qwen2-w4", "qwen3-w4-embedding8"])
def test_decoded_weights_become_a_checkpoint(name: str, tmp_path: Path) -> None:
    export, source = read_folder(EXPORTS / name), read_checkpoint(DATA / name.split("-")[0])
    write_decoded(export, source, bind(export, source), tmp_path)
    written = read_checkpoint(tmp_path)
    assert not written.config.tied
    ids = np.arange(40).reshape(2, 20) % 320
    outs = [np.empty((*ids.shape, 320), np.float32) for _ in range(2)]
    pair: tuple[Tensors, Tensors] = (StoredTensors(export), SourceTensors(written))
    for tensors, out in zip(pair, outs, strict=True):
        Network(architecture_of(source.config), tensors).logits(ids, out)
    np.testing.assert_allclose(outs[1], outs[0], atol=2e-3)  # Norms are the source's, in its own digits.


def test_weights_that_nothing_is_known_of_are_not_written(folder: ExportFolder, tmp_path: Path) -> None:
    source = read_checkpoint(DATA / "qwen2")
    binding = dataclasses.replace(bind(folder, source), unbound=folder.graph.matrices[:1])
    with pytest.raises(UnknownArchitecture):
        write_decoded(folder, source, binding, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_pointer_of_git_lfs_is_no_checkpoint(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(DATA / "qwen2", tmp_path / "qwen2"))
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_checkpoint(copy)
