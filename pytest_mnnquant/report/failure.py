"""A failed check in at most 25 lines: what was measured and required, where, why, how to fix it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.width import cut, shown, width, wrapped

#: The largest number of lines of a failure, on a terminal with this number of columns.
LINES: Final = 25
COLUMNS: Final = 80
# The report that lists everything that a failure leaves out.
_IN_REPORT: Final = " (--mnn-report=report.json lists all)"
_SHOWN: Final = 6
# Layers with the same cause that are listed individually.
_SAME: Final = 2
_ORDER: Final = (Severity.ERROR, Severity.CONSEQUENCE, Severity.GAP, Severity.WARNING)
# The largest number of lines of a finding's message, cause and fix, and of its consequences.
_LIMITS: Final = (6, 5, 7, 3)
_LEAST: Final = (3, 2, 7, 1)
# Which part gets spare lines first: the fix, since a shortened command can't be pasted.
_SPARE_ORDER: Final = (2, 0, 1, 3)


def failure_text(name: str, result: Result, *, in_report: bool = True) -> str:
    """The text of a failed check. `name` is the name of the model and its variant.

    `in_report`: whether a report can list what the text leaves out.
    """
    head = f"{name}: {result.check} {result.outcome}"
    if result.findings:
        return findings_text(f"{head}:", result, in_report=in_report)
    return "\n".join(wrapped("", f"{head}: {result.reason}", COLUMNS)[:LINES])


def findings_text(head: str, result: Result, *, in_report: bool = True) -> str:
    """The findings of a failed check, below a line of `head` and the first rule."""
    findings = _in_order(result)
    headline = _headline(findings)
    lines = [f"{cut(shown(head), 2 * COLUMNS - width(headline) - 1)} {headline}"]
    end = [f"  more: pytest-mnnquant explain {findings[0].code}"]
    unshown, is_cut = len(findings), False
    for number, finding in enumerate(findings[:_SHOWN]):
        space = LINES - _rows([*lines, *end]) - 1
        parts = _fitting_parts(finding, findings[number - 1] if number else None, space)
        fitted = _shortened(parts, space if number == 0 else 0)
        if _rows(fitted) > space:
            break
        lines += fitted
        unshown -= 1
        is_cut = is_cut or len(fitted) < sum(map(len, parts))
    where = _IN_REPORT if in_report else ""
    if unshown:
        lines.append(f"  and {unshown} more{where}")
    elif is_cut:
        lines.append(f"  shortened{where}")
    return "\n".join(lines + end)


def _in_order(result: Result) -> list[Finding]:
    """The findings, the worst first, without those that are listed as consequences of another finding of the check."""
    below = {effect.id for finding in result.findings for effect in finding.consequences}
    roots = [finding for finding in result.findings if not (finding.follows and finding.id in below)]
    return sorted(roots or result.findings, key=lambda finding: _ORDER.index(finding.severity))


def _headline(findings: Sequence[Finding]) -> str:
    """The first rule and its layer, in a few words, for pytest's short summary."""
    first = findings[0]
    if first.follows:
        return f"follows from {cut(shown(str(first.follows)), COLUMNS)}"
    same = [other for finding in findings for other in (finding, *finding.consequences) if other.code == first.code]
    layers = list(dict.fromkeys(other.layer for other in same if other.layer))
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return first.rule.title + (f" in {cut(shown(layers[0]), COLUMNS // 2)}{more}" if layers else "")


def _fitting_parts(finding: Finding, previous: Finding | None, space: int) -> list[list[str]]:
    """The parts of a finding, which lists as many other layers as fit in `space` rows of the terminal."""
    for same in range(_SAME, -1, -1):
        parts = _parts(finding, previous, same)
        if sum(map(_rows, parts)) <= space:
            return parts
    return [*parts[:-1], [*_short_consequences(finding)]]  # A fix that is cut can't be pasted.


