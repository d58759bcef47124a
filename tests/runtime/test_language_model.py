"""MNN.llm in a child process: what it computes is what the files hold; a crash is a failure with its signal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.llm.architecture import architecture_of
from pytest_mnnquant.llm.checkpoint import read_checkpoint
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.forward import Network
from pytest_mnnquant.llm.probes import MESSAGES, PECULIAR
from pytest_mnnquant.llm.tensors import StoredTensors
from pytest_mnnquant.metrics.divergence import divergence
from pytest_mnnquant.runtime.jobs import FailureKind, NativeFailure
from pytest_mnnquant.runtime.language_model import NORMAL, LanguageOptions, Prompt, Text, generate_text, run_text
from tests.llm.conftest import DATA, EXPORTS

_OPTIONS = LanguageOptions(timeout=60.0)
_TEXT = "The quick brown fox jumps over the lazy dog, and the text goes on: " * 8


@pytest.fixture
def text(tmp_path: Path) -> Text:
    path = tmp_path / "text.txt"
    path.write_text(_TEXT, encoding="utf-8")
    return Text(path, windows=2, length=40, steps=8, probes=PECULIAR, messages=MESSAGES)


def test_logits_are_those_of_the_decoded_weights(text: Text, tmp_path: Path) -> None:
    export = EXPORTS / "qwen2-w4"
    run = run_text(export, text, tmp_path, _OPTIONS)
    assert run.ids.shape == (2, 40)
    assert run.logits.shape == (2, 40, 320)
    assert len(run.encoded) == len(PECULIAR)
    assert run.rendered[0].startswith("<|im_start|>user\nhi there<|im_end|>")
    architecture = architecture_of(read_checkpoint(DATA / "qwen2").config)
    decoded = np.empty(run.logits.shape, np.float32)
    Network(architecture, StoredTensors(read_folder(export))).logits(run.ids, decoded)
    assert 0 < divergence(run.ids, decoded, run.logits).kl.mean() < 1e-3
    steps = divergence(run.ids[:1, -8:], decoded[:1, -8:], run.steps[None])
    assert 0 < steps.kl.mean() < 1e-3


def test_the_same_ids_can_be_given(text: Text, tmp_path: Path) -> None:
    ids = np.arange(60, dtype=np.int64).reshape(3, 20)
    run = run_text(EXPORTS / "qwen2-fp16", Text(text.path, 0, 0, 30, ids), tmp_path, _OPTIONS)
    np.testing.assert_array_equal(run.ids, ids)
    assert run.steps.shape == (19, 320)
    np.testing.assert_allclose(run.steps, run.logits[0, 1:], atol=1e-3)


def test_generation_is_greedy_and_has_times_and_memory(tmp_path: Path) -> None:
    prompt = Prompt([5, 6, 7], 12, runs=2, source_tokens=(8, 9))
    runs = [
        generate_text(EXPORTS / "qwen2-fp16", prompt, tmp_path, options)
        for options in (_OPTIONS, LanguageOptions(60.0, memory=NORMAL))
    ]
    assert runs[0].result.tokens == runs[1].result.tokens
    assert len(runs[0].result.tokens) <= 12
    assert runs[0].source is not None
    assert runs[0].source.tokens == (8, 9)
    assert all(speed.prefill > 0 and speed.decode > 0 for speed in runs[0].speeds)
    assert (runs[0].loaded_bytes or 0) > 0


def test_a_missing_weight_file_ends_the_child_by_a_signal(text: Text, tmp_path: Path) -> None:
    export = Path(shutil.copytree(EXPORTS / "qwen2-w4", tmp_path / "export"))
    (export / "llm.mnn.weight").unlink()
    with pytest.raises(NativeFailure) as caught:
        run_text(export, text, tmp_path, _OPTIONS)
    assert caught.value.kind in (FailureKind.CRASHED, FailureKind.REFUSED)


def test_a_missing_configuration_is_refused(text: Text, tmp_path: Path) -> None:
    with pytest.raises(NativeFailure) as caught:
        run_text(tmp_path, text, tmp_path, _OPTIONS)
    assert caught.value.kind is FailureKind.REFUSED
