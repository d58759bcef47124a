"""The metrics of a variant as cells of the HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics
from pytest_mnnquant.findings.figures import size_text
from pytest_mnnquant.findings.language_metrics import LanguageMetrics
from pytest_mnnquant.findings.run_metrics import LatencyMetrics, MemoryMetrics
from pytest_mnnquant.report.variant_report import ModelFile, VariantReport


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric as text, and as the number for sorting."""

    text: str
    number: float | None = None
    note: str = ""


#: The cell of a metric that was not measured.
EMPTY: Final = Cell("-")


def file_size(count: float) -> str:
    """A number of bytes in a readable unit."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:,.0f} B"


def details(base: ModelFile | None, variant: VariantReport) -> dict[str, Cell]:
    """The metrics of one variant by title, in the order in which they are shown."""
    return dict(
        (
            *_stored(base, variant),
            *_accuracy(variant.metrics(AccuracyMetrics) or AccuracyMetrics()),
            *_latency(variant.metrics(LatencyMetrics)),
            *_memory(variant.metrics(MemoryMetrics)),
            *_provenance(variant.provenance),
        )
    )


def _stored(base: ModelFile | None, variant: VariantReport) -> Iterator[tuple[str, Cell]]:
    if file := variant.quantized:
        ratio = f"{size_text(base.bytes / file.bytes)} than float" if base and file.bytes else ""
        yield "file", Cell(file_size(file.bytes), file.bytes, ratio)
    if layers := variant.layers:
        quantized = sum(layer.quantized for layer in layers)
        yield "layers stored as requested", Cell(f"{quantized} of {len(layers)}", quantized / len(layers))
    if variant.coverage is not None:
        yield "coverage", Cell(f"{variant.coverage:.1%}", variant.coverage)
    if variant.drift:
        yield "BatchNorm drift", Cell(f"{variant.drift:.2g} standard deviations", variant.drift)


def _accuracy(accuracy: AccuracyMetrics) -> Iterator[tuple[str, Cell]]:
    if task := accuracy.task:
        known = math.isfinite(task.drop_low) and math.isfinite(task.drop_high)
        word = "rise" if task.lower_is_better else "drop"
        bounds = f"; {word} {task.drop:.4f}, 95 % interval {task.drop_low:.4f} to {task.drop_high:.4f}" if known else ""
        note = f"float {task.reference:.4f}{bounds}; {accuracy.samples} samples"
        yield task.label, Cell(f"{task.quantized:.4f}", task.quantized, note)
    for name, output in accuracy.outputs.items():
        if output.cosine is not None:
            note = f"SQNR {output.sqnr_db:.1f} dB" if math.isfinite(output.sqnr_db) else ""
            yield f"cosine to float, {name}", Cell(f"{output.cosine:.4f}", output.cosine, note)
    for name, steps in accuracy.error_over_steps.items():
        numbers = ", ".join(f"{step.sqnr_db:.1f}" for step in steps)
        note = f"{steps[0].sequences} sequences, states fed back"
        yield f"SQNR at step {', '.join(str(step.step) for step in steps)}, {name}", Cell(f"{numbers} dB", None, note)
    if accuracy.language is not None:
        yield from _language(accuracy.language)


def _language(language: LanguageMetrics) -> Iterator[tuple[str, Cell]]:
    """The predictions of a language model against its source's."""
    limit = "" if language.limit is None else f"; limit {language.limit:g}"
    note = f"95 % interval {language.kl_low:.3g} to {language.kl_high:.3g}{limit}; {language.tokens:,} tokens"
    yield "KL divergence", Cell(f"{language.kl:.3g}", language.kl, note)
    bounds = f"95 % interval {language.top1_low:.1%} to {language.top1_high:.1%}"
    yield "same most likely token", Cell(f"{language.top1_agreement:.1%}", language.top1_agreement, bounds)
    low, high = language.log_perplexity_change_low, language.log_perplexity_change_high
    note = f"source {language.source_perplexity:,.1f}; change of its logarithm {low:+.4f} to {high:+.4f}"
    yield "perplexity", Cell(f"{language.perplexity:,.1f}", language.perplexity, note)
    if language.text is not None:
        note = "" if language.source_text is None else f"source {language.source_text!r}"
        yield "generated text", Cell(repr(language.text), None, note)


def _latency(latency: LatencyMetrics | None) -> Iterator[tuple[str, Cell]]:
    if latency is not None and latency.tokens_per_second is not None:
        speed = latency.tokens_per_second
        note = f"prompt {latency.prompt_tokens_per_second or 0.0:,.0f} tokens/s"
        yield "generation", Cell(f"{speed:,.0f} tokens/s", speed, note)
    if latency is None or latency.latency_ratio is None:
        return
    if latency.tokens_per_second is not None:
        yield from _speed_ratios(latency)
        return
    ratio, low, high = latency.latency_ratio, latency.latency_ratio_low, latency.latency_ratio_high
    note = f"95 % interval {low:.2f} to {high:.2f}, {latency.pairs} pairs"
    note += f"; {_milliseconds(latency.quantized_seconds)}, float {_milliseconds(latency.float_seconds)}"
    yield "latency", Cell(f"{ratio:.2f}x float", ratio, note)


def _speed_ratios(latency: LatencyMetrics) -> Iterator[tuple[str, Cell]]:
    """The speed of a language model's export against that of its reference export."""
    ratio, low, high = latency.latency_ratio, latency.latency_ratio_low, latency.latency_ratio_high
    note = f"95 % interval {low:.2f} to {high:.2f}, {latency.pairs} pairs"
    note += f"; {_milliseconds(latency.quantized_seconds)}, reference {_milliseconds(latency.float_seconds)}"
    yield "time per token", Cell(f"{ratio:.2f}x reference export", ratio, note)
    ratio, low, high = latency.prompt_latency_ratio, latency.prompt_latency_ratio_low, latency.prompt_latency_ratio_high
    yield "time per prompt", Cell(f"{ratio:.2f}x reference export", ratio, f"95 % interval {low:.2f} to {high:.2f}")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"


def _memory(memory: MemoryMetrics | None) -> Iterator[tuple[str, Cell]]:
    if memory and memory.session_bytes and memory.float_session_bytes:
        note = f"float {file_size(memory.float_session_bytes)}"
        yield "memory of a session", Cell(file_size(memory.session_bytes), memory.session_bytes, note)
    elif memory and memory.peak_bytes and memory.peak_bytes_low:
        note = f"in memory mode low {file_size(memory.peak_bytes_low)}"
        yield "resident memory", Cell(file_size(memory.peak_bytes), memory.peak_bytes, note)


def _provenance(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    if maker := provenance.get("maker"):
        calibration = provenance.get("calibration") or {}
        note = f"{calibration['samples']} samples of {calibration['origin']}" if calibration.get("samples") else ""
        yield "made", Cell(maker, None, note)
