"""The texts of the HTML report: verdicts, variants side by side, findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED, FindingId
from pytest_mnnquant.findings.metric import Shown
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.html_figures import EMPTY, Cell, details
from pytest_mnnquant.report.html_layers import LayerView, layer_views
from pytest_mnnquant.report.model import ModelReport, Report
from pytest_mnnquant.report.modes import ModeComparison
from pytest_mnnquant.report.rows import COLUMNS, Outcome, Row, rows_of
from pytest_mnnquant.report.target_table import target_cells
from pytest_mnnquant.report.variant_report import CheckReport, ModelFile, ReportedFinding, VariantReport

#: The sign of each outcome: no verdict is shown by its colour alone.
SIGNS: Final = {PASSED: "✓", FAILED: "✗", SKIPPED: "-", INCONCLUSIVE: "?"}
#: The outcomes of variants by the outcomes of checks.
OUTCOMES: Final = {
    Outcome.FAILED: FAILED,
    Outcome.INCONCLUSIVE: INCONCLUSIVE,
    Outcome.OK: PASSED,
    Outcome.SKIPPED: SKIPPED,
}
_SEVERITIES: Final = (Severity.ERROR, Severity.GAP, Severity.WARNING, Severity.CONSEQUENCE)


@dataclass(frozen=True)
class FindingView:
    """One finding of one model. `by_variant` has the message of each affected variant."""

    model: str
    finding: ReportedFinding
    by_variant: Mapping[str, str]

    @property
    def variants(self) -> str:
        """The affected variants."""
        return ", ".join(self.by_variant)

    @property
    def messages(self) -> list[tuple[str, list[str]]]:
        """Each message, with the variants that have it."""
        texts = dict.fromkeys(self.by_variant.values())
        return [(text, [label for label, other in self.by_variant.items() if other == text]) for text in texts]

    @property
    def codes(self) -> tuple[str, ...]:
        """The rules of the finding and its consequences."""
        return tuple(dict.fromkeys([self.finding.code, *(effect.code for effect in self.finding.consequences)]))


@dataclass(frozen=True)
class VariantView:
    """One variant: a row of the verdicts, a column of its model's table. `id` is unique in the page."""

    id: str
    variant: VariantReport
    outcome: str
    verdict: str
    headline: str
    cells: Mapping[str, Shown]
    layers: tuple[LayerView, ...]

    @property
    def label(self) -> str:
        """The variant's name."""
        return self.variant.label

    @property
    def checks(self) -> Mapping[str, CheckReport]:
        """Its checks by name."""
        return {check.check: check for check in self.variant.checks}


@dataclass(frozen=True)
class ModelView:
    """One model: its variants side by side (`rows` of cells, `checks` of outcomes), modes and targets compared."""

    id: str
    name: str
    source: str
    base: ModelFile | None
    variants: tuple[VariantView, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    checks: tuple[str, ...]
    modes: tuple[ModeComparison, ...]
    targets: tuple[tuple[str, ...], ...]

    @property
    def is_export(self) -> bool:
        """Whether it is a language model, whose layers are not run one by one."""
        return all(view.variant.is_export for view in self.variants)

    @property
    def is_timed(self) -> bool:
        """Whether pairs of runs were timed."""
        return any(view.variant.charts.ratios for view in self.variants)


def model_views(report: Report) -> tuple[ModelView, ...]:
    """All models of a report."""
    return tuple(_model(f"m{number}", model, report.strict) for number, model in enumerate(report.models))


def _model(id_in_page: str, model: ModelReport, strict: bool) -> ModelView:
    variants = tuple(
        _variant(f"{id_in_page}v{number}", variant, row)
        for number, (variant, row) in enumerate(zip(model.variants, rows_of(model, strict), strict=True))
    )
    figures = [details(model.base, variant) for variant in model.variants]
    titles = list(dict.fromkeys(title for by_title in figures for title in by_title))
    return ModelView(
        id=id_in_page,
        name=model.name,
        source=model.source,
        base=model.base,
        variants=variants,
        rows=tuple((title, tuple(by_title.get(title, EMPTY) for by_title in figures)) for title in titles),
        checks=tuple(dict.fromkeys(check.check for variant in model.variants for check in variant.checks)),
        modes=model.modes,
        targets=tuple(target_cells(model.targets)) if model.targets else (),
    )


def _variant(id_in_page: str, variant: VariantReport, row: Row) -> VariantView:
    outcome = OUTCOMES[row.outcome]
    why = "nothing was checked" if outcome == SKIPPED else row.checks
    verdict = f"{outcome}: {why}" if why else outcome
    headline = _headline(variant) if outcome == FAILED else ""
    cells = dict(zip(COLUMNS, row.metrics, strict=True))
    return VariantView(id_in_page, variant, outcome, verdict, headline, cells, layer_views(variant))


def _headline(variant: VariantReport) -> str:
    """The worst finding that is not a warning."""
    findings = sorted_findings([finding for check in variant.checks for finding in check.findings])
    return next((finding.title for finding in findings if finding.severity is not Severity.WARNING), "")


def sorted_findings(findings: Sequence[ReportedFinding]) -> list[ReportedFinding]:
    """Findings, root errors first."""
    return sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))


def finding_views(report: Report) -> list[FindingView]:
    """All findings, errors first. Consequences are part of their root; findings of several variants are merged."""
    groups: dict[tuple[object, ...], FindingView] = {}
    for model, variant, finding in _shown_findings(report):
        effects = tuple(effect.id for effect in finding.consequences)
        group = (model, finding.id, finding.severity, finding.cause, finding.fix, effects)
        before = groups[group].by_variant if group in groups else {}
        groups[group] = FindingView(model, finding, {**before, variant: finding.message})
    return sorted(groups.values(), key=lambda view: _SEVERITIES.index(view.finding.severity))


def _shown_findings(report: Report) -> Iterator[tuple[str, str, ReportedFinding]]:
    """The findings that are not consequences, with their model and variant; then those of the baseline file."""
    for model in report.models:
        for variant in model.variants:
            below = _consequences(variant.checks)
            for check in variant.checks:
                for finding in check.findings:
                    if finding.severity is not Severity.CONSEQUENCE or finding.id not in below:
                        yield model.name, variant.label, finding
    if report.baseline:
        yield from ((report.baseline.path, "baseline", finding) for finding in report.baseline.check.findings)


def _consequences(checks: Sequence[CheckReport]) -> set[FindingId]:
    """The findings that are listed as consequences of another finding."""
    return {effect.id for check in checks for finding in check.findings for effect in finding.consequences}
