"""Bundle of an export: its files are there, are of this export, and say the same; the runtime reads what was stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import BundleMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.config import MODEL_CONFIG, NamedFile
from pytest_mnnquant.llm.embedding import NAME
from pytest_mnnquant.llm.extents import FileMap
from pytest_mnnquant.llm.folder import ExportFolder, Purpose
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.pointers import FIX, PROBLEM

#: The last runtime that decodes every tied embedding that is not of 8 bits as one of 4 bits.
_FOUR_BITS_ONLY: Final = (3, 6, 1)
_TOGETHER: Final = "keep the files of one export together: export again into an empty folder"


def check_bundle(evidence: ExportEvidence) -> Result:
    """Judge the files by themselves."""
    folder = evidence.folder
    findings = [
        *_pointers(folder),
        *_missing(folder),
        *_without_pointers(folder, (*_faults(folder), *_lengths(folder), *_contradictions(folder))),
        *_runtime(folder),
        *_leftovers(folder),
    ]
    files = [file for file in folder.files if file.purpose not in (Purpose.DUMP, Purpose.LEFTOVER, Purpose.OPTIONS)]
    metrics = BundleMetrics(tuple(file.name for file in files), folder.shipped_size)
    return Result.from_findings("bundle", findings, metrics)


def _missing(folder: ExportFolder) -> Iterator[Finding]:
    for named in folder.config.files:
        is_guess = named.key == "embedding_file" and MODEL_CONFIG not in folder.sizes
        if named.file in folder.sizes or is_guess:
            continue
        if named.key == "llm_weight":
            needed = folder.graph.external_needed
            message = f"{named.file} is missing: {folder.graph.file} needs {needed:,} bytes of it"
            yield Finding("MNQ803", message, named.file, fix=_TOGETHER)
            continue
        by = f"config.json names it as {named.key}" if named.is_given else f"the runtime opens it without {named.key}"
        layer = NAME if named.key == "embedding_file" else named.file
        yield Finding("MNQ810", f"{named.file} is missing; {by}", layer, *_why_missing(folder, named))


def _why_missing(folder: ExportFolder, named: NamedFile) -> tuple[Cause | None, str]:
    options = folder.options
    if named.key == "embedding_file":
        if options is not None and options.tied and options.embedding_bits < 16 and folder.is_tied:
            text = (
                "the embedding is tied to the head: exporters then ignore --embed_bit, and name the file all the same"
            )
            return Cause("embedding-is-tied", text), "export again with --seperate_embed, or without --embed_bit"
        others = [file.name for file in folder.files if file.name.startswith("embeddings_")]
        if others and not named.is_given:
            cause = Cause("embedding-not-named", f"config.json does not name {others[0]}, which is there")
            return cause, f'add "embedding_file": "{others[0]}" to config.json'
    return None, _TOGETHER


def _pointers(folder: ExportFolder) -> Iterator[Finding]:
    for name in sorted(folder.pointers):
        layer = NAME if name == folder.config.file("embedding_file") else name
        cause = Cause("git-lfs-pointer", "Git LFS has not downloaded the file")
        code = "MNQ803" if name == folder.graph.weight_file else "MNQ811"
        yield Finding(code, f"{name} has {folder.sizes[name]:,} bytes: {PROBLEM}", layer, cause, FIX)


def _without_pointers(folder: ExportFolder, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings that are not on the content of a file that is not there."""
    names = {*folder.pointers, *([NAME] if folder.config.file("embedding_file") in folder.pointers else [])}
    return (finding for finding in findings if finding.layer not in names)


def _faults(folder: ExportFolder) -> Iterator[Finding]:
    for fault in folder.faults:
        yield Finding("MNQ811", str(fault), fault.file, fix=_TOGETHER)


def _lengths(folder: ExportFolder) -> Iterator[Finding]:
    for item in folder.maps:
        is_embedding = folder.embedding is not None and item.file == folder.embedding.file and not folder.is_tied
        if item.file not in folder.sizes and item.file == folder.graph.weight_file:
            continue  # Reported as missing.
        if item.missing:
            needed = item.size + item.missing
            has = f"has {item.size:,} bytes" if item.file in folder.sizes else "is missing"
            code, layer = ("MNQ811", NAME) if is_embedding else ("MNQ803", item.file)
            yield Finding(code, f"{item.file} {has}, {needed:,} bytes are needed", layer, fix=_TOGETHER)
        elif item.unused or item.overlaps:
            yield Finding("MNQ812", _unaccounted(item), item.file, _first_overlap(item), fix=_TOGETHER)


def _unaccounted(item: FileMap) -> str:
    if item.overlaps:
        shared = sum(overlap.length for overlap in item.overlaps)
        return f"{shared:,} bytes of {item.file} belong to two layers"
    return f"{item.unused:,} of {item.size:,} bytes of {item.file} belong to no layer (first: {item.gaps[0].offset:,})"


