"""The Markdown report, for comments on pull requests and GitHub's step summary; never longer than GitHub allows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.finding import FAILED, SKIPPED
from pytest_mnnquant.findings.rule import Severity
from pytest_mnnquant.report.model import ModelReport, Report
from pytest_mnnquant.report.rows import COLUMNS, Outcome, rows_of, verdict_of, worst
from pytest_mnnquant.report.target_table import TITLE, TargetRow, target_cells
from pytest_mnnquant.report.variant_report import ReportedFinding
from pytest_mnnquant.report.width import cut, shown

#: GitHub takes 65,536 characters in a comment, and more in a step summary; the composite action adds a marker.
LIMIT: Final = 65_000
# The middle of longer texts and the end of longer lists are cut; a name is that of a layer, a file or a model.
_TEXT, _NAME, _LIST = 2_000, 200, 10
# Special characters of Markdown and HTML. An underscore within a word is not special.
_SPECIAL: Final = re.compile(r"[&<>`*\[\]|~#$\\]|(?<!\w)_+|_+(?!\w)")
_CALL: Final = re.compile(r"(?<!\w)@")
# The priority of blocks if not all fit, and the name of each kind in the line about omitted blocks.
_HEAD, _TABLE, _ERROR, _INCONCLUSIVE, _MODES, _WARNING, _SKIPPED = range(7)
_KINDS: Final = ("", "tables", "errors", "inconclusive checks", "comparisons of modes", "warnings", "skipped checks")


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of the report that is written completely or omitted."""

    kind: int
    text: str


def render(report: Report) -> str:
    """The report as GitHub's Markdown."""
    blocks = list(_blocks(report))
    room = LIMIT - 300  # For the line about omitted blocks.
    fitting: set[int] = set()
    for place in sorted(range(len(blocks)), key=lambda place: blocks[place].kind):
        size = len(blocks[place].text) + 2
        if size <= room:
            fitting.add(place)
            room -= size
    texts = [block.text for place, block in enumerate(blocks) if place in fitting]
    omitted = [block.kind for place, block in enumerate(blocks) if place not in fitting]
    if omitted:
        counts = ", ".join(f"{omitted.count(kind)} {_KINDS[kind]}" for kind in sorted(set(omitted)))
        texts.append(f"Left out because of GitHub's size limit: {counts}. `--mnn-report=report.json` has everything.")
    return "\n\n".join(texts) + "\n"


def _blocks(report: Report) -> Iterator[_Block]:
    outcomes = [verdict_of(model, report.strict).outcome for model in report.models]
    baseline = report.baseline
    if baseline is not None and baseline.check.outcome == FAILED:
        outcomes.append(Outcome.FAILED)
    yield _Block(_HEAD, f"## MNN quantization: {worst(outcomes).value if outcomes else 'nothing was checked'}")
    for model in report.models:
        yield from _model_blocks(model, report.strict)
    if baseline is not None and baseline.check.findings:
        yield _Block(_TABLE, f"### {_code(baseline.path)}: {baseline.check.outcome}")
        for finding in baseline.check.findings:
            yield _Block(_ERROR, _details(finding))
    host = report.host
    tools = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    yield _Block(_HEAD, f"{tools}; Python {host.python}, {host.system} {host.machine}")


def _model_blocks(model: ModelReport, strict: bool) -> Iterator[_Block]:
    yield _Block(_TABLE, _table(model, strict))
    if model.targets:
        yield _Block(_TABLE, _target_table(model.targets))
    yield from (_Block(_ERROR, _details(finding)) for finding in model.findings(Severity.ERROR))
    yield from (_Block(_INCONCLUSIVE, _details(finding)) for finding in model.findings(Severity.GAP))
    for comparison in model.modes:
        yield _Block(_MODES, f"{_code(comparison.recipe)}: {_text(comparison.verdict)}.")
    yield from (_Block(_WARNING, text) for text in _warnings(model))
    yield from (_Block(_SKIPPED, text) for text in _skipped(model))


