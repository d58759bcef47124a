"""The summary at the end of a run: a table and a verdict per model, then skipped checks with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.findings.finding import FAILED, INCONCLUSIVE, SKIPPED
from pytest_mnnquant.findings.metric import METRICS
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.model import BaselineReport, ModelReport, Report
from pytest_mnnquant.report.modes import comparison_lines
from pytest_mnnquant.report.rows import COLUMNS, Outcome, Row, rows_of, verdict_of
from pytest_mnnquant.report.target_table import target_lines
from pytest_mnnquant.report.variant_report import CheckReport
from pytest_mnnquant.report.width import cut, pad, shown, width, wrapped

_HEAD: Final = ("variant", *COLUMNS, "verdict")
_COLOURS: Final[Mapping[Outcome, dict[str, bool]]] = {
    Outcome.FAILED: {"red": True},
    Outcome.INCONCLUSIVE: {"yellow": True},
    Outcome.OK: {"green": True},
    Outcome.SKIPPED: {"yellow": True},
}
# Units that are removed if lines are too narrow; the heading of the column then has them.
_UNITS: Final = (" smaller", " float")
_SHORT_TITLES: Final = {metric.title: metric.short_title for metric in METRICS if metric.short_title}
# Names are not cut to less than this, since they could not be recognized.
_NAME: Final = 12
Line = tuple[str, dict[str, bool]]


def write_summary(reporter: Any, report: Report, verbosity: int = 0, columns: int = 80) -> None:
    """Write to pytest's terminal reporter: verdicts only if pytest is quiet, all layers if it is verbose."""
    if not report.models:
        return
    reporter.write_sep("=", "MNN quantization")
    for line, style in summary_lines(report, verbosity, columns):
        reporter.write_line(line, **style)


def summary_lines(report: Report, verbosity: int, columns: int) -> Iterator[Line]:
    """The lines of the summary, each with its style."""
    columns -= 1  # Some terminals begin a new line after a line that ends in the last column.
    for model in report.models:
        if verbosity >= 0:
            yield from _model_lines(model, report.strict, columns)
        yield _verdict(model, report.strict, columns)
    if report.baseline is not None:
        yield from _baseline_lines(report.baseline, columns)
    if verbosity >= 0:
        yield from ((line, {"yellow": True}) for line in _notes(report, verbosity > 0, columns))


def _model_lines(model: ModelReport, strict: bool, columns: int) -> Iterator[Line]:
    """The name of a model, its table, and its comparisons."""
    yield cut(shown(model.name), columns), {"bold": True}
    yield from table(rows_of(model, strict), columns)
    for comparison in model.modes:
        yield from ((line, {}) for line in comparison_lines(comparison, columns))
    yield from ((line, {}) for line in target_lines(model.targets, columns))


def _baseline_lines(baseline: BaselineReport, columns: int) -> Iterator[Line]:
    """The first finding of the baseline file."""
    for first in baseline.check.findings[:1]:
        outcome = Outcome.FAILED if baseline.check.outcome == FAILED else Outcome.OK
        line = f"{shown(Path(baseline.path).name)}: {outcome.value}: {first.rule.title}, {first.message}"
        yield from ((part, {**_COLOURS[outcome], "bold": True}) for part in wrapped("", shown(line), columns))


def table(rows: Sequence[Row], columns: int) -> list[Line]:
    """The lines of a table that fits: if needed without units, then with wrapped verdicts, then with cut names."""
    for units, folded in ((True, False), (False, False), (False, True)):
        cells = [_cells(row, units, folded) for row in rows]
        head = _HEAD if units else tuple(_SHORT_TITLES.get(name, name) for name in _HEAD)
        used = [column for column in range(len(head)) if any(row[column] != "-" for row in cells)]
        widths = [max(width(row[column]) for row in (head, *cells)) for column in used]
        if sum(widths) + 2 * len(widths) <= columns:
            break
    else:
        others = sum(widths[1:]) + 2 * len(widths)
        widths[0] = max(len(_HEAD[0]), min(widths[0], columns - others))
    lines: list[Line] = [(_line([head[column] for column in used], widths), {"light": True})]
    for row, of_row in zip(rows, cells, strict=True):
        colour, first = _COLOURS[row.outcome], of_row[0]
        if width(first) > widths[0]:
            lines += [(line, colour) for line in wrapped("  ", first, columns)]
            first = ""
        lines.append((_line([first, *(of_row[column] for column in used[1:])], widths), colour))
        if folded and row.checks:
            lines += [(line, colour) for line in wrapped("    ", row.checks, columns)]
    return [(cut(line, columns), colour) for line, colour in lines]


