"""A failed check in at most 25 lines: what was measured and allowed, where, why, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.findings.rules import Severity
from pytest_mnnquant.report.width import cut, shown, width, wrapped

#: A failure takes no more lines than this, on a terminal of so many columns.
LINES: Final = 25
COLUMNS: Final = 80
#: Where that is which a failure leaves out.
IN_REPORT: Final = " (--mnn-report=report.json lists all)"
_SHOWN: Final = 6
# Layers that the same befell, which are told one by one.
_ALSO: Final = 2
_ORDER: Final = (Severity.ERROR, Severity.CONSEQUENCE, Severity.GAP, Severity.WARNING)
# Lines of a finding's message, cause, remedy, and of what comes from it.
_LIMITS: Final = (6, 5, 7, 3)


class _Case(Protocol):
    label: str

    @property
    def gate(self) -> Any: ...


def failure_text(case: _Case, result: Result) -> str:
    """A failed check as the user reads it."""
    head = f"{case.gate.settings.name} {case.label}: {result.check} {result.outcome}"
    if result.findings:
        return findings_text(f"{head}:", result)
    return "\n".join(wrapped("", f"{head}: {result.reason}", COLUMNS)[:LINES])


def findings_text(head: str, result: Result) -> str:
    """The findings of a failed check, below a line that begins with `head` and names the first."""
    below = {(one.check, one.code, one.layer) for finding in result.findings for one in finding.consequences}
    own = [one for one in result.findings if not (one.follows and (result.check, one.code, one.layer) in below)]
    findings = sorted(own or result.findings, key=lambda finding: _ORDER.index(finding.severity))
    first = _headline(findings)
    lines = [f"{cut(shown(head), 2 * COLUMNS - width(first) - 1)} {first}"]
    end = [f"  more: pytest-mnnquant explain {findings[0].code}"]
    left, is_cut = len(findings), False
    for number, finding in enumerate(findings[:_SHOWN]):
        space = LINES - _rows([*lines, *end]) - 1
        parts = _parts(result.check, finding, findings[number - 1] if number else None)
        kept = _shortened(parts, space if number == 0 else 0)
        if _rows(kept) > space:
            break
        lines += kept
        left -= 1
        is_cut = is_cut or len(kept) < sum(map(len, parts))
    if left:
        lines.append(f"  and {left} more{IN_REPORT}")
    elif is_cut:
        lines.append(f"  shortened{IN_REPORT}")
    return "\n".join(lines + end)


def _headline(findings: Sequence[Finding]) -> str:
    """The first rule and where it struck, in a few words: what pytest's short summary shows."""
    first = findings[0]
    if first.follows:
        return f"follows from {cut(shown(str(first.follows)), COLUMNS)}"
    places = [one.layer for finding in findings for one in (finding, *finding.consequences) if one.code == first.code]
    places = list(dict.fromkeys(place for place in places if place))
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{first.code} {first.rule.name}" + (f" in {cut(shown(places[0]), COLUMNS // 2)}{more}" if places else "")


def _parts(check: str, finding: Finding, previous: Finding | None) -> list[list[str]]:
    """The lines of one finding, in four parts; a cause or remedy that was just told is not told again."""
    where = f"{finding.layer}: " if finding.layer else ""
    parts = [wrapped(f"  {finding.code} {finding.rule.name}  ", where + finding.message, COLUMNS)]
    for title, text, told in (
        ("why", finding.cause, previous is not None and previous.cause == finding.cause),
        ("fix", finding.fix, previous is not None and previous.fix == finding.fix),
    ):
        parts.append(wrapped(f"    {title}: ", text, COLUMNS) if text and not told else [])
    return [*parts, _consequence_lines(check, finding)]


def _consequence_lines(check: str, finding: Finding) -> list[str]:
    """The same in other layers, and what comes from it in other checks: a line for each check and rule."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for one in finding.consequences:
        kinds.setdefault((one.check, one.code), []).append(one)
    lines = []
    for (other, code), ones in kinds.items():
        if (other, code) == (check, finding.code):
            texts = [f"{one.layer}: {one.message}" if one.layer else one.message for one in ones[:_ALSO]]
            lines += [line for text in texts for line in wrapped("    also ", text, COLUMNS)]
            lines += [f"    and {len(ones) - _ALSO} more"] if len(ones) > _ALSO else []
            continue
        layers = list(dict.fromkeys(one.layer for one in ones if one.layer))
        where = f" in {layers[0]}" + (f" and {len(layers) - 1} more" if len(layers) > 1 else "") if layers else ""
        lines += wrapped("    so: ", f"{other}: {code} {ones[0].rule.name}{where}", COLUMNS)
    return lines


def _shortened(parts: Sequence[list[str]], space: int) -> list[str]:
    """The parts in so many rows of the terminal: each has its own limit, and what the others leave of the space."""
    allowed = [min(_rows(part), limit) for part, limit in zip(parts, _LIMITS, strict=True)]
    spare = max(0, space - sum(allowed))
    for number, part in enumerate(parts):
        more = min(_rows(part) - allowed[number], spare)
        allowed[number] += more
        spare -= more
    return [line for part, rows in zip(parts, allowed, strict=True) for line in _middle_out(part, rows)]


def _middle_out(lines: list[str], rows: int) -> list[str]:
    """The first and last of the lines, in so many rows: messages begin with the figure, logs end with the error."""
    if rows == 0:
        return []
    if _rows(lines) <= rows:
        return lines
    for kept in range(min(rows, len(lines)) - 1, 0, -1):
        head, tail = lines[: -(-kept // 2)], lines[len(lines) - kept // 2 :]
        if _rows([*head, "", *tail]) <= rows:
            return [*head, "      ...", *tail]
    return [cut(lines[0], COLUMNS * rows)]


def _rows(lines: Sequence[str]) -> int:
    """How many rows of a terminal the lines take: words that are wider than one are broken by it."""
    return sum(max(1, -(-width(line) // COLUMNS)) for line in lines)
