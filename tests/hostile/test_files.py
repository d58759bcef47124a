"""Baselines and model files of any content, pipes and devices: used, or refused in one line."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.baseline.entry import Entry
from pytest_mnnquant.baseline.file import Accepted, BadBaseline, Baseline, as_text, read_baseline
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.mnnfile.model import BadModel, read_model
from pytest_mnnquant.mnnfile.params import BadParams, read_params
from pytest_mnnquant.report.width import shown
from tests.hostile.cases import TEXTS, damaged, require_line, seeds, value

VALID = as_text(
    Baseline(
        {
            "net": Accepted(
                "net.py:build",
                "ff",
                {
                    name: Entry(Figures("net", name, "net.py:build", 100, 400, 1.0, 0.9, "top1", layers={"a": "int8"}))
                    for name in ("w8", "int8-eval")
                },
            )
        }
    )
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a parsed file."""
    if not isinstance(content, dict):
        return [path]
    return [path, *(place for key, item in content.items() for place in places(item, (*path, key)))]


def changed_baseline(seed: int) -> bytes:
    """A baseline with another value, another key, or other bytes at some place."""
    chooser = random.Random(seed)
    if seed % 3 == 0:
        return damaged(VALID.encode(), seed)
    content = json.loads(VALID)
    place = chooser.choice(places(content))
    if not place:
        return _json(value(chooser))
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    other = chooser.choice(TEXTS) if seed % 3 == 1 else place[-1]
    holder[other] = holder.pop(place[-1]) if seed % 3 == 1 else value(chooser)
    return _json(content)


def _json(content: Any) -> bytes:
    try:
        return json.dumps(content).encode("utf-8", "surrogatepass")
    except ValueError:  # An integer of too many digits for Python to write.
        return b"9" * 5000


def test_baselines_of_any_content_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    path, refused = tmp_path / "b.json", 0
    for seed in seeds(3000):
        path.write_bytes(changed_baseline(seed))
        try:
            as_text(read_baseline(path))
        except BadBaseline as error:
            refused += 1
            require_line(shown(str(error)), "b.json")
    assert refused > 100


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/full")):
        with pytest.raises(BadBaseline, match="not a regular file"):
            read_baseline(path)
        with pytest.raises(BadModel, match="not a regular file"):
            read_model(path)
        with pytest.raises(BadParams, match="not a regular file"):
            read_params(path)


def test_files_that_are_not_models_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "net.mnn"
    chooser = random.Random(0)
    contents = [
        b"",
        b"\0",
        bytes(31),
        bytes(32),
        bytes(4096),
        b"\xff" * 4096,
        b"PK\x03\x04" * 20,
        b"<html>" * 20,
        VALID.encode(),
    ]
    contents += [chooser.randbytes(chooser.randrange(1, 4096)) for _ in range(62)]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(BadModel) as error:
            read_model(path)
        require_line(shown(str(error.value)), "net.mnn")
