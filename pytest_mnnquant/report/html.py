"""The HTML report (`--mnn-report x.html`): one file that needs no network and no other file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pytest_mnnquant.report.html_charts import HISTORY, chart_data
from pytest_mnnquant.report.html_figures import file_size
from pytest_mnnquant.report.html_pages import rule_pages
from pytest_mnnquant.report.html_view import SIGNS, finding_views, model_views
from pytest_mnnquant.report.json_report import plain
from pytest_mnnquant.report.rows import FIGURES

Json = Mapping[str, Any]
_OUTCOMES: Final = ("failed", "inconclusive", "passed", "skipped")


def render(report: Json) -> str:
    """The page of a report. Its `records` hold the portraits of the variants, its `past` their history."""
    return page(report, portraits(report.get("records", ())), report.get("past", ()))


def portraits(records: Iterable[Json]) -> dict[tuple[str, str], dict[str, Json]]:
    """What there is to show of each variant, by model and variant, then by check."""
    found: dict[tuple[str, str], dict[str, Json]] = {}
    for record in records:
        if shown := record.get("portrait"):
            found.setdefault((record["model"], record["label"]), {})[record["check"]["check"]] = shown
    return found


def page(report: Json, shown: Mapping[tuple[str, str], Json], past: Sequence[Json] = ()) -> str:
    """The page as text."""
    models = model_views(report, shown)
    findings = finding_views(report)
    codes = sorted({code for finding in findings for code in finding.codes})
    outcomes = [variant.outcome for model in models for variant in model.variants]
    if (baseline := report["baseline"]) and baseline["check"]["outcome"] in ("failed", "inconclusive"):
        outcomes.append(baseline["check"]["outcome"])  # What else is counted is variants.
    environment = Environment(loader=PackageLoader("pytest_mnnquant.report"), autoescape=True, trim_blocks=True)
    environment.globals |= {"file_size": file_size, "SIGNS": SIGNS, "COLUMNS": list(FIGURES), "HISTORY": HISTORY}
    return environment.get_template("report.html").render(
        report=report,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        models=models,
        findings=findings,
        rules=rule_pages(codes),
        counts=[(outcome, outcomes.count(outcome)) for outcome in _OUTCOMES if outcome in outcomes],
        past={one["model"] for one in past if len(one["runs"]) > 1},
        library=packed(get_plotlyjs()),
        data=packed(json.dumps(plain(chart_data(models, report, shown, past)), allow_nan=False)),
    )


def packed(text: str) -> Markup:
    """Text as base64 of gzip: the page unpacks it when a chart is first looked at, so that it opens at once."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())  # base64 has nothing to escape
