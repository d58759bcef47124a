"""`pytest-mnnquant explain`: all rules by check, one check with its rules and options, or the page of one rule."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Callable, Iterator
from typing import Any

from pytest_mnnquant.config.options import BY_NAME
from pytest_mnnquant.findings.catalogue import ALL_CHECKS, RULES
from pytest_mnnquant.findings.check import Check
from pytest_mnnquant.findings.rule import Rule
from pytest_mnnquant.report.json_report import json_value
from pytest_mnnquant.report.pages import rule_page
from pytest_mnnquant.report.width import wrapped

Print = Callable[[str], None]
_COLUMNS = 80


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "word",
        nargs="?",
        help="a rule's code or name, or a check; without it: all rules by check",
        metavar="RULE|CHECK",
    )


def run(given: argparse.Namespace, print_line: Print, print_error: Print) -> int:
    """Explain a rule, a check, or list all rules. Returns the exit status: 2 for an unknown word."""
    explained = _everything() if given.word is None else _explained(given.word)
    if explained is None:
        print_error(f"pytest-mnnquant: unknown rule or check {given.word!r}; {_suggestion(given.word)}")
        return 2
    content, text = explained
    print_line(json.dumps(json_value(content), indent=1) if given.json else text.rstrip())
    return 0


def _explained(word: str) -> tuple[Any, str] | None:
    rule = RULES.get(word.upper()) or next((rule for rule in RULES.values() if rule.name == word.lower()), None)
    if rule is not None:
        return _rule(rule)
    check = next((check for check in ALL_CHECKS if check.name == word.lower()), None)
    return None if check is None else (_check_content(check), "\n".join(_check_lines(check)))


def _rule(rule: Rule) -> tuple[Any, str]:
    page = rule_page(rule.code)
    text = page or f"# {rule.code} {rule.name}\n\n{rule.severity.value}, since {rule.since}\n\n{rule.meaning}"
    return {**_facts(rule), "since": rule.since, "page": page or None}, text


def _facts(rule: Rule) -> dict[str, str]:
    return {"code": rule.code, "name": rule.name, "severity": rule.severity.value, "meaning": rule.meaning}


def rules_of(check: Check) -> tuple[Rule, ...]:
    """The rules that a check reports, besides those that every check can report."""
    return tuple(rule for code, rule in RULES.items() if check.reports(code))


def common_rules() -> tuple[Rule, ...]:
    """The rules that every check can report."""
    return tuple(rule for code, rule in RULES.items() if not any(check.reports(code) for check in ALL_CHECKS))


def _everything() -> tuple[Any, str]:
    groups = [("every check", "What keeps a check from its verdict.", common_rules())]
    groups += [(check.name, check.meaning, rules_of(check)) for check in ALL_CHECKS]
    content = [
        {"check": name, "meaning": meaning, "rules": [_facts(rule) for rule in rules]}
        for name, meaning, rules in groups
    ]
    lines: list[str] = []
    for name, meaning, rules in groups:
        lines += [*wrapped(f"{name}: ", meaning, _COLUMNS, indent=2), *_rule_lines(rules), ""]
    lines += ["For more: pytest-mnnquant explain CODE, or pytest-mnnquant explain CHECK"]
    return content, "\n".join(lines)


def _rule_lines(rules: tuple[Rule, ...]) -> Iterator[str]:
    for rule in rules:
        yield from wrapped(f"  {rule.title}, {rule.severity.value}: ", rule.meaning, _COLUMNS)


def _check_content(check: Check) -> dict[str, Any]:
    options = [BY_NAME[name] for name in check.options]
    return {
        "check": check.name,
        "meaning": check.meaning,
        "runs_on": check.runs_on.value,
        "rules": [_facts(rule) for rule in rules_of(check)],
        "options": [{"option": option.flag, "help": option.help} for option in options],
    }


def _check_lines(check: Check) -> Iterator[str]:
    yield f"# {check.name}"
    yield ""
    yield from wrapped("", check.meaning, _COLUMNS, indent=0)
    yield from wrapped("", f"It runs on {check.runs_on.value}.", _COLUMNS, indent=0)
    yield from ("", "## Rules")
    yield from _rule_lines(rules_of(check))
    codes = ", ".join(rule.code for rule in common_rules())
    yield from wrapped("  of every check: ", codes, _COLUMNS)
    if check.options:
        yield from ("", "## Options")
        for option in (BY_NAME[name] for name in check.options):
            yield from wrapped(
                f"  {option.flag}{f' {option.metavar}' if option.metavar else ''}: ", option.help, _COLUMNS
            )


def _suggestion(word: str) -> str:
    """Similar codes, names and checks, or how to list all."""
    names = [*RULES, *(rule.name for rule in RULES.values()), *(check.name for check in ALL_CHECKS)]
    by_lower = {name.lower(): name for name in names}
    prefixed = [name for name in names if name.lower().startswith(word.lower())] if word else []
    similar = prefixed or [by_lower[name] for name in difflib.get_close_matches(word.lower(), by_lower, 5)]
    return f"did you mean {', '.join(similar)}?" if similar else "list all: pytest-mnnquant explain"
