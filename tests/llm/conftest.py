"""The checkpoints and exports of `tests/llm/data`, and copies of them that a test may change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parent / "data"
EXPORTS = DATA / "exports"
#: Exports that are what was requested.
HEALTHY = sorted(path.name for path in EXPORTS.iterdir() if not path.name.startswith("bad-"))

Copy = Callable[[str], Path]


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    """Copies an export of `tests/llm/data` into a folder of its own."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(EXPORTS / name, tmp_path / name))

    return copy


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= values
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


def change_byte(path: Path, offset: int, value: int = 0xFF) -> None:
    """Flip bits of one byte."""
    content = bytearray(path.read_bytes())
    content[offset] ^= value
    path.write_bytes(content)


#: Rotations of other models, as keys of `config.json`, by the name of their logits in `data/logits.npz`.
ROPES: dict[str, dict[str, Any]] = {
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}},
}
