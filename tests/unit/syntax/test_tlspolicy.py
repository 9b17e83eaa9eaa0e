"""Entries of smtp_tls_policy_maps are read as Postfix reads them, or refused with a reason."""

from __future__ import annotations

import pytest

from requiretls_milter.model import TlsLevel, TlsPolicy
from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.names import DomainNameError
from requiretls_milter.syntax.nexthop import NextHopError


@pytest.mark.parametrize(
    ("text", "level", "match"),
    [
        ("encrypt", TlsLevel.ENCRYPT, ()),
        (" DANE-only ", TlsLevel.DANE_ONLY, ()),
        ("none whatever", TlsLevel.NONE, ()),
        ("secure match=Example.org:.example.org", TlsLevel.SECURE, ("example.org", ".example.org")),
        ("secure, match=a.example,match=b.example", TlsLevel.SECURE, ("a.example", "b.example")),
        ("verify\tmatch=hostname:nexthop", TlsLevel.VERIFY, ("hostname", "nexthop")),
        ("verify { match = a.example }", TlsLevel.VERIFY, ("a.example",)),
        ("may { policy_string = a b }", TlsLevel.MAY, ()),
        ("encrypt servername=hostname", TlsLevel.ENCRYPT, ()),
        ("may Connection_Reuse=yes", TlsLevel.MAY, ()),
    ],
)
def test_level_and_match_are_read(text: str, level: TlsLevel, match: tuple[str, ...]) -> None:
    assert tlspolicy.parse(text) == TlsPolicy(level, match)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a level"),
        ("fingerprint match=AA:BB", "expected a level"),
        ("halfdane", "expected a level"),
        ("Encrypted", "expected a level"),
        ("encrypt match=a.example", "not for encrypt"),
        ("secure match=", "expected match=NAME:NAME"),
        ("secure match=::", "expected match=NAME:NAME"),
        ("secure match=a\N{LATIN SMALL LETTER E WITH ACUTE}.example", "expected match=NAME:NAME"),
        ("secure match", "expected attributes as name=value"),
        ("secure { match = a.example b.example }", "expected match=NAME:NAME"),
        ("secure { match = a.example", "expected attributes as name=value"),
        ("secure ciphers=high", "cannot be mirrored"),
        ("secure servername=mail.example", "cannot be mirrored"),
        ("secure mtach=a.example", "has no attribute"),
        (f"secure match={':'.join(['a.example'] * 101)}", "more than 100"),
    ],
)
def test_what_is_no_entry_that_we_know_is_refused(text: str, why: str) -> None:
    with pytest.raises(tlspolicy.TlsPolicyError, match=why):
        tlspolicy.parse(text)


def test_an_entry_can_be_written_as_it_was_read() -> None:
    for text in ("encrypt", "secure match=example.org:.example.org"):
        assert str(tlspolicy.parse(text)) == text


def test_what_cannot_be_mirrored_is_taken_out_by_name() -> None:
    text = "secure match=a.example ciphers=high, Protocols=>=TLSv1.3"
    assert tlspolicy.as_mirrored(text) == ("secure match=a.example", ("ciphers", "protocols"))
    braced = "secure { policy_string = version: STSv1 } policy_type=sts"
    kept = "secure { policy_string=version: STSv1 }"
    assert tlspolicy.as_mirrored(braced) == (kept, ("policy_type",))
    assert tlspolicy.parse(kept) == TlsPolicy(TlsLevel.SECURE)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Example.org", "example.org"),
        (".Example.org", ".example.org"),
        ("[mail.example.org]", "[mail.example.org]"),
        ("[mail.example.org]:25", "[mail.example.org]:25"),
        ("[192.0.2.1]:587", "[192.0.2.1]:587"),
        ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example", "xn--bcher-kva.example"),
    ],
)
def test_keys_have_one_form(text: str, key: str) -> None:
    assert tlspolicy.key(text) == key


@pytest.mark.parametrize("text", ["", ".", "a b", "a.example, b.example", "[", "*"])
def test_what_is_no_next_hop_is_no_key(text: str) -> None:
    with pytest.raises((NextHopError, DomainNameError)):
        tlspolicy.key(text)


@pytest.mark.parametrize(
    "text",
    [
        "secure ciphers=high ciphers=high",
        "may protocols=>=TLSv1.2 protocols=",
        "may servername=a.example servername=b.example",
        "may servername=not/a/name",
        "may ciphers=",
        "may connection_reuse=perhaps",
        "may enable_rpk=1",
        "encrypt tafile=/etc/ca.pem",
        "secure tafile=",
        "secure policy_ttl=5",
        "secure mx_host_pattern=*.example.org",
    ],
)
def test_an_attribute_that_postfix_does_not_accept_is_not_left_out(text: str) -> None:
    with pytest.raises(tlspolicy.TlsPolicyError):
        tlspolicy.as_mirrored(text)


@pytest.mark.parametrize(
    "text",
    [
        "none ciphers= ciphers=",
        "secure tafile=/a tafile=/b",
        "secure policy_type=sts policy_ttl=5 policy_string=a policy_string=b",
        "dane connection_reuse=YES enable_rpk=no",
    ],
)
def test_attributes_that_postfix_accepts_are_left_out(text: str) -> None:
    tlspolicy.parse(tlspolicy.as_mirrored(text)[0])
