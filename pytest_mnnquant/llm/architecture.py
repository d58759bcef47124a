"""The architecture that the forward pass computes: that of Llama, Mistral, Qwen2 and Qwen3.

Their layers are: RMSNorm, attention with rotated positions and shared keys and values, RMSNorm, a gated SiLU network.
Formulas: https://github.com/huggingface/transformers, models/{llama,qwen2,qwen3}/modeling_*.py and
modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from pytest_mnnquant.llm.rotary import frequencies
from pytest_mnnquant.llm.source_config import SourceConfig
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.mnnfile.storage import Floats

#: Values of `model_type` whose layers are computed.
FAMILY: Final = ("llama", "mistral", "qwen2", "qwen3")
#: Models for images or sound whose text model is one of the family. On texts, positions in time, height and width are
#: the same, so that rotations by sections are the plain ones.
_WITH_PARTS: Final = {"qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3", "qwen2_audio": "qwen2"}


class UnknownArchitecture(BadModel):
    """The forward pass does not compute this model. The message is one line that says why."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a model, the frequencies of its rotations, shape [head_size / 2], and the windows of its layers."""

    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    epsilon: float
    frequencies: Floats
    windows: tuple[int, ...] = ()

    def window(self, layer: int) -> int:
        """How many positions, its own included, a token of a layer attends to; 0 for all."""
        return self.windows[layer] if layer < len(self.windows) else 0


def architecture_of(config: SourceConfig) -> Architecture:
    """The architecture of a checkpoint. Raises `UnknownArchitecture`."""
    if _WITH_PARTS.get(config.model_type, config.model_type) not in FAMILY:
        names = ", ".join(FAMILY)
        raise UnknownArchitecture(f"{config.model_type or 'this architecture'} is not computed, only {names}")
    if config.activation not in ("silu", ""):
        raise UnknownArchitecture(f"the activation {config.activation} is not computed, only silu")
    heads, shared = config.heads, config.key_value_heads
    if min(config.layers, heads, shared, config.head_size) <= 0 or heads % shared or config.head_size % 2:
        raise UnknownArchitecture("config.json does not give the number and the size of heads and layers")
    if config.has_sections and config.model_type not in _WITH_PARTS:
        raise UnknownArchitecture("rotations by sections of positions are not computed")
    rotations = rotations_of(config)
    epsilon = config.epsilon or 1e-6
    return Architecture(config.layers, heads, shared, config.head_size, epsilon, rotations, config.windows)


def rotations_of(config: SourceConfig) -> Floats:
    """The frequencies of the rotations of the source, shape [head_size / 2].

    Raises `UnknownArchitecture` for rotations that depend on the length of a text.
    """
    plain = frequencies(config.head_size, config.rope_base or 10000.0)
    rope = config.rope
    if config.rope_type in ("default", "mrope"):  # The latter: plain ones, by sections of positions.
        return plain
    if config.rope_type == "linear" and rope.factor > 0:
        return (plain / np.float32(rope.factor)).astype(np.float32)
    if config.rope_type == "llama3" and min(rope.factor, rope.original_length) > 0 and rope.high > rope.low > 0:
        waves = 2 * math.pi / plain.astype(np.float64)
        share = (rope.original_length / waves - rope.low) / (rope.high - rope.low)
        share = np.clip(share, 0.0, 1.0)
        slowed: Floats = (plain * (share + (1 - share) / rope.factor)).astype(np.float32)
        return slowed
    raise UnknownArchitecture(f"rotations of the type {config.rope_type} are not computed")
