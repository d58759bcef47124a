"""The HTML report (`--mnn-report x.html`): one file that needs no network and no other file."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import datetime, timezone
from typing import Final

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, PASSED, SKIPPED
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.report.html_charts import chart_data, charted_runs
from pytest_mnnquant.report.html_figures import file_size
from pytest_mnnquant.report.html_pages import rule_pages
from pytest_mnnquant.report.html_samples import drawing
from pytest_mnnquant.report.html_view import SIGNS, ModelView, finding_views, model_views
from pytest_mnnquant.report.json_report import json_value
from pytest_mnnquant.report.model import Report
from pytest_mnnquant.report.rows import COLUMNS

_OUTCOMES: Final = (FAILED, INCONCLUSIVE, PASSED, SKIPPED)


def render(report: Report) -> str:
    """The page of a report."""
    models = model_views(report)
    findings = finding_views(report)
    environment = Environment(loader=PackageLoader("pytest_mnnquant.report"), autoescape=True, trim_blocks=True)
    environment.globals |= {
        "drawing": drawing,
        "file_size": file_size,
        "SIGNS": SIGNS,
        "COLUMNS": COLUMNS,
        "METRICS": METRICS,
    }
    return environment.get_template("report.html").render(
        report=report,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        models=models,
        findings=findings,
        rules=rule_pages(sorted({code for finding in findings for code in finding.codes})),
        counts=_counts(report, models),
        with_history={history.model for history in report.history if len(charted_runs(history)) > 1},
        library=packed(get_plotlyjs()),
        data=packed(json.dumps(json_value(chart_data(models, report)), allow_nan=False)),
    )


def _counts(report: Report, models: tuple[ModelView, ...]) -> list[tuple[str, int]]:
    """The number of variants per outcome, the worst first; a baseline file that did not pass counts too."""
    outcomes = [variant.outcome for model in models for variant in model.variants]
    if report.baseline and report.baseline.check.outcome in (FAILED, INCONCLUSIVE):
        outcomes.append(report.baseline.check.outcome)
    return [(outcome, outcomes.count(outcome)) for outcome in _OUTCOMES if outcome in outcomes]


def packed(text: str) -> Markup:
    """Text as base64 of gzip. The page unpacks it when a chart becomes visible, so it opens fast."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())  # base64 has nothing to escape
