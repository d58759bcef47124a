"""The Markdown report, for a comment on a pull request or GitHub's step summary: never longer than a comment may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_mnnquant.findings.figures import label_of
from pytest_mnnquant.report.places import TITLE, PlaceRow, place_table, places_of
from pytest_mnnquant.report.rows import FAILED, FIGURES, Json, Told, rows_of, told, verdict_of, worst
from pytest_mnnquant.report.width import cut, shown

#: Characters that GitHub takes in a comment; a step summary may have more.
LIMIT: Final = 65_536
# Longer texts lose their middle, longer lists their end; a name is a layer's, a file's, a model's.
_TEXT, _NAME, _LIST = 2_000, 200, 10
# What Markdown and HTML take for themselves; an underscore within a word is nobody's.
_SPECIAL: Final = re.compile(r"[&<>`*\[\]|~#$\\]|(?<!\w)_+|_+(?!\w)")
_CALL: Final = re.compile(r"(?<!\w)@")
# What is told first where there is no room for all, and what it is called where it is left out.
_HEAD, _TABLE, _ERROR, _GAP, _MODES, _WARNING, _SKIPPED = range(7)
_KINDS: Final = ("", "tables", "errors", "unanswered questions", "comparisons of modes", "warnings", "skipped checks")


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of the report that is told whole or not at all."""

    kind: int
    text: str


def render(report: Json) -> str:
    """The report as GitHub's Markdown."""
    blocks = list(_blocks(report))
    room = LIMIT - 300  # For the line that says what was left out.
    kept: set[int] = set()
    for place in sorted(range(len(blocks)), key=lambda place: blocks[place].kind):
        size = len(blocks[place].text) + 2
        if size <= room:
            kept.add(place)
            room -= size
    left = [blocks[place].kind for place in range(len(blocks)) if place not in kept]
    texts = [block.text for place, block in enumerate(blocks) if place in kept]
    if left:
        counts = ", ".join(f"{left.count(kind)} {_KINDS[kind]}" for kind in sorted(set(left)))
        texts.append(f"Left out, since GitHub takes no more: {counts}. `--mnn-report=report.json` has all.")
    return "\n\n".join(texts) + "\n"


def _blocks(report: Json) -> Iterator[_Block]:
    models, strict = report["models"], report["strict"]
    outcomes = [verdict_of(model, strict).outcome for model in models]
    baseline = report["baseline"]
    if baseline is not None and baseline["check"]["outcome"] == "failed":
        outcomes.append(FAILED)
    yield _Block(_HEAD, f"## MNN quantization: {worst(outcomes) if outcomes else 'nothing was checked'}")
    for model in models:
        yield _Block(_TABLE, _table(model, strict))
        if rows := places_of(model):
            yield _Block(_TABLE, _beside(rows))
        yield from (_Block(_ERROR, _details(one)) for one in told(model, "error"))
        yield from (_Block(_GAP, _details(one)) for one in told(model, "gap"))
        yield from (_Block(_MODES, f"{_code(one['recipe'])}: {_text(one['verdict'])}.") for one in model["modes"])
        yield from (_Block(_WARNING, text) for text in _warnings(model))
        yield from (_Block(_SKIPPED, text) for text in _skipped(model))
    if baseline is not None and baseline["check"]["findings"]:
        yield _Block(_TABLE, f"### {_code(baseline['path'])}: {baseline['check']['outcome']}")
        for finding in baseline["check"]["findings"]:
            yield _Block(_ERROR, _details(Told("baseline", baseline["check"]["check"], finding)))
    host = report["host"]
    tools = ", ".join(f"{name} {version}" for name, version in report["tool"].items() if version)
    yield _Block(_HEAD, f"{tools}; Python {host['python']}, {host['system']} {host['machine']}")


