"""The baseline check: the figures of a variant against the accepted ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pytest_mnnquant.baseline.entry import Entry
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.check_metrics import BaselineMetrics, Compared
from pytest_mnnquant.findings.check_registry import BASELINE
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.metric import KEYS, METRICS
from pytest_mnnquant.statistics.paired_ratio import FEWEST_TO_JUDGE, PairedRatio

# What rounding to six digits and the subtraction of such figures may add.
_ROUNDING: Final = 2e-6
# A figure better by this many tolerances is told, so that the file is tightened: less is the usual play.
_FAR: Final = 5
_FAR_COVERAGE: Final = 0.01


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is compared with an entry.

    `unmeasured` says of a figure why it was not measured. `paired` is the time of the variant over that of the accepted
    model, timed in turn; None where that model is not kept, or could not be timed: then `unpaired` says why. `is_kept`:
    the variant is the kept model, bit for bit, and so no slower than that.
    """

    figures: Figures
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unmeasured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paired: PairedRatio | None = None
    unpaired: Finding | None = None
    is_kept: bool = False


def check_baseline(evidence: Evidence, entry: Entry, fix_for: str) -> Result:
    """Compare; `mend` is the command that accepts the figures as they are now.

    Fails for a layer that is stored otherwise than accepted and for a figure that is worse by more than its tolerance.
    An accepted figure that could not be measured leaves it inconclusive, and so does one that is not in the entry
    though the entry's tolerances are to judge it.
    """
    fix = f"if this is meant to be, accept it:\n{fix_for}"
    cause = _changed_since(evidence, entry)
    findings = [*_storage(evidence.figures, entry.figures, cause, fix)]
    for name in KEYS:
        findings += _JUDGES[name](evidence, entry, cause, fix)
    findings += _unaccepted(evidence, entry, fix_for)
    return Result.from_findings(BASELINE, findings, comparison(evidence.figures, entry.figures, evidence.paired))


def comparison(figures: Figures, accepted: Figures, paired: PairedRatio | None = None) -> BaselineMetrics:
    """The metrics side by side, for the report."""
    pairs = {metric.key: Compared(metric.value(accepted), metric.value(figures)) for metric in METRICS}
    changed = tuple(layer for layer, _, _ in stored_otherwise(figures, accepted))
    metrics = BaselineMetrics(compared=pairs, stored_otherwise=changed)
    if paired is None:
        return metrics
    return dataclasses.replace(
        metrics, paired_ratio=paired.median, paired_ratio_low=paired.low, paired_ratio_high=paired.high
    )


