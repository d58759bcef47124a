"""Makes the checkpoints and exports of `tests/llm/data`: random weights, a trained tokenizer, real exporters.

    python -m tests.llm.make_exports FOLDER 0.0.5=SITE/llmexport 3.6.1=MNN/transformers/llm/export HEAD=...

Each exporter is the folder that holds its `llmexport.py`; needs torch, transformers, onnx and MNN.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.runtime.exporter import run_exporter
from tests.llm.checkpoints import (
    Tensors,
    gptq_tensors,
    random_tensors,
    vision_tensors,
    write_safetensors,
    write_sharded,
)

SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE: Final = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY: Final = 320
_SECONDS: Final = 600.0
#: Name -> architecture, its settings, type of the stored weights.
MODELS: Final[dict[str, dict[str, Any]]] = {
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "num_hidden_layers": 2, "dtype": "float32"},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": False, "num_hidden_layers": 1, "dtype": "bfloat16"},
    "llama": {"model_type": "llama", "tie_word_embeddings": False, "num_hidden_layers": 1, "dtype": "float16"},
    "qwen2_vl": {
        "model_type": "qwen2_vl",
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "tie_word_embeddings": False,
        "num_hidden_layers": 1,
        "dtype": "float16",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_start_token_id": 3,
        "vision_end_token_id": 4,
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    },
}
#: Name -> exporter, model, options.
EXPORTS: Final = {
    "qwen2-w4": ("3.6.1", "qwen2", "--quant_block 32"),
    "qwen2-w4-old": ("0.0.5", "qwen2", "--quant_block 32"),
    "qwen2-w4-head": ("HEAD", "qwen2", "--quant_block 32"),
    "qwen2-w8-sym": ("3.6.1", "qwen2", "--quant_bit 8 --quant_block 0 --sym --scale_bit 32"),
    "qwen2-fp16": ("3.6.1", "qwen2", "--quant_bit 16"),
    "qwen2-gptq": ("0.0.5", "qwen2", "--quant_block 32 --gptq_path qwen2-gptq"),
    "qwen2-config": ("3.6.1", "qwen2", "--quant_block 32 --quant_config layers.json"),
    "qwen3-w4-embedding8": ("3.6.1", "qwen3", "--quant_block 32 --embed_bit 8"),
    "qwen3-w3": ("3.6.1", "qwen3", "--quant_bit 3 --quant_block 32 --lm_quant_bit 8"),
    "llama-w4-old": ("0.0.5", "llama", "--quant_block 32"),
    "llama-hqq": ("3.6.1", "llama", "--quant_block 32 --hqq"),
    "qwen2_vl-w4": ("3.6.1", "qwen2_vl", "--quant_block 32 --visual_quant_bit 8 --visual_quant_block 32"),
    "bad-block": ("3.6.1", "qwen2", "--quant_block 128"),
    "bad-tied-w2": ("3.6.1", "qwen2", "--quant_bit 2 --quant_block 32"),
    "bad-gptq-scales": ("3.6.1", "qwen2", "--quant_block 32 --gptq_path qwen2-gptq"),
    "bad-gptq-path": ("0.0.5", "qwen2", "--quant_block 32 --gptq_path qwen2-gpqt"),
    "bad-tied-embedding8": ("3.6.1", "qwen2", "--quant_block 32 --embed_bit 8"),
    "bad-skip-weight": ("3.6.1", "qwen2", "--quant_block 32 --skip_weight"),
    "bad-config-symmetric": ("3.6.1", "qwen2", "--quant_block 32 --quant_config symmetric.json"),
    "bad-layer-names": ("3.6.1", "qwen2", "--quant_block 32 --quant_config dotted.json"),
}
QUANT_CONFIG: Final = {
    "/layers.0/mlp/down_proj/Linear": {"bits": 8, "block_size": 64},
    "/layers.1/self_attn/q_proj/Linear": {"block_size": 0},
    "/layers.1/mlp/up_proj/Linear": {"bits": 16},
}


def make_config(name: str) -> dict[str, Any]:
    """The `config.json` of a model."""
    model = MODELS[name]
    kind = model["model_type"].capitalize()
    config = {
        "architectures": [f"{kind}ForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "vocab_size": VOCABULARY,
        **model,
    }
    if "vision_config" in config:  # transformers 5 reads the inner table, the exporter the outer one.
        outer = {"vision_config", "architectures", "model_type"}
        config["text_config"] = {key: value for key, value in config.items() if key not in outer}
    return config


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}


def train_tokenizer(text: str) -> dict[str, Any]:
    """A byte-level BPE tokenizer trained on a text, in the form of `tokenizer.json`."""
    letters = byte_letters()
    words = [[letters[byte] for byte in f" {word}".encode()] for word in text.split()]
    tokens = [*SPECIAL, *(letters[byte] for byte in range(256))]
    merges: list[str] = []
    while len(tokens) < VOCABULARY:
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        first, second = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(f"{first} {second}")
        tokens.append(first + second)
        words = [_joined(word, first, second) for word in words]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges},
    }


def _joined(word: list[str], first: str, second: str) -> list[str]:
    joined: list[str] = []
    for letter in word:
        if joined and joined[-1] == first and letter == second:
            joined[-1] += letter
        else:
            joined.append(letter)
    return joined


def write_checkpoint(folder: Path, name: str, text: str) -> None:
    """A model of random weights, as Hugging Face stores it."""
    folder.mkdir(parents=True)
    config = make_config(name)
    tensors = random_tensors(config, seed=list(MODELS).index(name))
    if "vision_config" in config:
        tensors |= vision_tensors(config, seed=list(MODELS).index(name))
    if name == "qwen3":
        write_sharded(folder, tensors, config["dtype"], shards=2)
    else:
        write_safetensors(folder / "model.safetensors", tensors, config["dtype"])
    write_settings(folder, config, text)


def write_settings(folder: Path, config: dict[str, Any], text: str) -> None:
    """Configuration and tokenizer."""
    settings = {"eos_token": SPECIAL[2], "pad_token": SPECIAL[0], "tokenizer_class": "PreTrainedTokenizerFast"}
    files = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 2},
        "tokenizer.json": train_tokenizer(text),
        "tokenizer_config.json": {**settings, "chat_template": TEMPLATE},
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_gptq(folder: Path, name: str, text: str) -> None:
    """The same model as a GPTQ checkpoint of 4 bits in groups of 32."""
    folder.mkdir(parents=True)
    config = make_config(name)
    tensors: Tensors = gptq_tensors(random_tensors(config, seed=list(MODELS).index(name)), bits=4, group=32)
    write_safetensors(folder / "model.safetensors", tensors, config["dtype"])
    quantization = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    write_settings(folder, {**config, "quantization_config": quantization}, text)


def export(exporter: Path, model: str, options: str, target: str, folder: Path) -> None:
    """Run one exporter in `folder`, without MNN's telemetry. Raises `RuntimeError`."""
    arguments = ["--path", model, "--export", "mnn", "--dst_path", target, *options.split()]
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    os.chdir(folder)
    if run_exporter(sys.executable, exporter / "llmexport.py", arguments, _SECONDS) != 0:
        raise RuntimeError(f"{target}: the exporter failed")