def _table(model: ModelReport, strict: bool) -> str:
    verdict = verdict_of(model, strict)
    lines = [
        f"### {_code(model.name)}: {verdict.outcome.value}",
        "",
        _text(f"{cut(verdict.why, _TEXT)} ({verdict.checks})" if verdict.why else verdict.checks),
        "",
        f"| variant | {' | '.join(COLUMNS)} | verdict |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for row in rows_of(model, strict):
        outcome = f"**{row.outcome.value}**: {_text(row.checks)}" if row.checks else f"**{row.outcome.value}**"
        lines.append(f"| {_code(row.label)} | {' | '.join(map(_text, row.texts))} | {outcome} |")
    return "\n".join(lines)


def _target_table(rows: Sequence[TargetRow]) -> str:
    head, *lines = ([_text(cell) for cell in line] for line in target_cells(rows))
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"{TITLE.capitalize()}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *table])


def _details(finding: ReportedFinding) -> str:
    layer = f" in {_code(finding.layer)}" if finding.layer else ""
    where = f"{_code(finding.variant or 'baseline')}, {finding.check}"
    lines = [
        f"<details><summary>{finding.rule.title}{layer} ({where})</summary>",
        "",
        *_paragraph("Measured", finding.message),
        *_paragraph("Why", finding.cause),
        *_paragraph("Fix", finding.fix),
    ]
    effects = list(dict.fromkeys(f"{effect.check}: {effect.title}" for effect in finding.consequences))
    if effects:
        more = [f"- and {len(effects) - _LIST} more"] if len(effects) > _LIST else []
        lines += ["As a result:", "", *(f"- {_text(cut(text, _NAME))}" for text in effects[:_LIST]), *more, ""]
    return "\n".join([*lines, f"More: `pytest-mnnquant explain {finding.code}`", "", "</details>"])


def _paragraph(title: str, text: str) -> list[str]:
    """A paragraph; text with several lines, such as a log, keeps them."""
    if not text:
        return []
    text = cut(text, _TEXT)
    first, _, rest = text.partition("\n")
    if not rest:
        return [f"**{title}:** {_text(first)}", ""]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", rest)), default=0))
    return [f"**{title}:** {_text(first)}", "", fence, *map(shown, rest.splitlines()), fence, ""]


def _warnings(model: ModelReport) -> Iterator[str]:
    """One line per rule with warnings."""
    by_rule: dict[str, list[ReportedFinding]] = {}
    for warning in model.findings(Severity.WARNING):
        by_rule.setdefault(warning.code, []).append(warning)
    for first, *others in by_rule.values():
        more = f" (and {len(others)} more)" if others else ""
        message = _text(cut(first.message, _TEXT))
        yield f"Warning {first.rule.title}, {_code(first.variant)}: {message}{more}"


def _skipped(model: ModelReport) -> Iterator[str]:
    """One line per reason of skipped checks."""
    reasons: dict[str, list[str]] = {}
    for variant in model.variants:
        for check in variant.checks:
            if check.outcome == SKIPPED:
                reasons.setdefault(f"{check.check}: {check.reason}", []).append(variant.label)
    for reason, labels in reasons.items():
        yield f"Skipped {_text(cut(reason, _TEXT))} ({', '.join(map(_code, labels[:_LIST]))})"


def _code(name: str) -> str:
    """A name as code, in which GitHub does not notify users."""
    return f"<code>{_escaped(cut(name, _NAME))}</code>"


def _text(text: str) -> str:
    """Text unmodified, on one line; an @ that begins a word would notify a user."""
    return _CALL.sub("@&#8288;", _escaped(text))


def _escaped(text: str) -> str:
    joined = shown(" ".join(text.split()))
    return _SPECIAL.sub(lambda match: "".join(f"&#{ord(character)};" for character in match[0]), joined)
