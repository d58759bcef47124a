"""The folder of an export: every file of it, what it is for, and what is stored in it.

Nothing is decoded here; files are mapped, so that a folder of any size costs its graphs and its tokenizer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_mnnquant.llm.config import CONFIG, MODEL_CONFIG, ExportConfig, merge_config, missing_file
from pytest_mnnquant.llm.embedding import read_embedding
from pytest_mnnquant.llm.extents import Extent, FileMap, map_file
from pytest_mnnquant.llm.graph import Graph, read_graph
from pytest_mnnquant.llm.json_object import BadExport, JsonObject, read_json
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.options import ExportOptions, read_options
from pytest_mnnquant.llm.pointers import PROBLEM, is_pointer
from pytest_mnnquant.llm.tokenizer import Tokenizer, read_tokenizer
from pytest_mnnquant.mnnfile.model import BadModel, map_bytes

OPTIONS: Final = "export_args.json"
#: What exporters leave behind and the runtime does not read: dumps of graphs, and the ONNX files between.
_DUMP: Final = ".mnn.json"
_MOST_FILES: Final = 10_000
#: How the names of other graphs start that exporters write.
_PARTS: Final = (
    *("visual", "audio", "lora", "talker", "predit", "dit", "bigvgan", "token2wav", "mtp", "eagle", "dflash"),
    *("embedding", "reranker"),
)


class Purpose(str, enum.Enum):
    """What a file of the folder is for."""

    GRAPH = "graph"
    WEIGHTS = "weights"
    EMBEDDING = "embedding"
    TOKENIZER = "tokenizer"
    CONFIGURATION = "configuration"
    OPTIONS = "options"
    LORA = "lora"
    PART = "part"
    NAMED = "named by the configuration"
    DUMP = "dump"
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file of the folder, by its path in it, and its length in bytes."""

    name: str
    purpose: Purpose
    size: int


@dataclass(frozen=True)
class ExportFolder:
    """An export. `graph` is the language model; `parts` are the other graphs (vision, audio, LoRA).

    `options` are None if the exporter wrote none. `faults` are files that can't be used: malformed, cut or missing.
    `maps` has one entry for each file of weights. `pointers` are files that Git LFS has not downloaded.
    """

    path: Path
    files: tuple[ExportFile, ...]
    config: ExportConfig
    options: ExportOptions | None
    graph: Graph
    parts: tuple[Graph, ...]
    embedding: StoredMatrix | None
    tokenizer: Tokenizer | None
    maps: tuple[FileMap, ...]
    faults: tuple[BadExport, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict, repr=False)
    pointers: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())

    @property
    def shipped_size(self) -> int:
        """Bytes of the files that the runtime reads."""
        unread = (Purpose.DUMP, Purpose.LEFTOVER, Purpose.OPTIONS)
        return sum(file.size for file in self.files if file.purpose not in unread)

    @property
    def is_tied(self) -> bool:
        """Whether the embedding is read from the matrix of the language model's head."""
        return self.config.tied is not None and self.config.tied.weight_offset > 0

    def map_of(self, file: str) -> FileMap | None:
        """The map of a file of weights."""
        return next((item for item in self.maps if item.file == file), None)

    def data(self, file: str) -> memoryview:
        """The bytes of a file, mapped. Raises `BadExport` if it is missing."""
        if file not in self.sizes:
            raise missing_file(file)
        return map_bytes(self.path / file)


def is_export(path: Path) -> bool:
    """Whether a folder looks like the export of a language model."""
    return path.is_dir() and ((path / MODEL_CONFIG).is_file() or (path / "llm.mnn").is_file())


def read_folder(path: Path) -> ExportFolder:
    """Read an export. Raises `BadExport` or `BadModel` if the graph or the configuration can't be read, or `OSError`.

    Faults of other files are kept in `faults`.
    """
    if not path.exists():
        raise BadExport(str(path), "", "no such folder")
    if not is_export(path):
        problem = f"the folder is not an export of a language model: it has neither {MODEL_CONFIG} nor llm.mnn"
        raise BadExport(str(path), "", problem)
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in _files(path)}
    faults: list[BadExport] = []
    config = merge_config(*(_json(path, name, sizes, faults) for name in (CONFIG, MODEL_CONFIG)))
    options = None
    if OPTIONS in sizes:
        try:
            options = read_options(read_json(path / OPTIONS, OPTIONS))
        except BadExport as error:
            faults.append(error)
    weights = path / config.file("llm_weight")
    graph = _graph(path / config.file("llm_model"), weights)
    parts = tuple(_parts(path, config, sizes, faults))
    tokenizer = _tokenizer(path, config, sizes, faults)
    embedding = read_embedding(config, sizes)
    return ExportFolder(
        path=path,
        files=tuple(ExportFile(name, _purpose(name, config, parts), size) for name, size in sorted(sizes.items())),
        config=config,
        options=options,
        graph=graph,
        parts=parts,
        embedding=embedding,
        tokenizer=tokenizer,
        maps=tuple(_maps(graph, parts, embedding, sizes)),
        faults=tuple(faults),
        sizes=sizes,
        pointers=frozenset(name for name in sizes if is_pointer(path / name)),
    )


