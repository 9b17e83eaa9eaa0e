"""Which rule is in force: the tables of [rules], over one another."""

from __future__ import annotations

import dataclasses

import pytest

from requiretls_milter.config import Rules, RuleTable
from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.model import OTHER_DOMAIN, Mode, Standing
from requiretls_milter.rules import KEYS, Rule, RuleSet


def ruleset(**tables: object) -> RuleSet:
    return RuleSet(Rules.model_validate(tables))


def test_without_tables_the_defaults_are_in_force() -> None:
    rule = ruleset().find("a.example", "b.example", "b.example")
    assert rule.mode is Mode.MONITOR
    assert rule.require is False
    assert rule.domain == OTHER_DOMAIN


def test_recipient_goes_over_nexthop_over_sender_over_the_base() -> None:
    rules = ruleset(
        mode="off",
        sender={"s.example": {"mode": "monitor", "decide_wait": 1.0, "on_temporary": "defer"}},
        nexthop={"n.example": {"mode": "defer", "decide_wait": 2.0}},
        recipient={"r.example": {"mode": "reject"}},
    )
    assert rules.find("x.example", "x.example", "x.example").mode is Mode.OFF
    assert rules.find("s.example", "x.example", "x.example").mode is Mode.MONITOR
    assert rules.find("s.example", "x.example", "n.example").mode is Mode.DEFER
    rule = rules.find("s.example", "r.example", "n.example")
    assert rule.mode is Mode.REJECT
    assert rule.decide_wait == 2.0  # inherited from the next hop's
    assert rule.on_temporary == "defer"  # from the sender's
    assert rule.enforce_for == "trusted"  # from [rules]


@pytest.mark.parametrize(
    ("domain", "mode"),
    [
        ("example.org", Mode.REJECT),
        ("a.example.org", Mode.DEFER),
        ("b.a.example.org", Mode.OFF),
        ("c.b.a.example.org", Mode.OFF),
        ("notexample.org", Mode.MONITOR),
        ("org", Mode.MONITOR),
        ("example.org.evil.test", Mode.MONITOR),
    ],
)
@pytest.mark.parametrize("section", ["recipient", "nexthop", "sender"])
def test_the_exact_name_goes_over_its_parents_the_longest_first(
    section: str, domain: str, mode: Mode
) -> None:
    tables = {
        "example.org": {"mode": "reject"},
        ".example.org": {"mode": "defer"},
        ".a.example.org": {"mode": "off"},
    }
    rules = ruleset(**{section: tables})
    domains = {"sender": "x.test", "recipient": "x.test", "nexthop": "x.test", section: domain}
    assert rules.find(domains["sender"], domains["recipient"], domains["nexthop"]).mode is mode


def test_a_shorter_parent_lends_what_the_longer_one_leaves_unset() -> None:
    rules = ruleset(
        recipient={
            "a.b.example": {"mode": "reject"},
            ".b.example": {"decide_wait": 3.0},
            ".example": {"decide_wait": 4.0, "on_unknown": "accept"},
        }
    )
    rule = rules.find("", "a.b.example", "")
    assert (rule.mode, rule.decide_wait, rule.on_unknown) == (Mode.REJECT, 3.0, "accept")


@pytest.mark.parametrize(
    "tables",
    [
        {"require": True},
        {"sender": {"s.example": {"require": True}}},
        {"nexthop": {"n.example": {"require": True}}},
        {"recipient": {"r.example": {"require": True}}},
        {"recipient": {"r.example": {"require": False}, ".example": {"require": True}}},
        {
            "require": False,
            "recipient": {"r.example": {"require": False}},
            "sender": {"s.example": {"require": True}},
        },
    ],
)
def test_require_is_true_if_any_matching_rule_says_so(tables: dict[str, object]) -> None:
    rules = ruleset(**tables)
    assert rules.find("s.example", "r.example", "n.example").require is True


def test_while_the_rules_are_suspended_none_acts_and_all_else_stays() -> None:
    tables: dict[str, object] = {
        "mode": "reject",
        "recipient": {"a.example": {"mode": "off"}, "b.example": {"mode": "defer"}},
        "nexthop": {"c.example": {"require": True, "decide_wait": 3.0}},
    }
    suspended = ruleset(suspended=True, **tables)
    modes = [suspended.find("", name, name).mode for name in ("a.example", "b.example", "x")]
    assert modes == [Mode.OFF, Mode.MONITOR, Mode.MONITOR]
    acts = ruleset(**tables).find("", "", "c.example")
    assert suspended.find("", "", "c.example") == dataclasses.replace(acts, mode=Mode.MONITOR)
    origin = suspended.explain("", "b.example", "")["mode"]
    assert (origin.table, origin.key) == ("rules", "suspended")


def test_require_of_a_table_that_does_not_match_asks_nothing() -> None:
    rules = ruleset(sender={"s.example": {"require": True}})
    assert rules.find("t.example", "s.example", "s.example").require is False


def test_the_null_sender_matches_no_senders_table() -> None:
    rules = ruleset(sender={".example": {"mode": "reject"}, "example": {"mode": "reject"}})
    assert rules.find("", "r.example", "r.example").mode is Mode.MONITOR


