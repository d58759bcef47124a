"""The item of the baseline file itself: the file can be read, and all models and variants in it still exist."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_mnnquant.baseline.file import BadBaseline
from pytest_mnnquant.baseline.fixes import Commands, Intent, update_fix
from pytest_mnnquant.config.settings import Settings
from pytest_mnnquant.findings.catalogue import ENTRIES
from pytest_mnnquant.findings.finding import Finding, Result, without_ignored
from pytest_mnnquant.plugin.node_ids import labels
from pytest_mnnquant.plugin.session import PluginSession, session_of
from pytest_mnnquant.sources.presence import reason_missing
from pytest_mnnquant.sources.spec import MODEL_SUFFIXES, TORCH_SUFFIXES


def check_entries(config: pytest.Config) -> Result:
    """Judge the baseline file of this run."""
    session = session_of(config)
    if isinstance(session.baseline, BadBaseline):
        return Result.from_findings(ENTRIES, [unreadable_finding(session.baseline)])
    fix = update_fix(Intent.GONE, accept_command(session))
    gone = () if session.settings.updates_baseline else stale_entries(session)
    findings = [Finding("MNQ912", f"{model} {label}: {reason}", fix=fix) for model, label, reason in gone]
    return without_ignored(Result.from_findings(ENTRIES, findings), session.settings.defaults.ignore)


def unreadable_finding(error: BadBaseline) -> Finding:
    """The finding for a baseline file that can't be read."""
    return Finding("MNQ910", str(error), fix=error.fix)


def accept_command(session: PluginSession, node_id: str = "") -> str:
    """The command that accepts the metrics of an item (without `node_id`: of all items)."""
    arguments = [*session.arguments, *([node_id] if node_id else [])]
    return shlex.join(["pytest", *arguments, "--mnn-update-baseline"])


def commands_of(session: PluginSession, node_id: str) -> Commands:
    """The commands for the fixes of a baseline item."""
    rerun = shlex.join(["pytest", *session.arguments, node_id, "-p", "no:xdist"])
    return Commands(accept_command(session, node_id), rerun)


def stale_entries(session: PluginSession) -> Iterator[tuple[str, str, str]]:
    """Entries whose model or variant no longer exists: model, variant, reason."""
    path = session.settings.baseline
    if path is None or isinstance(session.baseline, BadBaseline):
        return
    configured = {source.settings.name: set(labels(source)) for source in session.sources}
    for model, variant, entry in session.baseline.entries:
        reason = _reason_source_missing(entry.figures.source, path.parent)
        reason = reason or _reason_not_configured(model, variant, configured, session.settings)
        if reason:
            yield model, variant, reason


def _reason_source_missing(source: str, folder: Path) -> str:
    """Why the source of an entry is missing; empty if it exists."""
    file = source.rpartition(":")[0] if ".py:" in source else source
    # Otherwise it is the name of a module. A checkpoint is a folder.
    is_file = file.endswith((".py", *MODEL_SUFFIXES, *TORCH_SUFFIXES)) or ":" not in source
    if is_file and not (folder / file).exists():
        return f"its source {file} is missing"
    return reason_missing(source, folder)


def _reason_not_configured(model: str, variant: str, configured: Mapping[str, set[str]], settings: Settings) -> str:
    """Why a variant is not in the configuration; empty if it is, or if the run has only a part of the configuration."""
    if not settings.is_whole_configuration:
        return ""
    if model not in configured:
        return "the configuration has no model of this name"
    if variant not in configured[model] and not settings.chooses_variants:
        return "the configuration does not request this variant"
    return ""