def _files(path: Path) -> Iterator[Path]:
    number = 0
    for file in path.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            number += 1
            if number > _MOST_FILES:
                raise BadExport(str(path), "", f"more than {_MOST_FILES:,} files are not an export")
            yield file


def _json(path: Path, name: str, sizes: Mapping[str, int], faults: list[BadExport]) -> JsonObject:
    if name in sizes:
        return read_json(path / name, name)
    faults.append(missing_file(name))
    return JsonObject(name, {})


def _graph(path: Path, weights: Path) -> Graph:
    try:
        if is_pointer(path):
            raise BadExport(path.name, "", PROBLEM)
        return read_graph(path, weights)
    except FileNotFoundError:
        raise missing_file(path.name) from None
    except BadExport:
        raise
    except BadModel as error:
        problem = str(error).removeprefix(str(path)).removeprefix(": ").strip()
        raise BadExport(path.name, "", problem) from None


def _parts(path: Path, config: ExportConfig, sizes: Mapping[str, int], faults: list[BadExport]) -> Iterator[Graph]:
    """The other graphs. One for LoRA takes the weights of the language model, which it extends."""
    for name in sorted(sizes):
        if not name.endswith(".mnn") or name == config.file("llm_model") or _is_stray(name, config, sizes):
            continue
        is_lora = name.startswith("lora") and name + ".weight" not in sizes
        weights = config.file("llm_weight") if is_lora else name + ".weight"
        try:
            yield _graph(path / name, path / weights)
        except BadExport as error:
            faults.append(error)


def _is_stray(name: str, config: ExportConfig, sizes: Mapping[str, int]) -> bool:
    """Whether a graph is none of this export: nothing names it, exporters do not, and it has no weights beside it."""
    is_named = any(file.file == name for file in config.files)
    return not is_named and not name.startswith(_PARTS) and name + ".weight" not in sizes


def _tokenizer(path: Path, config: ExportConfig, sizes: Mapping[str, int], faults: list[BadExport]) -> Tokenizer | None:
    name = config.file("tokenizer_file")
    if name not in sizes:
        return None
    try:
        return read_tokenizer(path / name)
    except BadExport as error:
        faults.append(error)
        return None


def _purpose(name: str, config: ExportConfig, parts: tuple[Graph, ...]) -> Purpose:
    named = {config.file("llm_model"): Purpose.GRAPH, config.file("llm_weight"): Purpose.WEIGHTS}
    named |= {config.file("tokenizer_file"): Purpose.TOKENIZER, OPTIONS: Purpose.OPTIONS}
    named |= {CONFIG: Purpose.CONFIGURATION, MODEL_CONFIG: Purpose.CONFIGURATION}
    if config.tied is None or not config.tied.weight_offset:
        named[config.file("embedding_file")] = Purpose.EMBEDDING
    for part in parts:
        named[part.file] = Purpose.LORA if part.file.startswith("lora") else Purpose.PART
        named.setdefault(part.weight_file, Purpose.WEIGHTS)
    if name in named:
        return named[name]
    if any(file.file == name for file in config.files):
        return Purpose.NAMED
    return Purpose.DUMP if name.endswith((_DUMP, ".onnx", ".onnx.data")) else Purpose.LEFTOVER


def _maps(
    graph: Graph, parts: tuple[Graph, ...], embedding: StoredMatrix | None, sizes: Mapping[str, int]
) -> Iterator[FileMap]:
    runs: dict[str, list[Extent]] = {}
    for part in (graph, *parts):
        if part.weight_file:
            runs.setdefault(part.weight_file, []).extend(part.external)
    if embedding is not None and embedding.file not in runs:
        runs[embedding.file] = [embedding.codes, embedding.scales]
    for file, extents in runs.items():
        yield map_file(file, sizes.get(file, 0), extents)
