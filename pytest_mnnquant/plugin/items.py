"""The suite that `--mnn-model` collects: one item per variant and check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from pytest_mnnquant.evidence.export import ExportUnderTest
from pytest_mnnquant.evidence.source import SourceUnderTest
from pytest_mnnquant.evidence.target_variant import TargetVariant, on_target
from pytest_mnnquant.evidence.variant import VariantUnderTest, variant_under_test
from pytest_mnnquant.findings.catalogue import BASELINE, CHECK_NAMES, CHECKS, ENTRIES, check_named
from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, Result
from pytest_mnnquant.plugin import benchmark
from pytest_mnnquant.plugin.baseline_entries import check_entries
from pytest_mnnquant.plugin.baseline_items import judge_variant
from pytest_mnnquant.plugin.export_items import ExportItem, export_items
from pytest_mnnquant.plugin.node_ids import is_part, places, variants
from pytest_mnnquant.plugin.plain_item import CheckFailed, PlainItem
from pytest_mnnquant.plugin.recent_sources import note_use
from pytest_mnnquant.plugin.records import attach, attach_baseline, attach_failure
from pytest_mnnquant.plugin.session import PluginSession, session_of
from pytest_mnnquant.report.failure import failure_text, findings_text

_CONVERSION: Final = "conversion"
_EXECUTION: Final = "execution"
# The ids of all selected items.
_SELECTED: Final = pytest.StashKey[frozenset[str]]()


class ModelCollector(pytest.Collector):
    """The items of one model. Its name is the specification that the user gave."""

    gate: SourceUnderTest

    @classmethod
    def of(cls, session: pytest.Session, gate: SourceUnderTest) -> ModelCollector:
        """The collector of a model; the ids of its items start with the model's specification."""
        collector: ModelCollector = cls.from_parent(session, name=gate.settings.node, nodeid=gate.settings.node)
        collector.gate = gate
        return collector

    def collect(self) -> Iterator[pytest.Item]:
        """One item per variant and check, in order of dependence."""
        state = session_of(self.config)
        if self.gate.spec.is_checkpoint and self.gate.spec.path is not None:
            export = ExportUnderTest(self.gate.settings, self.gate.spec.path)
            yield from export_items(self, export, state.settings.targets)
            if BASELINE in state.checks and self.gate.settings.is_on_host:
                yield ExportItem.of(self, export, BASELINE)
            return
        for name, mode in variants(self.gate):
            home = variant_under_test(self.gate, name, mode)
            for target, name_of_check in places(self.gate, state.settings.targets, state.checks):
                case = on_target(home, state.settings.targets[target]) if target else home
                yield CheckItem.of(self, case, name_of_check)


