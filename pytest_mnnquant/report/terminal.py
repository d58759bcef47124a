"""The summary at the end of a run: one table and one line of verdict a model, then what was not judged, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_mnnquant.findings.figures import label_of
from pytest_mnnquant.report.json_report import united
from pytest_mnnquant.report.modes import compare_modes, comparison_lines
from pytest_mnnquant.report.places import place_lines, places_of
from pytest_mnnquant.report.rows import FAILED, FIGURES, OK, OPEN, Json, Row, rows_of, verdict_of
from pytest_mnnquant.report.width import cut, pad, shown, width, wrapped

_HEAD: Final = ("variant", *FIGURES, "verdict")
_COLOURS: Final[Mapping[str, dict[str, bool]]] = {FAILED: {"red": True}, OPEN: {"yellow": True}, OK: {"green": True}}
# Words that go where lines are too narrow for them; the head of the column then says them.
_UNITS: Final = (" smaller", " float")
_SHORT: Final = {"size": "smaller"}
# A name shorter than this is nobody's.
_NAME: Final = 12
Line = tuple[str, dict[str, bool]]


def write_summary(
    reporter: Any, report: Json, records: Sequence[Mapping[str, Any]], verbosity: int = 0, columns: int = 80
) -> None:
    """Write to pytest's terminal reporter: verdicts alone where pytest is quiet, all places where it is verbose."""
    if not report["models"]:
        return
    columns -= 1  # A line that ends in the last column makes some terminals begin a new one.
    reporter.write_sep("=", "MNN quantization")
    compared = compare_modes(united(records))
    for model in report["models"]:
        rows = rows_of(model, report["strict"])
        if verbosity >= 0:
            reporter.write_line(cut(shown(model["name"]), columns), bold=True)
            for line, colour in table(rows, columns):
                reporter.write_line(line, **colour)
            for comparison in compared.get(model["name"], []):
                for line in comparison_lines(comparison, columns):
                    reporter.write_line(line)
            for line in place_lines(places_of(model), columns):
                reporter.write_line(line)
        line, colour = _verdict(model, report["strict"], columns)
        reporter.write_line(line, **colour)
    if (baseline := report["baseline"]) is not None and baseline["check"]["findings"]:
        check = baseline["check"]
        outcome, first = FAILED if check["outcome"] == "failed" else OK, check["findings"][0]
        line = f"{shown(Path(baseline['path']).name)}: {outcome}: {first['code']} {first['rule']}, {first['message']}"
        for part in wrapped("", shown(line), columns):
            reporter.write_line(part, **_COLOURS[outcome], bold=True)
    for line in _notes(report, verbosity > 0, columns) if verbosity >= 0 else ():
        reporter.write_line(line, yellow=True)


def table(rows: Sequence[Row], columns: int) -> list[Line]:
    """The lines of a table that fits: without units where it must, then with verdicts folded, then names too."""
    for units, folded in ((True, False), (False, False), (False, True)):
        cells = [_cells(row, units, folded) for row in rows]
        head = _HEAD if units else tuple(_SHORT.get(name, name) for name in _HEAD)
        used = [place for place in range(len(head)) if any(row[place] != "-" for row in cells)]
        widths = [max(width(row[place]) for row in (head, *cells)) for place in used]
        if sum(widths) + 2 * len(widths) <= columns:
            break
    else:
        others = sum(widths[1:]) + 2 * len(widths)
        widths[0] = max(len(_HEAD[0]), min(widths[0], columns - others))
    lines: list[Line] = [(_line([head[place] for place in used], widths), {"light": True})]
    for row, its in zip(rows, cells, strict=True):
        colour, first = _COLOURS[row.outcome], its[0]
        if width(first) > widths[0]:
            lines += [(line, colour) for line in wrapped("  ", first, columns)]
            first = ""
        lines.append((_line([first, *(its[place] for place in used[1:])], widths), colour))
        if folded and row.checks:
            lines += [(line, colour) for line in wrapped("    ", row.checks, columns)]
    return [(cut(line, columns), colour) for line, colour in lines]


def _cells(row: Row, units: bool, folded: bool) -> tuple[str, ...]:
    figures = list(row.figures)
    if not units:
        for unit in _UNITS:
            figures = [figure.removesuffix(unit) for figure in figures]
    return (shown(row.label), *figures, row.outcome if folded else row.verdict)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join("  " + pad(cell, columns) for cell, columns in zip(cells, widths, strict=True)).rstrip()


def _verdict(model: Json, strict: bool, columns: int) -> Line:
    verdict = verdict_of(model, strict)
    head = f"{cut(shown(model['name']), columns // 3)}: {verdict.outcome}"
    line = f"{head}: {shown(verdict.why)}" if verdict.why else head
    layer, room = shown(verdict.layer), columns - width(line)
    if room < 0 and width(layer) + room > _NAME:  # The middle of a layer's name says least.
        line = line.replace(layer, cut(layer, width(layer) + room))
    counted = f"{line} ({verdict.checks})"
    return counted if width(counted) <= columns else cut(line, columns), {**_COLOURS[verdict.outcome], "bold": True}


def _notes(report: Json, verbose: bool, columns: int) -> list[str]:
    """What is told beside the verdicts: ignored rules, warnings, notes of checks, and what was not judged."""
    told: dict[str, list[str]] = {}
    said: dict[str, list[str]] = {}
    unjudged: dict[str, list[str]] = {}
    ignored: Counter[str] = Counter()
    checks = (
        (f"{model['name']} {label_of(variant)}", check)
        for model in report["models"]
        for variant in model["variants"]
        for check in variant["checks"]
    )
    for where, check in checks:
        ignored.update(check["ignored"])
        for finding in check["findings"]:
            if finding["severity"] == "warning":
                title = f"warning {finding['code']} {finding['rule']}"
                told.setdefault(title, []).append(f"{where}: {finding['message']}")
        if note := check["metrics"].get("note"):
            said.setdefault(check["check"], []).append(f"{where}: {note}")
        if check["outcome"] in ("skipped", "inconclusive"):
            unjudged.setdefault(f"{check['check']} {check['outcome']}: {check['reason']}", []).append(where)
    lines = [f"  ignored {code}: {count} (--mnn-ignore)" for code, count in sorted(ignored.items())]
    for title, texts in (told | said).items():
        more = f" (and {len(texts) - 1} more)" if len(texts) > 1 and not verbose else ""
        lines += wrapped("  ", f"{title}: {texts[0]}{more}", columns)
        lines += [line for text in texts[1:] for line in wrapped("    ", text, columns)] if verbose else []
    for title, places in unjudged.items():
        where = ", ".join(places) if verbose or len(places) < 3 else f"{len(places)} variants"
        lines += wrapped("  ", f"{title} ({where})", columns)
    return lines
