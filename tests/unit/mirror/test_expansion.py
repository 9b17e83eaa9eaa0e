"""Canonical maps and virtual aliases as keys of [mta]."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.mirror.expansion import MAPS
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.mirror.text import to_toml
from requiretls_milter.model import Aliases
from tests.support.postfixes import DEFAULT_TABLES, postfix, service, warned

KEYS = (*MAPS, "mydestination", "propagate_unmatched_extensions", "recipient_delimiter")
VIRTUAL = "hash:/etc/postfix/virtual"


def made(**main: str) -> Mirror:
    return mirror(postfix(**main))


def key(name: str, **main: str) -> Any:
    return made(virtual_alias_maps=VIRTUAL, **main).mta.get(name)


def test_without_tables_there_are_no_keys_and_nothing_is_said() -> None:
    found = made()
    assert not set(KEYS) & set(found.mta)
    assert not found.notes
    assert not found.while_off


@pytest.mark.parametrize("parameter", MAPS)
def test_tables_are_named_in_their_order_and_there_is_a_warning(parameter: str) -> None:
    maps = f"{VIRTUAL}, inline:{{ {{ a = b }} }} proxy:lmdb:/etc/postfix/more"
    found = made(**{parameter: maps})
    assert found.mta[parameter] == [
        VIRTUAL,
        "inline:{ { a = b } }",
        "proxy:lmdb:/etc/postfix/more",
    ]
    (text,) = found.while_off
    assert text in found.warnings
    assert text.startswith(f"{parameter} = ")
    assert "only with mta.aliases" in text


def test_the_operator_decides_whether_recipients_are_expanded() -> None:
    found = made(virtual_alias_maps=VIRTUAL)
    assert "aliases" not in found.mta
    assert Config.model_validate({"mta": found.mta}).mta.aliases is Aliases.OFF


def test_the_section_says_what_would_be_expanded_and_what_not() -> None:
    text = to_toml(made(virtual_alias_maps=f"{VIRTUAL} ldap:/etc/postfix/ldap.cf"))
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"expanded by virtual_alias_maps: {VIRTUAL}" in comments
    assert "virtual_alias_maps: ldap:/etc/postfix/ldap.cf: not text that can be read" in comments
    assert "not followed are aliases(5) (alias_maps = hash:/etc/aliases) and .forward" in comments


def test_users_that_are_not_of_this_host_have_no_forward_files() -> None:
    assert len(made(virtual_alias_maps=VIRTUAL, mydestination="").notes) == 1
    assert len(made(virtual_alias_maps=VIRTUAL, local_transport="smtp:[192.0.2.1]").notes) == 1


@pytest.mark.parametrize("kind", ["ldap", "regexp", "pcre", "mysql", "socketmap", "tcp", "cidr"])
def test_a_table_that_is_no_text_is_named_all_the_same(kind: str) -> None:
    found = made(virtual_alias_maps=f"{VIRTUAL}, {kind}:x")
    path = "/var/spool/postfix/x" if kind in ("regexp", "pcre", "cidr") else "x"
    assert found.mta["virtual_alias_maps"] == [VIRTUAL, f"{kind}:{path}"]
    assert warned(found, "virtual_alias_maps", "not text")


@pytest.mark.parametrize(
    "item",
    [
        "Odd:x",
        "word",
        "hash:/etc/gr\u00fcn",
        "\u00fc:x",
        "ldap:{ { bind_pw = x } }",
        "unionmap:{hash:/x, ldap:{{bind_pw=x}}}",
        f"inline:{{ {{ a = {'b' * 70_000} }} }}",
    ],
)
def test_a_table_that_cannot_be_named_is_one_that_cannot_be_read(item: str) -> None:
    (name,) = made(virtual_alias_maps=item).mta["virtual_alias_maps"]
    assert name.startswith("unreadable:")


def test_a_file_is_named_as_this_host_sees_it() -> None:
    elsewhere = replace(postfix(virtual_alias_maps=f"{VIRTUAL} hash:v"), root=Path("/srv/mta"))
    assert mirror(elsewhere).mta["virtual_alias_maps"] == [
        "hash:/srv/mta/etc/postfix/virtual",
        "hash:/srv/mta/var/spool/postfix/v",
    ]


@pytest.mark.parametrize(
    ("parameter", "classes"),
    [
        ("canonical_maps", "canonical_classes"),
        ("recipient_canonical_maps", "recipient_canonical_classes"),
    ],
)
def test_maps_that_do_not_apply_to_recipients_are_left_out(parameter: str, classes: str) -> None:
    found = made(**{parameter: VIRTUAL, classes: "header_recipient"})
    assert parameter not in found.mta
    assert not found.while_off


def test_settings_are_mirrored() -> None:
    assert key("recipient_delimiter", recipient_delimiter="+-") == "+-"
    assert key("myorigin") is None  # it is myhostname
    assert key("myorigin", myorigin="example.org") == "example.org"
    assert key("append_dot_mydomain", append_dot_mydomain="yes") is True
    assert key("propagate_unmatched_extensions") == ["canonical", "virtual"]
    assert key("propagate_unmatched_extensions", propagate_unmatched_extensions="alias") == []
    assert key("virtual_alias_expansion_limit", virtual_alias_expansion_limit="50") == 50
    assert key("virtual_alias_expansion_limit", virtual_alias_expansion_limit="9" * 9) == 100_000
    assert key("virtual_alias_recursion_limit", virtual_alias_recursion_limit="junk") is None


def test_an_origin_that_stands_in_a_file_is_mirrored() -> None:
    """As Debian has it."""
    named = postfix(virtual_alias_maps=VIRTUAL, myorigin="/etc/mailname")
    read = replace(named, tables={**DEFAULT_TABLES, "/etc/mailname": (("mail.example", ""),)})
    assert mirror(read).mta["myorigin"] == "mail.example"
    assert "myorigin" not in mirror(named).mta
    assert warned(mirror(named), "myorigin = /etc/mailname", "myhostname")
    assert not warned(mirror(read), "myorigin")


def test_the_names_of_mydestination_are_mirrored_those_in_tables_too() -> None:
    table = "hash:/etc/postfix/domains"
    made = postfix(
        virtual_alias_maps=VIRTUAL, mydestination=f"a.example, {table}, !b, *, A.example"
    )
    read = replace(made, domains={table: ("c.example",)})
    assert mirror(read).mta["mydestination"] == ["a.example", "c.example"]


def test_the_first_item_that_matches_decides_what_mydestination_has() -> None:
    made = postfix(virtual_alias_maps=VIRTUAL, mydestination="!a.example /names")
    read = replace(made, domains={"/names": ("a.example", "b.example")})
    assert mirror(read).mta["mydestination"] == ["b.example"]


def test_the_settings_are_those_of_the_service_that_expands() -> None:
    main = {"virtual_alias_maps": VIRTUAL}
    services = (
        service("smtpd", "smtp", "inet", main=main),
        service("cleanup", main=main, virtual_alias_maps="inline:{ { a = b } }"),
        service("cleanup", "pre-cleanup", main=main, virtual_alias_maps=""),
        service("smtp", main=main),
    )
    found = mirror(postfix(*services, **main))
    assert found.mta["virtual_alias_maps"] == ["inline:{ { a = b } }"]
    assert warned(found, "virtual_alias_maps", "pre-cleanup/unix")


def test_a_service_that_leaves_addresses_alone_is_told() -> None:
    main = {"virtual_alias_maps": VIRTUAL}
    services = (
        service("smtpd", "smtp", "inet", main=main, receive_override_options="no_address_mappings"),
        service("cleanup", main=main),
        service("smtp", main=main),
    )
    assert warned(mirror(postfix(*services, **main)), "no_address_mappings", "smtp/inet")
    assert not warned(mirror(postfix(*services[:1])), "no_address_mappings")


def test_recipients_that_are_masqueraded_are_warned_of() -> None:
    assert warned(made(masquerade_classes="envelope_recipient"), "masquerade_classes")


# ---------------------------------------------------------------- tables that are asked


def test_what_only_postmap_can_tell_is_told_apart() -> None:
    found = made(virtual_alias_maps=f"{VIRTUAL} ldap:/etc/postfix/ldap.cf")
    (text,) = found.while_not_asked
    assert text in found.warnings
    assert "ldap:/etc/postfix/ldap.cf: not text that can be read" in text
    assert any('with aliases = "ask", they are expanded by ldap:' in one for one in found.notes)
    assert not made(virtual_alias_maps=VIRTUAL).while_not_asked


@pytest.mark.parametrize(
    "item", ["regexp:{ { /^a@/ b@x.test } }", "unionmap:{ldap:/x,mysql:/y}", "pcre:{{/a/ b}}"]
)
def test_patterns_and_tables_of_tables_have_no_passwords_and_are_named(item: str) -> None:
    assert made(virtual_alias_maps=item).mta["virtual_alias_maps"] == [item]


def test_the_command_that_asks_is_named_if_it_is_not_the_usual_one() -> None:
    command = "/usr/sbin/postmap -c /etc/postfix-out"
    asked = replace(postfix(virtual_alias_maps="pcre:/x"), postmap=command)
    assert mirror(asked).mta["postmap"] == command
    read = replace(postfix(virtual_alias_maps=VIRTUAL), postmap=command)
    assert "postmap" not in mirror(read).mta
    assert "postmap" not in made(virtual_alias_maps="pcre:/x").mta
