"""``[rules]``: the tables by domain, and what all rules together may do."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Config
from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.model import EnforceFor
from tests.support.configured import configured


def test_rules_of_domains_come_in_order_of_precedence() -> None:
    config = configured(
        '[rules.sender."a.example"]\n[rules.recipient."b.example"]\n[rules.nexthop."c.example"]\n'
    )
    assert [(section, pattern) for section, pattern, _ in config.rules.tables()] == [
        ("recipient", "b.example"),
        ("nexthop", "c.example"),
        ("sender", "a.example"),
    ]


def test_every_key_of_rules_but_those_of_whole_messages_can_stand_in_a_rule_of_a_domain() -> None:
    tables, whole = (
        {"recipient", "nexthop", "sender", "list"},
        {"suspended", "tag_wait", "on_mixed"},
    )
    rules = set(type(Config().rules).model_fields) - tables - whole
    assert set(tables_of(type(Config().rules))["sender"][0].model_fields) == rules


def test_what_a_rule_of_a_domain_leaves_out_is_none() -> None:
    rule = configured('[rules.sender."a.example"]\nenforce_for = "all"').rules.sender["a.example"]
    assert rule.enforce_for is EnforceFor.ALL
    assert rule.mode is None
    assert rule.require is None
    assert rule.decide_wait is None


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("", False),
        ('rules.mode = "off"', False),
        ('rules.mode = "defer"', True),
        ('[rules.sender."a.example"]\nmode = "reject"', True),
        ('[rules.sender."a.example"]\nrequire = true', False),
    ],
)
def test_rules_act_if_any_of_them_does(text: str, acts: bool) -> None:
    assert configured(text).rules.acts is acts


def test_the_longest_wait_is_that_of_any_rule() -> None:
    table = '[rules.nexthop."a.example"]\ndecide_wait = {}\n'
    assert configured("rules.decide_wait = 7").rules.longest_decide_wait == 7
    assert configured("rules.decide_wait = 7\n" + table.format(3)).rules.longest_decide_wait == 7
    assert configured("rules.decide_wait = 7\n" + table.format(9)).rules.longest_decide_wait == 9
