"""Changes of exports that were written before anybody looked at the checks: of bytes, of keys, of operators.

`FAULTS` must fail. `HARMLESS` changes do not change what the runtime computes, and must not fail.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from llm_faults import WEIGHTS, Change, Json, change_json, graph, operators, take

from pytest_mnnquant.llm.extents import Extent
from pytest_mnnquant.llm.folder import read_folder
from pytest_mnnquant.llm.matrix import StoredMatrix

TABLE: Final = "embeddings_bf16.bin"
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def edit(file: str, change: Callable[[Bytes], Bytes | None]) -> Change:
    """Change the bytes of a file in place, or replace them."""

    def apply(folder: Path) -> None:
        data = np.frombuffer((folder / file).read_bytes(), np.uint8).copy()
        changed = change(data)
        (folder / file).write_bytes((data if changed is None else changed).tobytes())

    return apply


def stored(folder: Path, name: str) -> StoredMatrix:
    """A matrix by the beginning of its name."""
    return next(item for item in read_folder(folder).graph.matrices if item.name.startswith(name))


def runs(name: str, change: Callable[[StoredMatrix, dict[str, Bytes]], None]) -> Change:
    """Change the bytes of a matrix: its `codes` (after the header), its `scales` and its `bias`."""

    def apply(folder: Path) -> None:
        matrix = stored(folder, name)
        codes = Extent(matrix.codes.offset + matrix.header, matrix.codes.length - matrix.header)
        data = np.frombuffer((folder / WEIGHTS).read_bytes(), np.uint8).copy()
        places = {"codes": codes, "scales": matrix.scales, "bias": matrix.bias}
        change(matrix, {kind: data[run.offset : run.end] for kind, run in places.items()})
        (folder / WEIGHTS).write_bytes(data.tobytes())

    return apply


def _one_code(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["codes"][1000] ^= 0x80


def _nibbles(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    codes = parts["codes"]
    codes[:] = codes >> 4 | codes << 4


def _page(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["codes"][4096:8192] = 0


def _no_scales(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["scales"][:64] = 0


def pairs(matrix: StoredMatrix, parts: dict[str, Bytes]) -> np.ndarray[Any, Any]:
    """Minimum and scale of each block, shape [rows, blocks, 2]."""
    return parts["scales"].view("<f2").reshape(matrix.rows, matrix.blocks, 2)


def _no_minima(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    pairs(matrix, parts)[..., 0] = 0


def _one_scale(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    pairs(matrix, parts)[5, 1, 1] *= 2


def _cut_digits(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["scales"].view("<u2")[:] &= 0xFFF0


def _next_block(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    values = pairs(matrix, parts)
    values[:] = np.roll(values, 1, axis=1)


def _next_head(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    for kind in parts:
        if len(parts[kind]):
            rows = parts[kind].reshape(matrix.rows, -1)
            rows[:] = np.roll(rows, 32, axis=0)


def _next_column(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    rows = parts["codes"].reshape(matrix.rows, -1)
    rows[:] = np.roll(rows, 1, axis=1)


def _no_bias(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["bias"][:] = 0


def _negative_bias(_: StoredMatrix, parts: dict[str, Bytes]) -> None:
    parts["bias"].view("<f4")[:] *= -1


def _two_rows(matrix: StoredMatrix, parts: dict[str, Bytes]) -> None:
    for kind in ("codes", "scales"):
        rows = parts[kind].reshape(matrix.rows, -1)
        rows[[300, 301]] = rows[[301, 300]]


def _norm(factor: float, start: int, name: str) -> Change:
    """Multiply the values of a norm from `start` on, in the file that stores them."""

    def apply(folder: Path) -> None:
        vector = next(item for item in read_folder(folder).graph.vectors if name in item.name)
        before, after = vector.values.astype("<f4"), vector.values.astype("<f4")
        after[start:] *= factor
        for file in (WEIGHTS, "llm.mnn"):
            data = (folder / file).read_bytes()
            if before.tobytes() in data:
                (folder / file).write_bytes(data.replace(before.tobytes(), after.tobytes(), 1))
                return
        raise ValueError(f"no file stores the values of {name}")

    return apply


def _table_rows(data: Bytes) -> None:
    rows = data.reshape(2048, -1)
    rows[[300, 301]] = rows[[301, 300]]


def _table_shifted(data: Bytes) -> Bytes:
    return np.roll(data.reshape(2048, -1), 1, axis=0).reshape(-1)


def _big_endian(data: Bytes) -> None:
    data.view("<u2")[:] = data.view("<u2").byteswap()


def _as_half(data: Bytes) -> Bytes:
    values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return values.astype("<f2").view(np.uint8)


def _zeros(start: int, stop: int) -> Callable[[Bytes], None]:
    def change(data: Bytes) -> None:
        data[start:stop] = 0

    return change


def _end_of_download(data: Bytes) -> None:
    data[int(len(data) * 0.95) :] = 0


def _pointer(data: Bytes) -> Bytes:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(data)}\n"
    return np.frombuffer(text.encode(), np.uint8)


def _longer(data: Bytes) -> Bytes:
    return np.concatenate([data, data[:1000]])


def text_change(file: str, old: str, new: str) -> Change:
    """Replace a text of a file, which must hold it."""

    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        if old.encode() not in content:
            raise ValueError(f"{file} does not hold {old!r}")
        (folder / file).write_bytes(content.replace(old.encode(), new.encode(), 1))

    return apply


def jinja(**values: Any) -> Change:
    """Change keys of `jinja` in llm_config.json."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / "llm_config.json").read_text(encoding="utf-8"))
        section = {**config["jinja"], **values}
        change_json(folder / "llm_config.json", jinja={key: value for key, value in section.items() if value})

    return apply


