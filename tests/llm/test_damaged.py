"""Cut and changed files are one line with the name of the file, or are read; they never crash the reader."""

from __future__ import annotations

import random

import pytest

from pytest_mnnquant.llm.folder import ExportFolder, read_folder
from pytest_mnnquant.llm.matrix import StoredMatrix, decode_rows
from pytest_mnnquant.llm.tokenizer import read_tokenizer
from pytest_mnnquant.mnnfile.model import BadModel
from tests.llm.conftest import EXPORTS, Copy

FILES = ("llm.mnn", "llm.mnn.weight", "tokenizer.mtok", "config.json", "llm_config.json", "export_args.json")


def look(path_name: str, copied: Copy, file: str, content: bytes) -> list[str]:
    """Read a changed folder and decode all of it; what is wrong, one line each."""
    path = EXPORTS.parent / path_name
    path.joinpath(file).write_bytes(content)
    try:
        folder = read_folder(path)
    except BadModel as error:
        return [str(error)]
    cut = [f"{item.file}: {item.missing} bytes are missing" for item in folder.maps if item.missing]
    faults = [line for matrix in folder.graph.matrices if (line := decode(folder, matrix))]
    return [*map(str, folder.faults), *cut, *faults]


def decode(folder: ExportFolder, matrix: StoredMatrix) -> str:
    try:
        decode_rows(matrix, folder.data(matrix.file), 0, matrix.rows)
    except BadModel as error:
        return str(error)
    return ""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["qwen2-w4", "qwen3-w4-embedding8"])
def test_a_cut_file_is_read_or_named(name: str, file: str, copied: Copy) -> None:
    path = copied(name)
    whole = (path / file).read_bytes()
    chances = random.Random(f"{name} {file}")
    padding = 32 if file == "llm.mnn" else 1
    for size in [0, 1, 4, 33, len(whole) - padding, *(chances.randrange(len(whole)) for _ in range(12))]:
        lines = look(str(path), copied, file, whole[:size])
        assert lines, f"{file} cut to {size} of {len(whole)} bytes"
        assert all("\n" not in line for line in lines)
        if file != "llm.mnn.weight":
            assert any(file in line for line in lines)


@pytest.mark.parametrize("file", FILES)
def test_a_changed_file_never_crashes_the_reader(file: str, copied: Copy) -> None:
    path = copied("qwen2-w4")
    whole = (path / file).read_bytes()
    chances = random.Random(file)
    for _ in range(60):
        changed = bytearray(whole)
        for _ in range(chances.randint(1, 8)):
            changed[chances.randrange(len(changed))] = chances.choice([0, 1, 0x7F, 0x80, 0xFF, chances.randrange(256)])
        assert all("\n" not in line for line in look(str(path), copied, file, bytes(changed)))


def test_a_tokenizer_is_read_to_its_last_byte(copied: Copy) -> None:
    path = copied("qwen2-w4") / "tokenizer.mtok"
    whole = path.read_bytes()
    tokenizer = read_tokenizer(path)
    assert (tokenizer.size, len(tokenizer.tokens), len(tokenizer.merges)) == (320, 320, 61)
    assert (tokenizer.stop_ids, tokenizer.special_ids) == ((2,), (0, 2, 1))
    for size in range(40, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(BadModel) as caught:
            read_tokenizer(path)
        assert str(caught.value).startswith("tokenizer.mtok: ")
    path.write_bytes(whole + b"\0")
    with pytest.raises(BadModel):
        read_tokenizer(path)