def _first_overlap(item: FileMap) -> Cause | None:
    if not item.overlaps:
        return None
    first = item.overlaps[0]
    return Cause("layers-overlap", f"{first.first.owner} and {first.second.owner} share bytes")


def _contradictions(folder: ExportFolder) -> Iterator[Finding]:
    config, graph, head = folder.config, folder.graph, folder.graph.head
    if MODEL_CONFIG in folder.sizes:
        for key, value in (("hidden_size", config.hidden_size), ("layer_nums", config.layers)):
            if value <= 0:
                message = f"llm_config.json has no {key}: the runtime then takes a default, whatever the graph has"
                yield Finding("MNQ813", message, key, fix=_TOGETHER)
    if config.layers and graph.layer_count and config.layers != graph.layer_count:
        message = f"llm_config.json has layer_nums {config.layers}, {graph.file} has {graph.layer_count} layers"
        yield Finding("MNQ813", message, "layer_nums", fix=_TOGETHER)
    if head is not None and config.hidden_size and config.hidden_size != head.columns:
        message = f"llm_config.json has hidden_size {config.hidden_size}, the head takes {head.columns} inputs"
        yield Finding("MNQ813", message, "hidden_size", fix=_TOGETHER)
    elif folder.embedding is not None and head is not None:
        yield from _embedding(folder, folder.embedding, head)


def _embedding(folder: ExportFolder, embedding: StoredMatrix, head: StoredMatrix) -> Iterator[Finding]:
    if folder.is_tied:
        # Without a header where the graph points, the place of the head's codes is not known.
        problem = "" if head.fault else _tied_problem(embedding, head)
        if problem:
            text = "the runtime reads the embedding by tie_embeddings, and the head by the graph"
            yield Finding("MNQ813", problem, NAME, Cause("embedding-misplaced", text), _TOGETHER)
        return
    if embedding.fault:
        code = "MNQ811" if folder.config.tied is None else "MNQ813"
        yield Finding(code, f"{embedding.file}: {embedding.fault}", NAME, fix=_TOGETHER)
    elif embedding.rows != head.rows:
        message = f"{embedding.file} has {embedding.rows:,} rows of {embedding.columns}, the head has {head.rows:,}"
        yield Finding("MNQ811", message, NAME, fix=_TOGETHER)


def _tied_problem(embedding: StoredMatrix, head: StoredMatrix) -> str:
    """What `tie_embeddings` and the head of the graph contradict each other in; empty if nothing."""
    start = head.codes.offset + head.header
    expected = {
        "weight_offset": (embedding.codes.offset, start),
        "alpha_offset": (embedding.scales.offset, head.scales.offset if head.is_quantized else embedding.scales.offset),
        "alpha_size": (embedding.scales.length, head.scales.length),
        "quant_bit": (embedding.bits, head.bits),
        "scale bits": (embedding.scale_bits, head.scale_bits),
        "quant_block": (embedding.block, head.block),
        "symmetry": (embedding.symmetric, head.symmetric),
    }
    wrong = [f"{key} {found}, the head has {right}" for key, (found, right) in expected.items() if found != right]
    if embedding.fault:
        return f"tie_embeddings: {embedding.fault}"
    return f"tie_embeddings has {'; '.join(wrong)}" if wrong else ""


def _runtime(folder: ExportFolder) -> Iterator[Finding]:
    """What MNN reads otherwise than it is stored, and what it expands."""
    embedding = folder.embedding
    if folder.is_tied and embedding is not None and embedding.bits < 4 and _version(folder) <= _FOUR_BITS_ONLY:
        message = f"the tied embedding has {embedding.bits} bits, which MNN up to 3.6.1 reads as 4 bits"
        text = "its embedding reader decodes all but 8 and 16 bits as 4 bits, so every token gets wrong values"
        fix = "--lm_quant_bit 4 (or 8), or --seperate_embed"
        yield Finding("MNQ815", message, NAME, Cause("embedding-read-as-four-bits", text), fix)
    if any(matrix.is_quantized for matrix in folder.graph.matrices) and folder.config.memory != "low":
        message = f'config.json has "memory": "{folder.config.memory}": MNN expands the weights to floats when it loads'
        yield Finding("MNQ816", message, "memory", fix='"memory": "low"')


def _version(folder: ExportFolder) -> tuple[int, ...]:
    """The version of MNN that made the graph; all zeros if it is not known."""
    parts = folder.graph.version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) and parts != [""] else (0,)


def _leftovers(folder: ExportFolder) -> Iterator[Finding]:
    names = [file.name for file in folder.files if file.purpose is Purpose.LEFTOVER]
    if names:
        size = sum(folder.sizes[name] for name in names)
        more = f" and {len(names) - 1} other files" if len(names) > 1 else ""
        yield Finding("MNQ814", f"nothing reads {names[0]}{more} ({size:,} bytes)", names[0], fix="do not ship it")
