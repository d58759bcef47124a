"""References: what they hold is read back; damaged ones are refused with a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.cache.manifest import content_digest
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.reference import (
    Predictions,
    is_reference,
    read_reference,
    require_output,
    write_reference,
)
from tests.llm.conftest import DATA

REFERENCE = DATA / "qwen2.npz"
_RANDOM = np.random.default_rng(4)
_PREDICTIONS = Predictions(
    ids=_RANDOM.integers(0, 320, (2, 8)),
    logits=_RANDOM.normal(size=(2, 8, 320)).astype(np.float16),
    probes=("one", "two"),
    encoded=((1, 2), (3,)),
    by_transformers=None,
    rendered=("<one>",),
    prompt=4,
    generated=(5, 6),
)


def test_a_reference_is_read_back(tmp_path: Path) -> None:
    text, path, folder = tmp_path / "text.txt", tmp_path / "r.npz", tmp_path / "files"
    text.write_text("a text")
    folder.mkdir()
    source = read_checkpoint(DATA / "qwen3")
    write_reference(path, source, _PREDICTIONS, text)
    assert is_reference(path)
    reference = read_reference(path, folder)
    np.testing.assert_array_equal(reference.predictions.ids, _PREDICTIONS.ids)
    np.testing.assert_array_equal(reference.predictions.logits, _PREDICTIONS.logits)
    assert reference.text_digest == content_digest([text])
    assert reference.source.config == source.config
    assert not reference.source.has_values
    shapes = {name: entry.shape for name, entry in source.tensors.items()}
    assert {name: entry.shape for name, entry in reference.source.tensors.items()} == shapes
    names = ("probes", "encoded", "by_transformers", "rendered", "prompt", "generated")
    for name in names:
        assert getattr(reference.predictions, name) == getattr(_PREDICTIONS, name)
    assert (folder / "tokenizer.json").read_bytes() == (DATA / "qwen3" / "tokenizer.json").read_bytes()


def test_only_references_are_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "r.npz", tmp_path / "other.npz"
    source = read_checkpoint(DATA / "qwen3")
    shutil.copyfile(REFERENCE, path)
    require_output(path)
    write_reference(path, source, _PREDICTIONS, REFERENCE)
    assert path.read_bytes() != REFERENCE.read_bytes()
    assert is_reference(path)
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"]
    np.savez(other, a=np.zeros(3))
    content = other.read_bytes()
    for refused in (other, tmp_path, tmp_path / "eval.txt", tmp_path / "nowhere" / "r.npz"):
        with pytest.raises(BadExport):
            write_reference(refused, source, _PREDICTIONS, REFERENCE)
    assert other.read_bytes() == content


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for content in (b"", b"no archive", REFERENCE.read_bytes()[:5000]):
        path.write_bytes(content)
        assert not is_reference(path)
        with pytest.raises(BadExport):
            read_reference(path, tmp_path)
    np.savez(path, a=np.zeros(3))
    assert not is_reference(path)
    with pytest.raises(BadExport):
        read_reference(path, tmp_path)


@pytest.mark.parametrize("change", ["format", "shape", "facts"])
def test_contradictions_are_refused(change: str, tmp_path: Path) -> None:
    arrays = dict(np.load(REFERENCE))
    if change == "shape":
        arrays["ids"] = arrays["ids"][:, :-1]
    else:
        facts = json.loads(arrays["facts"].tobytes())
        facts["format"] = 99
        text = json.dumps(facts) if change == "format" else "[]"
        arrays["facts"] = np.frombuffer(text.encode(), np.uint8)
    np.savez(tmp_path / "x.npz", **arrays)
    shutil.copyfile(REFERENCE, tmp_path / "y.npz")
    with pytest.raises(BadExport):
        read_reference(tmp_path / "x.npz", tmp_path)
    read_reference(tmp_path / "y.npz", tmp_path)
