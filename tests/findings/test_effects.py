"""Each rule is placed: what follows from it, and what it follows from."""

from __future__ import annotations

import pytest

from pytest_mnnquant.findings.catalogue import RULES
from pytest_mnnquant.findings.effects import ALONE, EVERYTHING, Effects
from pytest_mnnquant.findings.rule import Rule, Severity

#: Errors from which nothing follows.
WITHOUT_EFFECTS = {
    "MNQ001",  # Where nothing is left there is nothing to judge.
    "MNQ004",  # What needs the step is blocked, not failed.
    *("MNQ123", "MNQ126", "MNQ127"),
    "MNQ613",  # The outputs of the run that reports it are right; on ARM it is a warning.
    *("MNQ110", "MNQ112", "MNQ113", "MNQ114"),  # The float model is another one for both sides of each comparison.
    *("MNQ801", "MNQ802"),
    *("MNQ901", "MNQ910", "MNQ911", "MNQ912", "MNQ913", "MNQ914", "MNQ915"),
}
#: Errors that follow from nothing but that there is no model.
ROOTS = {
    "MNQ004",
    *("MNQ101", "MNQ102", "MNQ104", "MNQ110", "MNQ112", "MNQ113", "MNQ114", "MNQ202", "MNQ203", "MNQ204"),
    *("MNQ301", "MNQ302", "MNQ303", "MNQ304", "MNQ306"),
    *("MNQ120", "MNQ121", "MNQ122", "MNQ123", "MNQ124", "MNQ125", "MNQ312", "MNQ313", "MNQ810"),
    "MNQ613",
    *("MNQ901", "MNQ910", "MNQ911", "MNQ912", "MNQ915"),
}
ERRORS = [rule for rule in RULES.values() if rule.severity is Severity.ERROR]


def effects_of(effects: Effects) -> tuple[str, ...]:
    anywhere = () if effects.explains_in_any_layer is EVERYTHING else effects.explains_in_any_layer
    return (*effects.explains, *anywhere)


def test_a_rule_is_not_placed_by_default() -> None:
    with pytest.raises(TypeError, match="effects"):
        Rule("MNQ418", "new", Severity.ERROR, "New.")  # type: ignore[call-arg]


def test_only_errors_have_effects() -> None:
    assert {rule.effects for rule in RULES.values() if rule.severity is not Severity.ERROR} == {ALONE}
    assert {rule.code for rule in ERRORS if rule.effects is ALONE} == WITHOUT_EFFECTS


def test_each_error_is_the_effect_of_another_or_known_as_a_root() -> None:
    effects = {code for rule in ERRORS for code in effects_of(rule.effects)}
    assert {rule.code for rule in ERRORS} - effects == ROOTS


@pytest.mark.parametrize("rule", ERRORS, ids=lambda rule: rule.code)
def test_effects_are_errors_of_a_later_stage(rule: Rule) -> None:
    codes = effects_of(rule.effects)
    assert len(set(codes)) == len(codes)
    for code in (*codes, *rule.effects.restates):
        assert RULES[code].severity is Severity.ERROR
        assert RULES[code].stage > rule.stage
