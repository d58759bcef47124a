"""Markdown for GitHub: whatever names hold, the page keeps its shape, says it all, and is never too long."""

from __future__ import annotations

import dataclasses
import html
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, Result
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.markdown import LIMIT, render
from pytest_mnnquant.report.model import BaselineReport
from pytest_mnnquant.report.record import CheckRecord, reported
from tests.golden_text import check_golden
from tests.report.made import record
from tests.report.test_terminal import full
from tests.results import accuracy, size

# GitHub's Markdown is CommonMark with tables; HTML passes.
PAGE = MarkdownIt("commonmark", {"html": True}).enable("table")
OURS = {*("h2", "h3", "p", "code", "table", "thead", "tbody", "tr", "th", "td", "strong", "details", "summary")}
OURS |= {*("ul", "li", "pre", "em")}


def told(*results: Result, **more: Any) -> str:
    return render(build_report([record(result) for result in results], {"MNN": "3.6.1", "torch": ""}, **more))


def page(text: str) -> str:
    return str(PAGE.render(text))


def words(text: str) -> str:
    """What a reader of the page sees; the joiner that keeps an @ from calling somebody is not seen."""
    return " ".join(html.unescape(re.sub(r"</?[a-z][^>]*>", "", text)).replace("\u2060", "").split())


def without_host(text: str) -> str:
    """What a page says but for its last line: versions and the host."""
    return text.partition("MNN 3.6.1; Python")[0].rstrip()


FAILING = Result.from_findings(
    "params",
    [
        Finding(
            "MNQ304",
            "output tensor 'a' is not in the model",
            "/conv1/Conv",
            Cause("name-mismatch", "name does not match"),
            "rename it",
            consequences=(Finding("MNQ401", "is float", "/conv1/Conv", check="coverage"),),
        )
    ],
)


def test_a_finding_says_what_was_measured_why_and_what_to_do() -> None:
    said = words(page(told(FAILING)))
    assert "MNN 3.6.1; Python" in said
    check_golden("report-markdown/a-failing-model", without_host(said))
    assert "http" not in told(FAILING)


def test_each_model_has_a_table_of_its_variants() -> None:
    said = page(told(Result.from_findings("size", [], size(2.0)), Result.skipped("accuracy", "no data")))
    assert "<td><code>int8-eval</code></td>\n<td>2.00x smaller</td>" in said.replace("&#91;", "[").replace("&#93;", "]")
    assert "MNN quantization: ok" in words(said)
    check_golden("report-markdown/a-passing-model", without_host(words(said)))


def test_what_is_open_or_only_warned_of_is_told() -> None:
    said = words(
        page(told(Result.from_findings("execution", [Finding("MNQ002", "no trace"), Finding("MNQ710", "pools")])))
    )
    assert "MNN quantization: inconclusive" in said
    check_golden("report-markdown/inconclusive-with-a-warning", without_host(said))


def test_the_baseline_file_has_a_part_of_its_own() -> None:
    check = reported(
        Result.from_findings("entries", [Finding("MNQ912", "net w8: its source is not there", fix="update")])
    )
    said = words(page(told(Result.from_findings("size", []), baseline=BaselineReport("b.json", check))))
    assert "MNN quantization: FAILED" in said
    check_golden("report-markdown/the-baseline-file-failed", without_host(said))


def test_nothing_to_tell_is_told() -> None:
    check_golden("report-markdown/nothing-was-checked", without_host(told()))


def test_a_log_keeps_its_lines_and_can_not_end_its_block() -> None:
    log = "```\n<script>\n# no title\n"
    cause = f"last lines of MNN's log:\n{log.strip()}"
    said = page(told(Result.from_findings("size", [Finding("MNQ201", "crashed", cause=Cause("native-log", cause))])))
    assert f"<pre><code>{html.escape(log)}</code></pre>" in said


ANY = st.text(max_size=40) | st.sampled_from(
    [
        "a|b",
        "`code`",
        "<b>bold</b>",
        "</details>",
        "*a* _b_",
        "[x](y)",
        "@someone",
        "a\n\n# b",
        "\\",
        "&lt;",
        "__init__",
    ]
)


@given(model=ANY.filter(str.strip), label=ANY.filter(str.strip), layer=ANY, message=ANY, cause=ANY)
@example("m", "l", "layer", "said", "0@0")
@example("|`<", "@a|", "</summary>", "| a | b |", "x\n</code></pre>\n```")
def test_no_name_breaks_the_page(model: str, label: str, layer: str, message: str, cause: str) -> None:
    finding = Finding("MNQ401", f"m {message}", layer, Cause("some", cause) if cause else None)
    records: list[CheckRecord] = [
        *full(label, accuracy()),
        record(Result.from_findings("params", [finding]), label),
    ]
    report = build_report([dataclasses.replace(one, model=model) for one in records], {})
    said = page(render(report))
    outside = re.sub(r"<pre>.*?</pre>", "<pre></pre>", said, flags=re.DOTALL)
    assert {*re.findall(r"</?([a-z][a-z0-9]*)[ >]", outside)} <= OURS
    assert said.count("<td>") == 7
    assert said.count("<details>") == said.count("</details>") == 1
    seen = words(said.replace("<p>", " <p>"))
    for name in (model, layer, message):
        for word in "".join(one if one.isprintable() else " " for one in name).split():
            assert word in seen
    prose = html.unescape(re.sub(r"<(code|pre)>.*?</\1>", "", said, flags=re.DOTALL))
    assert not re.search(r"(?<!\w)@[A-Za-z0-9]", prose)


@pytest.mark.parametrize(("models", "findings", "length"), [(400, 1, 10), (1, 400, 1000), (30, 30, 5000), (3000, 0, 1)])
def test_the_page_is_never_longer_than_github_takes_and_says_what_it_left_out(
    models: int, findings: int, length: int
) -> None:
    errors = [Finding("MNQ401", "层" * length, f"layer{number}") for number in range(findings)]
    result = Result.from_findings("coverage", errors)
    report = build_report([record(result, model=f"m{number}") for number in range(models)], {})
    text = render(report)
    assert 0.9 * LIMIT < len(text) <= LIMIT
    assert re.search(r"Left out.*: \d+ (tables|errors)", text)
    assert text.index("### ") < 100
    assert text.count("<details>") == text.count("</details>")
