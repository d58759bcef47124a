"""The checks that run an export, on synthetic predictions: limits, causes, what is not judged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pytest_mnnquant.checks.llm.accuracy import check_accuracy, limit_of
from pytest_mnnquant.checks.llm.costs import check_latency, check_memory
from pytest_mnnquant.checks.llm.execution import check_execution
from pytest_mnnquant.checks.llm.running import AccuracyEvidence, CostEvidence, ExecutionEvidence
from pytest_mnnquant.findings.accuracy_metrics import AccuracyMetrics, TriedMetrics
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.findings.language_metrics import BlamedLayer
from pytest_mnnquant.findings.run_metrics import ExecutionMetrics, LatencyMetrics, MemoryMetrics
from pytest_mnnquant.measurements.host import Host
from pytest_mnnquant.measurements.language_model import GeneratedText, Generation, PairedSpeeds, Speed
from pytest_mnnquant.measurements.timing import PairedTimes
from pytest_mnnquant.metrics.divergence import Divergence
from pytest_mnnquant.statistics.paired_ratio import FEWEST

_RANDOM = np.random.default_rng(5)


def predictions(kl: float, loss: float = 3.0, change: float = 0.01, spread: float = 0.1) -> Divergence:
    """Predictions of 8 texts of 32 tokens with about this divergence."""
    values = kl * (1 + spread * _RANDOM.normal(size=(8, 32)))
    reference = loss + 0.1 * _RANDOM.normal(size=(8, 31))
    return Divergence(values, _RANDOM.random((8, 32)) < 0.9, reference, reference + change)


def codes(result: Result) -> list[tuple[str, str]]:
    return [(finding.code, finding.cause_id) for finding in result.findings]


def execution(whole: float, steps: float, normal: float | None) -> Result:
    exact = None if normal is None else predictions(normal)
    return check_execution(ExecutionEvidence(predictions(whole), predictions(steps), "low", exact))


@pytest.mark.parametrize(
    ("whole", "steps", "normal", "expected"),
    [
        (1e-4, 1e-4, None, []),
        (1.8e-3, 1.5e-3, None, []),
        (0.02, 0.02, 1e-9, []),
        (1e-4, 1e-4, 1e-3, [("MNQ640", "weights-read-otherwise")]),
        (2.5, 2.5, 2.5, [("MNQ640", "weights-read-otherwise")]),
        (0.2, 0.2, 1e-9, [("MNQ640", "kernels-lose")]),
        (1e-4, 1.0, 1e-9, [("MNQ641", "cache-differs")]),
        (1e-4, 3e-3, 1e-9, [("MNQ641", "cache-differs")]),
        (1e-4, 1e-4, 3e-5, [("MNQ640", "weights-read-otherwise")]),
    ],
)
def test_the_runtime_is_held_against_the_decoded_weights(
    whole: float, steps: float, normal: float | None, expected: list[tuple[str, str]]
) -> None:
    result = execution(whole, steps, normal)
    assert codes(result) == expected
    assert isinstance(result.metrics, ExecutionMetrics)
    assert result.metrics.kl == pytest.approx(whole, rel=0.1)


def test_first_tokens_that_agree_show_that_positions_differ() -> None:
    normal = predictions(0.05)
    normal.kl[:, 0] = 1e-12
    result = check_execution(ExecutionEvidence(predictions(0.05), predictions(0.05), "low", normal))
    assert codes(result) == [("MNQ640", "positions-differ")]


def test_values_that_are_not_finite_are_an_error() -> None:
    broken = predictions(1e-4)
    broken.kl[2, 3] = np.nan
    result = check_execution(ExecutionEvidence(broken, predictions(1e-4), "low"))
    assert [code for code, _ in codes(result)] == ["MNQ640"]
    evidence = AccuracyEvidence(broken, None, bits=4, vocabulary=1000)
    assert [code for code, _ in codes(check_accuracy(evidence))] == ["MNQ703"]


@pytest.mark.parametrize(("bits", "limit"), [(16, 0.002), (8, 0.01), (6, 0.1), (4, 0.1), (3, 0.3), (2, 0.6), (1, 0.6)])
def test_the_limit_follows_from_the_bits(bits: int, limit: float) -> None:
    assert limit_of(bits) == limit
    below, above = (AccuracyEvidence(predictions(limit * factor), None, bits, 1000) for factor in (0.5, 2.0))
    assert check_accuracy(below).outcome == PASSED
    assert codes(check_accuracy(above)) == [("MNQ750", "")]
    assert check_accuracy(above, max_kl=3 * limit).outcome == PASSED
    assert check_accuracy(below, max_kl=0.1 * limit).outcome == FAILED


def test_an_interval_around_the_limit_is_inconclusive() -> None:
    evidence = AccuracyEvidence(predictions(0.095, spread=3.0), None, bits=4, vocabulary=1000)
    evidence.predictions.kl[:] *= 0.095 / evidence.predictions.kl.mean()
    assert codes(check_accuracy(evidence)) == [("MNQ730", "")]


def test_some_tokens_are_too_few() -> None:
    evidence = AccuracyEvidence(predictions(0.01), None, bits=4, vocabulary=1000)
    parts = (evidence.predictions.kl[:1, :12], evidence.predictions.agrees[:1, :12])
    losses = (evidence.predictions.reference_loss[:1, :11], evidence.predictions.loss[:1, :11])
    single = dataclasses.replace(evidence, predictions=Divergence(*parts, *losses))
    assert codes(check_accuracy(single)) == [("MNQ730", "")]


def test_a_source_at_chance_is_not_judged_without_a_limit() -> None:
    evidence = AccuracyEvidence(predictions(0.5, loss=6.9), None, bits=4, vocabulary=1000)
    result = check_accuracy(evidence)
    assert (result.outcome, codes(result)) == (INCONCLUSIVE, [("MNQ752", "")])
    assert codes(check_accuracy(evidence, max_kl=0.1)) == [("MNQ750", "")]


def test_causes_and_fixes_follow_from_what_was_computed() -> None:
    blamed = (BlamedLayer("lm_head", 0.3), BlamedLayer("layers.1", 0.1))
    tried = tuple(TriedMetrics((f"--quant_bit {bits}",), bits == 8, "", -1.0, 4.0, 0.0) for bits in (4, 8))
    evidence = AccuracyEvidence(predictions(0.5), predictions(0.49), 4, 1000, blamed=blamed, tried=tried)
    result = check_accuracy(evidence)
    assert codes(result) == [("MNQ750", "weights-lose")]
    assert "--quant_bit 8" in result.findings[0].fix
    assert isinstance(result.metrics, AccuracyMetrics)
    assert result.metrics.suspect == "lm_head"
    runtime = dataclasses.replace(evidence, weights=predictions(0.01))
    assert codes(check_accuracy(runtime)) == [("MNQ750", "runtime-adds")]


def test_metrics_have_their_bounds() -> None:
    result = check_accuracy(AccuracyEvidence(predictions(0.05, change=0.02), predictions(0.04), 4, 1000))
    assert isinstance(result.metrics, AccuracyMetrics)
    language = result.metrics.language
    assert language is not None
    assert language.kl_low < language.kl < language.kl_high
    assert language.top1_low < language.top1_agreement < language.top1_high
    assert language.log_perplexity_change == pytest.approx(0.02)
    assert language.perplexity == pytest.approx(language.source_perplexity * np.exp(0.02))
    assert language.tokens == 256
    assert AccuracyMetrics.from_json(result.metrics.as_json()) == result.metrics


def text(*tokens: int, is_text: bool = True) -> GeneratedText:
    return GeneratedText(tokens, "text", is_text)


@pytest.mark.parametrize(
    ("result", "source", "expected"),
    [
        (text(*range(20)), text(*range(20)), []),
        (text(*[7] * 20), text(*range(20)), [("MNQ751", "text-constant")]),
        (text(*[7] * 20), text(*[8] * 20), []),
        (text(*[7] * 20), None, [("MNQ751", "text-constant")]),
        (text(1, 2, is_text=False), text(1, 2), []),
        (text(1, 2, is_text=False), text(2, 1), [("MNQ751", "text-undecodable")]),
        (text(1, 2, is_text=False), text(3, 4, is_text=False), []),
    ],
)
def test_only_broken_generation_fails(
    result: GeneratedText, source: GeneratedText | None, expected: list[tuple[str, str]]
) -> None:
    evidence = AccuracyEvidence(predictions(0.01), None, 4, 1000, Generation(result, source, (), None, None))
    assert codes(check_accuracy(evidence)) == expected


def test_the_first_difference_of_texts_is_counted() -> None:
    pairs = [(text(1, 2, 3), text(1, 2, 4)), (text(1, 2), text(1, 2, 4)), (text(5), text(1))]
    assert [Generation(first, second, (), None, None).same_tokens for first, second in pairs] == [2, 2, 0]


def test_speed_and_memory_are_recorded() -> None:
    speeds = tuple(Speed(float(number), 10.0 * number) for number in (1, 5, 2))
    low = Generation(text(1), None, speeds, 3 << 20, 4 << 20)
    normal = dataclasses.replace(low, loaded_bytes=9 << 20, peak_bytes=10 << 20)
    evidence = CostEvidence(low, normal, is_low=True, threads=2)
    latency = check_latency(evidence).metrics
    assert isinstance(latency, LatencyMetrics)
    assert (latency.prompt_tokens_per_second, latency.tokens_per_second) == (2.0, 20.0)
    memory = check_memory(evidence).metrics
    assert isinstance(memory, MemoryMetrics)
    assert (memory.session, memory.session_bytes, memory.peak_bytes_low) == (3 << 20, 9 << 20, 4 << 20)
    assert memory.note is not None
    unknown = dataclasses.replace(evidence, normal=dataclasses.replace(low, loaded_bytes=None, speeds=()))
    assert codes(check_memory(unknown)) == [("MNQ003", "")]
    slow = dataclasses.replace(low, speeds=(Speed(1.0, 0.0),))
    assert codes(check_latency(dataclasses.replace(evidence, low=slow))) == [("MNQ003", "")]


def in_turn(ratio: float, pairs: int = 40, spread: float = 0.01) -> PairedTimes:
    """Times of a candidate that takes about `ratio` times as long."""
    reference = 1e-3 * (1 + 0.3 * _RANDOM.random(pairs))
    noise = 1 + spread * np.linspace(-1, 1, pairs)
    return PairedTimes(reference, ratio * noise * reference, host=Host("board", "aarch64", "", ("dotprod",), ()))


def costs() -> CostEvidence:
    generation = Generation(text(1), None, (Speed(100.0, 50.0),), 1 << 20, 1 << 20)
    return CostEvidence(generation, generation, is_low=True, threads=1)


@pytest.mark.parametrize(
    ("token", "prompt", "limit", "expected"),
    [
        (in_turn(0.5), in_turn(0.9), None, []),
        (in_turn(0.5), in_turn(0.9), 1.0, []),
        (in_turn(1.2), in_turn(0.9), 1.0, ["MNQ901"]),
        (in_turn(0.5), in_turn(1.2), 1.0, ["MNQ901"]),
        (in_turn(0.5), in_turn(1.0, spread=0.5), 1.0, ["MNQ003"]),
        (in_turn(0.5), in_turn(0.5, pairs=FEWEST - 1), 1.0, ["MNQ003"]),
        (in_turn(0.5), in_turn(0.5, pairs=FEWEST), 1.0, []),
        (in_turn(1.2), in_turn(0.9), {"aarch64": 1.0, "*": 3.0}, ["MNQ901"]),
        (in_turn(1.2), in_turn(0.9), {"x86_64": 1.0}, []),
    ],
)
def test_the_speed_is_held_against_the_reference_export(
    token: PairedTimes, prompt: PairedTimes, limit: float | dict[str, float] | None, expected: list[str]
) -> None:
    result = check_latency(costs(), PairedSpeeds(prompt, token), limit)
    assert [code for code, _ in codes(result)] == expected


def test_both_ratios_are_recorded_with_their_bounds() -> None:
    metrics = check_latency(costs(), PairedSpeeds(in_turn(0.9), in_turn(0.5)), None).metrics
    assert isinstance(metrics, LatencyMetrics)
    assert metrics.latency_ratio == pytest.approx(0.5)
    assert metrics.prompt_latency_ratio == pytest.approx(0.9)
    assert (metrics.latency_ratio_low or 0) < 0.5 < (metrics.latency_ratio_high or 0)
    assert (metrics.prompt_latency_ratio_low or 0) < 0.9 < (metrics.prompt_latency_ratio_high or 0)
    assert (metrics.pairs, metrics.tokens_per_second) == (40, 50.0)
    assert LatencyMetrics.from_json(metrics.as_json()) == metrics
