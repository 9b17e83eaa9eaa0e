"""What people write in the place of a domain, and the domain that they meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config.patterns import PatternError, domain, domain_pattern, matched_by


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Partner.EXAMPLE", "partner.example"),
        ("partner.example.", "partner.example"),
        (".partner.example", ".partner.example"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("_25._tcp.example", "_25._tcp.example"),
    ],
)
def test_a_domain_has_one_form(text: str, pattern: str) -> None:
    assert domain_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "said", "instead"),
    [
        ("*.partner.example", "subdomains are written with a leading dot", ".partner.example"),
        ("user@partner.example", "is an address, not a domain", "partner.example"),
        ("@partner.example", "is an address, not a domain", "partner.example"),
        ("<user@Partner.example>", "is an address, not a domain", "partner.example"),
        ("https://partner.example/path", "is a URL, not a domain", "partner.example"),
        ("partner.example/", "is a URL, not a domain", "partner.example"),
        ("partner.example:25", "it has no port and no brackets", "partner.example"),
        ("[mx.partner.example]:587", "it has no port and no brackets", "mx.partner.example"),
        (" partner.example", "is not a domain name", "partner.example"),
        ('"partner.example"', "is not a domain name", "partner.example"),
        ("..partner.example", "empty label", ".partner.example"),
        ("192.0.2.1", "is an IP address, not a domain name", ""),
        ("[2001:db8::1]:25", "is an IP address, not a domain name", ""),
        ("a.example, b.example", "but several: write each by itself", ""),
        ("bank.example;Bank AG", "has more beside one", "bank.example"),
        ("bank.example\tenforce", "has more beside one", "bank.example"),
        ("a b", "has more beside one", ""),
        ("*", "a rule for all domains is [rules] itself", ""),
        ("", "an empty domain name", ""),
        ("-a.example", "neither begins nor ends with '-'", ""),
    ],
)
def test_what_is_no_domain_is_told_with_the_one_that_was_meant(
    text: str, said: str, instead: str
) -> None:
    with pytest.raises(PatternError) as caught:
        domain_pattern(text)
    assert said in caught.value.why
    assert caught.value.instead == instead
    assert str(caught.value).endswith(f'; write "{instead}"' if instead else caught.value.why)


def test_where_no_pattern_belongs_none_is_proposed() -> None:
    with pytest.raises(PatternError) as caught:
        domain("*.partner.example")
    assert caught.value.instead == "partner.example"


def test_a_pattern_matches_the_domain_that_is_given_for_it() -> None:
    assert matched_by("example.org") == "example.org"
    assert matched_by(".example.org") == "x.example.org"


@given(st.text(max_size=60) | st.text("ab.@*:/[]<>\"' 1", max_size=20))
def test_whatever_the_text_what_is_proposed_is_a_domain(text: str) -> None:
    try:
        domain_pattern(text)
    except PatternError as error:
        if error.instead:
            assert domain_pattern(error.instead) == error.instead  # noqa: PT017 - as good
