"""What Postfix writes about an attempt, whole or cut."""

from __future__ import annotations

import pytest

from requiretls_milter.reports.logs.postfix import LogDelivery, delivery

HEAD = "relay=mx1.example.org[192.0.2.1]:25, delay=0.6, delays=0.6/0.01/0.03/0, "


def found(text: str) -> LogDelivery:
    one = delivery("4A", text)
    assert one is not None
    return one


def failed(said: str, status: str = "4.4.2") -> LogDelivery:
    return found(f"to=<u@example.org>, {HEAD}dsn={status}, status=deferred ({said})")


@pytest.mark.parametrize(
    ("written", "to"),
    [
        ("u@example.org", "u@example.org"),
        ('"a b"@example.org', '"a b"@example.org'),
        ('"a>, relay=x, dsn=2.0.0, status=sent (x"@example.org', None),
        ('"a\\"b>"@example.org', None),
        ("büro@example.org", None),
        ("b\\xfcro@example.org", None),
        ('odd"quote@example.org', None),
        ("", None),
    ],
)
def test_a_recipient_may_have_any_character(written: str, to: str | None) -> None:
    one = found(f"to=<{written}>, {HEAD}dsn=4.7.5, status=deferred (x)")
    assert (one.to, one.status) == (written if to is None else to, "4.7.5")


def test_of_an_alias_both_addresses_are_known() -> None:
    one = found(f'to=<v@x>, orig_to=<"a, b"@y>, {HEAD}dsn=2.0.0, status=sent (250 Ok)')
    assert (one.recipient, one.to) == ('"a, b"@y', "v@x")


def test_fields_that_later_versions_add_are_passed_over() -> None:
    one = found(
        "to=<u@x>, relay=mx[192.0.2.1]:25, conn_use=2, delay=1, delays=0/0/0/1, new=thing, "
        "tls=dane/requiretls, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4dBGwX0Qz1z1Kc)"
    )
    assert (one.tls, one.queued_as) == ("dane/requiretls", "4dBGwX0Qz1z1Kc")


def test_what_a_server_says_is_no_field() -> None:
    one = failed(
        "host x said: 550 tls=fake, dsn=2.0.0, status=sent (250 queued as ABCDEF)", "5.7.1"
    )
    assert (one.status, one.tls, one.queued_as) == ("5.7.1", "", "")


@pytest.mark.parametrize(
    ("said", "queued_as"),
    [
        ("250 2.0.0 Ok: queued as 4HnkK74hXyz6tl6", "4HnkK74hXyz6tl6"),
        (
            "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4HnkK74hXyz6tl6",
            "4HnkK74hXyz6tl6",
        ),
        ("250 2.6.0 <queued as ABCDEF> queued as 3A3D26C44D0 today", "3A3D26C44D0"),
        ("250 2.0.0 Ok", ""),
    ],
)
def test_the_queue_id_behind_a_filter_is_the_last_that_it_names(said: str, queued_as: str) -> None:
    assert found(f"to=<u@x>, {HEAD}dsn=2.0.0, status=sent ({said})").queued_as == queued_as


@pytest.mark.parametrize(
    "said",
    [
        "lost connection with mx[192.0.2.1] while sending end of data -- message may be sent more"
        " than once",
        "lost connection with mx[192.0.2.1] while sending MAIL FROM",
        "lost connection with mx[192.0.2.1] while sending message body",
        "conversation with mx[192.0.2.1] timed out while sending RCPT TO",
        "host mx[192.0.2.1] said: 450 4.2.0 greylisted (in reply to RCPT TO command)",
        "host mx[192.0.2.1] refused to talk to me: 451 (in reply to end of DATA command)",
        "SASL authentication failed; server mx[192.0.2.1] said: 535 5.7.8 no",
        "SASL [CACHED] authentication failed; server mx[192.0.2.1] said: 535 5.7.8 no",
        "message size 10485761 exceeds size limit 10240000 of server mx[192.0.2.1]",
        "SMTPUTF8 is required, but was not offered by host mx[192.0.2.1]",
        "message requires SMTPUTF8, but no server was found that supports SMTPUTF8. The last"
        " attempted server was mx[192.0.2.1]",
    ],
)
def test_what_no_probe_sees_is_later(said: str) -> None:
    assert failed(said).later


@pytest.mark.parametrize(
    "said",
    [
        "connect to mx[192.0.2.1]:25: Connection refused",
        "lost connection with mx[192.0.2.1] while receiving the initial server greeting",
        "lost connection with mx[192.0.2.1] while performing the EHLO handshake",
        "conversation with mx[192.0.2.1] timed out while receiving the STARTTLS response",
        "host mx[192.0.2.1] said: 454 4.7.0 no (in reply to STARTTLS command)",
        "Cannot start TLS: handshake failure",
        "Server certificate not verified",
    ],
)
def test_what_a_probe_sees_is_not_later(said: str) -> None:
    assert not failed(said).later


def test_a_reply_that_was_cut_may_answer_any_command() -> None:
    text = f"to=<u@x>, {HEAD}dsn=4.2.0, status=deferred (host mx[192.0.2.1] said: 450 4.2.0 xxx"
    assert found(text).later
    assert not found(text + ")").later


LINE = f"to=<u@x>, {HEAD}tls=dane, dsn=5.7.30, status=bounced (no server was found)"


@pytest.mark.parametrize("length", range(len("to=<u@x>"), len(LINE)))
def test_of_a_line_that_was_cut_no_half_value_is_believed(length: int) -> None:
    one = delivery("4A", LINE[:length])
    assert one is not None
    assert one.to == "u@x"
    assert one.status in ("", "5.7.30")
    assert one.tls == ("dane" if one.status else "")


@pytest.mark.parametrize(
    "text",
    [
        f"to=<u@x>, {HEAD}dsn=4.4.1, status=deferred (delivery temporarily suspended: no)",
        f"to=<u@x>, {HEAD}dsn=4.4.1, status=deferred (delivery temporarily susp",
        "to=<u@x>, delay=00:00:01, xdelay=00:00:01, mailer=esmtp, dsn=2.0.0, stat=Sent",
        "to=u@x",
        "to=<u@x",
    ],
    ids=["suspended", "suspended and cut", "sendmail", "no address", "half an address"],
)
def test_what_is_no_attempt_of_postfix_is_none(text: str) -> None:
    assert delivery("4A", text) is None


def test_a_server_that_was_not_reached_is_known() -> None:
    text = "to=<u@x>, relay=none, delay=1, dsn=4.4.1, status=deferred (connect to {}: refused)"
    for server in ("127.0.0.1[127.0.0.1]:10025", "scan[private/scan]"):
        assert found(text.format(server)).relay == server
    assert found(text.format("nothing")).relay == "none"


def test_soft_bounce_and_pipes_are_told() -> None:
    assert found(f"to=<u@x>, {HEAD}dsn=4.7.30, status=SOFTBOUNCE (no)").soft
    assert not failed("x").soft
    piped = "to=<u@x>, relay=filter, delay=1, dsn=2.0.0, status=sent (delivered via filter service)"
    assert found(piped).piped
    assert not found(LINE).piped
