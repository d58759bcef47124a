"""The checks that run an export: their evidence, and the findings if it can't be gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pytest_mnnquant.checks.accuracy.check import unjudged_limits
from pytest_mnnquant.checks.llm.accuracy import check_accuracy, limit_of, predicts_nothing
from pytest_mnnquant.checks.llm.costs import check_latency, check_memory
from pytest_mnnquant.checks.llm.execution import check_execution
from pytest_mnnquant.checks.llm.running import AccuracyEvidence
from pytest_mnnquant.config.options import BY_NAME
from pytest_mnnquant.config.settings import Limits
from pytest_mnnquant.evidence.language_parts import judge_parts
from pytest_mnnquant.evidence.language_runs import LanguageRuns
from pytest_mnnquant.evidence.language_search import blamed_layers, tried_forms
from pytest_mnnquant.evidence.language_speed import measure_speeds, other_network
from pytest_mnnquant.evidence.steps import NothingToJudge
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.llm.architecture import UnknownArchitecture
from pytest_mnnquant.llm.blas import one_blas_thread
from pytest_mnnquant.llm.json_object import BadExport
from pytest_mnnquant.metrics.divergence import Divergence
from pytest_mnnquant.runtime.jobs import NativeFailure
from pytest_mnnquant.targets.target import TargetFailure

#: Share of the weights that a number of bits must have to decide the limit.
_LARGE: Final = 0.05
#: Limits of outputs and labels, which a language model does not have.
_OF_TASKS: Final = (
    *("max_accuracy_drop", "min_accuracy_ratio", "min_float_accuracy"),
    *("min_cosine", "min_agreement", "min_sqnr"),
)


def run_language_check(name: str, runs: LanguageRuns) -> Result:
    """The result of `execution`, `accuracy`, `latency` or `memory`. Raises `BadModel`, `OSError`."""
    try:
        with one_blas_thread():
            return LANGUAGE_CHECKS[name](runs)
    except NothingToJudge as error:
        if name == "accuracy" and (flags := _given(runs.settings.limits, ("max_kl", *_OF_TASKS))):
            return Result.from_findings(name, [unjudged_limits(flags, "no text is given", "--mnn-evaluation FILE.txt")])
        return Result.skipped(name, str(error), error.not_applicable)
    except UnknownArchitecture as error:
        return Result.from_findings(name, [Finding("MNQ642", str(error))])
    except TargetFailure as error:
        return Result.from_findings(name, [Finding("MNQ620", error.what, fix=error.fix)])
    except NativeFailure as error:
        return Result.from_findings(name, [Finding("MNQ201", error.what, fix="see the findings on files, if any")])
    except BadExport as error:
        return Result.from_findings(name, [Finding("MNQ001", f"the weights can't be computed: {error}")])


def _execution(runs: LanguageRuns) -> Result:
    result = check_execution(runs.execution)
    return Result.from_findings(result.check, [*result.findings, *judge_parts(runs)], result.metrics)


def _accuracy(runs: LanguageRuns) -> Result:
    if runs.has_other_text:
        fix = "make the reference again with this text, or leave out --mnn-evaluation"
        return Result.from_findings("accuracy", [Finding("MNQ102", "the text is not that of the reference", fix=fix)])
    options = runs.folder.options
    if options is not None and options.merges_lora and runs.settings.limits.max_kl is None:
        message = f"the source does not have the adapter {options.lora_path}, which is merged into the export"
        fix = "merge the adapter into the checkpoint, and give that as --mnn-model"
        return Result.from_findings("accuracy", [Finding("MNQ314", message, fix=fix)])
    predictions, limits = runs.predictions, runs.settings.limits
    bits = bits_of(runs)
    limit = limit_of(bits) if limits.max_kl is None else limits.max_kl
    head = runs.folder.graph.head
    vocabulary = head.rows if head else 0
    is_judged = limits.max_kl is not None or not predicts_nothing(predictions, vocabulary)
    is_too_large = is_judged and not float(predictions.kl.mean()) <= limit
    evidence = AccuracyEvidence(
        predictions=predictions,
        weights=_weights(runs),
        bits=bits,
        vocabulary=vocabulary,
        generation=None if runs.is_on_target else runs.generation,
        blamed=blamed_layers(runs) if is_too_large else (),
        tried=tried_forms(runs, limit) if is_too_large else (),
    )
    return _with_unjudged(check_accuracy(evidence, limits.max_kl), limits)


def _given(limits: Limits, names: Sequence[str]) -> list[str]:
    """The options of limits that were given."""
    return [BY_NAME[name].flag for name in names if getattr(limits, name) is not None]


def _with_unjudged(result: Result, limits: Limits) -> Result:
    """The result with an error for limits that only models with a task have."""
    flags = _given(limits, _OF_TASKS)
    if not flags:
        return result
    why = "a language model is judged by the KL divergence from its source"
    finding = unjudged_limits(flags, why, "remove the option for this model, or give --mnn-max-kl")
    return Result.from_findings(result.check, [*result.findings, finding], result.metrics)


def _weights(runs: LanguageRuns) -> Divergence | None:
    try:
        return runs.weights
    except (UnknownArchitecture, BadExport):
        return None


def bits_of(runs: LanguageRuns) -> int:
    """The smallest number of bits that at least 5 % of the weights have."""
    counts: dict[int, int] = {}
    for matrix in runs.folder.graph.matrices:
        counts[matrix.bits] = counts.get(matrix.bits, 0) + matrix.count
    total = sum(counts.values())
    return min((bits for bits, count in counts.items() if count >= _LARGE * total), default=16)


def _latency(runs: LanguageRuns) -> Result:
    limits = runs.settings.limits
    if runs.settings.latency_reference is not None:
        if problem := other_network(runs):
            finding = Finding("MNQ203", problem, fix="give another export of this model: --mnn-latency-reference")
            return Result.from_findings("latency", [finding])
        return check_latency(runs.costs, measure_speeds(runs), limits.max_latency_ratio)
    result = check_latency(runs.costs)
    flags = _given(limits, ("max_latency_ratio",))
    if not flags:
        return result
    why = "no other export of the model is given to compare with"
    finding = unjudged_limits(flags, why, "--mnn-latency-reference FOLDER, or remove the option for this model")
    return Result.from_findings(result.check, [*result.findings, finding], result.metrics)


def _memory(runs: LanguageRuns) -> Result:
    return check_memory(runs.costs)


LANGUAGE_CHECKS: Final[Mapping[str, Callable[[LanguageRuns], Result]]] = {
    "execution": _execution,
    "accuracy": _accuracy,
    "latency": _latency,
    "memory": _memory,
}