def _template_cut(folder: Path) -> None:
    config = json.loads((folder / "llm_config.json").read_text(encoding="utf-8"))
    template = config["jinja"]["chat_template"]
    jinja(chat_template=template[: template.index("{% if add")])(folder)


def _tied_to_head(folder: Path) -> None:
    head = stored(folder, "/lm/lm_head")
    place = {
        "weight_offset": head.codes.offset + head.header,
        "alpha_offset": head.scales.offset,
        "alpha_size": head.scales.length,
        "quant_bit": 4,
        "quant_block": 64,
        "alpha_dtype": "fp16",
    }
    change_json(folder / "llm_config.json", tie_embeddings=place)


def keys(file: str, **values: Any) -> Change:
    """Set keys of a JSON file; None takes a key out."""
    return lambda folder: change_json(folder / file, **values)


def _named_weights(folder: Path) -> None:
    """A file of another model, under a name of its own, which config.json names."""
    shutil.copyfile(folder.parent.parent / "exports" / "tied-w8-361" / WEIGHTS, folder / "new.weight")
    change_json(folder / "config.json", llm_weight="new.weight")


def _first_key_wins(folder: Path) -> None:
    """A key twice: the runtime takes the first, most other readers the last."""
    text = (folder / "llm_config.json").read_text(encoding="utf-8")
    (folder / "llm_config.json").write_text('{"attn_scale": 0.5,' + text.lstrip()[1:], encoding="utf-8")


def _of_kind(kind: str, number: int, **values: Any) -> Change:
    def change(ops: list[Json], _: Json) -> None:
        [op for op in ops if op["type"] == kind][number]["main"].update(values)

    return graph(change)


def _relu(ops: list[Json], _: Json) -> None:
    operators(ops, "layers.1/self_attn/v_proj", "Convolution")[0]["main"]["common"]["relu"] = True


def _gelu(ops: list[Json], _: Json) -> None:
    gate = next(op for op in ops if op["type"] == "BinaryOp" and op["main"]["opType"] == "MUL_SILU")
    gate["main"]["opType"] = "MUL"


def _lowest(ops: list[Json], _: Json) -> None:
    operators(ops, "layers.1/mlp/down_proj", "Convolution")[0]["main"]["quanParameter"]["aMin"] = -8


def _one_rotation(ops: list[Json], _: Json) -> None:
    """The keys of one layer are rotated by the sines for the cosines."""
    rope = [op for op in ops if op["type"] == "RoPE"][1]
    rope["inputIndexes"][2], rope["inputIndexes"][3] = rope["inputIndexes"][3], rope["inputIndexes"][2]


def _other_bytes(name: str, count: int) -> Callable[[list[Json], Json], None]:
    def change(ops: list[Json], _: Json) -> None:
        operators(ops, name, "Convolution")[0]["main"]["external"][0] += count

    return change


