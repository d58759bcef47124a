"""The JSON report (`--mnn-report x.json`), schema 1."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_mnnquant.findings.finding import FAILED, FOLLOWS_ID, INCONCLUSIVE, PASSED, SKIPPED
from pytest_mnnquant.report.modes import compare_modes
from pytest_mnnquant.report.places import places_of

SCHEMA = 1
_WORST: Final = (FAILED, INCONCLUSIVE, PASSED, SKIPPED)


def build_report(
    records: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str],
    strict: bool = False,
    baseline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of a run from the records of its items. `baseline` is that of the baseline file's own item."""
    models: dict[str, dict[str, Any]] = {}
    records = united(records)
    compared = compare_modes(records)
    for item in records:
        model = models.setdefault(
            item["model"],
            {**{key: item[key] for key in ("source", "file", "float")}, "name": item["model"], "variants": {}},
        )
        variant = model["variants"].setdefault(item["label"], {**item["variant"], "checks": []})
        variant["checks"].append(item["check"])
    for model in models.values():
        for variant in model["variants"].values():
            variant["checks"] = _joined(variant["checks"])
        model["variants"] = list(model["variants"].values())
    return {
        "schema": SCHEMA,
        "tool": dict(versions),
        "host": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
        "strict": strict,
        "baseline": baseline,
        "models": [
            {
                **model,
                "modes": [comparison.as_json() for comparison in compared.get(name, [])],
                **({"places": [row.as_json() for row in rows]} if (rows := places_of(model)) else {}),
            }
            for name, model in models.items()
        ],
    }


def united(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record for each check of a variant, however many tests asked for it: the worst outcome, and all findings.

    Of an item that ran again (its `order` is the same) the last run counts.
    """
    last = {(one["model"], one["label"], one["check"]["check"], one["order"]): one for one in records}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for (*place, _), record in last.items():
        key = (place[0], place[1], place[2])
        check = record["check"]
        if before := found.get(key):
            check = _together(before["check"], check)
        found[key] = {**record, "check": check}
    return list(found.values())


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    ranks = [_WORST.index(check["outcome"]) for check in (one, other)]
    worst, rest = (one, other) if ranks[0] < ranks[1] else (other, one)  # Of two alike the later.
    return {
        **worst,
        "metrics": {**rest["metrics"], **worst["metrics"]},
        "ignored": {**rest["ignored"], **worst["ignored"]},
        "findings": [*worst["findings"], *(found for found in rest["findings"] if found not in worst["findings"])],
    }


def _joined(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The checks of a variant; each error lists what follows from it in the others, whoever ran first."""
    every = [(check["check"], finding) for check in checks for finding in check["findings"]]
    joined = []
    for check in checks:
        findings = []
        for finding in check["findings"]:
            below = list(finding["consequences"])
            known = {(effect["check"], effect["code"], effect["layer"]) for effect in below}
            id_of_this = [finding["code"], check["check"], finding["layer"] or ""]
            for name, other in every:
                key = (name, other["code"], other["layer"])
                if other.get(FOLLOWS_ID) == id_of_this and key not in known:
                    below.append({"check": name, **_public(other)})
            findings.append({**_public(finding), "consequences": below})
        joined.append({**check, "findings": findings})
    return joined


def _public(finding: Mapping[str, Any]) -> dict[str, Any]:
    """A finding without what only joins the records."""
    return {key: value for key, value in finding.items() if key != FOLLOWS_ID}


def render(report: Mapping[str, Any]) -> str:
    """The report as JSON. Numbers that JSON does not have become null."""
    return json.dumps(plain(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """The value with numbers that JSON does not have (NaN, infinity) as None, and tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