class CheckItem(PlainItem):
    """One check of one variant."""

    case: VariantUnderTest
    check: str
    fixturenames: list[str]

    @classmethod
    def of(cls, parent: ModelCollector, case: VariantUnderTest, check: str) -> CheckItem:
        """The item `RECIPE-MODE::CHECK`, or `RECIPE-MODE@TARGET::CHECK`."""
        name = f"{case.label}::{check}"
        # The id is plain text, since --lf and other options compare ids that pytest parses from text.
        item: CheckItem = cls.from_parent(parent, name=name, nodeid=f"{parent.nodeid}::{name}")
        item.case, item.check = case, check
        item.add_marker("mnn")
        item.add_marker(f"mnn_{check}")
        if check_named(check).is_timed and parent.config.getoption("benchmark_only", False):
            item.fixturenames = ["benchmark"]  # pytest-benchmark ignores items without this.
        return item

    def judge(self) -> None:
        """Run the check; fail, skip or pass by its outcome."""
        state = session_of(self.config)
        note_use(self.session, self.case.source)
        updates = self.check == BASELINE and state.settings.updates_baseline  # Then the check compares nothing.
        blocker = None if self.check == _CONVERSION or updates else self._blocker()
        if blocker:
            pytest.skip(blocker)
        result = self._result(state)
        attach(self, self.case, result)
        benchmark.add_figures(self.config, self.case, result)
        if result.outcome == PASSED:
            return
        if result.outcome == FAILED or (state.settings.strict and result.is_unresolved):
            raise CheckFailed(failure_text(self.case.full_name, result))
        pytest.skip(f"inconclusive: {result.reason}" if result.outcome == INCONCLUSIVE else result.reason)

    def attach_failure(self, result: Result) -> None:
        """Attach the record of a check that an exception ended."""
        attach_failure(self, self.case, result)

    def _result(self, state: PluginSession) -> Result:
        selected = self._selected_checks()
        if self.check == BASELINE:
            return judge_variant(self.config, self.case, self.nodeid, selected)
        limits, strict = self.case.source.settings.limits, state.settings.strict
        return benchmark.run_and_record(self, self.case, self.check, limits, strict, selected)

    def _selected_checks(self) -> set[str]:
        """The selected checks of the same variant."""
        variant = self.nodeid.rpartition("::")[0]
        same_target = {name for name in CHECK_NAMES if self._is_selected(f"{variant}::{name}")}
        static = (check.name for check in CHECKS if check.is_static)
        return same_target | {name for name in static if self._is_selected(f"{self._home}::{name}")}

    def _is_selected(self, check_id: str) -> bool:
        return check_id in self.session.stash[_SELECTED]

    @property
    def _home(self) -> str:
        """The id of the variant on this machine, where its files are checked."""
        return self.nodeid.rpartition("::")[0].removesuffix(f"@{self.case.target}")

    def _blocker(self) -> str:
        """Why the check can't run, if another selected check of this variant reports the reason."""
        if self.case.is_unusable and self._is_selected(f"{self._home}::{_CONVERSION}"):
            return f"blocked: the variant has no model, see {self._home.rpartition('::')[2]}::{_CONVERSION}"
        execution = f"{self.nodeid.rpartition('::')[0]}::{_EXECUTION}"
        depends = self.check != _EXECUTION and self._is_selected(execution)
        if depends and isinstance(self.case, TargetVariant) and self.case.is_lost:
            return f"blocked: {self.case.target} did not run it, see {self.case.label}::{_EXECUTION}"
        return ""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """The file of the item, and its title."""
        return self.case.source.spec.path or self.path, 0, f"{self.case.source.settings.name}: {self.name}"


class BaselineCollector(pytest.Collector):
    """The item of the baseline file. Its name is the file's."""

    def collect(self) -> Iterator[pytest.Item]:
        """The item that checks whether all models and variants in the file still exist."""
        item: EntriesItem = EntriesItem.from_parent(self, name=ENTRIES, nodeid=f"{self.nodeid}::{ENTRIES}")
        item.add_marker("mnn")
        item.add_marker(f"mnn_{ENTRIES}")
        yield item


class EntriesItem(PlainItem):
    """Check the baseline file itself."""

    check = ENTRIES

    def judge(self) -> None:
        """Judge the entries."""
        result = check_entries(self.config)
        self.attach_failure(result)
        if result.outcome == FAILED:
            raise CheckFailed(findings_text(f"{self.nodeid} failed:", result))

    def attach_failure(self, result: Result) -> None:
        """Attach the record of the check, whatever its outcome."""
        attach_baseline(self, session_of(self.config).settings.baseline or self.path, result)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """The file of the item, and its title."""
        return session_of(self.config).settings.baseline or self.path, 0, f"baseline: {self.name}"


def collect(session: pytest.Session) -> list[pytest.Item]:
    """All items of all requested models, or those with an id on the command line."""
    state = session_of(session.config)
    items: list[pytest.Item] = []
    for source in state.sources:
        items.extend(session.genitems(ModelCollector.of(session, source)))
    if state.settings.baseline is not None:
        name = state.settings.baseline.name
        items.extend(session.genitems(BaselineCollector.from_parent(session, name=name, nodeid=name)))
    if state.requested_ids:
        items = [item for item in items if any(is_part(item.nodeid, requested) for requested in state.requested_ids)]
    return items


def remember_selected(session: pytest.Session) -> None:
    """Remember the selected items, once pytest has selected them."""
    session.stash[_SELECTED] = frozenset(item.nodeid for item in session.items)
