"""Configuration files and options of any content: a run starts, or one line says which key or option is wrong."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.config.given import Given
from pytest_mnnquant.config.loader import configuration_of, settings_of
from pytest_mnnquant.config.options import OPTIONS
from pytest_mnnquant.report.width import shown
from pytest_mnnquant.sources.spec import SourceError
from tests.hostile.cases import NUMBERS, TEXTS, require_line, seeds, value

_KEYS = [option.name for option in OPTIONS] + [
    "recipes",
    "skip_layers",
    "source",
    "preprocess",
    "models",
    "targets",
    "x",
]


def toml(item: Any) -> str:
    """A value in TOML."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        return "nan" if math.isnan(item) else f"{'-' * (item < 0)}inf" if math.isinf(item) else repr(item)
    if isinstance(item, int):
        return (
            f"0x{item:x}"
            if item >= 0 and item.bit_length() > 64
            else f"-1{'0' * 400}"
            if item < -(10**18)
            else str(item)
        )
    if isinstance(item, list):
        return f"[{', '.join(map(toml, item))}]"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(part)}" for key, part in item.items()) + "}"
    return json.dumps(item).replace("\\ud800", "\\ufffd").replace("\x7f", "\\u007f")


def table(seed: int) -> str:
    """A configuration file: wrong values of real keys, real values of wrong keys, wrong structure, wrong bytes."""
    chooser = random.Random(seed)
    if seed % 10 == 0:
        return chooser.choice(
            (
                f"x = {'[' * 20_000}",
                f"[tool.mnnquant]\nx = {'[' * 300}{']' * 300}",
                f"{'a.' * 3000}b = 1",
                f"[tool.mnnquant]\nthreads = {'9' * 5000}",
                "[tool]\nmnnquant = 1",
                "tool = []",
                "[[tool.mnnquant]]",
                f"[tool.mnnquant.models.{toml(chooser.choice(TEXTS))}]\nsource = 'net.py:build'",
                f"[tool.mnnquant.targets.{toml(chooser.choice(TEXTS))}]\ncommand = {toml(chooser.choice(TEXTS))}",
                "\ufeff[tool.mnnquant]",
                "[tool.mnnquant\n",
            )
        )
    lines = ["[tool.mnnquant]"]
    shared, own = (sorted({chooser.choice(_KEYS) for _ in range(chooser.randrange(3))}) for _ in range(2))
    lines += [f"{key} = {toml(value(chooser))}" for key in shared]
    lines += ["[tool.mnnquant.models.net]"] + ["source = 'net.py:build'"] * ("source" not in own)
    lines += [f"{key} = {toml(value(chooser))}" for key in own]
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model's file, which may be imported as a metric; no later test finds it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "net.py").write_text("def build(): ...")
    (tmp_path / "a=b.py").write_text("def build(): ...")
    return tmp_path


def _start(folder: Path, values: dict[str, Any]) -> None:
    given = Given(values, frozenset(values), folder, folder)
    settings_of(given, configuration_of(given))


def test_tables_of_any_content_are_used_or_refused_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    refused = 0
    for seed in seeds(2000):
        (folder / "c.toml").write_text(table(seed), encoding="utf-8", errors="replace")
        try:
            _start(folder, {"config": "c.toml"})
        except (ValueError, SourceError, OSError) as error:
            refused += 1
            require_line(shown(str(error)), "c.toml", "tool.mnnquant", "--mnn-", "file", "targets")
    assert refused > 100


def test_option_values_of_any_content_are_used_or_refused_in_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for seed in seeds(700 * len(OPTIONS) // 10):
        chooser = random.Random(seed)
        option = OPTIONS[seed % len(OPTIONS)]
        text = str(chooser.choice((*TEXTS, *map(repr, NUMBERS[:7]))))
        try:
            values = {option.name: option.parse([text] if option.repeats else option.kind is bool or text, option.flag)}
            _start(folder, {"model": ("net.py:build",), **values})
        except (ValueError, SourceError, OSError) as error:
            require_line(shown(str(error)))


def test_a_path_with_an_equals_sign_is_a_path(folder: Path) -> None:
    given = Given({"model": ("a=b.py:build",)}, frozenset(("model",)), folder, folder)
    (model,) = settings_of(given, configuration_of(given)).models
    assert (model.node, model.source) == ("a=b.py:build", "a=b.py:build")
