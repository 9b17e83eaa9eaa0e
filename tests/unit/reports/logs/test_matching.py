"""Postfix and the milter write relays and addresses in their own ways."""

from __future__ import annotations

import pytest

from requiretls_milter.reports.logs.matching import is_content_filter, same_address
from requiretls_milter.reports.logs.milter import LoggedForecast

GOOD = LoggedForecast("2.0.0", "ok", "dane/requiretls", "mx1.example.org", "example.org")
MX = "mx1.example.org[192.0.2.1]:25"
FILTER = "127.0.0.1[127.0.0.1]:10025"


@pytest.mark.parametrize(
    ("relay", "nexthop", "expected"),
    [
        (FILTER, "example.org", True),
        ("scan.example.net[198.51.100.7]:10024", "example.org", True),
        ("scan[private/scan]", "example.org", True),
        ("127.0.0.1[127.0.0.1]:25", "example.org", True),
        (MX, "example.org", False),
        ("mx2.example.org[192.0.2.2]:25", "example.org", False),
        ("relay[127.0.0.9]:587", "[127.0.0.9]:587", False),
        ("relay.example[192.0.2.9]:587", "[relay.example]:587", False),
        ("relay.example[192.0.2.9]:10025", "[relay.example]", False),
        ("mx1.example.org[192.0.2.1]:10025", "example.org", False),  # of an SRV record
        ("none", "example.org", False),
        ("local", "example.org", False),
    ],
)
def test_a_filter_is_told_from_the_server_that_was_forecast(
    relay: str, nexthop: str, expected: bool
) -> None:
    assert is_content_filter(relay, GOOD._replace(nexthop=nexthop)) is expected


@pytest.mark.parametrize(
    ("milter", "postfix"),
    [
        ("<U@Example.ORG>", "u@example.org"),
        ('<"a b"@example.org>', '"a b"@example.org'),
        ('<"a b"@example.org>', "a b@example.org"),  # info_log_addr_form = internal
        ('<"u"@example.org>', "u@example.org"),
        ('<"a\\"b>"@x>', '"a\\"b>"@x'),
        ("<b\\xfcro@x>", "büro@x"),
        ("<b\\xdcro@x>", "bÜro@x"),
        ("<b\\xfcro@x>", "b\\xfcro@x"),  # an octet that is no UTF-8: see logs.events
        ("<@a.example,@b.example:u@x>", "u@x"),
        ("<>", ""),
    ],
)
def test_an_address_is_the_same_however_it_is_written(milter: str, postfix: str) -> None:
    assert same_address(milter) == same_address(postfix)


def test_different_addresses_stay_different() -> None:
    written = ["büro@x", "bäro@x", "b?ro@x", '"a b"@x', "ab@x", "@x", "u@x", "u@y"]
    assert len({same_address(one) for one in written}) == len(written)
