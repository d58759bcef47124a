"""The report of a run: built once from the records of its items, and rendered in several formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.history.series import VariantHistory
from pytest_mnnquant.report.modes import ModeComparison
from pytest_mnnquant.report.target_table import TargetRow
from pytest_mnnquant.report.variant_report import CheckReport, ModelFile, ReportedFinding, VariantReport


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model under test.

    `source` is the user's specification, `file` the path of its file (None for a module). `base` is the float model,
    None if it could not be built. `modes` compares train with eval; `targets` compares the host with targets.
    """

    name: str
    source: str
    file: str | None = None
    base: ModelFile | None = None
    variants: tuple[VariantReport, ...] = ()
    modes: tuple[ModeComparison, ...] = ()
    targets: tuple[TargetRow, ...] = ()

    def findings(self, *severities: Severity) -> Iterator[ReportedFinding]:
        """The findings of its variants that have one of these severities."""
        yield from (finding for variant in self.variants for finding in variant.findings(*severities))


@dataclass(frozen=True, slots=True)
class HostReport:
    """The host on which the run was started. `cpus` is None if their number is unknown."""

    machine: str
    system: str
    python: str
    cpus: int | None


@dataclass(frozen=True, slots=True)
class BaselineReport:
    """The check of the baseline file itself."""

    path: str
    check: CheckReport


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `versions` are those of the packages, empty for packages that are not installed.

    `strict`: skipped and inconclusive checks failed. `history` is that of the variants, if a format needs it.
    """

    versions: Mapping[str, str]
    host: HostReport
    strict: bool = False
    baseline: BaselineReport | None = None
    models: tuple[ModelReport, ...] = ()
    history: tuple[VariantHistory, ...] = field(default=())
