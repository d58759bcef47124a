"""Conversion of an export: the same architecture, constants, tokenizer and chat template as the source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.file_metrics import ConversionMetrics
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.config import MODEL_CONFIG
from pytest_mnnquant.llm.matrix import StoredMatrix
from pytest_mnnquant.llm.rotary import frequencies, table_frequencies
from pytest_mnnquant.llm.source_tokenizer import SourceTokenizer
from pytest_mnnquant.llm.tokenizer import Tokenizer
from pytest_mnnquant.mnnfile.storage import Floats

_AGAIN: Final = "export this source again"
_TOLERANCE: Final = 1e-3
#: Exporters pass constants through JSON, in which MNN writes 6 decimals.
_JSON_ROUNDING: Final = 2e-6
#: Models whose exporter writes a chat template of its own, since the runtime can't read theirs.
_OTHER_TEMPLATES: Final = ("gemma4", "glm_ocr", "qwen3_asr", "hunyuan_vl")
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
    findings = [*_architecture(evidence), *_missing(evidence), *_constants(evidence), *_tokenizer(evidence)]
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
        yield Finding("MNQ120", f"the export has {'; '.join(wrong)}", fix=_AGAIN)


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
        yield Finding("MNQ125", "no layer of the export has the name of a tensor of the source", fix=_AGAIN)
    elif missing and not binding.unbound and len(missing) < len(binding.matrices):
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        yield Finding("MNQ125", f"the export holds nothing of {missing[0]}{more}", missing[0], fix=_AGAIN)


def _constants(evidence: ExportEvidence) -> Iterator[Finding]:
    config, graph = evidence.source.config, evidence.folder.graph
    if config.rope_type == "default" and config.rope_base > 0 and config.head_size >= 4:
        expected = frequencies(config.head_size, config.rope_base)
        stored = _stored_frequencies(evidence, expected.size)
        for name, values in stored.items():
            if not np.allclose(values, expected, rtol=_TOLERANCE, atol=_JSON_ROUNDING):
                middle = expected.size // 2
                base = float(values[middle]) ** (-expected.size / middle)
                message = f"positions are rotated by a base of about {base:.4g}, the source has {config.rope_base:g}"
                yield Finding("MNQ124", message, name, fix=_AGAIN)
                break
    for vector in graph.vectors:
        if config.epsilon and vector.epsilon and abs(vector.epsilon / config.epsilon - 1) > _TOLERANCE:
            message = f"its epsilon is {vector.epsilon:g}, the source has {config.epsilon:g}"
            yield Finding("MNQ124", message, vector.name, fix=_AGAIN)
            break
    scale = evidence.folder.config.attention_scale
    if scale and config.head_size and config.model_type in _PLAIN:
        expected_scale = config.head_size**-0.5
        if abs(scale / expected_scale - 1) > _TOLERANCE:
            message = f"attn_scale is {scale:g}, a head of {config.head_size} needs {expected_scale:g}"
            yield Finding("MNQ124", message, "attn_scale", fix=_AGAIN)


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


def _tokenizer(evidence: ExportEvidence) -> Iterator[Finding]:
    stored, source = evidence.folder.tokenizer, evidence.tokenizer
    if evidence.tokenizer_problem:
        yield Finding("MNQ314", f"the source's tokenizer can't be compared: {evidence.tokenizer_problem}")
    if stored is None or source is None:
        return
    if stored.kind == "pipeline":
        yield from _vocabulary(stored, source)
        yield from _special(evidence, stored, source)
    elif stored.size < source.size:
        message = f"{stored.file} has {stored.size:,} tokens, the source {source.size:,}"
        yield Finding("MNQ121", message, stored.file, fix=_AGAIN)
    yield from _template(evidence, source)


def _vocabulary(stored: Tokenizer, source: SourceTokenizer) -> Iterator[Finding]:
    wrong = []
    if stored.tokens != source.tokens:
        wrong.append(_first_difference(stored.tokens, source.tokens))
    if stored.merges != source.merges:
        number = next(
            (n for n, pair in enumerate(zip(stored.merges, source.merges, strict=False)) if pair[0] != pair[1]),
            min(len(stored.merges), len(source.merges)),
        )
        wrong.append(f"merges from number {number} on")
    wrong += [
        f"{name} {stored.steps[name]!r}, the source {step!r}"
        for name, step in source.steps.items()
        if stored.steps.get(name) != step
    ]
    if stored.added != source.added:
        wrong.append("added tokens")
    if wrong:
        message = f"{stored.file} is not the source's tokenizer: {wrong[0][:200]}"
        text = f"it differs in {len(wrong)} parts" if len(wrong) > 1 else "the exporter read another tokenizer"
        fix = "give --tokenizer_path the folder of the source, and export again"
        yield Finding("MNQ121", message, stored.file, Cause("other-tokenizer", text), fix)


def _first_difference(stored: Mapping[str, int], source: Mapping[str, int]) -> str:
    text = next((text for text, number in source.items() if stored.get(text) != number), None)
    if text is None:
        return f"{len(stored) - len(source):,} tokens more than the source"
    return f"token {text!r} has the id {stored.get(text, 'none')}, in the source {source[text]}"


def _end_text(evidence: ExportEvidence, source: SourceTokenizer) -> Iterator[Finding]:
    """The end token by which the template ends a turn must be a token of the source."""
    end = evidence.folder.config.eos
    if end and end not in source.tokens and end not in {token.text for token in source.added}:
        message = f"llm_config.json ends a turn by {end!r}, which is not a token of the source"
        yield Finding("MNQ123", message, "jinja.eos", fix=_AGAIN)


def _special(evidence: ExportEvidence, stored: Tokenizer, source: SourceTokenizer) -> Iterator[Finding]:
    lacking = sorted(set(source.stop_ids) - set(stored.stop_ids))
    if source.stop_ids and not set(source.stop_ids) & set(stored.stop_ids):
        message = f"it stops at the tokens {list(stored.stop_ids)}, the source at {list(source.stop_ids)}"
        yield Finding("MNQ123", message, stored.file, fix=_AGAIN)
    elif lacking:
        message = f"it does not stop at the tokens {lacking}, which end the source's texts"
        cause = Cause("generation-config-unread", "exporters before 3.6 read the end of a text from config.json alone")
        yield Finding("MNQ123", message, stored.file, cause, "export with llmexport 3.6.1 or later", as_warning=True)
    yield from _end_text(evidence, source)
    if -1 not in source.single:
        return  # The program around a text is not in tokenizer.json.
    prefix = source.single[: source.single.index(-1)]
    if stored.prefix_ids != prefix:
        message = f"it puts the tokens {list(stored.prefix_ids)} before a text, the source {list(prefix)}"
        yield Finding("MNQ123", message, stored.file, fix=_AGAIN)


def _template(evidence: ExportEvidence, source: SourceTokenizer) -> Iterator[Finding]:
    config = evidence.folder.config
    is_unknown = MODEL_CONFIG not in evidence.folder.sizes
    if is_unknown or not source.templates or config.model_type in _OTHER_TEMPLATES:
        return
    if not config.chat_template:
        yield Finding("MNQ122", "llm_config.json has no chat template, the source has one", "jinja", fix=_AGAIN)
    elif config.chat_template.strip() not in {template.strip() for template in source.templates}:
        place = _first_other_letter(config.chat_template, source.templates[0])
        message = f"the chat template in llm_config.json is not the source's: it differs from letter {place} on"
        yield Finding("MNQ122", message, "jinja", fix=_AGAIN)


def _first_other_letter(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (one, two) in pairs if one != two), min(len(first), len(second)))
