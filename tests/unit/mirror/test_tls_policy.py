"""smtp_tls_policy_maps becomes a table of TLS policies, and a policy service becomes MTA-STS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import mirror
from requiretls_milter.model import TlsLevel, TlsPolicy
from tests.support.postfixes import mta_of, older, postfix, service, warned

PLUGIN = "socketmap:inet:127.0.0.1:8461:postfix"


@pytest.mark.parametrize("maps", [PLUGIN, f"proxy:{PLUGIN}", "tcp:127.0.0.1:8461"])
def test_a_policy_service_is_mta_sts(maps: str) -> None:
    made = mirror(postfix(smtp_tls_policy_maps=maps, smtp_tls_CAfile="/etc/ssl/ca.pem"))
    assert made.mta["mta_sts"] == "mx-patterns"
    assert warned(made, "policy_type=sts", 'set mta_sts = "match"')


def test_a_policy_service_is_matched_in_the_old_way_where_postfix_does_so() -> None:
    main = {"smtp_tls_policy_maps": PLUGIN, "smtp_tls_enforce_sts_mx_patterns": "no"}
    assert mirror(postfix(**main)).mta["mta_sts"] == "match"
    made = mirror(older(postfix(smtp_tls_policy_maps=PLUGIN)))
    assert made.mta["mta_sts"] == "match"


ABLE = {"smtp_dns_support_level": "dnssec", "smtp_tls_CAfile": "/etc/ssl/ca.pem"}
"""Settings that DANE and the levels verify and secure need."""


def with_tables(
    *tables: dict[str, str], maps: str = "TABLES", main: dict[str, str] = ABLE
) -> Postfix:
    """A Postfix with static *tables* in smtp_tls_policy_maps, in order."""
    named = {f"hash:/etc/postfix/{n}": tuple(table.items()) for n, table in enumerate(tables, 1)}
    base = postfix(smtp_tls_policy_maps=maps.replace("TABLES", ", ".join(named)), **main)
    return replace(base, tables={**base.tables, **named})


def test_static_policies_are_one_table_in_which_the_first_decides() -> None:
    first = {"a.example": "encrypt", "[b.example]:587": "verify, match=x.example:hostname"}
    second = {"A.example": "none", ".example": "secure connection_reuse=yes"}
    made = mirror(with_tables(first, second))
    assert made.mta["tls_policy"] == {
        "a.example": "encrypt",
        "[b.example]:587": "verify match=x.example:hostname",
        ".example": "secure",
    }
    assert made.mta["mta_sts"] == "off"
    assert not warned(made, "smtp_tls_policy_maps")
    assert dict(mta_of(made).profile_for("").tls_policy) == {
        "a.example": TlsPolicy(TlsLevel.ENCRYPT),
        "[b.example]:587": TlsPolicy(TlsLevel.VERIFY, ("x.example", "hostname")),
        ".example": TlsPolicy(TlsLevel.SECURE),
    }


def test_a_transport_without_the_tables_is_told_apart() -> None:
    strict = service("smtp", "smtp-strict", main=ABLE, smtp_tls_policy_maps="")
    base = with_tables({"a.example": "encrypt"})
    made = mirror(replace(base, services=(*base.services, strict)))
    assert made.mta["transport"]["smtp-strict"] == {"tls_policy": {}}
    mta = mta_of(made)
    assert mta.profile_for("smtp-strict").tls_policy == ()
    assert mta.profile_for("smtp").tls_policy != ()


def test_what_an_entry_says_beyond_its_level_is_told_by_name() -> None:
    table = {"a.example": "encrypt protocols=>=TLSv1.3 ciphers=high", "b.example": "none x=y"}
    made = mirror(with_tables(table))
    assert made.mta["tls_policy"] == {"a.example": "encrypt", "b.example": "none"}
    assert warned(made, "hash:/etc/postfix/1", "without ciphers, protocols", "a.example")
    assert len(made.warnings) == 1


def test_entries_that_cannot_be_mirrored_are_told_by_name() -> None:
    bad = {f"{letter}.example": "fingerprint match=AA:BB" for letter in "abcdefg"}
    made = mirror(with_tables({**bad, "good.example": "dane"}))
    assert made.mta["tls_policy"] == {"good.example": "dane"}
    assert warned(made, "hash:/etc/postfix/1", "a.example", "and 2 more", "fingerprint")
    unreadable = postfix(smtp_tls_policy_maps="hash:/etc/postfix/policy")
    assert warned(mirror(unreadable), "hash:/etc/postfix/policy", "cannot be read")


def test_a_static_table_after_a_service_is_told() -> None:
    table = {"a.example": "encrypt"}
    behind = mirror(with_tables(table, maps=f"{PLUGIN} TABLES"))
    assert warned(behind, "comes after a policy service")
    before = mirror(with_tables(table, maps=f"TABLES {PLUGIN}"))
    assert not warned(before, "comes after a policy service")
    assert before.mta["tls_policy"] == behind.mta["tls_policy"] == table


def test_entries_for_dane_are_weaker_where_postfix_cannot_do_it() -> None:
    table = {"a.example": "dane", "b.example": "dane-only"}
    made = mirror(with_tables(table, main={"smtp_dns_support_level": "enabled"}))
    assert made.mta["tls_policy"] == {"a.example": "may"}
    assert warned(made, "level dane", "smtp_dns_support_level", "a.example")
    assert warned(made, "not mirrored", "dane-only", "b.example")


def test_per_site_policies_count_only_without_policy_maps() -> None:
    per_site = {"smtp_tls_per_site": "hash:/etc/postfix/site"}
    assert warned(mirror(postfix(**per_site)), "smtp_tls_per_site")
    both = {**per_site, "smtp_tls_policy_maps": PLUGIN}
    assert not warned(mirror(postfix(**both)), "smtp_tls_per_site")


# ---------------------------------------------------------------- which policy service it is


@pytest.mark.parametrize(
    ("maps", "service"),
    [
        ("socketmap:inet:127.0.0.1:8461:postfix", "postfix-mta-sts-resolver"),
        ("socketmap:unix:/run/sts.sock:sts", "postfix-mta-sts-resolver"),
        ("socketmap:inet:127.0.0.1:8642:QUERY", "postfix-tlspol"),
        ("socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT", "postfix-tlspol"),
        ("socketmap:unix:/run/postfix-tlspol/tlspol.sock:query", "postfix-tlspol"),
        ("hash:/etc/postfix/tls, socketmap:inet:127.0.0.1:8642:QUERY", "postfix-tlspol"),
        ("", "postfix-mta-sts-resolver"),
    ],
)
def test_the_policy_service_is_known_by_the_name_of_its_map(maps: str, service: str) -> None:
    assert mirror(postfix(smtp_tls_policy_maps=maps)).mta["mta_sts_service"] == service
