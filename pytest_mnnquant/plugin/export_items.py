"""The items of an export of a language model: one per check."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_mnnquant.checks.llm.registry import EXPORT_CHECKS
from pytest_mnnquant.evidence.export import ALL_EXPORT_CHECKS, LABEL, ExportOnTarget, ExportUnderTest
from pytest_mnnquant.evidence.export_charts import export_charts
from pytest_mnnquant.findings.catalogue import BASELINE
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.plugin.export_baseline import judge_export
from pytest_mnnquant.plugin.plain_item import CheckFailed, PlainItem
from pytest_mnnquant.plugin.records import attach_record
from pytest_mnnquant.plugin.session import session_of
from pytest_mnnquant.plugin.worker_input import input_of
from pytest_mnnquant.report.failure import failure_text
from pytest_mnnquant.report.formats import needs_charts
from pytest_mnnquant.report.record import CheckRecord, reported
from pytest_mnnquant.report.variant_report import ModelFile, VariantReport
from pytest_mnnquant.targets.target import HOST, Target


class ExportItem(PlainItem):
    """One check of one export."""

    case: ExportUnderTest
    check: str

    @classmethod
    def of(cls, parent: pytest.Collector, case: ExportUnderTest, check: str) -> ExportItem:
        """The item `export::CHECK`, or `export@TARGET::CHECK`."""
        name = f"{case.label}::{check}"
        item: ExportItem = cls.from_parent(parent, name=name, nodeid=f"{parent.nodeid}::{name}")
        item.case, item.check = case, check
        item.add_marker("mnn")
        item.add_marker(f"mnn_{check}")
        return item

    def judge(self) -> None:
        """Judge; fail, skip or pass by the outcome."""
        prefix = self.nodeid.rpartition("::")[0].removesuffix(f"@{self.case.target}")
        ids = {item.nodeid for item in self.session.items}
        selected = [check for check in ALL_EXPORT_CHECKS if f"{prefix}::{check}" in ids]
        if self.check == BASELINE:
            result = judge_export(self.config, self.case, self.nodeid, selected)
        else:
            result = self.case.run_check(self.check, selected)
        attach_record(self, self._record(result, self.case.base, self.case.report))
        if result.outcome == PASSED:
            return
        if result.outcome == FAILED or (session_of(self.config).settings.strict and result.is_unresolved):
            raise CheckFailed(failure_text(self.case.full_name, result))
        pytest.skip(f"inconclusive: {result.reason}" if result.outcome == INCONCLUSIVE else result.reason)

    def attach_failure(self, result: Result) -> None:
        """Attach the record of a check that an exception ended; without the export's files if it ends that too."""
        try:
            base, variant = self.case.base, self.case.report
        except Exception:  # What ended the check may end this too.
            base, variant = None, VariantReport(LABEL, None, self.case.target)
        attach_record(self, self._record(result, base, variant))

    def _record(self, result: Result, base: ModelFile | None, variant: VariantReport) -> CheckRecord:
        settings, controller = self.case.settings, input_of(self.config)
        shows_charts = not self.case.target and needs_charts(session_of(self.config).settings.reports)
        return CheckRecord(
            model=settings.name,
            source=settings.source,
            file=str(self.case.checkpoint),
            base=base,
            variant=dataclasses.replace(variant, worker=controller.host if controller else ""),
            check=reported(result, self.case.label, session_of(self.config).step_clock.take()),
            order=self.session.items.index(self),
            charts=export_charts(self.case, result.check) if shows_charts else ChartSamples(),
        )

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where the item comes from, and its title."""
        return self.case.checkpoint, 0, f"{self.case.settings.name}: {self.name}"


def export_items(
    parent: pytest.Collector, home: ExportUnderTest, targets: Mapping[str, Target]
) -> Iterator[ExportItem]:
    """The items of an export on this host and on targets, in order of dependence."""
    names = home.settings.targets
    on_host = home.checks if home.settings.is_on_host else EXPORT_CHECKS
    yield from (ExportItem.of(parent, home, check) for check in on_host)
    for case in (ExportOnTarget(home, targets[name]) for name in names if name != HOST):
        yield from (ExportItem.of(parent, case, check) for check in case.checks)
