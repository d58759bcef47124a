"""What the terminal says: one table a model, and failures with cause and remedy."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pytest_mnnquant.checks.finding import Finding, Result
from pytest_mnnquant.checks.rules import Severity
from pytest_mnnquant.report.modes import compare_modes, comparison_lines

_SHOWN: Final = 6
# Layers that the same befell, which are told one by one.
_ALSO: Final = 2
_ORDER: Final = (Severity.ERROR, Severity.CONSEQUENCE, Severity.GAP, Severity.WARNING)
_WIDTH: Final = 80


class _Case(Protocol):
    label: str

    @property
    def gate(self) -> Any: ...


def failure_text(case: _Case, result: Result) -> str:
    """A failed check as the user reads it: what was measured, what was allowed, where, why, what to do."""
    head = f"{case.gate.settings.name} {case.label}: {result.check} {result.outcome}"
    return findings_text(f"{head}:", result) if result.findings else f"{head}: {result.reason}"


def findings_text(head: str, result: Result) -> str:
    """The findings of a failed check, below a line that begins with `head` and names the first."""
    below = {(one.check, one.code, one.layer) for finding in result.findings for one in finding.consequences}
    own = [one for one in result.findings if not (one.follows and (result.check, one.code, one.layer) in below)]
    findings = sorted(own or result.findings, key=lambda finding: _ORDER.index(finding.severity))
    lines = [f"{head} {_headline(findings)}"]
    for number, finding in enumerate(findings[:_SHOWN]):
        previous = findings[number - 1] if number else None
        lines += _finding_lines(result.check, finding, previous)
    if len(findings) > _SHOWN:
        lines.append(f"  and {len(findings) - _SHOWN} more (--mnn-report=report.json lists all)")
    return "\n".join(lines)


def _headline(findings: Sequence[Finding]) -> str:
    """The first rule and where it struck, in a few words: what pytest's short summary shows."""
    first = findings[0]
    if first.follows:
        return f"follows from {first.follows}"
    places = [one.layer for finding in findings for one in (finding, *finding.consequences) if one.code == first.code]
    places = list(dict.fromkeys(place for place in places if place))
    where = f" in {places[0]}" + (f" and {len(places) - 1} more" if len(places) > 1 else "") if places else ""
    return f"{first.code} {first.rule.name}{where}"


def _finding_lines(check: str, finding: Finding, previous: Finding | None) -> list[str]:
    """The lines of one finding; a cause or remedy that was just told is not told again."""
    where = f"{finding.layer}: " if finding.layer else ""
    lines = _wrapped(f"  {finding.code} {finding.rule.name}  ", where + finding.message)
    for title, text, told in (
        ("why", finding.cause, previous is not None and previous.cause == finding.cause),
        ("fix", finding.remedy, previous is not None and previous.remedy == finding.remedy),
    ):
        if text and not told:
            lines += _wrapped(f"    {title}: ", text)
    return lines + _consequence_lines(check, finding)


