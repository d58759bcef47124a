"""`pytest-mnnquant explain`: every rule in its check's group, checks with their options, and unknown words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_mnnquant.cli.explain import common_rules, rules_of
from pytest_mnnquant.cli.main import main
from pytest_mnnquant.config.options import BY_NAME
from pytest_mnnquant.findings.catalogue import ALL_CHECKS, ALL_NAMES, RULES, check_named
from pytest_mnnquant.findings.check import Check
from pytest_mnnquant.report import pages
from tests.golden_text import check_golden

Capture = pytest.CaptureFixture[str]
PAGES = Path(__file__).resolve().parents[2] / "docs" / "rules"


def test_without_a_word_every_rule_is_listed_in_the_group_of_its_check(capsys: Capture) -> None:
    assert main(["explain", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    assert [group["check"] for group in groups] == ["every check", *ALL_NAMES]
    assert {rule["code"] for group in groups for rule in group["rules"]} == set(RULES)
    assert all(group["meaning"] and group["rules"] for group in groups)
    assert main(["explain"]) == 0
    text = capsys.readouterr().out
    assert all(rule.title in text for rule in RULES.values())
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("code", RULES)
def test_the_page_of_a_rule_names_the_checks_that_report_it(code: str) -> None:
    head = (PAGES / f"{code}.md").read_text(encoding="utf-8").split("\n\n")[1]
    named = set(re.findall(r"`([a-z]+)`", head))
    registered = {check.name for check in ALL_CHECKS if check.reports(code)}
    assert named == registered or (not registered and (not named or RULES[code] in common_rules()))


@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.name)
def test_a_check_is_explained_with_its_rules_and_options(check: Check, capsys: Capture) -> None:
    assert main(["explain", check.name.upper()]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# {check.name}\n")
    assert all(rule.title in text for rule in rules_of(check))
    assert all(BY_NAME[name].flag in text for name in check.options)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert main(["explain", "--json", check.name]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["check"] == check.name
    assert [rule["code"] for rule in content["rules"]] == [rule.code for rule in rules_of(check)]
    assert [option["option"] for option in content["options"]] == [BY_NAME[name].flag for name in check.options]


def test_latency_is_explained(capsys: Capture) -> None:
    assert {"max_latency_ratio", "threads"} <= set(check_named("latency").options)
    assert main(["explain", "latency"]) == 0
    check_golden("explain/latency", capsys.readouterr().out)


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(code: str, capsys: Capture) -> None:
    assert main(["explain", code.lower()]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# {code} {RULES[code].name}\n")
    assert f"{RULES[code].severity.value}, " in text


def test_a_rule_is_explained_by_its_name_too_and_without_its_page(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_FOLDERS", ())
    assert main(["explain", "params-name-mismatch"]) == 0
    assert RULES["MNQ304"].meaning in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "similar"),
    [
        ("latncy", ["latency"]),
        ("MNQ91", [code for code in RULES if code.startswith("MNQ91")]),
        ("params-name-mismach", ["params-name-mismatch"]),
        ("xyzzy", []),
        ("", []),
    ],
)
def test_an_unknown_word_is_one_line_with_close_matches(word: str, similar: list[str], capsys: Capture) -> None:
    assert main(["explain", word]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert repr(word) in output.err
    assert all(name in output.err for name in similar)
    assert ("did you mean" in output.err) == bool(similar)
