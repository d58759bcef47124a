"""Whether both tokenizers give the same ids for the same texts, and both templates the same messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

from pytest_mnnquant.evidence.language_runs import LanguageRuns
from pytest_mnnquant.evidence.steps import StepFailed
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import SKIPPED, Finding, Result
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.llm.probes import MESSAGES
from pytest_mnnquant.mnnfile.model import BadModel
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.sources.encodings import Encoded, encode, render, special_tokens

_AGAIN = "give --tokenizer_path the folder of the source, and export again"


def with_encodings(result: Result, compare: Callable[[], Sequence[Finding]]) -> Result:
    """The result of `conversion` with the findings on encodings, if the export runs."""
    if result.outcome == SKIPPED:
        return result
    try:
        findings = compare()
    except (NativeFailure, BadModel, OSError, StepFailed):
        return result  # The check of execution reports it.
    return Result.from_findings(result.check, [*result.findings, *findings], result.metrics)


def compare_encodings(runs: LanguageRuns) -> list[Finding]:
    """Findings on encodings and messages; none if the source's can't be made here. Raises `NativeFailure`."""
    return [*_ids(runs), *_choices(runs), *_messages(runs)]


def _ids(runs: LanguageRuns) -> Iterator[Finding]:
    expected = _expected_ids(runs)
    if expected is None:
        return
    pairs = zip(runs.probes, expected, runs.run.encoded, strict=False)
    different = [(text, first, second) for text, first, second in pairs if first != second]
    if not different:
        return
    text, first, second = different[0]
    place = next((n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), 0)
    message = (
        f"{len(different)} of {len(expected)} texts have other ids than the source's, the first {text[:30]!r}: "
        f"{list(second[place : place + 4])}, source {list(first[place : place + 4])}"
    )
    file = runs.folder.config.file("tokenizer_file")
    if all(unicodedata.normalize("NFC", text) != text for text, _, _ in different):
        cause = Cause("letters-not-composed", "MNN's tokenizer does not join letters and the accents that follow them")
        yield Finding("MNQ126", message, file, cause, "compose such texts (NFC) before encoding", as_warning=True)
        return
    cause = Cause("other-ids", "the export splits texts otherwise, or has another vocabulary")
    yield Finding("MNQ126", message, file, cause, _AGAIN)


def _choices(runs: LanguageRuns) -> Iterator[Finding]:
    """Whether transformers encodes texts otherwise than tokenizer.json, as a reference says."""
    if runs.reference is None:
        return
    stored, chosen = runs.reference.predictions.encoded, runs.reference.predictions.by_transformers
    triples = zip(runs.probes, stored or (), chosen or (), strict=False)
    different = [text for text, first, second in triples if first != second]
    if different:
        message = (
            f"transformers encodes {len(different)} of {len(runs.probes)} texts otherwise than tokenizer.json, "
            f"which the export follows; the first is {different[0][:30]!r}"
        )
        cause = Cause("tokenizer-chosen-by-type", "AutoTokenizer takes the pre-tokenizer of the model's type")
        yield Finding("MNQ128", message, "tokenizer.json", cause, "use the tokenizer that the model was trained with")


def _expected_ids(runs: LanguageRuns) -> Encoded | None:
    if runs.reference is not None:
        return runs.reference.predictions.encoded
    try:
        return encode(runs.evidence.source.path, runs.probes)
    except BadExport:
        return None  # The comparison of files reports a tokenizer that can't be read.


def _messages(runs: LanguageRuns) -> Iterator[Finding]:
    expected = _expected_messages(runs)
    pairs = zip(expected or (), runs.run.rendered, strict=False)
    different = [(first, second) for first, second in pairs if first != second]
    if different:
        first, second = different[0]
        message = f"a message becomes {second[:60]!r}, in the source {first[:60]!r}"
        cause = Cause("template-rendered-otherwise", "the runtime's template engine, or the template, is another one")
        yield Finding("MNQ127", message, "jinja", cause, "compare chat_template in llm_config.json with the source's")


def _expected_messages(runs: LanguageRuns) -> tuple[str, ...] | None:
    if runs.reference is not None:
        return runs.reference.predictions.rendered
    tokenizer = runs.evidence.tokenizer
    if tokenizer is None or not tokenizer.templates:
        return None
    return render(tokenizer.templates[0], special_tokens(runs.evidence.source.path), MESSAGES)
