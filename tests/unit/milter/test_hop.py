"""Next hops from the MTA's macros."""

from __future__ import annotations

import pytest

from requiretls_milter.config import Mta
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.model import HopKind, NextHop
from requiretls_milter.syntax.nexthop import LOCAL, NextHopError

MX, HOST, ADDRESS = HopKind.MX, HopKind.HOST, HopKind.ADDRESS
MTA = Mta()


@pytest.mark.parametrize(
    ("mailer", "host", "domain", "expected"),
    [
        ("smtp", "remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "Remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "[relay.example]:587", "remote.test", NextHop(HOST, "relay.example", 587)),
        ("smtp-strict", "strict.test", "strict.test", NextHop(MX, "strict.test")),
        ("esmtp", "remote.test.", "remote.test", NextHop(MX, "remote.test")),
        ("esmtp", "[relay.example]", "remote.test", NextHop(HOST, "relay.example")),
        ("rtls", "remote.test:remote.test", "remote.test", NextHop(MX, "remote.test")),
        ("smtp", "[127.0.0.2]", "[127.0.0.2]", NextHop(ADDRESS, "127.0.0.2")),
        ("", "", "remote.test", NextHop(MX, "remote.test")),
        ("", "", "[192.0.2.1]", NextHop(ADDRESS, "192.0.2.1")),
        ("", "", "[IPv6:2001:db8::1]", NextHop(ADDRESS, "2001:db8::1")),
        ("smtp", "a.example, b.example", "remote.test", NextHop(MX, "a.example")),
        ("smtp", "[a.example]:587,[b.example]", "remote.test", NextHop(HOST, "a.example", 587)),
    ],
)
def test_macros_name_the_next_hop_and_of_a_list_the_first(
    mailer: str, host: str, domain: str, expected: NextHop
) -> None:
    assert from_macros(mailer, host, domain, MTA) == expected


@pytest.mark.parametrize(
    ("mailer", "host", "domain"),
    [
        ("local", "mta.mine.test", "mine.test"),
        ("virtual", "virt.test", "virt.test"),
        ("lmtp", "unix:private/dovecot-lmtp", "mine.test"),
        ("dovecot", "unix:private/dovecot-lmtp", "mine.test"),
        ("discard", "disc.test", "disc.test"),
        ("error", "5.1.2", "gone.test"),
        ("", "", ""),
    ],
)
def test_r19_local_transports_and_addresses_without_a_domain_are_local(
    mailer: str, host: str, domain: str
) -> None:
    assert from_macros(mailer, host, domain, MTA) == LOCAL


@pytest.mark.parametrize(
    ("domain", "local"),
    [
        ("mine.test", True),
        ("MINE.test", True),
        ("sub.mine.test", False),
        ("sub.yours.test", True),
        ("yours.test", False),
        ("[192.0.2.1]", False),
        ("not a domain", False),
    ],
)
def test_local_domains_are_local_whatever_the_transport(domain: str, local: bool) -> None:
    mta = Mta(local_domains=("mine.test", ".yours.test"))
    hop = from_macros("smtp", "relay.example", domain, mta)
    assert hop == (LOCAL if local else NextHop(MX, "relay.example"))


def test_the_names_of_local_transports_are_the_operators() -> None:
    mta = Mta(local_transports=("maildrop",))
    assert from_macros("maildrop", "x", "mine.test", mta) == LOCAL
    assert from_macros("local", "x.test", "mine.test", mta) == NextHop(MX, "x.test")


def test_a_host_that_is_none_is_an_error_and_no_local_delivery() -> None:
    with pytest.raises(NextHopError):
        from_macros("smtp", "[broken", "remote.test", MTA)