def shown(value: float | None) -> str:
    """A figure as it is told."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def stored_otherwise(figures: Figures, accepted: Figures) -> Iterator[tuple[str, str, str]]:
    """Each layer that is stored otherwise than accepted: its name, and both storages ("absent" where it is not)."""
    for layer in dict.fromkeys((*figures.layers, *accepted.layers)):
        before, now = accepted.layers.get(layer, "absent"), figures.layers.get(layer, "absent")
        if before != now:
            yield layer, before, now


def _storage(figures: Figures, accepted: Figures, cause: Cause | None, fix: str) -> Iterator[Finding]:
    for layer, before, now in stored_otherwise(figures, accepted):
        yield Finding("MNQ914", f"stored as {now}, accepted as {before}", layer, cause, fix)


def _changed_since(evidence: Evidence, entry: Entry) -> Cause | None:
    """What else is not as it was when the figures were accepted: the first thing to look at."""
    ours, accepted = evidence.figures, entry.figures
    if ours.sha256 and ours.sha256 == accepted.sha256:
        text = "the file is the accepted one, bit for bit: only data, versions or the machine can differ"
        changed = Cause("file-unchanged", text)
    elif ours.float_sha256 and accepted.float_sha256 and ours.float_sha256 != accepted.float_sha256:
        text = "the float model is another one than the accepted: source, exporter or converter changed"
        changed = Cause("float-model-changed", text)
    else:
        changed = None
    versions = [
        f"{name} {was} -> {evidence.versions[name]}"
        for name, was in entry.versions.items()
        if name in evidence.versions and was and evidence.versions[name] not in ("", was)
    ]
    return joined(changed, Cause("versions-changed", "; ".join(versions)) if versions else None)


def _more(name: str, unit: str) -> Callable[[Evidence, Entry, Cause | None, str], list[Finding]]:
    """Judges a figure in bytes, of which more is worse."""

    def judged(evidence: Evidence, entry: Entry, cause: Cause | None, fix: str) -> list[Finding]:
        was, now = getattr(entry.figures, name), getattr(evidence.figures, name)
        allowed = getattr(entry.tolerances, name)
        if was is None or allowed is None:
            return []
        if now is None:
            return [_gap(evidence, name, was)]
        if name == "memory" and (gap := _elsewhere(evidence, entry, ("machine", "threads", "memory_mode"))):
            return [_gap(evidence, name, was, gap)]
        change = (now - was) / was if was else float(now > was)
        told = f"{name} {now:,} {unit}, accepted {was:,} ({change:+.1%}, at most {allowed:+.1%} allowed)"
        if change > allowed + _ROUNDING:
            return [Finding("MNQ913", told, "", cause, fix)]
        return [_better(told, fix)] if change < -max(_FAR * allowed, 0.01) else []

    return judged


def _coverage(evidence: Evidence, entry: Entry, cause: Cause | None, fix: str) -> list[Finding]:
    was, now, allowed = entry.figures.coverage, evidence.figures.coverage, entry.tolerances.coverage
    if was is None or allowed is None:
        return []
    if now is None:
        return [_gap(evidence, "coverage", was)]
    told = f"coverage {now:.4%}, accepted {was:.4%} (a drop of {allowed:.4%} allowed)"
    if was - now > allowed + _ROUNDING:
        return [Finding("MNQ913", told, "", cause, fix)]
    return [_better(told, fix)] if now - was > _FAR_COVERAGE else []


def _accuracy(evidence: Evidence, entry: Entry, cause: Cause | None, fix: str) -> list[Finding]:
    accepted, ours, tolerances = entry.figures, evidence.figures, entry.tolerances
    was, now = accepted.accuracy, ours.accuracy
    if was is None or not tolerances.judges_accuracy:
        return []
    if now is None:
        return [_gap(evidence, f"accuracy ({accepted.metric})", was)]
    if ours.metric != accepted.metric:
        return [_gap(evidence, "accuracy", was, f"it was accepted as {accepted.metric}, and is now {ours.metric}")]
    limits = []
    if tolerances.accuracy is not None:
        limits.append(tolerances.accuracy)
    if tolerances.accuracy_relative is not None:
        limits.append(tolerances.accuracy_relative * abs(was))
    allowed, loss = min(limits), (now - was if accepted.lower_is_better else was - now)
    what = "rise" if accepted.lower_is_better else "drop"
    told = f"accuracy ({accepted.metric}) {now:.6g}, accepted {was:.6g} (a {what} of {allowed:.6g} allowed)"
    if loss > allowed + _ROUNDING * max(1.0, abs(was)):
        return [Finding("MNQ913", told, "", cause, fix)]
    return [_better(told, fix)] if allowed and loss < -_FAR * allowed else []


def _ratio(evidence: Evidence, entry: Entry, cause: Cause | None, fix: str) -> list[Finding]:
    was, now, tolerances = entry.figures.ratio, evidence.figures.ratio, entry.tolerances
    if evidence.is_kept:
        return []
    if evidence.unpaired is not None:
        return [evidence.unpaired] if tolerances.ratio_paired is not None else []
    if evidence.paired is not None:
        return _paired(evidence.paired, tolerances.ratio_paired, cause, fix)
    if was is None or tolerances.ratio is None:
        return []
    if now is None:
        return [_gap(evidence, "ratio", was)]
    if gap := _elsewhere(evidence, entry, tuple(entry.host)):
        return [_gap(evidence, "ratio", was, gap)]
    low, high, limit = evidence.figures.ratio_low, evidence.figures.ratio_high, was * (1 + tolerances.ratio)
    told = (
        f"ratio {now:.4g} of the float model's latency (95 % interval {_number(low)} to {_number(high)}), "
        f"accepted {was:.4g} ({tolerances.ratio:+.0%} allowed: {limit:.4g})"
    )
    return _against(told, now if low is None else low, now if high is None else high, limit, cause, fix)


def _paired(ratio: PairedRatio, allowed: float | None, cause: Cause | None, fix: str) -> list[Finding]:
    if allowed is None:
        return []
    if ratio.pairs < FEWEST_TO_JUDGE:
        told = f"ratio: {ratio.pairs} pairs of runs with the accepted model, {FEWEST_TO_JUDGE} needed"
        return [Finding("MNQ003", told, fix="measure on a quieter machine")]
    told = (
        f"{ratio.median:.3f} times the accepted model's latency (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, "
        f"{ratio.pairs} pairs timed in turn), {1 + allowed:g} allowed"
    )
    return _against(told, ratio.low, ratio.high, 1 + allowed, cause, fix)


def _against(told: str, low: float, high: float, limit: float, cause: Cause | None, fix: str) -> list[Finding]:
    if low > limit + _ROUNDING:
        return [Finding("MNQ915", told, "", cause, fix)]
    if high > limit + _ROUNDING:
        again = "run it again on a quieter machine: -k baseline -p no:xdist"
        return [Finding("MNQ003", f"{told}: the interval holds the limit, so this can't tell", fix=again)]
    return []


def _elsewhere(evidence: Evidence, entry: Entry, facts: tuple[str, ...]) -> str:
    """Why a figure of the machine can't be compared: it was accepted on another one, or run with other settings."""
    for fact in facts:
        was, now = entry.host.get(fact), evidence.host.get(fact)
        if was and now and was != now:
            return f"it was accepted with {fact} {was!r}, and this is {now!r}"
    return ""


