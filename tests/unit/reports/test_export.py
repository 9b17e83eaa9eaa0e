"""The operator's rules as a table for smtp_requiretls_policy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.mirror.requiretls_policy import mirror_policy
from requiretls_milter.reports import export
from requiretls_milter.rules import RuleSet


def table(rules: dict[str, Any], **mta: Any) -> export.PolicyTable:
    return export.postfix_requiretls_policy(Config.model_validate({"rules": rules, "mta": mta}))


def entries(rules: dict[str, Any], **mta: Any) -> dict[str, str]:
    return {key: value.value for key, value in table(rules, **mta).entries.items()}


@pytest.mark.parametrize("section", ["recipient", "nexthop"])
@pytest.mark.parametrize("rule", [{"mode": "reject"}, {"mode": "defer"}, {"require": True}])
def test_a_domain_whose_rule_wants_requiretls_kept_is_enforced(
    section: str, rule: dict[str, Any]
) -> None:
    rules = {section: {"bank.example": rule, ".bank.example": rule}}
    assert entries(rules) == {"bank.example": "enforce", ".bank.example": "enforce"}


@pytest.mark.parametrize("mode", ["off", "monitor"])
def test_a_rule_that_only_looks_says_nothing(mode: str) -> None:
    assert entries({"recipient": {"bank.example": {"mode": mode}}}) == {}


def test_a_rule_that_is_off_says_nothing_whatever_it_asks() -> None:
    assert entries({"recipient": {"bank.example": {"mode": "off", "require": True}}}) == {}


def test_what_a_rule_leaves_out_is_inherited() -> None:
    rules = {
        "mode": "monitor",
        "recipient": {
            ".bank.example": {"mode": "reject"},
            "a.bank.example": {"on_unknown": "defer"},
        },
    }
    assert entries(rules) == {"a.bank.example": "enforce", ".bank.example": "enforce"}


def test_domains_stand_beside_their_subdomains() -> None:
    rule = {"mode": "reject"}
    names = ["b.example", ".a.example", "x.a.example", "a.example"]
    rules = {"nexthop": dict.fromkeys(names, rule)}
    assert list(entries(rules)) == ["a.example", ".a.example", "x.a.example", "b.example"]


def test_a_rule_by_sender_is_told_not_dropped() -> None:
    made = table({"sender": {"bank.example": {"require": True}}})
    assert made.entries == {}
    assert made.warnings == (
        'rules.sender."bank.example": Postfix has no policy by sender: left out',
    )


def test_a_rule_for_all_wants_the_list_to_end_with_enforce() -> None:
    (warning,) = table({"mode": "reject"}).warnings
    assert 'end the list in main.cf with "enforce"' in warning


def test_a_weaker_policy_of_the_mta_is_told() -> None:
    rules = {"recipient": {"bank.example": {"mode": "reject"}}}
    assert (
        table(rules, requiretls_policy={"bank.example": "enforce", "*": "disable"}).warnings == ()
    )
    assert table(rules).warnings == ()
    (warning,) = table(rules, requiretls_policy={".example": "opportunistic"}).warnings
    assert 'mta.requiretls_policy.".example" is opportunistic' in warning
    (warning,) = table(rules, requiretls_policy="disable").warnings
    assert "put the table first" in warning


_NAMES = st.sampled_from(
    [
        "example.org",
        ".example.org",
        "a.example.org",
        ".a.example.org",
        "b.test",
        ".test",
        "c.b.test",
    ]
)
_RULES = st.dictionaries(
    _NAMES,
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["off", "monitor", "defer", "reject"]),
            "require": st.booleans(),
        },
    ),
)


@given(st.sampled_from(["off", "monitor", "defer", "reject"]), _RULES, _RULES)
def test_no_policy_is_ever_relaxed_and_what_is_protected_is_enforced(
    mode: str, recipient: dict[str, Any], nexthop: dict[str, Any]
) -> None:
    config = Config.model_validate(
        {"rules": {"mode": mode, "recipient": recipient, "nexthop": nexthop}}
    )
    made = export.postfix_requiretls_policy(config)
    assert {policy.value for policy in made.entries.values()} <= {"enforce"}
    # as Postfix reads it, before a list that relaxes everything else
    text = f"texthash:{export.TABLE}, opportunistic"
    lines = [line.split("\t") for line in export.to_text(made).splitlines() if line[0] != "#"]
    mirrored, _ = mirror_policy(text, {text.split(",")[0]: tuple((k, v) for k, v in lines)}, "")
    asked = {} if isinstance(mirrored, str) else mirrored
    rules = RuleSet(config.rules)
    for pattern in {*recipient, *nexthop}:
        name = pattern if pattern[0] != "." else f"sub{pattern}"
        rule = rules.find("", name, name)
        if pattern in recipient and rule.mode in ("defer", "reject"):
            assert asked[pattern] == "enforce"
