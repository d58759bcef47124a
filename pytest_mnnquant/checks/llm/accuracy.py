"""Accuracy of an export: its predictions on a text against its source's, and what it generates.

The limits are those of the number of bits, from exports of trained models (docs/llm.md): ten times what healthy ones
have at least, and a fraction of what faults give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from pytest_mnnquant.checks.llm.running import AccuracyEvidence
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.language_metrics import LanguageMetrics
from pytest_mnnquant.measurements.language_model import Generation
from pytest_mnnquant.metrics.divergence import Divergence
from pytest_mnnquant.statistics import intervals

#: Allowed KL divergence by bits.
LIMITS: Final = {16: 0.002, 8: 0.01, 4: 0.1, 3: 0.3, 2: 0.6}
#: A source whose loss is above this share of a guess's predicts nothing.
_CHANCE: Final = 0.95
_NAMED: Final = 3
#: Fewer say nothing: with 256 the standard error of the KL divergence is 4 % of it.
_FEWEST_TOKENS: Final = 32
_SHOWN: Final = 60
_RUNTIME: Final = "runtime-adds"


def limit_of(bits: int) -> float:
    """The allowed KL divergence of weights of this number of bits."""
    return next((limit for known, limit in LIMITS.items() if bits >= known), LIMITS[2])


def check_accuracy(evidence: AccuracyEvidence, max_kl: float | None = None) -> Result:
    """Judge the mean KL divergence per token; `max_kl` replaces the limit that follows from the bits."""
    result = evidence.predictions
    if not result.is_finite:
        broken = int((~np.isfinite(result.kl)).sum())
        finding = Finding("MNQ703", f"the predictions of {broken:,} of {result.kl.size:,} tokens are not finite")
        return Result.from_findings("accuracy", [finding])
    is_at_chance = predicts_nothing(result, evidence.vocabulary)
    limit = None if is_at_chance and max_kl is None else limit_of(evidence.bits) if max_kl is None else max_kl
    language = _metrics(evidence, limit)
    metrics = AccuracyMetrics(
        samples=result.kl.size,
        suspect=evidence.blamed[0].name if evidence.blamed else None,
        tried=evidence.tried or None,
        language=language,
        note=None if is_at_chance else _first_difference(evidence.generation),
    )
    # A model that predicts nothing generates anything.
    findings = [*_against(evidence, language), *(() if is_at_chance else _generation(evidence.generation))]
    return Result.from_findings("accuracy", findings, metrics)


def predicts_nothing(predictions: Divergence, vocabulary: int) -> bool:
    """Whether the source predicts the text no better than a guess among all tokens."""
    return float(predictions.reference_loss.mean()) > _CHANCE * math.log(max(2, vocabulary))


def _metrics(evidence: AccuracyEvidence, limit: float | None) -> LanguageMetrics:
    result, generation = evidence.predictions, evidence.generation
    kl = intervals.mean(result.kl.mean(1))
    change = intervals.mean((result.loss - result.reference_loss).mean(1))
    top1 = intervals.share(int(result.agrees.sum()), result.agrees.size)
    return LanguageMetrics(
        tokens=result.kl.size,
        kl=kl.value,
        kl_low=kl.low,
        kl_high=kl.high,
        kl_median=float(np.median(result.kl)),
        kl_p99=float(np.quantile(result.kl, 0.99)),
        limit=limit,
        weights_kl=None if evidence.weights is None else float(evidence.weights.kl.mean()),
        top1_agreement=top1.value,
        top1_low=top1.low,
        top1_high=top1.high,
        log_perplexity_change=change.value,
        log_perplexity_change_low=change.low,
        log_perplexity_change_high=change.high,
        perplexity=_perplexity(result.loss),
        source_perplexity=_perplexity(result.reference_loss),
        text=generation.result.text if generation else None,
        source_text=generation.source.text if generation and generation.source else None,
        same_tokens=generation.same_tokens if generation and generation.source else None,
        blamed=evidence.blamed,
    )


def _perplexity(loss: np.typing.NDArray[np.float64]) -> float:
    return float(np.exp(min(700.0, float(loss.mean()))))


def _against(evidence: AccuracyEvidence, language: LanguageMetrics) -> Iterator[Finding]:
    if language.limit is None:
        message = (
            f"the source's perplexity on this text is {language.source_perplexity:,.0f}, about that of a guess among "
            f"{evidence.vocabulary:,} tokens: the predictions are not judged"
        )
        yield Finding("MNQ752", message, fix="give a text like those that the model was trained on: --mnn-evaluation")
        return
    if language.kl > language.limit:
        message = (
            f"KL divergence {language.kl:.3g} from the source, at most {language.limit:g} allowed; the same token is "
            f"most likely in {language.top1_agreement:.1%}; perplexity {language.perplexity:,.1f}, source "
            f"{language.source_perplexity:,.1f} ({language.tokens:,} tokens)"
        )
        cause = _cause(evidence, language)
        is_of_runtime = cause is not None and cause.id == _RUNTIME
        fix = "see the check of execution" if is_of_runtime else _fix(evidence)
        yield Finding("MNQ750", message, cause=cause, fix=fix)
    elif language.tokens < _FEWEST_TOKENS:
        message = (
            f"KL divergence {language.kl:.3g} of {language.tokens:,} tokens, at least {_FEWEST_TOKENS} are required"
        )
        yield Finding("MNQ730", message, fix="give a longer text: --mnn-evaluation")
    elif language.kl_high > language.limit:
        message = f"KL divergence {language.kl:.3g} (95 % interval to {language.kl_high:.3g}), limit {language.limit:g}"
        yield Finding("MNQ730", message, fix="give a longer text: --mnn-evaluation")


def _cause(evidence: AccuracyEvidence, language: LanguageMetrics) -> Cause | None:
    if language.weights_kl is not None and language.weights_kl < 0.5 * language.kl:
        text = f"the decoded weights alone have a KL divergence of {language.weights_kl:.3g}: the runtime adds the rest"
        return Cause(_RUNTIME, text)
    if not evidence.blamed:
        return None
    named = ", ".join(f"{layer.name} {layer.kl:.3g}" for layer in evidence.blamed[:_NAMED])
    return Cause("weights-lose", f"KL divergence if only these weights are the export's: {named}")


def _fix(evidence: AccuracyEvidence) -> str:
    passing = next((item for item in evidence.tried if item.passes), None)
    if passing is None:
        return "export with more bits, or accept the loss: --mnn-max-kl"
    return f"export with {' '.join(passing.options)}: {passing.figure}"


def _first_difference(generation: Generation | None) -> str | None:
    """Both texts from the first token on that differs; None if there is none."""
    if generation is None or generation.source is None:
        return None
    same, count = generation.same_tokens, min(len(generation.result.tokens), len(generation.source.tokens))
    if same == count:
        return None
    texts = [text[:_SHOWN] for text in (generation.result.text, generation.source.text)]
    first = f"the first {same} of {count} generated tokens are the source's"
    return f"{first}; the export writes {texts[0]!r}, the source {texts[1]!r}"


def _generation(generation: Generation | None) -> Iterator[Finding]:
    if generation is None:
        return
    result, source = generation.result, generation.source
    if generation.same_tokens * 3 > len(result.tokens):
        return  # It follows the source's for long.
    if result.is_constant and not (source and source.is_constant):
        message = f"{len(result.tokens)} generated tokens are all the same: {result.text[:20]!r}"
        yield Finding(
            "MNQ751", message, cause=Cause("text-constant", "the export predicts one token whatever it reads")
        )
    elif not result.is_text and source is not None and source.is_text:
        message = f"the generated text is not UTF-8: {result.text[:40]!r}; the source generates {source.text[:40]!r}"
        yield Finding("MNQ751", message, cause=Cause("text-undecodable", "tokens do not join to whole characters"))
