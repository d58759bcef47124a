"""Writes checkpoints as Hugging Face and GPTQ tools do, by numpy alone: random weights, safetensors, shards, codes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]
_NAMES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32"}


def random_tensors(config: dict[str, Any], seed: int) -> Tensors:
    """The weights of a Qwen2, Qwen3 or Llama model in float32."""
    random = np.random.default_rng(seed)
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, shared = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype("<f4")
        return values

    def vector(size: int, mean: float) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = (mean + 0.2 * random.standard_normal(size)).astype("<f4")
        return values

    tensors: Tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for name, rows in (("q", heads), ("k", shared), ("v", shared)):
            tensors[f"{layer}self_attn.{name}_proj.weight"] = matrix(rows, hidden)
            if config["model_type"].startswith("qwen2"):
                tensors[f"{layer}self_attn.{name}_proj.bias"] = vector(rows, 0.0)
        if config["model_type"] == "qwen3":
            tensors |= {f"{layer}self_attn.{name}_norm.weight": vector(head, 1.0) for name in "qk"}
        tensors[f"{layer}self_attn.o_proj.weight"] = matrix(hidden, heads)
        tensors |= {f"{layer}mlp.{name}_proj.weight": matrix(inner, hidden) for name in ("gate", "up")}
        tensors[f"{layer}mlp.down_proj.weight"] = matrix(hidden, inner)
        tensors |= {f"{layer}{name}_layernorm.weight": vector(hidden, 1.0) for name in ("input", "post_attention")}
    tensors["model.norm.weight"] = vector(hidden, 1.0)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    return tensors


def vision_tensors(config: dict[str, Any], seed: int) -> Tensors:
    """The weights of the vision part of a Qwen2-VL model in float32."""
    random, vision, tensors = np.random.default_rng(seed), config["vision_config"], {}
    width, merged = vision["embed_dim"], vision["embed_dim"] * vision["spatial_merge_size"] ** 2
    inner = width * vision["mlp_ratio"]

    def add(name: str, *shape: int) -> None:
        columns = np.prod(shape[1:])
        tensors[f"visual.{name}.weight"] = (random.standard_normal(shape) / np.sqrt(columns)).astype("<f4")
        if len(shape) == 2:
            tensors[f"visual.{name}.bias"] = (0.2 * random.standard_normal(shape[0])).astype("<f4")

    def add_norm(name: str) -> None:
        tensors[f"visual.{name}.weight"] = (1 + 0.2 * random.standard_normal(width)).astype("<f4")
        tensors[f"visual.{name}.bias"] = (0.2 * random.standard_normal(width)).astype("<f4")

    add("patch_embed.proj", width, 3, vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
    for number in range(vision["depth"]):
        add(f"blocks.{number}.attn.qkv", 3 * width, width)
        add(f"blocks.{number}.attn.proj", width, width)
        add(f"blocks.{number}.mlp.fc1", inner, width)
        add(f"blocks.{number}.mlp.fc2", width, inner)
        add_norm(f"blocks.{number}.norm1")
        add_norm(f"blocks.{number}.norm2")
    add_norm("merger.ln_q")
    add("merger.mlp.0", merged, merged)
    add("merger.mlp.2", config["hidden_size"], merged)
    return tensors


def gptq_tensors(tensors: Tensors, bits: int, group: int) -> Tensors:
    """The same model with its linear layers as symmetric GPTQ codes. Some codes are moved, as GPTQ does."""
    random, result = np.random.default_rng(9), {}
    half, per = 1 << bits - 1, 32 // bits
    for name, weights in tensors.items():
        if not name.endswith("_proj.weight"):
            result[name] = weights
            continue
        rows, columns = weights.shape
        groups = weights.reshape(rows, columns // group, group)
        scales = (np.abs(groups).max(-1, keepdims=True) / (half - 0.5)).astype("<f2").astype("<f4")
        moves = random.integers(-1, 2, groups.shape) * (random.random(groups.shape) < 0.1)
        codes = np.clip(np.round(groups / scales) + half + moves, 0, 2 * half - 1).reshape(rows, columns).T
        packed = np.zeros((columns // per, rows), np.uint32)
        for place in range(per):
            packed |= codes[place::per].astype(np.uint32) << np.uint32(bits * place)
        zeros = sum((half - 1) << bits * place for place in range(per))
        stem = name.removesuffix("weight")
        result[f"{stem}qweight"] = packed.view("<i4")
        result[f"{stem}scales"] = scales[..., 0].T.astype("<f2")
        result[f"{stem}qzeros"] = np.full((columns // group, rows // per), zeros, np.uint32).view("<i4")
        result[f"{stem}g_idx"] = (np.arange(columns) // group).astype("<i4")
    return result


def stored(values: npt.NDArray[Any], dtype: str) -> tuple[str, bytes]:
    """The type and the bytes of a tensor: floats of 32 bits as `dtype`, all others unchanged."""
    if values.dtype != np.float32 or dtype == "float32":
        return _NAMES[values.dtype.name], values.tobytes()
    if dtype == "float16":
        return "F16", values.astype("<f2").tobytes()
    words = np.ascontiguousarray(values).view("<u4")
    rounded = words + 0x7FFF + (words >> np.uint32(16) & np.uint32(1))
    return "BF16", (rounded >> np.uint32(16)).astype("<u2").tobytes()


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "float32") -> None:
    """A safetensors file: u64 length of the header, the header in JSON, the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = []
    end = 0
    for name, values in tensors.items():
        kind, content = stored(values, dtype)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [end, end + len(content)]}
        data.append(content)
        end += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_sharded(folder: Path, tensors: Tensors, dtype: str, shards: int) -> None:
    """Several safetensors files and their index."""
    names = list(tensors)
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        chosen = names[number::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in chosen}, dtype)
        places |= dict.fromkeys(chosen, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
