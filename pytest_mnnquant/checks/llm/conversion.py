"""Conversion of an export: the same architecture, constants, tokenizer and chat template as the source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.checks.llm.tokenizers import AGAIN, compare_tokenizers
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ConversionMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.architecture import UnknownArchitecture, rotations_of
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.rotary import frequencies, table_frequencies
from pytest_mnnquant.mnnfile.storage import Floats

_TOLERANCE: Final = 1e-3
#: Exporters pass constants through JSON, in which MNN writes 6 decimals.
_JSON_ROUNDING: Final = 2e-6
#: Families whose layers have the shapes that their configuration gives, and others whose name exporters keep.
_PLAIN: Final = ("qwen2", "qwen3", "llama", "mistral")
_FAMILIES: Final = ("gemma", "gemma2", "gemma3", "gemma3_text", "phi3", "chatglm", "baichuan", "internlm2", "smollm3")
#: Tensors that every exporter stores, by the end of their names. Others may be folded into something else.
_STORED: Final = re.compile(
    r"(?:^|\.)(?:[qkvo]_proj|gate_proj|up_proj|down_proj|[qk]_norm|\w+_layernorm|norm|embed_tokens|lm_head)$"
)
#: Positions of a table of rotations that are far enough apart to be compared with frequencies.
_FAR: Final = 8


def check_conversion(evidence: ExportEvidence) -> Result:
    """Compare what the graph, the configuration and the tokenizer say with the source."""
    binding = evidence.binding
    findings = [
        *_architecture(evidence),
        *_missing(evidence),
        *_constants(evidence),
        *_settings(evidence),
        *compare_tokenizers(evidence),
    ]
    metrics = ConversionMetrics(
        outputs_compared=0,
        worst_relative_error=None,
        chain=(),
        chain_lacks="outputs are compared by the checks that run the model",
        converted_twice=(),
        layers_matched=len(binding.matrices),
        layers_missing=len(binding.missing),
    )
    return Result.from_findings("conversion", findings, metrics)


def _architecture(evidence: ExportEvidence) -> Iterator[Finding]:
    config = evidence.source.config
    wrong = [
        f"{name} {found}, the source has {right}"
        for name, found, right in _facts(evidence)
        if found and right and found != right
    ]
    kind, source_kind = evidence.folder.config.model_type, config.model_type
    if {kind, source_kind} <= {*_PLAIN, *_FAMILIES} and not _is_same_family(kind, source_kind):
        wrong.append(f"model_type {kind}, the source has {source_kind}")
    if wrong:
        yield Finding("MNQ120", f"the export has {'; '.join(wrong)}", fix=AGAIN)


def _is_same_family(first: str, second: str) -> bool:
    """Exporters name a family (`qwen2`) as the source does, or by the beginning of its name (`qwen2_vl_text`)."""
    first, second = (name.replace("-", "_").lower() for name in (first, second))
    return first == second or first.startswith(f"{second}_") or second.startswith(f"{first}_")


def _facts(evidence: ExportEvidence) -> list[tuple[str, int, int]]:
    """Numbers of the architecture: what they count, the export's, the source's; 0 if a number is not known."""
    config, graph = evidence.source.config, evidence.folder.graph
    facts = [
        ("layers", graph.layer_count, config.layers),
        ("hidden size", evidence.folder.config.hidden_size, config.hidden_size),
    ]
    if graph.head is not None:
        facts.append(("vocabulary", graph.head.rows, config.vocabulary))
        facts.append(("inputs of the head", graph.head.columns, config.hidden_size))
    if config.model_type not in _PLAIN:  # Others have gates in q_proj, or experts of another width.
        return facts
    shared = config.key_value_heads * config.head_size
    for name, rows in (
        ("q_proj", config.heads * config.head_size),
        ("k_proj", shared),
        ("v_proj", shared),
        ("gate_proj", config.inner_size),
    ):
        facts += [(f"outputs of {name}", matrix.rows, rows) for matrix in _first(graph.matrices, name)]
    return facts


def _first(matrices: tuple[StoredMatrix, ...], name: str) -> list[StoredMatrix]:
    return [matrix for matrix in matrices if f"/{name}/" in matrix.name][:1]


def _missing(evidence: ExportEvidence) -> Iterator[Finding]:
    """Tensors that are nowhere in the export, if most are."""
    binding = evidence.binding
    missing = tuple(stem for stem in binding.missing if _STORED.search(stem))
    if evidence.folder.embedding is None:  # Bundle reports the missing file.
        missing = tuple(stem for stem in missing if not stem.endswith("embed_tokens"))
    if not binding.matrices:
        yield Finding("MNQ125", "no layer of the export has the name of a tensor of the source", fix=AGAIN)
    elif missing and not binding.unbound and len(missing) < len(binding.matrices):
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        yield Finding("MNQ125", f"the export holds nothing of {missing[0]}{more}", missing[0], fix=AGAIN)


def _constants(evidence: ExportEvidence) -> Iterator[Finding]:
    config, graph = evidence.source.config, evidence.folder.graph
    yield from _rotations(evidence)
    for vector in graph.vectors:
        if config.epsilon and vector.epsilon and abs(vector.epsilon / config.epsilon - 1) > _TOLERANCE:
            message = f"its epsilon is {vector.epsilon:g}, the source has {config.epsilon:g}"
            yield Finding("MNQ124", message, vector.name, fix=AGAIN)
            break
    scale = evidence.folder.config.attention_scale
    if scale and config.head_size and config.model_type in _PLAIN:
        expected_scale = config.head_size**-0.5
        if abs(scale / expected_scale - 1) > _TOLERANCE:
            message = f"attn_scale is {scale:g}, a head of {config.head_size} needs {expected_scale:g}"
            yield Finding("MNQ124", message, "attn_scale", fix=AGAIN)


def _rotations(evidence: ExportEvidence) -> Iterator[Finding]:
    config = evidence.source.config
    is_known = config.rope_type == "default" or config.model_type in _PLAIN
    if config.rope_base <= 0 or config.head_size < 4 or not is_known:
        return
    try:
        expected = rotations_of(config)
    except UnknownArchitecture:
        return
    for name, values in _stored_frequencies(evidence, expected.size).items():
        if np.allclose(values, expected, rtol=_TOLERANCE, atol=_JSON_ROUNDING):
            continue
        middle = expected.size // 2
        base = float(values[middle]) ** (-expected.size / middle)
        message = f"positions are rotated by a base of about {base:.4g}, the source has {config.rope_base:g}"
        cause = None
        if config.rope_type != "default":
            message += f" with the scaling {config.rope_type}"
            if np.allclose(
                values, frequencies(config.head_size, config.rope_base), rtol=_TOLERANCE, atol=_JSON_ROUNDING
            ):
                cause = Cause("scaling-unread", f"the exporter does not know the scaling {config.rope_type}")
        fix = AGAIN if cause is None else "export with an exporter that knows this scaling"
        yield Finding("MNQ124", message, name, cause, fix)
        return


def _settings(evidence: ExportEvidence) -> Iterator[Finding]:
    """What the runtime makes attention masks and positions from; older exporters do not write all of it."""
    config, source = evidence.folder.config, evidence.source.config
    if source.model_type not in _PLAIN or config.model_type not in _PLAIN:
        return
    kinds, windows = source.layer_kinds, source.windows
    expected = "full" if not any(windows) else "sliding" if all(windows) else "mix"
    facts = [("attention_mask", config.attention_mask, "float"), ("attention_type", config.attention_type, expected)]
    if expected != "full" and config.attention_type == expected:
        facts.append(("sliding_window", str(config.sliding_window), str(max(windows))))
    if config.attention_type:
        facts.append(("is_mrope", str(config.has_sections).lower(), str(source.has_sections).lower()))
    for key, stored, right in facts:
        if stored and stored != right:
            # Exporters know windows from `layer_types` alone.
            is_unknown = key == "attention_type" and not kinds and stored == "full"
            message = f"llm_config.json has {key} {stored}, the source needs {right}"
            if is_unknown:
                message += f": texts of more than {max(windows)} tokens are computed otherwise"
            yield Finding("MNQ124", message, key, fix=AGAIN, as_warning=is_unknown)


def _stored_frequencies(evidence: ExportEvidence, size: int) -> dict[str, Floats]:
    """Frequencies of positions in the graph, by the name of the constant that holds them."""
    graph = evidence.folder.graph
    found: dict[str, Floats] = {}
    for constant in graph.constants:
        values = constant.values
        if values.shape == (size,) and (values > 0).all() and abs(values[0] - 1) < 1e-6 and (np.diff(values) < 0).all():
            found[constant.name] = values
    for table in graph.tables:
        angles = table_frequencies(table.values)
        is_long = len(table.values) >= _FAR and table.values.shape[1] == size
        if is_long and angles is not None and not np.allclose(table.values[0], 1.0):
            found[table.name] = angles  # Sines: cosines of small angles lose their digits.
    return found