def _parts(finding: Finding, previous: Finding | None, same: int) -> list[list[str]]:
    """The lines of one finding, in four parts; a cause or fix equal to the previous finding's is not repeated."""
    where = f"{finding.layer}: " if finding.layer else ""
    parts = [wrapped(f"  {finding.rule.title}  ", where + finding.message, COLUMNS)]
    for title, text, is_repeated in (
        ("why", finding.cause_text, previous is not None and previous.cause == finding.cause),
        ("fix", finding.fix, previous is not None and previous.fix == finding.fix),
    ):
        parts.append(wrapped(f"    {title}: ", text, COLUMNS) if text and not is_repeated else [])
    return [*parts, [*_consequence_lines(finding, same)]]


def _consequence_lines(finding: Finding, same: int) -> Iterator[str]:
    """The same finding in `same` other layers, and its consequences in other checks: one line per check and rule."""
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    for effect in finding.consequences:
        by_rule.setdefault((effect.check, effect.code), []).append(effect)
    for (check, code), effects in by_rule.items():
        if (check, code) == (finding.check, finding.code):
            yield from _same_lines(effects, same)
            continue
        layers = list(dict.fromkeys(effect.layer for effect in effects if effect.layer))
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        where = f" in {layers[0]}{more}" if layers else ""
        yield from wrapped("    leads to: ", f"{check}: {effects[0].rule.title}{where}", COLUMNS)


def _short_consequences(finding: Finding) -> Iterator[str]:
    """A line for the same finding in other layers, and one for the other checks that fail because of it."""
    same = [effect for effect in finding.consequences if (effect.check, effect.code) == (finding.check, finding.code)]
    if same:
        yield from _same_lines(same, 0)
    others = dict.fromkeys(effect.check for effect in finding.consequences if effect not in same)
    if others:
        yield from wrapped("    leads to failures of: ", ", ".join(others), COLUMNS)


def _same_lines(findings: Sequence[Finding], listed: int) -> Iterator[str]:
    """The same finding in other layers; the first ones are listed."""
    for finding in findings[:listed]:
        where = f"{finding.layer}: " if finding.layer else ""
        yield from wrapped("    also ", where + finding.message, COLUMNS)
    if not listed:
        yield f"    also in {len(findings)} other layer{'s' if len(findings) > 1 else ''}"
    elif len(findings) > listed:
        yield f"    and {len(findings) - listed} more"


def _shortened(parts: Sequence[list[str]], space: int) -> list[str]:
    """The parts in `space` rows of the terminal: each part has its own limit, within the space that is left."""
    needed = [_rows(part) for part in parts]
    # A command that is cut can't be pasted, so a long fix takes rows from the other parts first.
    limits = _LIMITS if needed[2] <= space - sum(_LIMITS) + _LIMITS[2] else _LEAST
    allowed = [min(rows, limit) for rows, limit in zip(needed, limits, strict=True)]
    spare = max(0, space - sum(allowed))
    for number in _SPARE_ORDER:
        more = min(_rows(parts[number]) - allowed[number], spare)
        allowed[number] += more
        spare -= more
    return [line for part, rows in zip(parts, allowed, strict=True) for line in _middle_out(part, rows)]


def _middle_out(lines: list[str], rows: int) -> list[str]:
    """The first and the last lines, in a number of rows: messages begin with the value, logs end with the error."""
    if rows == 0:
        return []
    if _rows(lines) <= rows:
        return lines
    for count in range(min(rows, len(lines)) - 1, 0, -1):
        head, tail = lines[: -(-count // 2)], lines[len(lines) - count // 2 :]
        if _rows([*head, "", *tail]) <= rows:
            return [*head, "      ...", *tail]
    return [cut(lines[0], COLUMNS * rows)]


def _rows(lines: Sequence[str]) -> int:
    """The number of rows that the lines take; a terminal breaks words that are wider than a row."""
    return sum(max(1, -(-width(line) // COLUMNS)) for line in lines)