def main(arguments: list[str]) -> None:
    """Write all checkpoints and exports into a folder."""
    folder = Path(arguments[0]).resolve()
    exporters = dict(argument.split("=", 1) for argument in arguments[1:])
    text = (__doc__ or "") + Path(__file__).read_text(encoding="utf-8")
    for name in MODELS:
        write_checkpoint(folder / name, name, text)
    write_gptq(folder / "qwen2-gptq-checkpoint", "qwen2", text)
    (folder / "qwen2-gptq-checkpoint").rename(folder / "qwen2-gptq")
    (folder / "layers.json").write_text(json.dumps(QUANT_CONFIG), encoding="utf-8")
    for file, layer, settings in (
        ("dotted.json", "layers.0.mlp.down_proj", {"bits": 8}),
        ("symmetric.json", "/layers.1/self_attn/q_proj/Linear", {"symmetric": True}),
    ):
        (folder / file).write_text(json.dumps({layer: settings}), encoding="utf-8")
    for name, (version, model, options) in EXPORTS.items():
        export(Path(exporters[version]), model, options, f"exports/{name}", folder)
        shutil.rmtree(folder / "exports" / name / "onnx", ignore_errors=True)
        (folder / "exports" / name / "llm.mnn.json").unlink()
    (folder / ".export.log").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
