"""Binds what an export stores to the tensors of its source, by name.

An exporter names the matrix of `model.layers.3.mlp.up_proj` `/layers.3/mlp/up_proj/Linear`, and the norm before it
`/blocks.3/post_attention_layernorm/...`. Sources put any prefix before `layers.`, and may hold q, k and v, or gate and
up, in one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.llm.bound import BoundMatrix, BoundVector, SourceRows
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.content_binding import bind_by_content
from pytest_mnnquant.llm.folder import ExportFolder
from pytest_mnnquant.llm.graph import StoredVector
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.source_config import SourceConfig

_TOWERS: Final = re.compile(r"(^|\.)(visual|vision|vision_tower|vision_model|audio|audio_tower|mtp|talker)\.")
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.(.+)$")
_NORM: Final = re.compile(r"/?blocks\.(\d+)[/.](.*?)(?:/\w+|\.weight)$")
_FUSED_QKV: Final = ("self_attn.qkv_proj", "self_attn.W_pack", "self_attn.query_key_value")
_FUSED_GATE: Final = ("mlp.gate_up_proj",)
_LAST_NORMS: Final = ("norm", "final_layernorm", "ln_f")
#: Tensors beside weights that a linear layer of a GPTQ checkpoint has.
_CODES: Final = (".qweight", ".qzeros", ".scales", ".g_idx")


@dataclass(frozen=True)
class Binding:
    """What belongs to what. `missing` are tensors of the source that nothing in the export is bound to.

    `unbound` are stored matrices without a tensor in the source.
    """

    matrices: tuple[BoundMatrix, ...]
    vectors: tuple[BoundVector, ...]
    unbound: tuple[StoredMatrix, ...]
    missing: tuple[str, ...]


def bind(folder: ExportFolder, source: Checkpoint) -> Binding:
    """Bind the language model and its embedding to the source."""
    stems = source_stems(source)
    matrices, unbound = [], []
    for stored in folder.graph.matrices:
        rows = rows_named(short_name(stored.name), stems, source)
        if rows is None:
            unbound.append(stored)
        else:
            matrices.append(BoundMatrix(stored, rows))
    table = stems.get("embed_tokens")
    if folder.embedding is not None and table is not None:
        matrices.append(BoundMatrix(folder.embedding, SourceRows(table, 0, _height(source, table))))
    vectors = tuple(_vectors(folder, stems, source))
    free = _free_stems(source, stems, matrices, vectors)
    bound_names = {vector.stored.name for vector in vectors}
    left = [vector for vector in (*folder.graph.vectors, *folder.graph.constants) if vector.name not in bound_names]
    more = bind_by_content(folder, source, unbound, left, free) if source.has_values else None
    if more is not None:
        matrices, vectors, unbound = [*matrices, *more.matrices], (*vectors, *more.vectors), list(more.unbound)
    free = _free_stems(source, stems, matrices, vectors)
    if any(vector.kind == "LayerNorm" for vector in folder.graph.vectors if _is_free(vector, vectors)):
        free = {name: stem for name, stem in free.items() if name not in _LAST_NORMS}  # One may be the last norm.
    missing = tuple(sorted(stem for stem in free.values() if not stem.endswith("inv_freq")))
    return Binding(tuple(matrices), vectors, tuple(unbound), missing)


def _free_stems(
    source: Checkpoint, stems: Mapping[str, str], matrices: Iterable[BoundMatrix], vectors: Iterable[BoundVector]
) -> dict[str, str]:
    """The tensors that nothing is bound to, by short name."""
    used = {bound.source.stem for bound in matrices} | {bound.source.removesuffix(".weight") for bound in vectors}
    if source.config.tied and "lm_head" in stems:
        used.add(stems["lm_head"])
    return {short: stem for short, stem in stems.items() if stem not in used}


def _is_free(vector: StoredVector, bound: tuple[BoundVector, ...]) -> bool:
    return all(item.stored is not vector for item in bound)


def source_stems(source: Checkpoint) -> dict[str, str]:
    """Names from the number of the layer on (or the last part), to the full names without `.weight`."""
    stems: dict[str, str] = {}
    for name in source.tensors:
        if _TOWERS.search(name):
            continue
        stem = _without_kind(name)
        match = _LAYER.search(stem)
        short = f"{match[1]}.{match[2]}" if match else stem.rpartition(".")[2]
        stems.setdefault(short, stem)
    return stems


def _without_kind(name: str) -> str:
    for kind in (".weight", ".bias", *_CODES):
        if name.endswith(kind):
            return name.removesuffix(kind)
    return name


def _height(source: Checkpoint, stem: str) -> int:
    """Rows of a layer: output features, or tokens."""
    if f"{stem}.weight" in source.tensors:
        return source.tensors[f"{stem}.weight"].shape[0]
    if f"{stem}.qweight" in source.tensors:
        return source.tensors[f"{stem}.qweight"].shape[-1]
    return 0


def short_name(name: str) -> str:
    """The name of a matrix of an export as `source_stems` has it; empty if it is neither of a layer nor the head."""
    parts = [part for part in name.split("/") if part]
    if "lm_head" in parts:
        return "lm_head"
    match = _LAYER.search(".".join(parts[:-1] if parts and parts[-1] == "Linear" else parts))
    return f"{match[1]}.{match[2]}" if match else ""


def norm_name(name: str) -> str:
    """The name of a norm of an export as `source_stems` has it; empty if it is not of a layer."""
    match = _NORM.match(name)
    return f"{match[1]}.{match[2].replace('/', '.')}" if match else ""


def rows_named(short: str, stems: Mapping[str, str], source: Checkpoint) -> SourceRows | None:
    """The rows of the source that make a matrix, by its short name; None if the source has none."""
    if short == "lm_head" and short not in stems:
        short = "embed_tokens"
    if short in stems:
        return SourceRows(stems[short], 0, _height(source, stems[short]))
    number, _, layer = short.partition(".")
    return _fused_rows(number, layer, stems, source.config)


def _fused_rows(number: str, layer: str, stems: Mapping[str, str], config: SourceConfig) -> SourceRows | None:
    query, shared = config.heads * config.head_size, config.key_value_heads * config.head_size
    parts = {
        "self_attn.q_proj": (_FUSED_QKV, 0, query),
        "self_attn.k_proj": (_FUSED_QKV, query, query + shared),
        "self_attn.v_proj": (_FUSED_QKV, query + shared, query + 2 * shared),
        "mlp.gate_proj": (_FUSED_GATE, 0, config.inner_size),
        "mlp.up_proj": (_FUSED_GATE, config.inner_size, 2 * config.inner_size),
    }
    names, start, stop = parts.get(layer, ((), 0, 0))
    stem = next((stems[f"{number}.{name}"] for name in names if f"{number}.{name}" in stems), None)
    return None if stem is None else SourceRows(stem, start, stop)


def _vectors(folder: ExportFolder, stems: Mapping[str, str], source: Checkpoint) -> Iterator[BoundVector]:
    """Norms by their names; the one that is left is the norm before the head."""
    left = []
    for vector in (*folder.graph.vectors, *folder.graph.constants):
        stem = stems.get(norm_name(vector.name))
        is_scalar = vector.kind == "Const" and vector.values.size == 1  # Such as the 1 that Gemma adds to a weight.
        if stem is not None and not is_scalar:
            yield BoundVector(vector, f"{stem}.weight")
        elif vector.kind == "LayerNorm":
            left.append(vector)
    last = last_norm(stems)
    if last and len(left) == 1:
        yield BoundVector(left[0], f"{last}.weight")


def last_norm(stems: Mapping[str, str]) -> str:
    """The full name of the norm before the head; empty if there is none."""
    return next((stems[name] for name in _LAST_NORMS if name in stems), "")
