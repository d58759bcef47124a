"""The HTML report as text: what is in it, what is told once, and that names are text whatever they are."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.cause import Cause
from pytest_mnnquant.findings.finding import Finding, FindingId, Result
from pytest_mnnquant.history.series import VariantHistory
from pytest_mnnquant.measurements.chart_samples import ChartSamples
from pytest_mnnquant.report.build import build_report
from pytest_mnnquant.report.formats import write_report
from pytest_mnnquant.report.html import render
from pytest_mnnquant.report.html_pages import rule_pages
from pytest_mnnquant.report.html_view import SIGNS
from pytest_mnnquant.report.model import BaselineReport
from pytest_mnnquant.report.record import CheckRecord, reported
from pytest_mnnquant.report.rows import rows_of
from tests.golden_text import check_golden
from tests.report.made import PIXELS, VIEWS, charted, file, finding, history, layer, records

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
LAYERS = [layer("first", 1), layer("left", 2, quantized=False), layer("kept", 3, quantized=False, skipped=True)]


def text(found: list[CheckRecord], past: tuple[VariantHistory, ...] = (), **more: Any) -> str:
    """The page of these records."""
    return render(dataclasses.replace(build_report(found, {"MNN": "3.6.1"}, **more), history=past))


def words(page: str) -> str:
    """What a page says, without its tags and scripts."""
    bare = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", page)
    return " ".join(unescape(bare).split())


def counts(said: str) -> list[str]:
    """How many variants ended in which way, from the title."""
    return said.partition(" · ")[0].split(", ")


def summary(said: str) -> str:
    """What a page says before the parts of its models: notes, the verdicts and the findings."""
    found = re.search(r"UTC (.*?) net net\.py:build;", said)
    assert found is not None
    return found[1]


def test_the_verdict_is_first_and_in_words() -> None:
    said = words(text(records(LAYERS, [finding("MNQ401", "left")])))
    assert said.index("2 failed") < said.index("failed: coverage") < said.index("Findings") < said.index("Layers")
    check_golden("report-html/verdict-of-an-error", summary(said))
    failed = records(LAYERS, [finding("MNQ401", "left")], modes=["eval"])
    assert counts(words(text([*failed, *records(LAYERS, modes=[None], model="other")]))) == ["1 failed", "1 passed"]


def test_a_run_of_nothing_says_so() -> None:
    assert "Nothing was checked" in words(text([]))


def ended(found: list[CheckRecord], **outcomes: str) -> list[CheckRecord]:
    """The records with other outcomes of these checks."""
    outcome_of = {record.check.check: record.check.outcome for record in found} | outcomes
    return [
        dataclasses.replace(record, check=dataclasses.replace(record.check, outcome=outcome_of[record.check.check]))
        for record in found
    ]


def with_charts(found: list[CheckRecord], check: str, change: Callable[[ChartSamples], ChartSamples]) -> None:
    """Change what one check has to show."""
    for place, record in enumerate(found):
        if record.check.check == check:
            found[place] = dataclasses.replace(record, charts=change(record.charts))


@pytest.mark.parametrize("strict", [False, True])
def test_the_verdict_is_that_of_all_reports(strict: bool) -> None:
    warned = [finding("MNQ710", "left", "warning")]
    for found in (
        records(LAYERS, warned, modes=["eval"]),
        ended(records(LAYERS, warned, modes=["eval"]), calibration="skipped", accuracy="skipped"),
        ended(records(LAYERS, warned, modes=["eval"]), latency="inconclusive", accuracy="skipped"),
        records(LAYERS, [finding("MNQ401", "left")], modes=["eval"]),
    ):
        said, (row,) = words(text(found, strict=strict)), rows_of(build_report(found, {}).models[0], strict)
        outcome = {"FAILED": "failed", "inconclusive": "inconclusive", "ok": "passed"}[row.outcome.value]
        assert f"1 {outcome}" in said
        assert f"int8-eval {SIGNS[outcome]} {outcome}{': ' if row.checks else ''}{row.checks} " in said
        assert ("--mnn-strict: " in said) is strict


def test_strict_fails_what_could_not_be_judged() -> None:
    found = ended(records(LAYERS, [finding("MNQ710", "left", "warning")], modes=["eval"]), accuracy="skipped")
    assert "1 passed" in words(text(found))
    said = words(text(found, strict=True))
    assert "✗ 1 failed" in said
    check_golden("report-html/strict-verdict", summary(said))  # and no warning as if it were the reason


def test_a_variant_that_nothing_judged_did_not_pass() -> None:
    found = [one for one in records(LAYERS, modes=["eval"]) if one.check.check == "accuracy"]
    said = words(text(ended(found, accuracy="skipped")))
    assert counts(said) == ["1 skipped"]
    check_golden("report-html/nothing-was-judged", summary(said))


def test_the_baseline_file_is_counted_and_told() -> None:
    stale = Finding("MNQ912", "net w8: its source is not there", cause=Cause("gone", "because"), fix="change it")
    failed, passed = (BaselineReport("b.json", reported(Result.from_findings("entries", findings)))
                      for findings in ([stale], []))  # fmt: skip
    written = text(records(LAYERS, modes=["eval"]), baseline=failed)
    said = words(written)
    assert counts(said) == ["1 failed", "1 passed"]
    check_golden("report-html/the-baseline-file-failed", summary(said))
    assert 'id="rule-MNQ912"' in written
    said = words(text(records(LAYERS, modes=["eval"]), baseline=passed))
    assert counts(said) == ["1 passed"]  # a count of variants
    check_golden("report-html/the-baseline-file-passed", summary(said))


def test_a_file_that_grew_is_not_called_smaller() -> None:
    found = records(LAYERS, modes=["eval"])
    quantized = found[0].variant.quantized
    assert quantized is not None
    grown = [dataclasses.replace(one, base=file("float.mnn", quantized.bytes // 2)) for one in found]
    assert "4.00x smaller" in words(text(found))
    assert "2.00x LARGER" in words(text(grown))
    assert "0.50x" not in words(text(grown)).partition("Layers")[0].replace("0.50x float", "")


def test_layers_left_float_are_told_apart_from_those_left_on_purpose() -> None:
    rows = re.findall(
        r"(?s)<tr ([^>]*)>\s*<th scope=\"row\"><button[^>]* value=\"(\w+)\".*?</tr>", text(records(LAYERS))
    )
    assert {name for kind, name in rows if "fault" in kind} == {"left"}
    said = words(text(records(LAYERS, modes=["eval"])))
    assert [said.count(word) for word in ("as requested", "LEFT FLOAT", "float on request")] == [3, 1, 1]


def test_what_several_variants_have_is_told_once_with_the_figures_of_each() -> None:
    first = records(LAYERS, [finding("MNQ801", message="10 bytes")], modes=["train"])
    other = records(LAYERS, [finding("MNQ801", message="12 bytes")], modes=["eval"])
    said = words(text([*first, *other]))
    assert said.count("change it") == 1
    assert "int8-train, int8-eval" in said
    assert "int8-train: 10 bytes" in said
    assert "int8-eval: 12 bytes" in said


def test_what_follows_from_an_error_is_told_below_it_alone() -> None:
    below = finding("MNQ401", "left", "consequence", follows=FindingId("MNQ304", "params", "left"))
    root = finding("MNQ304", "left", consequences=(below,))
    said = words(text(records(LAYERS, [below, root], modes=["eval"])))
    check_golden("report-html/what-follows-is-below", summary(said))
    assert said.count("left is wrong") == 2
    alone = words(text(records(LAYERS, [below], modes=["eval"])))
    check_golden("report-html/what-follows-alone", summary(alone))  # what it follows from is not in the report


def test_names_are_text() -> None:
    found = records([layer(HOSTILE)], [finding("MNQ401", HOSTILE, cause=HOSTILE)], model=HOSTILE, source=HOSTILE)
    written = text(found)
    assert "<script>alert" not in written
    assert "<img" not in written
    assert words(written).count(HOSTILE) > 4


def test_chinese_names_and_names_that_are_no_utf8(tmp_path: Path) -> None:
    found = records([layer("卷积/第一层")], model="模型", source="目录/模型\udcff.py:构建")
    path = tmp_path / "报告.html"
    write_report(build_report(found, {}), path)
    said = words(path.read_text(encoding="utf-8"))
    assert "模型" in said
    assert "卷积/第一层" in said
    assert "目录/模型\\udcff.py:构建" in said
    assert [one.name for one in tmp_path.iterdir()] == ["报告.html"]


def test_every_rule_that_occurs_has_its_page_in_the_report() -> None:
    written = text(records(LAYERS, [finding("MNQ401", consequences=(finding("MNQ801"),))]))
    linked = set(re.findall(r'href="#(rule-\w+)"', written))
    assert linked == {"rule-MNQ401", "rule-MNQ801"} == set(re.findall(r'<details [^>]*id="(rule-\w+)"', written))
    assert "Why it happens" in words(written)


def test_a_rule_that_warns_is_not_called_broken() -> None:
    said = words(text(records(LAYERS, [finding("MNQ710", "left", "warning")], modes=["eval"])))
    before, title, rules = said.partition("The rules of")
    assert (title, "MNQ710" in rules, "broken" in before) == ("The rules of", True, False)
    check_golden("report-html/a-rule-that-warns", summary(said))


def test_all_pages_can_be_rendered_and_lead_nowhere_but_to_each_other() -> None:
    pages = {one.code: one for one in rule_pages(sorted(RULES))}
    assert set(pages) == set(RULES)
    for code, one in pages.items():
        assert one.title.startswith(code)
        targets = re.findall(r'href="([^"]*)"', one.body)
        assert all(target.startswith("https://") or target.removeprefix("#rule-") in pages for target in targets)
        assert not re.search(r"<h[12]>", one.body)
    (alone,) = rule_pages(["MNQ914"])
    assert ".md" not in "".join(re.findall(r"<a[^>]*>", alone.body))


def test_charts_get_what_was_gathered_and_nothing_that_json_lacks() -> None:
    found = records(LAYERS, modes=["eval"])
    with_charts(found, "accuracy", lambda charts: dataclasses.replace(
        charts, losses=(dataclasses.replace(charts.losses[0], own_sqnr_db=math.inf), *charts.losses[1:])
    ))  # fmt: skip
    written = text(found)
    (model,) = charted(written)
    (variant,) = model["variants"]
    assert [name for name, *_ in variant["layers"]] == ["left", "kept", "first"]  # the largest in the file first
    assert variant["losses"][0] == ["first", "first", None, 25.0]
    assert set(variant["weights"]) == {"first", "left", "kept"}
    assert variant["ends"]["left"] == ["first:out", "left:out"]
    assert len(variant["ratios"]) == 150
    assert "exact" in words(written)


def test_worst_samples_are_in_the_page_and_their_names_are_text() -> None:
    page = text(records(LAYERS))
    assert f'href="data:image/png;base64,{PIXELS}"' in page
    assert 'points="0.0,106.0 100.0,4.0 200.0,55.0"' in page  # From the left to the right, the largest value on top.
    assert VIEWS[0].output not in page
    assert VIEWS[0].output in unescape(page)
    without = [dataclasses.replace(record, charts=ChartSamples()) for record in records(LAYERS)]
    assert "data:image" not in text(without)


def test_what_could_not_be_gathered_is_said() -> None:
    found = records(LAYERS, modes=["eval"])
    with_charts(found, "accuracy", lambda _: ChartSamples(unavailable={"accuracy": "MNN crashed"}))
    (said,) = re.findall(r"Not shown for .*?: MNN crashed", words(text(found)))
    check_golden("report-html/what-could-not-be-gathered", said)


def test_history_is_plotted_from_the_second_run_on() -> None:
    found = records(LAYERS, modes=["eval"])
    assert 'data-chart="history"' not in text(found, (history("net", "int8-eval", 10),))
    written = text(found, (history("net", "int8-eval", 10, 10, 13), history("other", "int8-eval", 1, 2)))
    assert 'data-chart="history"' in written
    (plotted,) = charted(written)[0]["history"]
    assert plotted["figures"] == {
        **{"size": [10, 10, 13], "coverage": [1.0] * 3, "accuracy": [0.9] * 3, "ratio": [0.5] * 3}
    }
    assert plotted["commits"] == ["commit0", "commit1", "commit2"]
    assert [(figure, commit) for figure, _, commit in plotted["steps"]] == [("size", "commit2")]


def test_a_thousand_layers_are_a_few_megabytes() -> None:
    rows = [layer(f"/blocks/blocks.{place}/conv/Conv_output_0", place) for place in range(1000)]
    assert len(text(records(rows))) < 6e6


@pytest.mark.parametrize("folder", ["report.html", "deep/er/report.html"])
def test_it_is_written_whole_or_not_at_all(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder
    write_report(build_report([], {}), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_report(build_report(records([dataclasses.replace(layer("x"), bytes="10")]), {}), path)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
