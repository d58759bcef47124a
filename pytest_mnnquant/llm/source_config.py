"""What a checkpoint's `config.json` says of the model, in the names of Hugging Face's transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.llm.json_object import JsonObject

#: Where the text model of a model for images or sound is described.
_INNER: Final = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the frequencies of rotations are slowed; 0: not given. `low` and `high` are factors of `original_length`."""

    factor: float = 0.0
    low: float = 0.0
    high: float = 0.0
    original_length: float = 0.0


@dataclass(frozen=True)
class SourceConfig:
    """The architecture of a checkpoint. Numbers that are missing are 0, and are not compared.

    `windows` are the positions that a token of each layer attends to, 0 for all; empty if no layer has a window.
    `layer_kinds` are the types of attention by layer, as the checkpoint lists them. `has_sections`: the angles of
    rotations come from positions in time, height and width.
    """

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    inner_size: int
    vocabulary: int
    rope_base: float
    rope_type: str
    epsilon: float
    tied: bool
    bos_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]
    gptq_bits: int
    gptq_group: int
    activation: str = ""
    windows: tuple[int, ...] = ()
    layer_kinds: tuple[str, ...] = ()
    has_sections: bool = False
    rope: RopeScaling = RopeScaling()


def read_source_config(values: JsonObject) -> SourceConfig:
    """Read a `config.json`. Raises `BadExport` for a value of another type."""
    text = next((values.member(key) for key in _INNER if values.has(key)), values)
    hidden, heads = text.integer("hidden_size", 0), text.integer("num_attention_heads", 0)
    rope = text.member("rope_parameters" if text.has("rope_parameters") else "rope_scaling")
    quantization = values.member("quantization_config")
    is_gptq = quantization.text("quant_method") == "gptq"
    return SourceConfig(
        model_type=values.text("model_type"),
        hidden_size=hidden,
        layers=text.integer("num_hidden_layers", 0),
        heads=heads,
        key_value_heads=text.integer("num_key_value_heads", heads),
        head_size=text.integer("head_dim", hidden // heads if heads > 0 else 0),
        inner_size=text.integer("intermediate_size", 0),
        vocabulary=text.integer("vocab_size", 0),
        rope_base=rope.number("rope_theta", text.number("rope_theta", 0.0)),
        rope_type=rope.text("rope_type", rope.text("type", "default")),
        epsilon=text.number("rms_norm_eps", 0.0),
        tied=values.flag("tie_word_embeddings", text.flag("tie_word_embeddings")),
        bos_ids=read_ids(values, "bos_token_id"),
        eos_ids=read_ids(values, "eos_token_id"),
        gptq_bits=quantization.integer("bits", 0) if is_gptq else 0,
        gptq_group=quantization.integer("group_size", 0) if is_gptq else 0,
        activation=text.text("hidden_act"),
        windows=_windows(text),
        layer_kinds=_layer_kinds(text),
        has_sections=rope.has("mrope_section"),
        rope=RopeScaling(
            factor=rope.number("factor", 0.0),
            low=rope.number("low_freq_factor", 0.0),
            high=rope.number("high_freq_factor", 0.0),
            original_length=rope.number("original_max_position_embeddings", 0.0),
        ),
    )


def _layer_kinds(text: JsonObject) -> tuple[str, ...]:
    return tuple(str(item) for item in text.array("layer_types"))


def _windows(text: JsonObject) -> tuple[int, ...]:
    """As transformers reads them: by `layer_types`, else all layers of Mistral, and the last ones of Qwen2."""
    window = text.integer("sliding_window", 0)
    layers = text.integer("num_hidden_layers", 0)
    if window <= 0 or not text.flag("use_sliding_window", True):
        return ()
    if kinds := _layer_kinds(text):
        windows = tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
        return windows if any(windows) else ()
    if text.text("model_type") == "mistral":
        return (window,) * layers
    if text.has("use_sliding_window"):
        first = text.integer("max_window_layers", layers)
        return tuple(window if layer >= first else 0 for layer in range(layers))
    return ()


def read_ids(values: JsonObject, key: str) -> tuple[int, ...]:
    """One id or a list of ids. Raises `BadExport` for another type."""
    if not values.has(key):
        return ()
    return values.integers(key) if isinstance(values.values[key], list) else (values.integer(key),)
