"""smtp_requiretls_policy becomes a table that says the same of every next hop."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Config
from requiretls_milter.forecast.profiles import requiretls_policy
from requiretls_milter.mirror.postconf import Entries
from requiretls_milter.mirror.requiretls_policy import mirror_policy
from requiretls_milter.model import RequiretlsPolicy
from tests.support.postfixes import DEFAULT_POLICY, DEFAULT_TABLES


def test_postfixs_own_list_is_the_word_default() -> None:
    assert mirror_policy(DEFAULT_POLICY, DEFAULT_TABLES, "example.org") == ("default", ())


def test_postfixs_own_list_for_another_domain_is_a_table() -> None:
    value, warnings = mirror_policy(DEFAULT_POLICY, DEFAULT_TABLES, "example.net")
    assert value == {
        "example.org": "opportunistic",
        ".example.org": "opportunistic",
        "localhost": "opportunistic",
        "*": "enforce",
    }
    assert [text.split(":")[0] for text in warnings] == [
        "a next hop that is an IPv4 address",
        "a next hop that is an IPv6 address",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "enforce"),
        ("enforce", "enforce"),
        ("Opportunistic+STARTTLS", "opportunistic+starttls"),
        ("disable, enforce", "disable"),
        ("static:disable enforce", "disable"),
        ("static:{ opportunistic } enforce", "opportunistic"),
        ("cidr:a disable", "disable"),
    ],
)
def test_one_word_for_all_is_a_word(text: str, value: str) -> None:
    assert mirror_policy(text, {"cidr:a": ()}, "example.org") == (value, ())


@pytest.mark.parametrize("text", ["frobnicate", "error", "frobnicate enforce"])
def test_a_word_that_postfix_does_not_know_is_invalid_and_told(text: str) -> None:
    value, (warning,) = mirror_policy(text, {}, "example.org")
    assert value == "invalid"
    assert "4.7.10" in warning


@pytest.mark.parametrize("result", ["frobnicate", "enforce, disable", "inline:{a=b}", ""])
def test_a_result_that_is_no_action_is_invalid_for_that_name(result: str) -> None:
    value, _ = mirror_policy("hash:a", {"hash:a": (("example.net", result),)}, "example.org")
    assert value == {"example.net": "invalid", "*": "enforce"}


def test_an_earlier_table_is_not_overruled_by_a_later_ones_more_specific_name() -> None:
    tables: dict[str, Entries | None] = {
        "hash:a": ((".example.net", "disable"), ("example.com", "disable")),
        "hash:b": (
            ("mx.example.net", "enforce"),
            (".sub.example.net", "enforce"),
            ("example.net", "enforce"),
            (".example.com", "enforce"),
        ),
    }
    value, _ = mirror_policy("hash:a hash:b", tables, "example.org")
    assert value == {
        ".example.net": "disable",
        "example.com": "disable",
        "example.net": "enforce",
        ".example.com": "enforce",
        "*": "enforce",
    }


def test_a_table_that_cannot_be_read_is_told_and_taken_for_empty() -> None:
    value, (warning,) = mirror_policy(
        "pcre:/etc/postfix/p opportunistic", {"pcre:/etc/postfix/p": None}, "example.org"
    )
    assert value == "opportunistic"
    assert warning.startswith("pcre:/etc/postfix/p: such a table cannot be read")


def test_a_list_with_an_unread_table_is_never_called_postfixs_own() -> None:
    first, rest = DEFAULT_POLICY.split(", cidr")
    text = f"{first}, pcre:x, cidr{rest}"
    value, _ = mirror_policy(text, {**DEFAULT_TABLES, "pcre:x": None}, "example.org")
    assert isinstance(value, dict)


def test_keys_that_postfix_never_looks_up_are_told_and_left_out() -> None:
    tables: dict[str, Entries | None] = {
        "hash:a": (("*", "disable"), ("bücher.example", "disable"), ("a.example:25", "disable"))
    }
    value, (warning,) = mirror_policy("hash:a", tables, "example.org")
    assert value == "enforce"
    assert "never looks up *, b\\xfccher.example, a.example:25" in warning


def test_addresses_and_networks() -> None:
    tables: dict[str, Entries | None] = {
        "hash:a": (("192.0.2.1", "disable"),),
        "cidr:b": (
            ("192.0.2.1", "enforce"),
            ("192.0.2.2/32", "disable"),
            ("10.0.0.0/8", "disable"),
            ("0.0.0.0/0", "opportunistic"),
            ("192.0.2.3", "disable"),
        ),
    }
    value, warnings = mirror_policy("hash:a cidr:b", tables, "example.org")
    assert value == {"192.0.2.1": "disable", "192.0.2.2": "disable", "*": "enforce"}
    assert "networks are not mirrored: 10.0.0.0/8" in warnings[0]
    assert "IPv4 address: opportunistic in Postfix, but enforce in the mirror" in warnings[1]


# ---------------------------------------------------------------- against Postfix's own search

WORDS = ("enforce", "opportunistic+starttls", "opportunistic", "disable", "bad")
LABELS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
KEYS = st.tuples(st.sampled_from(["", "."]), NAMES).map("".join)
TABLES = st.lists(st.tuples(KEYS, st.sampled_from(WORDS)), max_size=5)


def as_postfix_searches(
    tables: list[list[tuple[str, str]]], fallback: str, name: str
) -> RequiretlsPolicy:
    """smtp_reqtls_policy_eval(), word for word."""
    for table in tables:
        entries = dict(table)
        sought = name
        while sought:
            if sought in entries:
                word = entries[sought]
                return RequiretlsPolicy("invalid" if word == "bad" else word)
            dot = sought.find(".", 1)
            sought = sought[dot:] if dot > 0 else ""
    return RequiretlsPolicy("invalid" if fallback == "bad" else fallback)


@given(st.lists(TABLES, max_size=3), st.sampled_from(WORDS), NAMES)
def test_the_mirror_says_of_every_name_what_postfix_says(
    tables: list[list[tuple[str, str]]], fallback: str, name: str
) -> None:
    text = " ".join([*(f"hash:{number}" for number in range(len(tables))), fallback])
    read: dict[str, Entries | None] = {
        f"hash:{number}": tuple(dict(table).items()) for number, table in enumerate(tables)
    }
    value, _ = mirror_policy(text, read, "example.org")
    mta = Config.model_validate({"mta": {"requiretls_policy": value}}).mta
    expected = as_postfix_searches(tables, fallback, name)
    assert requiretls_policy(mta.profile_for("smtp"), name) is expected


def test_the_word_default_says_of_addresses_what_postfixs_list_says() -> None:
    mta = Config.model_validate({"mta": {"mydomain": "example.org"}}).mta
    for text in ("192.0.2.1", "2001:db8::1"):
        address = str(ipaddress.ip_address(text))
        found = requiretls_policy(mta.profile_for("smtp"), address)
        assert found is RequiretlsPolicy.OPPORTUNISTIC