W4, UW4, OLD = "tied-w4-361", "untied-w4-361", "untied-w4-005"
FAULTS: Final[dict[str, tuple[str, Change]]] = {
    "embedding with bytes to spare": (UW4, edit(TABLE, _longer)),
    "weights with bytes to spare": (W4, edit(WEIGHTS, _longer)),
    "one code of one layer": (W4, runs("/layers.2/mlp/up_proj", _one_code)),
    "nibbles of a layer exchanged": (W4, runs("/layers.2/mlp/up_proj", _nibbles)),
    "a page of a layer is zero": (W4, runs("/layers.2/mlp/down_proj", _page)),
    "64 bytes of scales are zero": (W4, runs("/layers.1/mlp/gate_proj", _no_scales)),
    "zero points of a layer dropped": (W4, runs("/layers.1/mlp/gate_proj", _no_minima)),
    "one scale of one block doubled": (W4, runs("/layers.1/mlp/gate_proj", _one_scale)),
    "4 digits of the scales cut": (W4, runs("/layers.3/mlp/down_proj", _cut_digits)),
    "scales of the next block": (W4, runs("/layers.3/mlp/down_proj", _next_block)),
    "heads of q_proj moved by one": (W4, runs("/layers.3/self_attn/q_proj", _next_head)),
    "columns of o_proj moved": (UW4, runs("/layers.1/self_attn/o_proj", _next_column)),
    "bias of q_proj zeroed": (W4, runs("/layers.0/self_attn/q_proj", _no_bias)),
    "bias of v_proj negated": (W4, runs("/layers.2/self_attn/v_proj", _negative_bias)),
    "two rows of the head exchanged": (UW4, runs("/lm/lm_head", _two_rows)),
    "two rows of a tied head exchanged": (W4, runs("/lm/lm_head", _two_rows)),
    "a norm times 1.05": (W4, _norm(1.05, 0, "blocks.2/post_attention_layernorm")),
    "q_norm times 1.05": (UW4, _norm(1.05, 0, "q_norm")),
    "half of a norm is zero": (UW4, _norm(0.0, 64, "blocks.1/input_layernorm")),
    "the last norm times 1.02": (UW4, _norm(1.02, 0, "hidden_states")),
    "two rows of the embedding exchanged": (UW4, edit(TABLE, _table_rows)),
    "embedding shifted by one token": (UW4, edit(TABLE, _table_shifted)),
    "embedding big-endian": (UW4, edit(TABLE, _big_endian)),
    "embedding as float16": (UW4, edit(TABLE, _as_half)),
    "a page of the embedding is zero": (UW4, edit(TABLE, _zeros(40960, 45056))),
    "last 5 % of the weights are zero": (UW4, edit(WEIGHTS, _end_of_download)),
    "weights are a git-lfs pointer": (W4, edit(WEIGHTS, _pointer)),
    "embedding is a git-lfs pointer": (UW4, edit(TABLE, _pointer)),
    "weights of the hqq export": (W4, take(WEIGHTS, "tied-hqq-361")),
    "graph of the 8-bit export": (W4, take("llm.mnn", "tied-w8-361")),
    "export_args.json of an older run": (W4, take("export_args.json", "tied-w8-361")),
    "tokenizer cut": (W4, edit("tokenizer.mtok", lambda data: data[:40000])),
    "tokenizer has no end": (W4, text_change("tokenizer.mtok", "\n0 2 1 2\n", "\n0 2 1 5\n")),
    "token with another id": (
        W4,
        edit("tokenizer.mtok", lambda data: np.concatenate([data[:27], data[34:41], data[27:34], data[41:]])),
    ),
    "another file of weights is named": (W4, _named_weights),
    "hidden_size doubled": (UW4, keys("llm_config.json", hidden_size=256)),
    "layer_nums one less": (W4, keys("llm_config.json", layer_nums=3)),
    "attention_mask int": (W4, keys("llm_config.json", attention_mask="int")),
    "attention_type sliding": (W4, keys("llm_config.json", attention_type="sliding", sliding_window=8)),
    "is_mrope": (W4, keys("llm_config.json", is_mrope=True)),
    "attn_scale missing digits": (W4, keys("llm_config.json", attn_scale=0.17)),
    "tie_embeddings lost": (W4, keys("llm_config.json", tie_embeddings=None)),
    "tie_embeddings added": (UW4, _tied_to_head),
    "jinja without eos": (W4, jinja(eos=None)),
    "jinja with another eos": (W4, jinja(eos="<|endoftext|>")),
    "template cut": (W4, _template_cut),
    "role of the template renamed": (W4, text_change("llm_config.json", "assistant", "model")),
    "attn_scale twice, the first is wrong": (W4, _first_key_wins),
    "config.json cut": (W4, edit("config.json", lambda data: data[:300])),
    "attention without cache": (W4, _of_kind("Attention", 1, kv_cache=False)),
    "norm subtracts the mean": (W4, _of_kind("LayerNorm", 2, useRMSNorm=False)),
    "RoPE cuts half of a head": (W4, _of_kind("RoPE", 1, rope_cut_head_dim=16)),
    "cosines for sines in one layer": (W4, graph(_one_rotation)),
    "ReLU after v_proj": (W4, graph(_relu)),
    "product for SiLU": (W4, graph(_gelu)),
    "aMin of one layer": (W4, graph(_lowest)),
    "a layer reads 2 bytes further": (W4, graph(_other_bytes("layers.1/mlp/down_proj", 2))),
}
HARMLESS: Final[dict[str, tuple[str, Change]]] = {
    "jinja with a bos": (W4, jinja(bos="<|endoftext|>")),
    "attention of another layer's cache": (W4, _of_kind("Attention", 2, layer_index=1)),
    "attnScale in the graph": (W4, _of_kind("Attention", 0, attnScale=0.3)),
    "backend of a GPU": (W4, keys("config.json", backend_type="opencl")),
    "a graph of an older export left": (
        W4,
        lambda folder: shutil.copyfile(folder.parent.parent / "exports/tied-w8-361/llm.mnn", folder / "llm_old.mnn"),
    ),
    "an embedding that nothing reads": (
        W4,
        lambda folder: shutil.copyfile(folder.parent.parent / "exports/untied-w4-361" / TABLE, folder / TABLE),
    ),
}
