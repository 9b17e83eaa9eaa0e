"""Every rule has its code and its test, and docs/rules.md says so."""

from __future__ import annotations

import pytest

from tests import rulebook


def test_the_rules_are_numbered_without_a_gap() -> None:
    assert [rule.number for rule in rulebook.rules()] == list(range(1, 64))


@pytest.mark.parametrize("rule", rulebook.rules(), ids=lambda rule: f"R{rule.number}")
def test_every_rule_has_a_test_that_carries_its_number(rule: rulebook.Rule) -> None:
    assert rulebook.tests()[rule.number], f"R{rule.number} has no test: {rule.text}"


@pytest.mark.parametrize("rule", rulebook.rules(), ids=lambda rule: f"R{rule.number}")
def test_the_code_that_a_rule_names_exists(rule: rulebook.Rule) -> None:
    for name in rule.code:
        _, line = rulebook.resolve(name)
        assert line > 0


def test_the_page_of_rules_is_current() -> None:
    assert rulebook.PAGE.read_text(encoding="utf-8") == rulebook.page(), "make docs"
