"""The folder of an export: every file, every matrix, every byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mnnquant.llm.config import TiedPlace
from pytest_mnnquant.llm.folder import ExportFolder, Purpose, is_export, read_folder
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.matrix import Form
from tests.llm.conftest import EXPORTS, HEALTHY, Copy, change_json

QWEN2 = {"q_proj": (64, 64), "k_proj": (32, 64), "o_proj": (64, 64), "up_proj": (128, 64), "down_proj": (64, 128)}


def read(name: str) -> ExportFolder:
    return read_folder(EXPORTS / name)


@pytest.mark.parametrize("name", HEALTHY)
def test_all_bytes_of_a_healthy_export_are_accounted_for(name: str) -> None:
    folder = read(name)
    assert folder.faults == ()
    assert [(item.unused, item.overlaps, item.missing) for item in folder.maps] == [(0, (), 0)] * len(folder.maps)
    assert {file.purpose for file in folder.files} & {Purpose.LEFTOVER, Purpose.DUMP} == set()
    assert sum(sum(graph.classes.values()) for graph in [folder.graph]) == (
        folder.sizes["llm.mnn"] + folder.sizes["llm.mnn.weight"]
    )
    assert [matrix.fault for matrix in folder.graph.matrices if matrix.fault] == []
    assert folder.graph.layer_count == folder.graph.attention_layers == folder.config.layers


@pytest.mark.parametrize(
    ("name", "bits", "block", "symmetric", "scale_bits"),
    [
        ("qwen2-w4", 4, 32, False, 16),
        ("qwen2-w4-old", 4, 32, False, 32),
        ("qwen2-w4-head", 4, 32, False, 16),
        ("qwen2-w8-sym", 8, 64, True, 32),
        ("qwen2-gptq", 4, 32, False, 32),
        ("qwen3-w3", 3, 32, False, 16),
        ("llama-hqq", 4, 32, False, 16),
    ],
)
def test_each_matrix_has_its_form(name: str, bits: int, block: int, symmetric: bool, scale_bits: int) -> None:
    for matrix in read(name).graph.matrices:
        if "lm_head" in matrix.name or "down_proj" in matrix.name:
            continue
        form = (matrix.bits, matrix.block, matrix.symmetric, matrix.scale_bits)
        assert form == (bits, block, symmetric, scale_bits)
        short = matrix.name.split("/")[-2]
        assert (matrix.rows, matrix.columns) == QWEN2.get(short, (matrix.rows, matrix.columns))


def test_layers_may_have_a_form_of_their_own() -> None:
    graph = read("qwen2-config").graph
    labels = {matrix.name: matrix.label for matrix in graph.matrices if matrix.label != "w4 block 32"}
    assert labels == {
        "/layers.0/mlp/down_proj/Linear": "w8 block 64",
        "/layers.1/self_attn/q_proj/Linear": "w4",
        "/layers.1/mlp/up_proj/Linear": "float16",
    }


def test_rotary_tables_are_not_layers() -> None:
    graph = read("qwen2-w4-head").graph
    assert len(graph.tables) == 4
    assert len(graph.matrices) == 15
    assert {matrix.form for matrix in graph.matrices} == {Form.INTEGER}


@pytest.mark.parametrize(
    ("name", "tied", "form", "bits", "rows"),
    [
        ("qwen2-w4", True, Form.INTEGER, 4, 320),
        ("qwen2-w4-old", True, Form.INTEGER, 4, 320),
        ("qwen2-fp16", True, Form.FLOAT16, 16, 320),
        ("qwen3-w4-embedding8", False, Form.INTEGER, 8, 320),
        ("llama-w4-old", False, Form.BFLOAT16, 16, 320),
    ],
)
def test_the_embedding_is_where_the_runtime_reads_it(name: str, tied: bool, form: Form, bits: int, rows: int) -> None:
    folder = read(name)
    assert folder.embedding is not None
    assert (folder.is_tied, folder.embedding.form, folder.embedding.bits) == (tied, form, bits)
    assert (folder.embedding.rows, folder.embedding.columns, folder.embedding.fault) == (rows, 64, "")
    head = folder.graph.head
    assert head is not None
    if tied:
        assert folder.embedding.codes.offset == head.codes.offset + head.header


def test_both_forms_of_the_place_are_read() -> None:
    new, old = read("qwen2-w4").config.tied, read("qwen2-w4-old").config.tied
    assert isinstance(new, TiedPlace)
    assert isinstance(old, TiedPlace)
    assert (new.is_list, new.scale_bits, old.is_list, old.scale_bits) == (False, 16, True, 32)


def test_files_that_nothing_names_are_leftovers(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "notes.txt").write_text("x")
    (path / "llm.mnn.json").write_text("{}")
    (path / "old").mkdir()
    (path / "old" / "llm.mnn.weight").write_bytes(b"x")
    purposes = {file.name: file.purpose for file in read_folder(path).files}
    assert purposes["notes.txt"] is purposes["old/llm.mnn.weight"] is Purpose.LEFTOVER
    assert purposes["llm.mnn.json"] is Purpose.DUMP


def test_an_option_of_another_type_is_a_fault_of_that_file(copied: Copy) -> None:
    path = copied("qwen2-w4")
    change_json(path / "export_args.json", quant_bit="four")
    folder = read_folder(path)
    assert folder.options is None
    assert [(fault.file, fault.key) for fault in folder.faults] == [("export_args.json", "quant_bit")]


def test_a_missing_configuration_is_a_fault(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "llm_config.json").unlink()
    assert [fault.file for fault in read_folder(path).faults] == ["llm_config.json"]


def test_without_a_graph_nothing_is_read(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "llm.mnn").unlink()
    with pytest.raises(BadExport) as caught:
        read_folder(path)
    assert caught.value.file == "llm.mnn"


def test_a_file_outside_of_the_folder_is_refused(copied: Copy) -> None:
    path = copied("qwen2-w4")
    change_json(path / "config.json", llm_weight="../other.weight")
    with pytest.raises(BadExport) as caught:
        read_folder(path)
    assert (caught.value.file, caught.value.key) == ("config.json", "llm_weight")


def test_another_folder_is_not_an_export(tmp_path: Path) -> None:
    assert not is_export(tmp_path)
    with pytest.raises(BadExport) as caught:
        read_folder(tmp_path)
    assert caught.value.file == str(tmp_path)


def test_a_cut_weight_file_is_named_with_the_missing_bytes(copied: Copy) -> None:
    path = copied("qwen2-w4")
    data = (path / "llm.mnn.weight").read_bytes()
    (path / "llm.mnn.weight").write_bytes(data[:-1000])
    mapped = read_folder(path).map_of("llm.mnn.weight")
    assert mapped is not None
    assert mapped.missing == 1000


def test_weights_of_another_export_contradict_the_headers(copied: Copy) -> None:
    path = copied("qwen2-w4")
    (path / "llm.mnn.weight").write_bytes((EXPORTS / "qwen2-w4-old" / "llm.mnn.weight").read_bytes())
    folder = read_folder(path)
    assert sum(bool(matrix.fault) for matrix in folder.graph.matrices) >= 13
