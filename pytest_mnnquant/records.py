"""What tests measured: kept on the item, carried by its report from an xdist worker to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_mnnquant import options

if TYPE_CHECKING:
    from pytest_mnnquant.case import Case
    from pytest_mnnquant.checks.finding import Result

#: What an item measured, and its part of the variant's portrait.
RECORDS = pytest.StashKey[list[tuple["Case", "Result", dict[str, Any]]]]()


def keep(item: pytest.Item, case: Case, result: Result) -> None:
    """Remember what an item measured; for an HTML report, what there is to show of it too."""
    shown: dict[str, Any] = {}
    if any(name.endswith(".html") for name in options.reports(item.config)):
        from pytest_mnnquant.portrait import portrait

        shown = portrait(case, result.check)
    item.stash.setdefault(RECORDS, []).append((case, result, shown))


def kept(item: pytest.Item) -> list[dict[str, Any]]:
    """What an item measured, as plain data; `order` is its place in the run, which workers (-n) end in any order."""
    found = item.stash.get(RECORDS, [])
    order = item.session.items.index(item) if found else 0
    return [{**_record(case, result), "portrait": shown, "order": order} for case, result, shown in found]


def _record(case: Case, result: Result) -> dict[str, Any]:
    gate = case.gate
    return {
        "model": gate.settings.name,
        "source": gate.settings.source or gate.spec.text,
        "float": gate.float_json,
        "variant": case.as_json,
        "label": case.label,
        "check": result.as_json(),
    }
