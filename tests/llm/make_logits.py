"""Writes `tests/llm/data/logits.npz`: what transformers computes for the checkpoints of `tests/llm/data`.

    python -m tests.llm.make_logits

Needs torch and transformers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests.llm.conftest import DATA, ROPES, change_json

_TOKENS: Final = 48


def logits_of(folder: Path, ids: Any) -> Any:
    """Logits in float32, shape [1, tokens, vocabulary]."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor(ids)).logits.numpy()


def main() -> None:
    """Compute all checkpoints, and the rotations that other models have."""
    arrays: dict[str, Any] = {"ids": np.random.default_rng(0).integers(0, 320, (1, _TOKENS))}
    for name in ("qwen2", "qwen3", "llama"):
        arrays[name] = logits_of(DATA / name, arrays["ids"])[:, ::4]
    for name, rope in ROPES.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(DATA / "llama", Path(folder) / "llama"))
            change_json(copy / "config.json", rope_theta=None, **json.loads(json.dumps(rope)))
            arrays[name] = logits_of(copy, arrays["ids"])[:, ::4]
    np.savez_compressed(DATA / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
