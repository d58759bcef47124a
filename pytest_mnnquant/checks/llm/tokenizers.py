"""Tokenizer and chat template of an export: those of the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pytest_mnnquant.checks.llm.evidence import ExportEvidence
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding
from pytest_mnnquant.llm.config import MODEL_CONFIG
from pytest_mnnquant.llm.source_tokenizer import SourceTokenizer
from pytest_mnnquant.llm.tokenizer import Tokenizer

AGAIN: Final = "export this source again"
#: Models whose exporter writes a chat template of its own, since the runtime can't read theirs.
_OTHER_TEMPLATES: Final = ("gemma4", "glm_ocr", "qwen3_asr", "hunyuan_vl")


def compare_tokenizers(evidence: ExportEvidence) -> Iterator[Finding]:
    """Compare tokens, merges, special tokens and template."""
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
        yield Finding("MNQ121", message, stored.file, fix=AGAIN)
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


def _special_texts(evidence: ExportEvidence, source: SourceTokenizer) -> Iterator[Finding]:
    """The texts that the runtime gives to the template as the first and the last token of a text.

    Without a template exporters write none, and another template may need others. Some classes of transformers have
    tokens that no file names.
    """
    config = evidence.folder.config
    if not _is_template_of(config.chat_template, source) or config.model_type in _OTHER_TEMPLATES:
        return
    known = {*source.tokens, *(token.text for token in source.added)}
    pairs = (("bos", config.bos, source.first_text), ("eos", config.eos, source.last_text))
    for key, stored, expected in pairs:
        if stored == expected or (not expected and (not stored or stored in known)):
            continue
        has = f"{stored!r} as {key}" if stored else f"no {key}"
        right = f"the source has {expected!r}" if expected else "which is not a token of the source"
        message = f"llm_config.json has {has}, {right}"
        yield Finding("MNQ123", message, f"jinja.{key}", fix=AGAIN)


def _special(evidence: ExportEvidence, stored: Tokenizer, source: SourceTokenizer) -> Iterator[Finding]:
    lacking = sorted(set(source.stop_ids) - set(stored.stop_ids))
    if source.stop_ids and not set(source.stop_ids) & set(stored.stop_ids):
        message = f"it stops at the tokens {list(stored.stop_ids)}, the source at {list(source.stop_ids)}"
        yield Finding("MNQ123", message, stored.file, fix=AGAIN)
    elif lacking:
        message = f"it does not stop at the tokens {lacking}, which end the source's texts"
        cause = Cause("generation-config-unread", "exporters before 3.6 read the end of a text from config.json alone")
        yield Finding("MNQ123", message, stored.file, cause, "export with llmexport 3.6.1 or later", as_warning=True)
    plain = sorted(set(stored.stop_ids) - set(source.stop_ids) - {token.id for token in source.added})
    if source.stop_ids and plain:
        texts = {number: text for text, number in source.tokens.items()}
        message = f"it stops at the token {plain[0]} ({texts.get(plain[0], 'none')!r}), which does not end texts"
        yield Finding("MNQ123", message, stored.file, fix=AGAIN)
    yield from _special_texts(evidence, source)
    if -1 not in source.single:
        return  # The program around a text is not in tokenizer.json.
    prefix = source.single[: source.single.index(-1)]
    if stored.prefix_ids != prefix:
        message = f"it puts the tokens {list(stored.prefix_ids)} before a text, the source {list(prefix)}"
        yield Finding("MNQ123", message, stored.file, fix=AGAIN)


def _template(evidence: ExportEvidence, source: SourceTokenizer) -> Iterator[Finding]:
    config = evidence.folder.config
    is_unknown = MODEL_CONFIG not in evidence.folder.sizes
    if is_unknown or not source.templates or config.model_type in _OTHER_TEMPLATES:
        return
    if not config.chat_template:
        yield Finding("MNQ122", "llm_config.json has no chat template, the source has one", "jinja", fix=AGAIN)
    elif not _is_template_of(config.chat_template, source):
        place = _first_other_letter(config.chat_template, source.templates[0])
        message = f"the chat template in llm_config.json is not the source's: it differs from letter {place} on"
        yield Finding("MNQ122", message, "jinja", fix=AGAIN)


def _is_template_of(template: str, source: SourceTokenizer) -> bool:
    return template.strip() in {other.strip() for other in source.templates}


def _first_other_letter(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((number for number, (one, two) in pairs if one != two), min(len(first), len(second)))