def _table(model: Json, strict: bool) -> str:
    verdict = verdict_of(model, strict)
    lines = [
        f"### {_code(model['name'])}: {verdict.outcome}",
        "",
        _text(f"{cut(verdict.why, _TEXT)} ({verdict.checks})" if verdict.why else verdict.checks),
        "",
        f"| variant | {' | '.join(FIGURES)} | verdict |",
        "|---" * (len(FIGURES) + 2) + "|",
    ]
    for row in rows_of(model, strict):
        outcome = f"**{row.outcome}**: {_text(row.checks)}" if row.checks else f"**{row.outcome}**"
        lines.append(f"| {_code(row.label)} | {' | '.join(map(_text, row.figures))} | {outcome} |")
    return "\n".join(lines)


def _beside(rows: Sequence[PlaceRow]) -> str:
    head, *lines = ([_text(cell) for cell in line] for line in place_table(rows))
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"{TITLE.capitalize()}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *table])


def _details(one: Told) -> str:
    finding = one.finding
    where = f" in {_code(finding['layer'])}" if finding["layer"] else ""
    lines = [
        f"<details><summary>{finding['code']} {finding['rule']}{where} ({_code(one.label)}, {one.check})</summary>",
        "",
        *_paragraph("Measured", finding["message"]),
        *_paragraph("Why", finding["cause"]),
        *_paragraph("Fix", finding["remedy"]),
    ]
    below = [
        f"{effect['check']}: {effect['code']} {effect['rule']}" + (f" in {effect['layer']}" if effect["layer"] else "")
        for effect in finding["consequences"]
    ]
    below = list(dict.fromkeys(below))
    if below:
        more = [f"- and {len(below) - _LIST} more"] if len(below) > _LIST else []
        lines += ["What follows from it:", "", *(f"- {_text(cut(text, _NAME))}" for text in below[:_LIST]), *more, ""]
    return "\n".join([*lines, f"`pytest-mnnquant explain {finding['code']}` says more.", "", "</details>"])


def _paragraph(title: str, text: str | None) -> list[str]:
    """A paragraph; what has lines of its own, such as a log, keeps them."""
    if not text:
        return []
    text = cut(text, _TEXT)
    first, _, rest = text.partition("\n")
    if not rest:
        return [f"**{title}:** {_text(first)}", ""]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", rest)), default=0))
    return [f"**{title}:** {_text(first)}", "", fence, *map(shown, rest.splitlines()), fence, ""]


def _warnings(model: Json) -> Iterator[str]:
    """A line for each rule that warns."""
    rules: dict[str, list[Told]] = {}
    for one in told(model, "warning"):
        rules.setdefault(one.finding["code"], []).append(one)
    for code, ones in rules.items():
        more = f" (and {len(ones) - 1} more)" if len(ones) > 1 else ""
        message = cut(ones[0].finding["message"], _TEXT)
        yield f"Warning {code} {ones[0].finding['rule']}, {_code(ones[0].label)}: {_text(message)}{more}"


def _skipped(model: Json) -> Iterator[str]:
    """A line for each reason why checks had nothing to do."""
    reasons: dict[str, list[str]] = {}
    for variant in model["variants"]:
        for check in variant["checks"]:
            if check["outcome"] == "skipped":
                reasons.setdefault(f"{check['check']}: {check['reason']}", []).append(label_of(variant))
    for reason, labels in reasons.items():
        yield f"Skipped {_text(cut(reason, _TEXT))} ({', '.join(map(_code, labels[:_LIST]))})"


def _code(name: str) -> str:
    """A name; GitHub calls nobody who is named in code."""
    return f"<code>{_escaped(cut(name, _NAME))}</code>"


def _text(text: str) -> str:
    """Text as it is, on one line; an @ that begins a word would call somebody."""
    return _CALL.sub("@&#8288;", _escaped(text))


def _escaped(text: str) -> str:
    joined = shown(" ".join(text.split()))
    return _SPECIAL.sub(lambda found: "".join(f"&#{ord(one)};" for one in found[0]), joined)