def _cells(row: Row, units: bool, folded: bool) -> tuple[str, ...]:
    texts = row.texts
    for unit in () if units else _UNITS:
        texts = tuple(text.removesuffix(unit) for text in texts)
    return (shown(row.label), *texts, row.outcome.value if folded else row.verdict)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join("  " + pad(cell, columns) for cell, columns in zip(cells, widths, strict=True)).rstrip()


def _verdict(model: ModelReport, strict: bool, columns: int) -> Line:
    verdict = verdict_of(model, strict)
    head = f"{cut(shown(model.name), columns // 3)}: {verdict.outcome.value}"
    line = f"{head}: {shown(verdict.why)}" if verdict.why else head
    layer, room = shown(verdict.layer), columns - width(line)
    if room < 0 and width(layer) + room > _NAME:  # The middle of a layer's name is the least useful part.
        line = line.replace(layer, cut(layer, width(layer) + room))
    counted = f"{line} ({verdict.checks})"
    return counted if width(counted) <= columns else cut(line, columns), {**_COLOURS[verdict.outcome], "bold": True}


def _notes(report: Report, verbose: bool, columns: int) -> Iterator[str]:
    """The lines below the verdicts: ignored rules, warnings, notes of checks, and skipped checks."""
    ignored: Counter[str] = Counter()
    for _, check in _checks(report):
        ignored.update(check.ignored)
    yield from (f"  ignored {code}: {count} (--mnn-ignore)" for code, count in sorted(ignored.items()))
    for title, (first, *others) in (_warnings(report) | _check_notes(report)).items():
        more = f" (and {len(others)} more)" if others and not verbose else ""
        yield from wrapped("  ", f"{title}: {first}{more}", columns)
        for text in others if verbose else ():
            yield from wrapped("    ", text, columns)
    for title, names in _unjudged(report).items():
        where = ", ".join(names) if verbose or len(names) < 3 else f"{len(names)} variants"
        yield from wrapped("  ", f"{title} ({where})", columns)


def _checks(report: Report) -> Iterator[tuple[str, CheckReport]]:
    """All checks, each with the name of its model and variant."""
    for model in report.models:
        for variant in model.variants:
            yield from ((f"{model.name} {variant.label}", check) for check in variant.checks)


def _warnings(report: Report) -> dict[str, list[str]]:
    """Messages by rule."""
    messages: dict[str, list[str]] = {}
    for name, check in _checks(report):
        for finding in check.findings:
            if finding.severity is Severity.WARNING:
                title = f"warning {finding.rule.title}"
                messages.setdefault(title, []).append(f"{name}: {finding.message}")
    return messages


def _check_notes(report: Report) -> dict[str, list[str]]:
    """Notes by check."""
    notes: dict[str, list[str]] = {}
    for name, check in _checks(report):
        if check.note:
            notes.setdefault(check.check, []).append(f"{name}: {check.note}")
    return notes


def _unjudged(report: Report) -> dict[str, list[str]]:
    """Variants by check and by the reason why the check was skipped or inconclusive."""
    variants: dict[str, list[str]] = {}
    for name, check in _checks(report):
        if check.outcome in (SKIPPED, INCONCLUSIVE):
            variants.setdefault(f"{check.check} {check.outcome}: {check.reason}", []).append(name)
    return variants