def _gap(evidence: Evidence, name: str, accepted: Any, why: str = "") -> Finding:
    why = why or evidence.unmeasured.get(name.partition(" ")[0]) or "its check gave no figure"
    told = f"{name}: accepted {shown(accepted)} can't be compared: {why}"
    return Finding("MNQ003", told, fix="run this variant alone, with all its checks: -k baseline -p no:xdist")


def _better(told: str, fix: str) -> Finding:
    return Finding("MNQ916", told, fix=fix.replace("if this is meant to be, accept it", "hold it to that"))


def _unaccepted(evidence: Evidence, entry: Entry, fix_for: str) -> Iterator[Finding]:
    figures, allowed = evidence.figures, entry.tolerances
    is_judged = {name: getattr(allowed, name) is not None for name in KEYS}
    is_judged["accuracy"] = allowed.judges_accuracy
    is_judged["ratio"] &= evidence.paired is None and evidence.unpaired is None and not evidence.is_kept
    new = [name for name in KEYS if is_judged[name] and getattr(entry.figures, name) is None]
    values = [f"{name} {shown(now)}" for name in new if (now := getattr(figures, name)) is not None]
    if values:
        told = f"not in the baseline yet, and so compared with nothing: {', '.join(values)}"
        yield Finding("MNQ917", told, fix=f"have its tolerance be null in the file, or accept it:\n{fix_for}")


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


_JUDGES: Final[Mapping[str, Callable[[Evidence, Entry, Cause | None, str], list[Finding]]]] = {
    "size": _more("size", "bytes"),
    "coverage": _coverage,
    "accuracy": _accuracy,
    "ratio": _ratio,
    "memory": _more("memory", "bytes"),
}
