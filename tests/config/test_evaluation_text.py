"""Texts for language models: long ones are read in part, and a letter that this cuts is not a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mnnquant.config.evaluation_text import require_text


@pytest.mark.parametrize(
    "text", ["A text of some words, and more.", "\ufeffA text of some words.", "x" + "ü" * (1 << 20)]
)
def test_texts_are_accepted(text: str, tmp_path: Path) -> None:
    (tmp_path / "a text.txt").write_text(text, encoding="utf-8")
    require_text("--mnn-evaluation", "a text.txt", tmp_path)
