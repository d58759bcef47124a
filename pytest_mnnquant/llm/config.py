"""The configuration of an export: `config.json` (how it runs) and `llm_config.json` (what the model is).

The runtime merges both and gives missing keys a default (transformers/llm/engine/src/llmconfig.hpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mnnquant.llm.json_object import BadExport, JsonObject

CONFIG: Final = "config.json"
MODEL_CONFIG: Final = "llm_config.json"
#: Keys that name a file, with the file that the runtime takes without the key.
_ALWAYS: Final = {"llm_model": "llm.mnn", "llm_weight": "llm.mnn.weight", "tokenizer_file": "tokenizer.txt"}
_EMBEDDING: Final = ("embedding_file", "embeddings_bf16.bin")
#: The same for parts that a flag of the model turns on.
_PARTS: Final = {"is_visual": ("visual_model", "visual.mnn"), "is_audio": ("audio_model", "audio.mnn")}
#: Keys that name a file which is needed only if the key is present.
_OPTIONAL: Final = ("ple_embed_file", "dflash_model", "dflash_fc", "dflash_kvmat", "context_file")


@dataclass(frozen=True, slots=True)
class TiedPlace:
    """`tie_embeddings`: where the runtime reads the embedding's codes and scales, and in which form.

    With a `weight_offset` of 0 it reads the embedding file, else the weight file of the model. `is_list`: the form of
    exporters before 3.6, whose scales are 32-bit floats.
    """

    weight_offset: int
    alpha_offset: int
    alpha_size: int
    bits: int
    block: int
    scale_bits: int
    is_list: bool


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the runtime opens: the key that names it, and whether the key is present (else it is a default)."""

    key: str
    file: str
    is_given: bool


@dataclass(frozen=True)
class ExportConfig:
    """What both files say. Numbers that are missing are 0, texts are empty.

    `placeholders` are the tokens that stand for an image or a sound.

    `attention_type` is "full", "sliding" or "mix". `has_sections`: positions have three parts (`is_mrope`).
    """

    files: tuple[NamedFile, ...]
    tied: TiedPlace | None
    model_type: str
    hidden_size: int
    layers: int
    attention_scale: float
    chat_template: str
    bos: str
    eos: str
    memory: str
    precision: str
    backend: str
    attention_type: str = ""
    attention_mask: str = ""
    sliding_window: int = 0
    has_sections: bool = False
    placeholders: tuple[int, ...] = ()

    def file(self, key: str) -> str:
        """The file of a key; empty if the runtime opens none."""
        return next((named.file for named in self.files if named.key == key), "")


def merge_config(config: JsonObject, model: JsonObject) -> ExportConfig:
    """Read both files as the runtime does. Raises `BadExport` for a value of another type."""
    tied = _tied_place(model if model.has("tie_embeddings") else config)
    jinja = model.member("jinja")
    return ExportConfig(
        files=tuple(_files(config, model, tied)),
        tied=tied,
        model_type=model.text("model_type"),
        hidden_size=model.integer("hidden_size", 0),
        layers=model.integer("layer_nums", 0),
        attention_scale=model.number("attn_scale", 0.0),
        chat_template=jinja.text("chat_template"),
        bos=jinja.text("bos"),
        eos=jinja.text("eos"),
        memory=config.text("memory", "low"),
        precision=config.text("precision", "low"),
        backend=config.text("backend_type", "cpu"),
        attention_type=model.text("attention_type"),
        attention_mask=model.text("attention_mask"),
        sliding_window=model.integer("sliding_window", 0),
        has_sections=model.flag("is_mrope"),
        placeholders=tuple(model.integer(key, 0) for key, value in model.values.items() if _is_placeholder(key, value)),
    )


def _is_placeholder(key: str, value: object) -> bool:
    """Whether a key names a token such as `image_pad`; the runtime expects an image where it reads one."""
    return key.endswith(("_start", "_end", "_pad")) and type(value) is int


def _files(config: JsonObject, model: JsonObject, tied: TiedPlace | None) -> list[NamedFile]:
    defaults = dict(_ALWAYS)
    if tied is None or tied.weight_offset == 0:
        defaults.update([_EMBEDDING])
    for flag, (key, default) in _PARTS.items():
        if model.flag(flag):
            defaults[key] = default
    names = []
    for key in (*defaults, *(key for key in (*_OPTIONAL, _EMBEDDING[0]) if key not in defaults)):
        holder = model if model.has(key) else config
        if holder.has(key) or key in defaults:
            names.append(NamedFile(key, _relative(holder, key, defaults.get(key, "")), holder.has(key)))
    return names


def _relative(holder: JsonObject, key: str, default: str) -> str:
    name = holder.text(key, default)
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise holder.fault(key, f"{name!r} is not a file of the folder")
    return name


def _tied_place(model: JsonObject) -> TiedPlace | None:
    if not model.has("tie_embeddings"):
        return None
    if isinstance(model.values["tie_embeddings"], list):
        numbers = model.integers("tie_embeddings")
        if len(numbers) < 5:
            raise model.fault("tie_embeddings", f"5 numbers are expected, not {len(numbers)}")
        place = TiedPlace(*_five(numbers), 16 if any(numbers[5:6]) else 32, True)
    else:
        entry = model.member("tie_embeddings")
        keys = ("weight_offset", "alpha_offset", "alpha_size", "quant_bit", "quant_block")
        numbers = tuple(entry.integer(key, 0) for key in keys)
        place = TiedPlace(*_five(numbers), 16 if entry.text("alpha_dtype", "fp32") == "fp16" else 32, False)
    if min(numbers[:5]) < 0:
        raise model.fault("tie_embeddings", f"{min(numbers[:5])} is negative")
    if place.bits not in (1, 2, 3, 4, 8, 16):
        raise model.fault("tie_embeddings", f"{place.bits} is not a number of bits")
    return place


def _five(numbers: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    first, second, third, fourth, fifth = numbers[:5]
    return first, second, third, fourth, fifth


def missing_file(file: str) -> BadExport:
    """What to raise or to report for a file that is not there."""
    return BadExport(file, "", "the file is missing")
