"""Where mail went, by the logs of Postfix and of the milter."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter import config
from requiretls_milter.config import Mta
from requiretls_milter.model import Feature
from requiretls_milter.readiness.values import Downgrade
from requiretls_milter.reports import traffic
from requiretls_milter.reports.logs.events import Event, Logged
from requiretls_milter.reports.logs.postfix import LogDelivery
from requiretls_milter.reports.traffic import Hop, Traffic, is_remote
from requiretls_milter.syntax.nexthop import parse
from tests.support.milterlogs import QUEUE_ID, delivery_line, events, recipient_line


def mta(text: str = "") -> Mta:
    return config.parse(text.encode(), "test").mta


RELAY = "mx1.example.org[192.0.2.1]:25"

WHERE = mta('[mta]\nlocal_domains = ["own.example"]\n[mta.routes]\n"x.example" = "lmtp:[h]:99"\n')


def read(lines: Iterable[str], where: Mta | None = None) -> Traffic:
    found = Traffic(where or mta())
    for _ in found.counted(events(lines)):
        pass
    return found


def hops(found: Traffic) -> dict[str, int]:
    return {hop.nexthop: count for hop, count in found.mail.hops.items()}


def attempt(to: str, status: str = "2.0.0", queue_id: str = QUEUE_ID, relay: str = "") -> str:
    line = delivery_line(status, to=to).replace(QUEUE_ID, queue_id)
    return line.replace("mx1.example.org[192.0.2.1]:25", relay) if relay else line


def test_each_recipient_counts_once_however_often_postfix_tries() -> None:
    found = read(
        [
            attempt("u@example.org", "4.4.1"),
            attempt("u@example.org"),
            attempt("v@example.org"),
            attempt("u@example.org", queue_id="4dBGwW2XvVz1Kc"),
            attempt("u@example.net"),
        ]
    )
    assert hops(found) == {"example.org": 3, "example.net": 1}


@pytest.mark.parametrize(
    ("relay", "remote"),
    [
        ("mx.example.org[192.0.2.1]:25", True),
        ("mx.example.org[2001:db8::1]:25", True),
        ("none", True),
        ("127.0.0.1[127.0.0.1]:25", True),
        ("127.0.0.1[127.0.0.1]:10024", False),
        ("localhost[::1]:10025", False),
        ("mail.example.net[private/dovecot-lmtp]", False),
        ("local", False),
        ("virtual", False),
        ("filter", False),
        ("", False),
        ("mx[not an address]:25", False),
    ],
)
def test_mail_that_stays_here_or_goes_to_a_filter_does_not_count(relay: str, remote: bool) -> None:
    assert is_remote(relay) is remote
    if relay:
        assert hops(read([attempt("u@example.org", relay=relay)])) == (
            {"example.org": 1} if remote else {}
        )


def test_the_configuration_says_where_mail_to_an_address_goes() -> None:
    where = mta(
        '[mta]\nrelayhost = "[smart.example]"\nlocal_domains = ["own.example"]\n'
        '[mta.routes]\n"partner.example" = "smtp:[mx.partner.example]:26"\n'
    )
    found = read(
        [attempt(f"u@{name}") for name in ("a.example", "own.example", "partner.example")], where
    )
    assert found.mail.hops == {
        Hop("[smart.example]", "smtp"): 1,
        Hop("[mx.partner.example]:26", "smtp"): 1,
    }


def test_the_milters_lines_count_if_there_is_none_of_postfix() -> None:
    lines = [
        recipient_line(),
        recipient_line("logfmt", nexthop="[mx.example.net]", transport="smtp"),
        recipient_line(nexthop="local", reason="local", forecast="2.0.0"),
    ]
    assert hops(read(lines)) == {"example.org": 1, "[mx.example.net]": 1}
    assert read(lines).forecasts == 3
    assert hops(read([*lines, attempt("u@other.example")])) == {"other.example": 1}


def test_the_period_is_that_of_the_mail_that_counts() -> None:
    late = attempt("v@example.org").replace("Nov 24", "Nov 26")
    mail = read([attempt("u@example.org"), late]).mail
    assert mail.since is not None
    assert mail.until is not None
    assert mail.until - mail.since == 2 * 86_400


@pytest.mark.parametrize("name", ["u@-bad-.example", "u@a..b", "u@" + "x" * 300])
def test_what_is_no_domain_is_counted_without_its_name(name: str) -> None:
    mail = read([attempt(name)]).mail
    assert (mail.hops, mail.others) == ({}, 1)


def test_a_next_hop_that_is_none_is_counted_without_its_name() -> None:
    mail = read([recipient_line(nexthop="<script>"), recipient_line(nexthop="[[")]).mail
    assert (mail.hops, mail.others) == ({}, 2)


def test_next_hops_beyond_the_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MAX_HOPS", 2)
    mail = read(attempt(f"u@d{number % 4}.example") for number in range(4)).mail
    assert (len(mail.hops), mail.others) == (2, 2)


# ---------------------------------------------------------------- downgrades


def lost(event: str, subject: str, kind: str, day: int) -> str:
    return (
        f"2026-11-{day}T10:00:00Z mta requiretls-milter[3]: level=warning event={event} "
        f'kind={kind} subject="{subject}" first_seen=1 last_seen=2'
    )


def test_downgrades_are_told_and_what_came_back() -> None:
    found = read(
        [
            lost("downgrade", "mx.example.org", "starttls", 20),
            lost("downgrade", "example.net", "mta_sts", 21),
            lost("restored", "mx.example.org", "starttls", 22),
            lost("restored", "never.example", "tlsa", 22),
            lost("downgrade", "mx.example.org", "starttls", 23),
        ]
    )
    twentieth = 1_795_168_800.0
    day = 86_400.0
    assert found.downgrades == (
        Downgrade("mx.example.org", Feature.STARTTLS, twentieth, twentieth + 2 * day),
        Downgrade("example.net", Feature.MTA_STS, twentieth + day),
        Downgrade("mx.example.org", Feature.STARTTLS, twentieth + 3 * day),
    )


def test_a_downgrade_of_what_there_is_not_is_none() -> None:
    assert read([lost("downgrade", "mx.example.org", "magic", 20)]).downgrades == ()
    assert read([lost("downgrade", "", "tlsa", 20)]).downgrades == ()


ANY = st.text() | st.from_regex(r"[\w.+-]*@\[?[\w.:-]*\]?(:\w+)?", fullmatch=True)


@given(ANY, ANY)
def test_whatever_stands_in_a_log_is_counted_or_is_local(recipient: str, hop: str) -> None:
    found = Traffic(WHERE)
    delivery = LogDelivery(
        "4A", recipient, recipient, RELAY, "2.0.0", "", "", False, False, "", False
    )
    fields = {"event": "recipient", "nexthop": hop, "to": recipient}
    list(found.counted([Event(delivery, 1.0), Event(Logged(fields), 2.0)]))
    assert sum(found.mail.hops.values()) + found.mail.others <= 1
    for one in found.mail.hops:
        assert str(parse(one.nexthop)) == one.nexthop, "it is found again by its name"
