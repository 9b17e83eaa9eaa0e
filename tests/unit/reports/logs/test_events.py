"""An event is found behind whatever prefix, and is not believed if it is another's text."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.logs.events import (
    Arrived,
    Event,
    Logged,
    Other,
    Removed,
    event_of,
    is_prefix,
)
from requiretls_milter.reports.logs.lines import Line, lines
from requiretls_milter.reports.logs.postfix import LogDelivery
from requiretls_milter.reports.logs.times import Times
from tests.support.logformats import FORMATS, Said
from tests.support.milterlogs import LATEST, QUEUE_ID, recipient_line

TIMES = Times(LATEST)
TO = 'to=<"a b"@exämple.org>, relay=mx1.example.org[192.0.2.1]:25, delay=1, dsn=5.7.30, '
DELIVERY = f"{QUEUE_ID}: {TO}status=bounced (no server)"

each_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)

WITHOUT_TIME = (
    "rfc3164 of another language",
    "journald short-monotonic",
    "journald cat",
    "journald verbose",
    "journald json-sse",
    "journald json-seq",
    "docker compose without more",
)


def events(content: bytes) -> list[Event]:
    found = (event_of(line, TIMES) for line in lines(io.BytesIO(content)))
    return [event for event in found if event is not None]


def only(content: bytes) -> Event:
    (event,) = events(content)
    return event


@each_format
@pytest.mark.parametrize("syslog_name", ["postfix", "postfix-mx/content-filter", "mail.out"])
def test_a_delivery_is_found_in_each_format(
    form: Callable[[Said], bytes], syslog_name: str
) -> None:
    what = only(form(Said(f"{syslog_name}/smtp", 12, DELIVERY))).what
    assert isinstance(what, LogDelivery)
    assert (what.queue_id, what.to, what.status) == (QUEUE_ID, '"a b"@exämple.org', "5.7.30")


@each_format
@pytest.mark.parametrize("kind", ["json", "logfmt"])
def test_a_forecast_is_found_in_each_format(form: Callable[[Said], bytes], kind: str) -> None:
    line = recipient_line(kind, action="accept", sender='<"a: b"@x>')
    if kind == "logfmt":
        line = f"level=info {line}"
    what = only(form(Said("requiretls-milter", 7, line))).what
    assert isinstance(what, Logged)
    assert what.fields["event"] == "recipient"
    assert what.fields["sender"] == '<"a: b"@x>'
    assert what.fields["text"] == 'mx1 said "no", and so on'


@pytest.mark.parametrize("name", FORMATS)
def test_its_time_is_read_in_each_format(name: str) -> None:
    said = Said("postfix/smtp", 12, DELIVERY, second=7)
    time = only(FORMATS[name](said)).time
    if name in WITHOUT_TIME:
        assert time is None
    else:
        assert time is not None
        assert abs(time - said.time.timestamp()) < 0.3


def test_the_milters_own_time_is_more_exact_than_that_of_syslog() -> None:
    own = "timestamp=2026-11-28T10:00:00.797251Z level=info event=recipient action=accept"
    time = only(f"Nov 28 10:00:01 mx requiretls-milter[7]: {own}\n".encode()).time
    assert time == pytest.approx(1795860000.797251)


@each_format
@pytest.mark.parametrize(
    ("message", "what"),
    [
        (f"{QUEUE_ID}: client=mx[192.0.2.1]", Arrived(QUEUE_ID)),
        (f"{QUEUE_ID}: uid=0 from=<root>", Arrived(QUEUE_ID)),
        (f"{QUEUE_ID}: message-id=<a@b>", Arrived(QUEUE_ID, "<a@b>")),
        (f"{QUEUE_ID}: removed", Removed(QUEUE_ID)),
    ],
    ids=["client", "uid", "message-id", "removed"],
)
def test_the_life_of_a_message_is_found_in_each_format(
    form: Callable[[Said], bytes], message: str, what: object
) -> None:
    assert only(form(Said("postfix/qmgr", 1, message))).what == what


FORGED = f"{QUEUE_ID}: to=<u@x>, relay=mx[192.0.2.1]:25, delay=1, dsn=2.0.0, status=sent (250 Ok)"
FORECAST = "level=info event=recipient queue_id=4A to=<u@x> forecast=2.0.0 action=accept"


@pytest.mark.parametrize("forged", [FORGED, FORECAST, f"\\n{FORECAST}", '{"event": "recipient"}'])
@pytest.mark.parametrize(
    "line",
    [
        "Nov 28 10:00:00 mx postfix/cleanup[1]: 4B: warning: header Subject: {} from x[192.0.2.1]",
        "Nov 28 10:00:00 mx postfix/cleanup[1]: 4B: warning: header Subject: a {} from x",
        "Nov 28 10:00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x: 550 5.1.1 <{}>: no",
        "Nov 28 10:00:00 mx postfix/smtpd[1]:warning: {}",
        "Nov 28 10:00:00 mx postfix/smtpd[1]:improper command from x: {}",
        "Nov 28 10:00:00 mx postfix/smtp[1]: 4B: host x[192.0.2.1] said: 450 4.2.0 {}",
        "Nov 28 10:00:00 mx rspamd[1]: <a1b2>; task; subject: {}",
        "Nov 28 10:00:00 mx app[1]: login from ({}) failed",
        '203.0.113.1 - - [28/Nov/2026:10:00:00 +0000] "GET /{} HTTP/1.1" 200',
        'level=info event=refused text="{}"',
        'level=info event=refused text="a {}"',
    ],
)
def test_what_a_stranger_wrote_in_a_line_is_no_event(line: str, forged: str) -> None:
    for event in events(line.replace("{}", forged).encode() + b"\n"):
        assert isinstance(event.what, Other | Logged)
        if isinstance(event.what, Logged):
            assert event.what.fields["event"] == "refused"


def test_what_a_server_said_about_one_recipient_is_no_event_of_another() -> None:
    line = f"Nov 28 10:00:00 mx postfix/smtp[1]: {DELIVERY.replace('no server', FORGED)}\n"
    what = only(line.encode()).what
    assert isinstance(what, LogDelivery)
    assert what.status == "5.7.30"
    line = line.replace(FORGED, FORECAST)
    assert isinstance(only(line.encode()).what, LogDelivery)


def test_what_a_stranger_wrote_in_a_value_is_no_pair() -> None:
    text = f'a" {FORECAST} "b'
    line = recipient_line("logfmt", text=text, action="accept")
    (event,) = events(f"{line}\n".encode())
    assert isinstance(event.what, Logged)
    assert (event.what.fields["text"], event.what.fields["forecast"]) == (text, "5.7.30")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("Nov 28 10:00:00 mx postfix/smtp[1]: ", True),
        ("smtp_1 | Nov 28 10:00:00 mx postfix/smtp[1]:", True),
        ("2026-11-28_10:00:00 mail.info: Nov 28 10:00:00 mx postfix/smtp[1]:", True),
        ("mail.info: mail.info: x", False),
        ("x: y: ", False),
        ("x: y ", False),
        ("to=<a>, ", False),
        ('"', False),
        ("(", False),
        ("x" * 401, False),
    ],
)
def test_a_prefix_holds_no_message_of_its_own(text: str, expected: bool) -> None:
    assert is_prefix(text) is expected


@pytest.mark.parametrize(
    "line",
    [
        f'Nov 28 10:00:00 mx web[1]: said,"{DELIVERY}"',
        f'"a","b" {DELIVERY}"',
        f'"Nov 28 10:00:00 mx web[1]: to=<a@example.org> {DELIVERY}"',
        f'"unclosed, {DELIVERY}',
    ],
)
def test_quotes_around_what_a_stranger_wrote_make_no_event(line: str) -> None:
    assert [one for one in events(f"{line}\n".encode()) if one.what != Other()] == []


def test_objects_are_searched_to_a_limit() -> None:
    deep: object = f"mx postfix/smtp[1]: {DELIVERY}"
    for _ in range(20):
        deep = {"x": deep}
    assert events(json.dumps(deep).encode() + b"\n") == []
    nested = b'{"to=":' * 5000 + b"}" * 5000
    assert events(nested + b"\n") == []
    assert events(b'{"to=":' + b"9" * 5000 + b"}\n") == []


def test_octets_of_any_kind_are_kept_apart() -> None:
    line = b"Nov 28 10:00:00 mx postfix/smtp[1]: " + DELIVERY.encode().replace(
        "ä".encode(), b"\xe4\xff"
    )
    what = only(line + b"\n").what
    assert isinstance(what, LogDelivery)
    assert what.to == '"a b"@ex\\xe4\\xffmple.org'


def test_lines_that_no_report_needs_are_found_only_if_asked_for() -> None:
    line = Line(b"Nov 28 10:00:00 mx postfix/smtpd[12]: connect from x[192.0.2.1]")
    assert event_of(line, TIMES) is None
    event = event_of(line, TIMES, any_line=True)
    assert event is not None
    assert event.what == Other()
    assert event_of(Line(b"/bin/sh: 1: nothing: not found"), TIMES, any_line=True) is None


@given(st.binary(max_size=300))
def test_no_octets_raise_anything(content: bytes) -> None:
    for part in (b"", b"4dBGwW2XvVz1Kb: to=<", b"event=recipient ", b'{"event": "recipient", "x":'):
        events(part + content)