def _consequence_lines(check: str, finding: Finding) -> list[str]:
    """The same in other layers, and what comes from it in other checks: a line for each check and rule."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for one in finding.consequences:
        kinds.setdefault((one.check, one.code), []).append(one)
    lines = []
    for (other, code), ones in kinds.items():
        if (other, code) == (check, finding.code):
            texts = [f"{one.layer}: {one.message}" if one.layer else one.message for one in ones[:_ALSO]]
            lines += [line for text in texts for line in _wrapped("    also ", text)]
            lines += [f"    and {len(ones) - _ALSO} more"] if len(ones) > _ALSO else []
            continue
        layers = list(dict.fromkeys(one.layer for one in ones if one.layer))
        where = f" in {layers[0]}" + (f" and {len(layers) - 1} more" if len(layers) > 1 else "") if layers else ""
        lines += _wrapped("    so: ", f"{other}: {code} {ones[0].rule.name}{where}")
    return lines


def _wrapped(first: str, text: str) -> list[str]:
    """Wrap at blanks only: names of layers and files, and commands, must stay whole to be copied."""
    lines: list[str] = []
    for part in text.splitlines() or [""]:
        indent = " " * 6
        lines += textwrap.wrap(
            part,
            width=_WIDTH,
            initial_indent=indent if lines else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [first.rstrip()]
    return lines


COLUMNS: Final = ("variant", "size", "coverage", "accuracy change", "latency", "memory", "verdict")


def tables(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """For each model: its name, and a row a variant."""
    models: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for item in records:
        variants = models.setdefault(item["model"], {})
        variants.setdefault(item["label"], {})[item["check"]["check"]] = item["check"]
    return [(name, [_row(label, checks) for label, checks in variants.items()]) for name, variants in models.items()]


def _row(label: str, checks: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    def metric(check: str, key: str) -> Any:
        return checks.get(check, {}).get("metrics", {}).get(key)

    size, share = metric("size", "size_ratio"), metric("coverage", "coverage")
    ratio, memory = metric("latency", "latency_ratio"), metric("memory", "memory_ratio")
    failed = _failed(checks)
    open_ = [name for name, check in checks.items() if check["outcome"] == "inconclusive"]
    verdict = f"FAILED: {failed}" if failed else "ok" + (f" (inconclusive: {', '.join(open_)})" if open_ else "")
    return (
        label,
        _size(size),
        "-" if share is None else f"{share:.1%}",
        _accuracy(metric("accuracy", "task"), metric("accuracy", "outputs")),
        "-" if ratio is None else f"{ratio:.2f}x float",
        "-" if memory is None else f"{memory:.2f}x float",
        verdict,
    )


def _failed(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """The checks that failed: those at the root of it, then those that follow from these."""
    roots: list[str] = []
    effects: list[str] = []
    for name, check in checks.items():
        if check["outcome"] == "failed":
            severities = {finding["severity"] for finding in check["findings"]}
            (effects if "consequence" in severities and "error" not in severities else roots).append(name)
    parts = [", ".join(roots)] if roots else []
    return ", hence ".join([*parts, ", ".join(effects)] if effects else parts)


def _size(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x LARGER"


def _accuracy(task: Mapping[str, Any] | None, outputs: Mapping[str, Mapping[str, Any]] | None) -> str:
    if task is not None:
        change = task["quantized"] - task["float"]
        return f"{task['label']} {change:+.4f}" if change else f"{task['label']} +-0"
    cosines = [figures["cosine"] for figures in (outputs or {}).values() if figures["cosine"] is not None]
    return f"cosine {min(cosines):.4f}" if cosines else "-"


def write_summary(reporter: Any, records: Sequence[Mapping[str, Any]], verbose: bool) -> None:
    """Write the tables, the warnings and the skipped checks to pytest's terminal reporter."""
    if not records:
        return
    reporter.section("MNN quantization", sep="=")
    compared = compare_modes(records)
    for name, rows in tables(records):
        reporter.write_line(name, bold=True)
        everything = [COLUMNS, *rows]
        widths = [max(len(row[column]) for row in everything) for column in range(len(COLUMNS))]
        for number, row in enumerate(everything):
            line = "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            colour = {"light": True} if number == 0 else {"red": True} if "FAILED" in row[-1] else {"green": True}
            reporter.write_line(line, **colour)
        for comparison in compared.get(name, []):
            for line in comparison_lines(comparison):
                reporter.write_line(line)
    for line in _notes(records, verbose):
        reporter.write_line(line, yellow=True)


def _notes(records: Sequence[Mapping[str, Any]], verbose: bool) -> list[str]:
    warnings: dict[str, list[str]] = {}
    unjudged: dict[str, list[str]] = {}
    said: dict[str, list[str]] = {}
    ignored: Counter[str] = Counter()
    for item in records:
        check, where = item["check"], f"{item['model']} {item['label']}"
        ignored.update(check["ignored"])
        for finding in check["findings"]:
            if finding["severity"] == "warning":
                warnings.setdefault(f"{finding['code']} {finding['rule']}", []).append(f"{where}: {finding['message']}")
        if note := check["metrics"].get("note"):
            said.setdefault(check["check"], []).append(f"{where}: {note}")
        if check["outcome"] in ("skipped", "inconclusive"):
            unjudged.setdefault(f"{check['check']} {check['outcome']}: {check['reason']}", []).append(where)
    lines = [f"  ignored {code}: {count} (--mnn-ignore)" for code, count in sorted(ignored.items())]
    told = {f"warning {title}": texts for title, texts in warnings.items()} | said
    for title, texts in told.items():
        lines.append(
            f"  {title}: {texts[0]}" + (f" (and {len(texts) - 1} more)" if len(texts) > 1 and not verbose else "")
        )
        if verbose:
            lines += [f"    {text}" for text in texts[1:]]
    for title, places in unjudged.items():
        lines.append(f"  {title} ({', '.join(places) if verbose or len(places) < 3 else f'{len(places)} variants'})")
    return lines
