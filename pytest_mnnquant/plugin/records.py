"""What tests measured: kept on the item, carried by its report from an xdist worker to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_mnnquant.config import options

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mnnquant.evidence.variant import VariantUnderTest
    from pytest_mnnquant.findings.finding import Result

#: What an item measured, and its part of the variant's portrait.
RECORDS = pytest.StashKey[list[tuple["VariantUnderTest", "Result", dict[str, Any]]]]()
#: What the item of the baseline file found, and that file.
BASELINE = pytest.StashKey[tuple["Path", "Result"]]()
#: By this name xdist's workers on other hosts know how the controller calls their host.
ELSEWHERE: Final = "mnnquant_elsewhere"


def keep(item: pytest.Item, case: VariantUnderTest, result: Result) -> None:
    """Remember what an item measured, and have it told in its JUnit record.

    For an HTML report, what there is to show of it too.
    """
    from pytest_mnnquant.report.properties import properties  # Not where nothing is ever measured.

    shown: dict[str, Any] = {}
    if not case.target and any(name.endswith(".html") for name in options.reports(item.config)):
        from pytest_mnnquant.evidence.chart_samples import portrait

        shown = portrait(case, result.check)
    item.stash.setdefault(RECORDS, []).append((case, result, shown))
    told = properties(case.gate.settings.name, case.recipe.name, case.mode, result.as_json(), case.target)
    item.user_properties += [one for one in told if one not in item.user_properties]


def kept(item: pytest.Item) -> list[dict[str, Any]]:
    """What an item measured, as plain data; `order` is its place in the run, which workers (-n) end in any order."""
    found = item.stash.get(RECORDS, [])
    order = item.session.items.index(item) if found else 0
    host = getattr(item.config, "workerinput", {}).get(ELSEWHERE)
    where = {"worker": host} if host else {}
    return [{**_record(case, result, where), "portrait": shown, "order": order} for case, result, shown in found]


def keep_baseline(item: pytest.Item, path: Path, result: Result) -> None:
    """Remember what the item of the baseline file found."""
    item.stash[BASELINE] = (path, result)


def kept_baseline(item: pytest.Item) -> dict[str, Any] | None:
    """What the item of the baseline file found, as plain data; None for all other items."""
    path, result = item.stash.get(BASELINE, (None, None))
    return None if result is None else {"path": str(path), "check": result.as_json()}


def _record(case: VariantUnderTest, result: Result, where: dict[str, str]) -> dict[str, Any]:
    gate = case.gate
    return {
        "model": gate.settings.name,
        "source": gate.settings.source or gate.spec.text,
        "file": str(gate.spec.path) if gate.spec.path else None,
        "float": gate.float_json,
        "variant": case.as_json | where,
        "label": case.label,
        "check": result.as_json(),
    }
