"""A stored reference: what a source predicts on a text, with everything else that checks need of it but its weights.

One `.npz` file: `logits` in float16 [texts, tokens, vocabulary], `ids` [texts, tokens], the small files of the
checkpoint (`file/NAME`), and `facts`, a JSON object: names, types and shapes of tensors, SHA-256 of weights, tokenizer
and text, ids of the probes, messages in the chat template, greedily generated ids.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_mnnquant.cache.atomic_write import write_whole
from pytest_mnnquant.cache.manifest import content_digest, file_digest
from pytest_mnnquant.llm.checkpoint import Checkpoint
from pytest_mnnquant.llm.forward import Ids
from pytest_mnnquant.llm.json_object import BadExport, JsonObject, parse_json, read_json
from pytest_mnnquant.llm.safetensors import TensorEntry
from pytest_mnnquant.llm.source_config import read_source_config

SUFFIX: Final = ".npz"
_FORMAT: Final = 1
#: The files of a checkpoint that a reference holds.
FILES: Final = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("special_tokens_map.json", "added_tokens.json"),
)


@dataclass(frozen=True)
class Predictions:
    """What a source predicts.

    `encoded` are the ids of the probes by the source's tokenizer.json, `by_transformers` those by the tokenizer that
    transformers chooses, `rendered` the messages in its template; None if the packages for that were missing.
    `generated` follows the first `prompt` ids of the text greedily.
    """

    ids: Ids
    logits: npt.NDArray[np.float16]
    probes: tuple[str, ...]
    encoded: tuple[tuple[int, ...], ...] | None
    by_transformers: tuple[tuple[int, ...], ...] | None
    rendered: tuple[str, ...] | None
    prompt: int
    generated: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """A reference file: the source without the values of its tensors, its predictions, and the text's SHA-256."""

    path: Path
    source: Checkpoint
    predictions: Predictions
    text_digest: str


def require_output(path: Path) -> None:
    """Raise `BadExport` if a reference must not be written to this path: only another reference is replaced."""
    if path.suffix != SUFFIX:
        raise BadExport(str(path), "", f"the name of a reference ends with {SUFFIX}")
    if not path.parent.is_dir():
        raise BadExport(str(path), "", "the folder is missing")
    if path.exists() and not is_reference(path):
        raise BadExport(str(path), "", "the file exists and is not a reference; delete it, or give another name")


def write_reference(path: Path, source: Checkpoint, predictions: Predictions, text: Path) -> None:
    """Replace a reference file atomically. Raises `OSError`, and `BadExport` as `require_output`."""
    require_output(path)
    weights = sorted({entry.file for entry in source.tensors.values()})
    facts = {
        "format": _FORMAT,
        "source": source.path.resolve().name,
        "weights_sha256": content_digest([source.path / name for name in weights]),
        "tokenizer_sha256": content_digest([file for name in FILES[2:] if (file := source.path / name).is_file()]),
        "text_sha256": file_digest(text),
        "tensors": {
            entry.name: {"dtype": entry.dtype, "shape": list(entry.shape), "length": entry.length, "file": entry.file}
            for entry in source.tensors.values()
        },
        "probes": list(predictions.probes),
        "encoded": predictions.encoded and [list(ids) for ids in predictions.encoded],
        "by_transformers": predictions.by_transformers and [list(ids) for ids in predictions.by_transformers],
        "rendered": predictions.rendered and list(predictions.rendered),
        "prompt": predictions.prompt,
        "generated": list(predictions.generated),
    }
    arrays: dict[str, npt.NDArray[np.generic]] = {"ids": predictions.ids, "logits": predictions.logits}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    for name in FILES:
        if (file := source.path / name).is_file():
            arrays[f"file/{name}"] = np.frombuffer(file.read_bytes(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_whole(path, stream.getvalue())


def read_reference(path: Path, folder: Path) -> Reference:
    """Read a reference file; small files of the checkpoint are written to `folder`. Raises `BadExport`, `OSError`."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError):
        raise BadExport(str(path), "", "it is not a reference of a language model") from None
    if not {"facts", "ids", "logits", "file/config.json"} <= arrays.keys():
        problem = "it is not a reference of a language model: pytest-mnnquant reference MODEL -o FILE.npz writes one"
        raise BadExport(str(path), "", problem)
    facts = parse_json(arrays["facts"].tobytes(), path.name)
    if facts.integer("format", 0) != _FORMAT:
        raise facts.fault("format", f"format {facts.integer('format', 0)} is not known, make the reference again")
    for name in FILES:
        if f"file/{name}" in arrays:
            (folder / name).write_bytes(arrays[f"file/{name}"].tobytes())
    config = read_source_config(read_json(folder / "config.json", "config.json"))
    source = Checkpoint(folder, config, _tensors(facts.member("tensors")), has_values=False)
    return Reference(path, source, _predictions(facts, arrays), facts.text("text_sha256"))


def is_reference(path: Path) -> bool:
    """Whether a file looks like a reference: an archive with the members of one."""
    if path.suffix != SUFFIX or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"facts.npy", "logits.npy"} <= set(archive.namelist())


def _tensors(entries: JsonObject) -> dict[str, TensorEntry]:
    tensors = {}
    for name in entries.values:
        entry = entries.member(name)
        tensors[name] = TensorEntry(
            name, entry.text("file"), entry.text("dtype"), entry.integers("shape"), 0, entry.integer("length", 0)
        )
    return tensors


def _predictions(facts: JsonObject, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Predictions:
    ids, logits = arrays["ids"].astype(np.int64), arrays["logits"].astype(np.float16, copy=False)
    if ids.ndim != 2 or logits.ndim != 3 or logits.shape[:2] != ids.shape or not ids.size:
        raise facts.fault("logits", f"logits of the shape {logits.shape} are not those of ids of the shape {ids.shape}")
    return Predictions(
        ids=ids,
        logits=logits,
        probes=tuple(str(item) for item in facts.array("probes")),
        encoded=_encoded(facts, "encoded"),
        by_transformers=_encoded(facts, "by_transformers"),
        rendered=tuple(str(item) for item in facts.array("rendered")) if facts.has("rendered") else None,
        prompt=facts.integer("prompt", 0),
        generated=facts.integers("generated"),
    )


def _encoded(facts: JsonObject, key: str) -> tuple[tuple[int, ...], ...] | None:
    if not facts.has(key):
        return None
    return tuple(JsonObject(facts.file, {key: item}).integers(key) for item in facts.array(key))