def test_each_value_is_explained_by_the_table_that_it_comes_from() -> None:
    rules = ruleset(
        sender={"s.example": {"require": True, "mode": "defer"}},
        nexthop={".n.example": {"decide_wait": 2.0}},
        recipient={"r.example": {"mode": "reject", "require": False}},
    )
    explained = rules.explain("s.example", "r.example", "mx.n.example")
    assert list(explained) == list(KEYS)
    tables = {key: origin.table for key, origin in explained.items()}
    assert tables["mode"] == 'rules.recipient."r.example"'
    assert tables["decide_wait"] == 'rules.nexthop.".n.example"'
    assert tables["require"] == 'rules.sender."s.example"'
    assert tables["on_unknown"] == "rules"
    rule = rules.find("s.example", "r.example", "mx.n.example")
    for key, origin in explained.items():
        assert getattr(rule, key) == origin.value


def test_a_rule_has_every_key_of_the_configurations_tables() -> None:
    assert set(KEYS) == set(RuleTable.model_fields)
    assert set(KEYS) < {field.name for field in dataclasses.fields(Rule)}
    assert set(KEYS) < set(Rules.model_fields)


def test_the_label_of_the_metrics_is_the_recipients_or_next_hops_key() -> None:
    rules = ruleset(
        sender={"s.example": {"mode": "defer"}},
        nexthop={".n.example": {"mode": "defer"}},
        recipient={"r.example": {"mode": "reject"}},
    )
    assert rules.find("s.example", "r.example", "mx.n.example").domain == "r.example"
    assert rules.find("s.example", "x.example", "mx.n.example").domain == ".n.example"
    assert rules.find("s.example", "x.example", "x.example").domain == OTHER_DOMAIN


def test_ten_thousand_tables_are_as_quick_as_one() -> None:
    many = {f"d{number}.example": {"mode": "reject"} for number in range(10_000)}
    rules = ruleset(recipient=many)
    for number in range(10_000):
        assert rules.find("", f"d{number}.example", "").mode is Mode.REJECT


@pytest.mark.parametrize(
    ("enforce_for", "standing", "bound"),
    [
        ("authenticated", "authenticated", True),
        ("authenticated", "trusted", False),
        ("authenticated", "other", False),
        ("trusted", "authenticated", True),
        ("trusted", "trusted", True),
        ("trusted", "other", False),
        ("all", "authenticated", True),
        ("all", "trusted", True),
        ("all", "other", True),
    ],
)
def test_a_rule_binds_those_for_whom_it_is_enforced(
    enforce_for: str, standing: str, bound: bool
) -> None:
    rule = ruleset(enforce_for=enforce_for).find("", "", "")
    assert rule.binds(Standing(standing)) is bound


# ---------------------------------------------------------------- lists of domains


def listed(*domains: str, **keys: object) -> dict[str, object]:
    return {"domains_file": DomainList("list.txt", domains), **keys}


def test_a_domain_of_a_list_is_as_one_with_a_table() -> None:
    rules = ruleset(
        list={
            "partners": listed("p.example", ".q.example", mode="reject"),
            "relays": listed("mx.example", match="nexthop", mode="defer"),
            "own": listed("s.example", match="sender", require=True),
        }
    )
    assert rules.by_domain
    assert rules.find("", "p.example", "").mode is Mode.REJECT
    assert rules.find("", "x.p.example", "").mode is Mode.MONITOR
    assert rules.find("", "x.q.example", "").mode is Mode.REJECT
    assert rules.find("", "x.example", "mx.example").mode is Mode.DEFER
    assert rules.find("", "mx.example", "").mode is Mode.MONITOR
    assert rules.find("s.example", "x.example", "").require
    assert rules.find("", "p.example", "mx.example").domain == "p.example"
    assert rules.find("", "x.q.example", "mx.example").domain == ".q.example"
    assert rules.find("s.example", "x.example", "").domain == OTHER_DOMAIN


def test_a_table_of_its_own_goes_over_the_list_key_by_key() -> None:
    rules = ruleset(
        recipient={"p.example": {"mode": "off"}, ".example": {"mode": "monitor"}},
        list={"partners": listed("p.example", "q.example", mode="reject", decide_wait=3.0)},
    )
    rule = rules.find("", "p.example", "")
    assert (rule.mode, rule.decide_wait) == (Mode.OFF, 3.0)
    assert rules.find("", "q.example", "").mode is Mode.REJECT  # exact over .example
    origins = rules.explain("", "p.example", "")
    assert (origins["decide_wait"].table, origins["decide_wait"].listed) == (
        "rules.list.partners",
        "p.example",
    )
    assert (origins["mode"].table, origins["mode"].listed) == ('rules.recipient."p.example"', "")


def test_suspended_rules_of_lists_do_not_act() -> None:
    rules = Rules.model_validate(
        {"suspended": True, "list": {"partners": listed("p.example", mode="reject")}}
    )
    assert not rules.acts
    assert RuleSet(rules).find("", "p.example", "").mode is Mode.MONITOR
    assert rules.model_copy(update={"suspended": False}).acts
