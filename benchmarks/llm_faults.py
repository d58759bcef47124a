"""Faults and mutations of exports of language models, planted in copies: changes of files, of options and of graphs.

Graphs are changed as MNN's JSON, by its converter: `mnnconvert -f MNN --JsonFile`, and back.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.folder import read_folder

Change = Callable[[Path], object]
WEIGHTS: Final = "llm.mnn.weight"
Json = dict[str, Any]
_CONVERT: Final = "import sys, _tools; _tools.mnnconvert(['', *sys.argv[1:]])"


def change_json(path: Path, **values: Any) -> None:
    """Set keys; None takes a key out."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


def _convert(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", _CONVERT, *arguments], cwd=folder, check=True, capture_output=True)


def graph(change: Callable[[list[Json], Json], None]) -> Change:
    """A change of the operators of `llm.mnn`."""

    def apply(folder: Path) -> None:
        _convert(folder, "-f", "MNN", "--modelFile", "llm.mnn", "--JsonFile", "graph.json")
        content = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        change(content["oplists"], content)
        (folder / "graph.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / "llm.mnn").unlink()
        _convert(folder, "-f", "JSON", "--modelFile", "graph.json", "--MNNModel", "llm.mnn")
        (folder / "graph.json").unlink()

    return apply


def operators(ops: list[Json], part: str, kind: str = "") -> list[Json]:
    """The operators whose names contain a text, of a kind."""
    return [op for op in ops if part in op.get("name", "") and kind in ("", op["type"])]


def _swap(folder: Path, *pairs: tuple[Extent, Extent]) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    for first, second in pairs:
        left, right = bytes(data[first.offset : first.end]), bytes(data[second.offset : second.end])
        data[first.offset : first.end], data[second.offset : second.end] = right, left
    (folder / WEIGHTS).write_bytes(data)


def exchange(first: str, second: str, *, codes: bool = True, scales: bool = True) -> Change:
    """Exchange what two layers store."""

    def apply(folder: Path) -> None:
        matrices = {matrix.name.removesuffix("/Linear"): matrix for matrix in read_folder(folder).graph.matrices}
        one, other = matrices[first], matrices[second]
        pairs = [(one.codes, other.codes)] * codes + [(one.scales, other.scales)] * scales
        _swap(folder, *pairs)

    return apply


def scaled(name: str, factor: float) -> Change:
    """Multiply the scales of a layer, which are 16-bit floats."""

    def apply(folder: Path) -> None:
        matrix = next(item for item in read_folder(folder).graph.matrices if item.name.startswith(name))
        data = bytearray((folder / WEIGHTS).read_bytes())
        values = np.frombuffer(data, "<f2", matrix.scales.length // 2, matrix.scales.offset)
        scales = (values.astype(np.float32) * factor).astype("<f2").tobytes()
        data[matrix.scales.offset : matrix.scales.end] = scales
        (folder / WEIGHTS).write_bytes(data)

    return apply


def cut(file: str, share: float) -> Change:
    """Keep the first bytes of a file."""

    def apply(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(share * len(data))])

    return apply


def remove(file: str) -> Change:
    """Remove a file."""
    return lambda folder: (folder / file).unlink()


def take(file: str, other: str) -> Change:
    """Take a file of another export, which is beside this one's origin."""
    return lambda folder: shutil.copyfile(folder.parent.parent / "exports" / other / file, folder / file)


def settings(file: str, **values: Any) -> Change:
    """Change keys of a JSON file."""
    return lambda folder: change_json(folder / file, **values)


def tied(**values: int) -> Change:
    """Add to numbers of `tie_embeddings`."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / "llm_config.json").read_text(encoding="utf-8"))
        place = config["tie_embeddings"]
        place |= {key: place[key] + change for key, change in values.items()}
        change_json(folder / "llm_config.json", tie_embeddings=place)

    return apply


def _attention_inputs(first: int, second: int) -> Change:
    def change(ops: list[Json], _: Json) -> None:
        for op in [op for op in ops if op["type"] == "Attention"][:1]:
            inputs = op["inputIndexes"]
            inputs[first], inputs[second] = inputs[second], inputs[first]

    return graph(change)


def _without_silu(ops: list[Json], _: Json) -> None:
    gate = next(op for op in ops if op["type"] == "BinaryOp" and op["main"]["opType"] == "MUL_SILU")
    gate["main"]["opType"] = "MUL"


def _gate_is_up(ops: list[Json], _: Json) -> None:
    gate = next(op for op in ops if op["type"] == "BinaryOp" and op["main"]["opType"] == "MUL_SILU")
    gate["inputIndexes"].reverse()


def _kind_of_binary(ops: list[Json], _: Json) -> None:
    adds = [op for op in ops if op["type"] == "BinaryOp" and op["main"]["opType"] == "ADD" and "Add" in op["name"]]
    adds[-1]["main"]["opType"] = "SUB"


def _bypass_norm(ops: list[Json], _: Json) -> None:
    norm = operators(ops, "blocks.1/post_attention_layernorm", "LayerNorm")[0]
    source, target = norm["inputIndexes"][0], norm["outputIndexes"][0]
    for op in ops:
        op["inputIndexes"] = [source if index == target else index for index in op.get("inputIndexes") or []]


def _up_is_gate(ops: list[Json], _: Json) -> None:
    up, down = (operators(ops, f"layers.1/mlp/{name}_proj", "Convolution")[0] for name in ("up", "gate"))
    up["main"]["external"] = list(down["main"]["external"])


def _epsilon(ops: list[Json], _: Json) -> None:
    for op in ops:
        if op["type"] == "LayerNorm":
            op["main"]["epsilon"] = 0.1


def _rotation(ops: list[Json], _: Json) -> None:
    table = operators(ops, "rotary/Constant_1_output_0", "Const")[0]["main"]
    table["float32s"] = [value**1.3 for value in table["float32s"]]


def _cosine_is_sine(ops: list[Json], _: Json) -> None:
    for op in ops:
        if op["type"] == "UnaryOp" and op["main"]["opType"] in ("COS", "SIN"):
            op["main"]["opType"] = {"COS": "SIN", "SIN": "COS"}[op["main"]["opType"]]


def _layer_twice(ops: list[Json], _: Json) -> None:
    """The second layer reads what the first layer's norm read: a layer is skipped."""
    norms = [op for op in ops if op["type"] == "LayerNorm" and "input_layernorm" in op["name"]]
    norms[2]["inputIndexes"] = list(norms[1]["inputIndexes"])


def _norm_of_neighbour(ops: list[Json], _: Json) -> None:
    norms = [op for op in ops if op["type"] == "LayerNorm" and "layernorm" in op["name"]]
    first, second = norms[0]["main"], norms[1]["main"]
    first["external"], second["external"] = second["external"], first["external"]


def transposed(name: str) -> Change:
    """Store a square matrix transposed, with codes and scales of its own."""

    def apply(folder: Path) -> None:
        from pytest_mnnquant.llm.matrix import decode_rows

        exported = read_folder(folder)
        matrix = next(item for item in exported.graph.matrices if item.name.startswith(name))
        weights = decode_rows(matrix, exported.data(WEIGHTS), 0, matrix.rows).T
        groups = weights.reshape(matrix.rows, matrix.blocks, matrix.block)
        low, high = groups.min(-1), groups.max(-1)
        scale = np.maximum((high - low) / 15, 1e-8)
        codes = np.clip(np.round((groups - low[..., None]) / scale[..., None]), 0, 15).astype(np.uint8).reshape(-1, 2)
        data = bytearray((folder / WEIGHTS).read_bytes())
        packed = (codes[:, 0] << 4 | codes[:, 1]).tobytes()
        start = matrix.codes.offset + matrix.header
        data[start : start + len(packed)] = packed
        pairs = np.stack([low + 8 * scale, scale], -1) if matrix.lowest == 0 else np.stack([low, scale], -1)
        data[matrix.scales.offset : matrix.scales.end] = pairs.astype("<f2").tobytes()
        (folder / WEIGHTS).write_bytes(data)

    return apply


def zeroed_norm(folder: Path) -> None:
    """The last norm is all zeros, so that all logits are equal."""
    vector = next(item for item in read_folder(folder).graph.vectors if item.name == "hidden_states")
    data = bytearray((folder / WEIGHTS).read_bytes())
    for extent in vector.extents:
        data[extent.offset : extent.end] = bytes(extent.length)
    (folder / WEIGHTS).write_bytes(data)


def other_tokenizer(folder: Path) -> None:
    """Two tokens have exchanged their places in the tokenizer."""
    data = (folder / "tokenizer.mtok").read_bytes()
    place = data.find(b"the")
    (folder / "tokenizer.mtok").write_bytes(data[:place] + b"teh" + data[place + 3 :])


L0, L1, L2 = (f"/layers.{number}" for number in range(3))
#: Faults of README's table that are changes of files: name -> (base, change).
PLANTED: Final[dict[str, tuple[str, Change]]] = {
    "embedding file missing": ("untied-w4-005", remove("embeddings_bf16.bin")),
    "embedding truncated": ("untied-w4-005", cut("embeddings_bf16.bin", 0.7)),
    "int8 embedding truncated": ("untied-e8-361", cut("embeddings_int8.bin", 0.9)),
    "embedding_file not named": ("untied-e8-361", settings("config.json", embedding_file=None)),
    "llm_config of an older exporter": ("tied-w4-361", take("llm_config.json", "tied-w4-005")),
    "llm_config of a newer exporter": ("tied-w4-005", take("llm_config.json", "tied-w4-361")),
    "tie_embeddings: weights misplaced": ("tied-w4-361", tied(weight_offset=64)),
    "tie_embeddings: scales misplaced": ("tied-w4-361", tied(alpha_offset=-128)),
    "tie_embeddings: other bits": ("tied-w8-361", tied(quant_bit=-4)),
    "weights of other bits": ("tied-w4-361", take(WEIGHTS, "tied-w8-361")),
    "weights of another model": ("tied-w4-361", take(WEIGHTS, "untied-w4-361")),
    "weights cut": ("tied-w4-361", cut(WEIGHTS, 0.5)),
    "weights missing": ("tied-w4-361", remove(WEIGHTS)),
    "graph missing": ("tied-w4-361", remove("llm.mnn")),
    "graph cut": ("tied-w4-361", cut("llm.mnn", 0.5)),
    "tokenizer missing": ("tied-w4-361", remove("tokenizer.mtok")),
    "tokenizer of other tokens": ("tied-w4-361", other_tokenizer),
    "template lost": ("tied-w4-361", settings("llm_config.json", jinja=None)),
    "hqq requested, rounding stored": ("tied-w4-361", settings("export_args.json", hqq=True)),
    "8-bit head requested, 4 stored": ("tied-w4-361", settings("export_args.json", lm_quant_bit=8)),
    "symmetric requested": ("tied-w4-361", settings("export_args.json", sym=True)),
    "32-bit scales requested": ("tied-w4-361", settings("export_args.json", scale_bit=32)),
    "hidden_size of another model": ("tied-w4-361", settings("llm_config.json", hidden_size=64)),
    "generates one token": ("tied-w4-361", zeroed_norm),
}
#: Mutations that are on no list.
MUTATIONS: Final[dict[str, tuple[str, Change]]] = {
    "two layers exchanged": ("tied-w4-361", exchange(f"{L0}/mlp/up_proj", f"{L1}/mlp/up_proj")),
    "scales of the neighbour": ("tied-w4-361", exchange(f"{L0}/mlp/up_proj", f"{L1}/mlp/up_proj", codes=False)),
    "k and v exchanged": ("tied-w4-361", exchange(f"{L0}/self_attn/k_proj", f"{L0}/self_attn/v_proj")),
    "gate and up exchanged": ("untied-w4-361", exchange(f"{L0}/mlp/gate_proj", f"{L0}/mlp/up_proj")),
    "scales of a layer + 3 %": ("tied-w4-361", scaled(f"{L2}/mlp/down_proj", 1.03)),
    "matrix transposed": ("tied-w4-361", transposed(f"{L1}/self_attn/q_proj")),
    "up_proj stored as gate_proj": ("tied-w4-361", graph(_up_is_gate)),
    "norms exchanged": ("tied-w4-361", graph(_norm_of_neighbour)),
    "norm bypassed (wiring)": ("tied-w4-361", graph(_bypass_norm)),
    "q and k of attention exchanged (wiring)": ("tied-w4-361", _attention_inputs(0, 1)),
    "layer skipped (wiring)": ("tied-w4-361", graph(_layer_twice)),
    "residual subtracted (operator)": ("tied-w4-361", graph(_kind_of_binary)),
    "product without SiLU (operator)": ("untied-w4-005", graph(_without_silu)),
    "SiLU of up_proj (wiring)": ("untied-w4-005", graph(_gate_is_up)),
    "cosine and sine exchanged (operator)": ("tied-w4-361", graph(_cosine_is_sine)),
    "another RoPE base": ("tied-w4-361", graph(_rotation)),
    "another epsilon": ("tied-w4-361", graph(_epsilon)),
    "vocabulary off by one": ("untied-w4-005", cut("embeddings_bf16.bin", 2047 / 2048)),
    "attention scale x 2": ("tied-w4-361", settings("llm_config.json", attn_scale=0.35355)),
}
