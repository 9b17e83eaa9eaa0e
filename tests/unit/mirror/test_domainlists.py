"""Lists of domains: their order, their exclusions, and what is in files and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from requiretls_milter.mirror.domainlists import DomainList, domain_list
from requiretls_milter.mirror.section import mirror
from tests.support.postfixes import postfix

DOMAINS: Mapping[str, tuple[str, ...] | None] = {
    "hash:t": ("a.example", ".b.example", "root"),
    "ldap:t": None,
    "/names": ("c.example", "!d.example", "hash:t", "/more"),
    "/more": ("e.example",),
    "/circle": ("/circle", "a.example"),
    "/lost": None,
}


def read(parameter: str, value: str, **main: str) -> DomainList:
    made = replace(postfix(**{parameter: value}, **main), domains=DOMAINS)
    return domain_list(made.settings, parameter, made)


@pytest.mark.parametrize(
    ("value", "names", "excluded"),
    [
        ("A.Example, b.example", ["a.example", "b.example"], []),
        ("!a.example a.example", [], ["a.example"]),
        ("a.example !a.example", ["a.example"], []),
        ("!!a.example", ["a.example"], []),
        ("!a.example static:all b.example", ["*"], ["a.example"]),
        ("a.example !static:all b.example", ["a.example"], ["*"]),
        ("hash:t", ["a.example", "root"], []),
        ("!hash:t c.example", ["c.example"], ["a.example", "root"]),
        ("/names", ["c.example", "a.example", "root", "e.example"], ["d.example"]),
        ("!/names", ["d.example"], ["c.example", "a.example", "root", "e.example"]),
        ("/circle", ["a.example"], []),
        ("[192.0.2.1] b.example", ["[192.0.2.1]", "b.example"], []),
        (".b.example", [], []),
    ],
)
def test_the_first_item_that_matches_decides(
    value: str, names: list[str], excluded: list[str]
) -> None:
    found = read("mydestination", value)
    assert found.names == names
    assert [name for name, is_in in found.members.items() if not is_in] == excluded


@pytest.mark.parametrize(
    ("value", "parents", "names"),
    [
        ("a.example .b.example", "relay_domains", ["a.example", ".a.example"]),
        ("a.example .b.example", "", ["a.example", ".b.example"]),
        ("hash:t", "relay_domains", ["a.example", "root", ".a.example", ".root"]),
        ("hash:t", "", ["a.example", ".b.example", "root"]),
        ("a.example !sub.a.example", "relay_domains", ["a.example", ".a.example"]),
    ],
)
def test_only_relay_domains_match_subdomains(value: str, parents: str, names: list[str]) -> None:
    found = read("relay_domains", value, parent_domain_matches_subdomains=parents)
    assert list(found.members) == found.names == names


@pytest.mark.parametrize(
    ("value", "unknown"),
    [
        ("ldap:t a.example", ["ldap:t"]),
        ("/lost", ["/lost"]),
        ("hash:never-read", ["hash:never-read"]),
        ("not/a/name", ["not/a/name"]),
    ],
)
def test_what_cannot_be_read_is_known(value: str, unknown: list[str]) -> None:
    assert read("mydestination", value).unknown == unknown


def test_files_too_deep_within_files_are_told() -> None:
    """Their own ``!`` would else be lost."""
    assert read("mydestination", "/circle").unknown == ["/circle"]


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("3.7.11", ["a.example", "ours.example", "b.example"]),
        ("3.8.0", ["a.example"]),
        ("3.11.7", ["a.example"]),
        ("", ["a.example"]),
    ],
)
def test_a_comment_ends_a_list_from_postfix_3_8_on(version: str, names: list[str]) -> None:
    value = "a.example # ours.example b.example"
    assert read("mydestination", value, mail_version=version).names == names


@pytest.mark.parametrize("literal", ["[192.0.2.1]", "[IPv6:2001:db8::5]"])
def test_an_address_has_no_subdomains(literal: str) -> None:
    made = mirror(postfix(relay_domains=literal, relay_transport="smtp:[gw.example]"))
    assert made.mta["routes"] == {literal.lower(): "smtp:[gw.example]"}
