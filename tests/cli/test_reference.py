"""`pytest-mnnquant reference`: what can't be computed is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_mnnquant.cli.main import main
from pytest_mnnquant.cli.reference import _half
from tests.llm.conftest import DATA


def test_files_that_can_not_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "r.npz"
    for model, text in ((tmp_path, DATA / "layers.json"), (DATA / "qwen2", tmp_path / "nowhere.txt")):
        assert main(["reference", str(model), "--text", str(text), "-o", str(output)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not output.exists()


def test_the_text_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("eval.txt", "eval.npz"):
        text = tmp_path / name
        text.write_text("some words to evaluate " * 20)
        content = text.read_bytes()
        assert main(["reference", str(DATA / "qwen2"), "--text", str(text), "-o", str(text)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert text.read_bytes() == content


def test_logits_keep_their_digits_in_16_bits() -> None:
    logits = np.random.default_rng(0).normal(scale=8.0, size=(1, 4, 500)).astype(np.float32) + 900
    stored = _half(logits).astype(np.float32)
    first, second = (np.exp(values - values.max(-1, keepdims=True)) for values in (logits, stored))
    first, second = (values / values.sum(-1, keepdims=True) for values in (first, second))
    assert np.abs(first - second).max() < 1e-3
    assert (stored.max(-1) == 0).all()
