"""The baseline check: compares the metrics of a variant with the accepted ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pytest_mnnquant.baseline.entry import Entry, value_text
from pytest_mnnquant.baseline.fixes import Commands, Intent, update_fix
from pytest_mnnquant.baseline.judges import JUDGES, Comparison, Evidence
from pytest_mnnquant.findings.baseline_metrics import BaselineMetrics, Compared
from pytest_mnnquant.findings.catalogue import BASELINE
from pytest_mnnquant.findings.cause import Cause, joined
from pytest_mnnquant.findings.figures import Figures
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.metric import ACCURACY, KEYS, LATENCY, METRICS
from pytest_mnnquant.statistics.paired_ratio import PairedRatio


def check_baseline(evidence: Evidence, entry: Entry, commands: Commands) -> Result:
    """Compare; `commands` are for the fixes.

    Fails for a layer that is not stored as accepted and for a metric that is worse by more than its tolerance. The
    check is inconclusive if an accepted metric could not be measured, or if the entry has a tolerance for a metric but
    no accepted value.
    """
    comparison = Comparison(evidence, entry, _changed_since(evidence, entry), commands)
    findings = [*_storage(comparison)]
    for key in KEYS:
        findings += JUDGES[key](comparison)
    findings += _unaccepted(comparison)
    return Result.from_findings(BASELINE, findings, side_by_side(evidence.figures, entry.figures, evidence.paired))


def side_by_side(figures: Figures, accepted: Figures, paired: PairedRatio | None = None) -> BaselineMetrics:
    """Accepted and current metrics, for the report."""
    pairs = {metric.key: Compared(metric.value(accepted), metric.value(figures)) for metric in METRICS}
    changed = tuple(layer for layer, _, _ in stored_otherwise(figures, accepted))
    metrics = BaselineMetrics(compared=pairs, stored_otherwise=changed)
    if paired is None:
        return metrics
    return dataclasses.replace(
        metrics, paired_ratio=paired.median, paired_ratio_low=paired.low, paired_ratio_high=paired.high
    )


def stored_otherwise(figures: Figures, accepted: Figures) -> Iterator[tuple[str, str, str]]:
    """Each layer that is not stored as accepted: its name, and both storages ("absent" for a missing layer)."""
    for layer in dict.fromkeys((*figures.layers, *accepted.layers)):
        before, now = accepted.layers.get(layer, "absent"), figures.layers.get(layer, "absent")
        if before != now:
            yield layer, before, now


def _storage(this: Comparison) -> Iterator[Finding]:
    for layer, before, now in stored_otherwise(this.current, this.accepted):
        yield this.worse("MNQ914", f"stored as {now}, accepted as {before}", layer)


def _changed_since(evidence: Evidence, entry: Entry) -> Cause | None:
    """What else changed since the entry was accepted: the most likely cause."""
    current, accepted = evidence.figures, entry.figures
    if current.sha256 and current.sha256 == accepted.sha256:
        text = "the file is bit for bit the accepted one: only data, versions or the machine can differ"
        changed = Cause("file-unchanged", text)
    elif current.float_sha256 and accepted.float_sha256 and current.float_sha256 != accepted.float_sha256:
        text = "the float model differs from the accepted one: the source, the exporter or the converter changed"
        changed = Cause("float-model-changed", text)
    else:
        changed = None
    versions = [
        f"{name} {version} -> {evidence.versions[name]}"
        for name, version in entry.versions.items()
        if name in evidence.versions and version and evidence.versions[name] not in ("", version)
    ]
    return joined(changed, Cause("versions-changed", "; ".join(versions)) if versions else None)


def _unaccepted(this: Comparison) -> Iterator[Finding]:
    """Measured metrics that have a tolerance but are missing from the entry."""
    evidence, allowed = this.evidence, this.entry.tolerances
    is_judged = {key: getattr(allowed, key) is not None for key in KEYS}
    is_judged[ACCURACY.key] = allowed.judges_accuracy
    is_judged[LATENCY.key] &= evidence.paired is None and evidence.unpaired is None and not evidence.is_kept
    new = (metric for metric in METRICS if is_judged[metric.key] and metric.value(this.accepted) is None)
    values = [
        f"{metric.key} {value_text(value)}" for metric in new if (value := metric.value(this.current)) is not None
    ]
    if values:
        message = f"not compared, because the baseline has no accepted value yet: {', '.join(values)}"
        yield Finding("MNQ917", message, fix=update_fix(Intent.NEW_METRIC, this.commands.accept))
