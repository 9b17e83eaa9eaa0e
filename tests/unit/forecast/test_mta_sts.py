from __future__ import annotations

import pytest

from requiretls_milter.forecast.mta_sts import mta_sts_match
from requiretls_milter.model import MtaStsMode, MtaStsPolicy

POLICY = MtaStsPolicy(
    MtaStsMode.ENFORCE, ("mail.example.com", "*.example.net", "MX.Example.org."), 86400, "1"
)


@pytest.mark.parametrize(
    "host", ["mail.example.com", "MAIL.example.COM", "mail.example.com.", "mx.example.org"]
)
def test_r55_a_name_matches_itself_whatever_its_case_and_trailing_dot(host: str) -> None:
    assert mta_sts_match(POLICY, host)


@pytest.mark.parametrize("host", ["mx1.example.net", "MX1.EXAMPLE.NET."])
def test_r55_a_wildcard_matches_one_label(host: str) -> None:
    assert mta_sts_match(POLICY, host)


@pytest.mark.parametrize(
    "host",
    [
        "example.net",
        ".example.net",
        "a.b.example.net",
        "mx1example.net",
        "x.mail.example.com",
        "example.com",
        "*.example.com",
        "",
        ".",
    ],
)
def test_r55_nothing_else_matches(host: str) -> None:
    assert not mta_sts_match(POLICY, host)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_r55_an_address_never_matches(host: str) -> None:
    policy = MtaStsPolicy(MtaStsMode.ENFORCE, ("*.0.2.1", "192.0.2.1", "2001:db8::1"), 1, "1")
    assert not mta_sts_match(policy, host)
