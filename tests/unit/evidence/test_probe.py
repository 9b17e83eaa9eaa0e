"""The probe against scripted servers: real sockets, real TLS, every way of going wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config import Limits, Probe
from requiretls_milter.evidence import probe as probe_module
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.connection import Connection
from requiretls_milter.evidence.probe import (
    FRESH,
    MAX_CHAIN,
    MAX_DIALOGUE,
    MAX_LINE_READ,
    MAX_LINES,
    MAX_REPLY,
    Prober,
    read_ehlo,
)
from requiretls_milter.evidence.turns import FREE, Limiter
from requiretls_milter.model import (
    MAX_SIZE,
    MailProtocol,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    ServerTarget,
)
from requiretls_milter.telemetry.counting import Counters
from tests.support.authority import DAY, DH_1024, DH_2048, Authority, Issued
from tests.support.limiters import limiters
from tests.support.lmtpserver import LmtpServer
from tests.support.smtpserver import EHLO, EHLO_TLS, Close, Hang, SmtpServer
from tests.support.smtpserver import Reply as ScriptedReply
from tests.support.stores import saturated
from tests.support.waiting import until

NOW = 1_000_000.0
RETRY_AFTER = 60.0
NAME = "mx.example.net"
LOOPBACK = AddressPolicy([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Issued:
    return authority.issue(NAME, extra_chain=1)


@pytest.fixture
def tls(certificate: Issued) -> ssl.SSLContext:
    return certificate.server_context()


_made: list[Prober] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """What a test has probed with is closed at its end."""
    yield
    while _made:
        _made.pop().close()


def prober(
    *,
    timeout: float = 0.6,
    policy: AddressPolicy = LOOPBACK,
    enabled: bool = True,
    limiter: Limiter = FREE,
) -> Prober:
    settings = Probe(
        helo="client.example.org",
        enabled=enabled,
        connect_timeout=timeout,
        command_timeout=timeout,
        retry_after=RETRY_AFTER,
    )
    one = Prober(policy, settings, limiter=limiter, clock=lambda: NOW)
    _made.append(one)
    return one


async def seen(server: SmtpServer, *, limit: float = 2.0, name: str = NAME) -> ProbeEvidence:
    async with server:
        return await prober(timeout=limit).probe(ServerTarget(server.host, server.port, name))


def assert_ended(
    evidence: ProbeEvidence, stage: ProbeStage, failure: ProbeFailure, reply: Reply | None = None
) -> None:
    assert (evidence.stage, evidence.failure, evidence.reply) == (stage, failure, reply)
    assert evidence.requiretls is None
    assert evidence.expires == NOW + RETRY_AFTER
    assert evidence.error.isascii()


# ---------------------------------------------------------------- a session as it should be


async def test_a_session_goes_as_far_as_the_ehlo_inside_tls_and_takes_leave(
    tls: ssl.SSLContext, certificate: Issued, authority: Authority
) -> None:
    server = SmtpServer(tls=tls)
    evidence = await seen(server)
    assert evidence.stage is ProbeStage.DONE
    assert evidence.failure is None
    assert evidence.starttls_offered is True
    assert evidence.starttls_reply is None
    assert evidence.requiretls is True
    assert evidence.tls_version == "TLSv1.3"
    assert evidence.ehlo_name == "mx.example.net"
    assert evidence.error == ""
    assert evidence.probed_at == NOW
    assert evidence.expires == NOW + FRESH
    assert len(evidence.chain) == 2
    assert evidence.chain[0] == certificate.der
    assert server.commands == [
        b"EHLO client.example.org\r\n",
        b"STARTTLS\r\n",
        b"EHLO client.example.org\r\n",
        b"QUIT\r\n",
    ]


async def test_what_both_sides_said_is_kept_for_people(tls: ssl.SSLContext) -> None:
    evidence = await seen(SmtpServer(tls=tls, ehlo=b"250-mx.example.net\r\n250 STARTTLS\xff\r\n"))
    lines = evidence.dialogue.splitlines()
    assert lines[:4] == [
        "S: 220 mx.example.net ESMTP",
        "C: EHLO client.example.org",
        "S: 250-mx.example.net",
        "S: 250 STARTTLS?",
    ]
    assert lines[-1] == "C: QUIT"
    whole = (await seen(SmtpServer(tls=tls))).dialogue.splitlines()
    begins = whole.index("(TLSv1.3 begins)")
    assert whole[begins - 2 : begins + 2] == [
        "C: STARTTLS",
        "S: 220 2.0.0 ready",
        "(TLSv1.3 begins)",
        "C: EHLO client.example.org",
    ]


async def test_r62_of_a_long_dialogue_the_beginning_is_kept() -> None:
    long = b"".join(b"250-" + b"x" * 90 + b"\r\n" for _ in range(40)) + b"250 end\r\n"
    evidence = await seen(SmtpServer(banner=long.replace(b"250", b"220"), ehlo=long))
    assert len(evidence.dialogue) <= MAX_DIALOGUE
    assert evidence.dialogue.endswith("\n...")


async def test_the_group_of_the_key_exchange_is_evidence(certificate: Issued) -> None:
    tls = certificate.server_context()
    tls.set_ecdh_curve("prime256v1")
    assert (await seen(SmtpServer(tls=tls))).group == "secp256r1"


async def test_r42_the_server_name_that_is_given_is_sent_in_the_handshake(
    tls: ssl.SSLContext,
) -> None:
    server = SmtpServer(tls=tls)
    await seen(server, name="tlsa-base.example.net")
    assert server.server_names == ["tlsa-base.example.net"]


async def test_without_a_server_name_none_is_sent(tls: ssl.SSLContext) -> None:
    server = SmtpServer(tls=tls)
    assert (await seen(server, name="")).stage is ProbeStage.DONE
    assert server.server_names == [None]


async def test_an_ipv6_address_is_probed_as_well(tls: ssl.SSLContext) -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    evidence = await seen(SmtpServer(tls=tls, host="::1"))
    assert evidence.stage is ProbeStage.DONE


@pytest.mark.parametrize(
    ("version", "word"),
    [
        (ssl.TLSVersion.TLSv1, "TLSv1"),
        (ssl.TLSVersion.TLSv1_1, "TLSv1.1"),
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_seen_and_named(
    tls: ssl.SSLContext, version: ssl.TLSVersion, word: str
) -> None:
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = version
    tls.maximum_version = version
    server = SmtpServer(tls=tls)
    evidence = await seen(server)
    assert evidence.stage is ProbeStage.DONE
    assert evidence.tls_version == word
    assert evidence.chain
    old = version < ssl.TLSVersion.TLSv1_2
    assert bool(evidence.only_opportunistic) is old
    assert server.connections == (2 if old else 1)
    # What made the first session fail may have been chance: it is not believed for long.
    assert evidence.expires == NOW + (RETRY_AFTER if old else FRESH)
    assert evidence.error == ""


@pytest.mark.parametrize(
    ("peer", "sessions"), [("_garbage", 2), ("_alert", 2), ("_close", 2), ("_hang", 1)]
)
async def test_a_second_session_is_begun_unless_time_ran_out(peer: str, sessions: int) -> None:
    server = SmtpServer(instead_of_tls=globals()[peer])
    evidence = await seen(server, limit=0.4)
    assert evidence.stage is ProbeStage.HANDSHAKE
    assert evidence.expires == NOW + RETRY_AFTER
    assert not evidence.only_opportunistic
    assert server.connections == sessions


@pytest.fixture(scope="module")
def by_rsa(authority: Authority) -> Issued:
    return authority.issue(NAME, rsa_bits=2048)


def with_suite(issued: Issued, suite: str, group: Path | None = None) -> ssl.SSLContext:
    """A server that has one cipher suite of TLS 1.2."""
    tls = issued.server_context()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers(f"{suite}:@SECLEVEL=0")
    if group is not None:
        tls.load_dh_params(str(group))
    return tls


@pytest.mark.parametrize("suite", ["ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"])
async def test_r64_the_cipher_suite_is_evidence(by_rsa: Issued, suite: str) -> None:
    server = SmtpServer(tls=with_suite(by_rsa, suite))
    evidence = await seen(server)
    assert (evidence.cipher, evidence.small_group) == (suite, "")
    assert server.connections == 1


@pytest.mark.parametrize(("group", "small"), [(DH_1024, True), (DH_2048, False)])
async def test_r64_a_second_session_shows_how_large_the_group_of_dhe_is(
    by_rsa: Issued, group: Path, small: bool
) -> None:
    server = SmtpServer(tls=with_suite(by_rsa, "DHE-RSA-AES128-GCM-SHA256", group))
    evidence = await seen(server)
    assert (evidence.stage, evidence.requiretls) == (ProbeStage.DONE, True)
    assert evidence.cipher == "DHE-RSA-AES128-GCM-SHA256"
    assert ("dh key too small" in evidence.small_group) is small
    assert not evidence.only_opportunistic, "the MTA would take it"
    assert evidence.expires == NOW + FRESH
    assert server.connections == 2


async def test_r64_a_group_that_could_not_be_tested_is_not_known_for_long(by_rsa: Issued) -> None:
    server = SmtpServer(tls=with_suite(by_rsa, "DHE-RSA-AES128-GCM-SHA256", DH_2048))
    async with server:
        probing = asyncio.create_task(prober().probe(ServerTarget(server.host, server.port, NAME)))
        await until(lambda: b"STARTTLS\r\n" in server.commands)
        server.banner = b"421 4.3.2 too busy\r\n"
        evidence = await probing
    assert evidence.small_group
    assert (evidence.stage, evidence.expires) == (ProbeStage.DONE, NOW + RETRY_AFTER)


async def test_its_end_is_that_of_connections_whose_servers_do_not_end_them(
    tls: ssl.SSLContext,
) -> None:
    one = prober()
    async with SmtpServer(tls=tls, quit=Hang) as server:
        found = await one.probe(ServerTarget(server.host, server.port, NAME))
        assert found.stage is ProbeStage.DONE
        before = len(os.listdir("/proc/self/fd"))
        one.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1


async def test_a_server_that_fails_once_is_not_called_weak_for_long(tls: ssl.SSLContext) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.instead_of_tls = None
        await _alert(reader, writer)

    server = SmtpServer(tls=tls, instead_of_tls=once)
    async with server:
        first = await prober().probe(ServerTarget(server.host, server.port, NAME))
        then = await prober().probe(ServerTarget(server.host, server.port, NAME))
    assert "alert" in first.only_opportunistic
    assert (first.stage, first.expires) == (ProbeStage.DONE, NOW + RETRY_AFTER)
    assert (then.only_opportunistic, then.expires) == ("", NOW + FRESH)


async def test_a_certificate_is_taken_as_it_is_whoever_issued_it(stranger: Authority) -> None:
    certificate = stranger.issue("other.example", start=-2 * DAY, end=-DAY)
    evidence = await seen(SmtpServer(tls=certificate.server_context()))
    assert evidence.stage is ProbeStage.DONE
    assert evidence.chain == (certificate.der,)


# ---------------------------------------------------------------- what is offered


async def test_r03_requiretls_before_starttls_proves_nothing(tls: ssl.SSLContext) -> None:
    server = SmtpServer(
        tls=tls,
        ehlo=b"250-mx.example.net\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n",
        ehlo_tls=b"250-mx.example.net\r\n250 SIZE\r\n",
    )
    assert (await seen(server)).requiretls is False


async def test_r03_without_tls_there_is_no_answer_to_requiretls() -> None:
    evidence = await seen(SmtpServer(ehlo=b"250-mx.example.net\r\n250 REQUIRETLS\r\n"))
    assert evidence.stage is ProbeStage.DONE
    assert evidence.starttls_offered is False
    assert evidence.requiretls is None
    assert evidence.chain == ()
    assert evidence.tls_version == ""


@pytest.mark.parametrize(
    "line",
    [
        b"250 REQUIRETLS",
        b"250 requiretls",
        b"250 RequireTLS",
        b"250 REQUIRETLS ",
        b"250 REQUIRETLS \t ",
        b"250  REQUIRETLS",
    ],
)
def test_r04_the_keyword_counts_in_any_case_and_with_blanks_around_it(line: bytes) -> None:
    assert "REQUIRETLS" in read_ehlo([b"250-mx.example.net", line]).keywords


@pytest.mark.parametrize(
    "line",
    [
        b"250 REQUIRETLSX",
        b"250 XREQUIRETLS",
        b"250 REQUIRETLS-X",
        b"250 X REQUIRETLS",
        b"250 REQUIRE TLS",
        b"250 REQUIRETLS\0",
        b"250 REQUIRETLS\xff",
        b"250",
        b"250 ",
        b"REQUIRETLS",
        b"250--REQUIRETLS",
        b"250-?REQUIRETLS",
    ],
)
def test_r04_the_keyword_is_matched_as_a_whole_word(line: bytes) -> None:
    assert "REQUIRETLS" not in read_ehlo([b"250-mx.example.net", line]).keywords


@pytest.mark.parametrize(
    ("reply", "offered"),
    [
        (b"250-mx\r\n250-STARTTLS\0 and more\r\n250 x\r\n", True),
        (b"250-mx\r\n250-\0STARTTLS\r\n250 x\r\n", False),
        (b"250-mx\r\n250-\tSTARTTLS\r\n250 x\r\n", False),
        (b"250-mx\r\n25 STARTTLS\r\n250 x\r\n", True),
        (b"250-mx\r\nnoise STARTTLS\r\n250 x\r\n", True),
        (b"250-mx\r\nSTARTTLS\r\n250 x\r\n", False),
        (b"250-" + b"x" * 2043 + b"\r\n250 STARTTLS\r\n", True),
        (b"250-" + b"x" * 2044 + b"\r\n250 STARTTLS\r\n", False),
    ],
)
async def test_r04_what_is_no_smtp_is_read_as_postfix_reads_it(reply: bytes, offered: bool) -> None:
    """Each of these was put to a real Postfix 3.11."""
    evidence = await seen(SmtpServer(ehlo=reply, starttls=b"502 no\r\n"))
    assert evidence.starttls_offered is offered


@pytest.mark.parametrize("greeting", [b"220\r\n", b"220 ***2**0***** *\r\n"])
async def test_behind_a_box_that_masks_the_greeting_nothing_is_extended(greeting: bytes) -> None:
    server = SmtpServer(banner=greeting)
    evidence = await seen(server)
    assert (evidence.stage, evidence.starttls_offered) == (ProbeStage.DONE, False)
    assert server.commands[0].startswith(b"HELO ")


def test_r04_the_first_line_holds_the_servers_name_and_no_keyword() -> None:
    ehlo = read_ehlo([b"250-REQUIRETLS at your service", b"250 SIZE 1000"])
    assert ehlo.name == "REQUIRETLS"
    assert ehlo.keywords == {"SIZE"}


@given(st.lists(st.binary(max_size=60)))
def test_any_lines_give_printable_keywords(lines: list[bytes]) -> None:
    ehlo = read_ehlo(lines)
    assert all(word.isascii() and word.isprintable() for word in (ehlo.name, *ehlo.keywords))


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"250 SIZE 1000", 1000),
        (b"250-size=35882577", 35_882_577),
        (b"250 SIZE  52428800 more", 52_428_800),
        (b"250 SIZE 0", 0),
        (b"250 SIZE 99999999999999999999", MAX_SIZE),
        (b"250 SIZE", None),
        (b"250 SIZE 999999999999999999999", None),
        (b"250 SIZE 1k", None),
        (b"250 SIZES 10", None),
        (b"250 X SIZE 10", None),
    ],
)
def test_the_size_that_a_server_takes_is_a_number(line: bytes, size: int | None) -> None:
    assert read_ehlo([b"250-SIZE 7", line]).size == size


async def test_smtputf8_and_size_are_seen_in_both_ehlo_replies(tls: ssl.SSLContext) -> None:
    server = SmtpServer(
        tls=tls,
        ehlo=b"250-mx.example.net\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 SMTPUTF8\r\n",
        ehlo_tls=b"250-mx.example.net\r\n250 REQUIRETLS\r\n",
    )
    evidence = await seen(server)
    assert (evidence.smtputf8_in_clear, evidence.smtputf8) == (True, False)
    assert evidence.size_limit == 1000, "as in Postfix, the former limit stands"
    server.ehlo_tls = b"250-mx.example.net\r\n250-SIZE 50000\r\n250 SMTPUTF8\r\n"
    evidence = await seen(server)
    assert (evidence.smtputf8, evidence.size_limit) == (True, 50_000)
    evidence = await seen(SmtpServer(ehlo=b"250 mx.example.net\r\n"))
    assert (evidence.smtputf8_in_clear, evidence.smtputf8, evidence.size_limit) == (False, None, 0)
    refused = await seen(SmtpServer(banner=b"554 no\r\n"))
    assert (refused.smtputf8_in_clear, refused.smtputf8) == (None, None)


async def test_a_server_that_has_helo_only_offers_nothing() -> None:
    server = SmtpServer(ehlo=b"500 5.5.1 what?\r\n", helo=b"250-mx.example.net\r\n250 STARTTLS\r\n")
    evidence = await seen(server)
    assert evidence.stage is ProbeStage.DONE
    assert evidence.starttls_offered is False
    assert evidence.ehlo_name == "mx.example.net"
    assert server.commands[:2] == [b"EHLO client.example.org\r\n", b"HELO client.example.org\r\n"]


async def test_a_server_that_has_helo_only_inside_tls_offers_no_requiretls(
    tls: ssl.SSLContext,
) -> None:
    server = SmtpServer(
        tls=tls, ehlo_tls=b"502 no\r\n", helo_tls=b"250-mx.example.net\r\n250 REQUIRETLS\r\n"
    )
    evidence = await seen(server)
    assert evidence.stage is ProbeStage.DONE
    assert evidence.requiretls is False


@pytest.mark.parametrize(
    ("reply", "expected", "kept"),
    [
        (b"454 4.7.0 not now\r\n", Reply(454, "4.7.0", "4.7.0 not now"), RETRY_AFTER),
        (b"502 never\r\n", Reply(502, "", "never"), FRESH),
        (b"354 what?\r\n", Reply(354, "", "what?"), RETRY_AFTER),
    ],
)
async def test_r61_a_refused_starttls_is_no_failed_handshake(
    reply: bytes, expected: Reply, kept: float
) -> None:
    evidence = await seen(SmtpServer(starttls=reply))
    assert evidence.stage is ProbeStage.DONE
    assert evidence.failure is None
    assert evidence.starttls_offered is True
    assert evidence.starttls_reply == expected
    assert evidence.requiretls is None
    assert evidence.expires == NOW + kept


# ---------------------------------------------------------------- failures, step by step


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        evidence = await prober().probe(ServerTarget("127.0.0.1", port, NAME))
    assert_ended(evidence, ProbeStage.CONNECT, ProbeFailure.REFUSED)
    assert "refused" in evidence.error.lower()


@pytest.mark.parametrize("number", sorted(probe_module.UNREACHABLE))
async def test_no_way_to_a_server_is_no_refusal_of_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Connection, port: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Connection, "connect", fail)
    evidence = await prober().probe(ServerTarget("127.0.0.1", 9, NAME))
    assert_ended(evidence, ProbeStage.CONNECT, ProbeFailure.UNREACHABLE)
    assert evidence.error == os.strerror(number)


async def test_a_connection_that_is_not_answered_times_out() -> None:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill the queue of connections that nobody accepts
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        evidence = await prober(timeout=0.3).probe(
            ServerTarget("127.0.0.1", listener.getsockname()[1], NAME)
        )
    assert_ended(evidence, ProbeStage.CONNECT, ProbeFailure.TIMEOUT)


STEPS = {
    "banner": ProbeStage.BANNER,
    "ehlo": ProbeStage.EHLO,
    "starttls": ProbeStage.STARTTLS,
    "ehlo_tls": ProbeStage.EHLO_TLS,
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_connection_that_is_closed_is_told_by_its_step(
    tls: ssl.SSLContext, step: str
) -> None:
    server = SmtpServer(tls=tls)
    setattr(server, step, Close)
    assert_ended(await seen(server), STEPS[step], ProbeFailure.CLOSED)


@pytest.mark.parametrize("step", STEPS)
async def test_silence_is_told_by_its_step(tls: ssl.SSLContext, step: str) -> None:
    server = SmtpServer(tls=tls)
    setattr(server, step, Hang)
    started = time.monotonic()
    assert_ended(await seen(server, limit=0.4), STEPS[step], ProbeFailure.TIMEOUT)
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("step", STEPS)
async def test_a_reply_that_drips_does_not_extend_the_deadline(
    tls: ssl.SSLContext, step: str
) -> None:
    server = SmtpServer(tls=tls, piece_pause=0.02)
    setattr(server, step, itertools.repeat(b"2"))
    started = time.monotonic()
    assert_ended(await seen(server, limit=0.6), STEPS[step], ProbeFailure.TIMEOUT)
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    ("step", "stage"), [("banner", ProbeStage.BANNER), ("ehlo", ProbeStage.EHLO)]
)
@pytest.mark.parametrize("code", [421, 554])
async def test_a_greeting_or_a_421_that_refuses_keeps_its_code(
    step: str, stage: ProbeStage, code: int
) -> None:
    reply = f"{code}-{code // 100}.3.2 go\r\n{code} {code // 100}.3.2 away\r\n".encode()
    server = SmtpServer(helo=reply)
    setattr(server, step, reply)
    evidence = await seen(server)
    enhanced = f"{code // 100}.3.2"
    expected = Reply(code, enhanced, f"{enhanced} go {enhanced} away")
    assert_ended(evidence, stage, ProbeFailure.REPLY, expected)
    assert server.commands[-1] == b"QUIT\r\n"


async def test_a_421_to_ehlo_is_not_followed_by_helo() -> None:
    server = SmtpServer(ehlo=b"421 4.3.2 closing\r\n")
    assert_ended(
        await seen(server),
        ProbeStage.EHLO,
        ProbeFailure.REPLY,
        Reply(421, "4.3.2", "4.3.2 closing"),
    )
    assert b"HELO client.example.org\r\n" not in server.commands


async def test_an_ehlo_that_fails_inside_tls_is_told_apart(tls: ssl.SSLContext) -> None:
    server = SmtpServer(tls=tls, ehlo_tls=b"550 5.7.1 no\r\n", helo_tls=b"550 5.7.1 no\r\n")
    evidence = await seen(server)
    assert_ended(evidence, ProbeStage.EHLO_TLS, ProbeFailure.REPLY, Reply(550, "5.7.1", "5.7.1 no"))
    assert evidence.tls_version
    assert evidence.chain


# ---------------------------------------------------------------- the handshake


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"\x00garbage\xff" * 40)
    await writer.drain()


async def _close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _close_after_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.close()


async def _alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"\x15\x03\x01\x00\x02\x02\x28")
    await writer.drain()
    await reader.read()


async def _hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def _still_smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"250 ok\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("peer", "failure"),
    [
        (_garbage, ProbeFailure.PROTOCOL),
        (_still_smtp, ProbeFailure.PROTOCOL),
        (_alert, ProbeFailure.PROTOCOL),
        (_close, ProbeFailure.CLOSED),
        (_close_after_hello, ProbeFailure.CLOSED),
    ],
)
async def test_r61_whatever_goes_wrong_after_ready_is_the_handshake(
    peer: object, failure: ProbeFailure
) -> None:
    evidence = await seen(SmtpServer(instead_of_tls=peer))  # type: ignore[arg-type]
    assert_ended(evidence, ProbeStage.HANDSHAKE, failure)
    assert evidence.starttls_offered is True
    assert evidence.starttls_reply is None
    assert evidence.tls_version == ""
    assert evidence.error


async def test_r61_a_handshake_that_hangs_times_out() -> None:
    evidence = await seen(SmtpServer(instead_of_tls=_hang), limit=0.4)
    assert_ended(evidence, ProbeStage.HANDSHAKE, ProbeFailure.TIMEOUT)


async def test_a_handshake_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "MAX_HANDSHAKE", 4_096)
    record = b"\x16\x03\x03\x40\x00" + b"\x0b\x00\xff\xff" + b"\x00" * (0x4000 - 4)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        with contextlib.suppress(ConnectionError):
            for _ in range(1_000):
                writer.write(record)
                await writer.drain()

    evidence = await seen(SmtpServer(instead_of_tls=endless))
    assert_ended(evidence, ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL)


async def test_data_in_clear_after_ready_is_not_taken_into_the_session(
    tls: ssl.SSLContext,
) -> None:
    injected = b"220 ready\r\n250-mx.example.net\r\n250 REQUIRETLS\r\n"
    evidence = await seen(SmtpServer(tls=tls, starttls=injected, ehlo_tls=b"250 mx\r\n"))
    assert (evidence.stage, evidence.requiretls) == (ProbeStage.DONE, False)


@pytest.mark.parametrize("length", [1, MAX_CHAIN, MAX_CHAIN + 1, 100])
async def test_a_chain_is_kept_as_far_as_a_bounded_length(
    authority: Authority, length: int
) -> None:
    certificate = authority.issue(NAME, extra_chain=length - 1)
    evidence = await seen(SmtpServer(tls=certificate.server_context()))
    assert evidence.stage is ProbeStage.DONE
    assert evidence.chain[0] == certificate.der
    assert len(evidence.chain) == min(length, MAX_CHAIN)
    assert evidence.chain_cut is (length > MAX_CHAIN)


async def test_a_server_that_wants_our_certificate_closes_after_the_handshake(
    tls: ssl.SSLContext, authority: Authority
) -> None:
    tls.load_verify_locations(authority.path)
    tls.verify_mode = ssl.CERT_REQUIRED
    evidence = await seen(SmtpServer(tls=tls))
    assert_ended(evidence, ProbeStage.EHLO_TLS, ProbeFailure.CLOSED)


# ---------------------------------------------------------------- too much, or no SMTP at all


@pytest.mark.parametrize("step", ["banner", "ehlo", "ehlo_tls"])
async def test_ten_megabytes_of_lines_are_cut_off(tls: ssl.SSLContext, step: str) -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 65_536
            yield (b"250-" + b"x" * 1_018 + b"\r\n") * 64

    server = SmtpServer(tls=tls, **{step: flood()})  # type: ignore[arg-type]
    evidence = await seen(server)
    assert_ended(evidence, STEPS[step], ProbeFailure.LIMIT)
    assert sent < 10_485_760


@pytest.mark.parametrize("step", ["banner", "ehlo", "ehlo_tls"])
async def test_a_line_without_end_is_cut_off(tls: ssl.SSLContext, step: str) -> None:
    server = SmtpServer(tls=tls, **{step: itertools.repeat(b"2" * 10_000, 1_000)})  # type: ignore[arg-type]
    assert_ended(await seen(server), STEPS[step], ProbeFailure.PROTOCOL)


@pytest.mark.parametrize(
    ("octets", "good"),
    [(MAX_LINE_READ - 1, True), (MAX_LINE_READ, True), (MAX_LINE_READ + 1, False)],
)
async def test_a_line_may_be_as_long_as_postfix_lets_it_be(octets: int, good: bool) -> None:
    """Beyond that it hears no more of the server, and the connection is lost."""
    line = b"250-" + b"x" * (octets - 6) + b"\r\n"
    assert len(line) == octets
    evidence = await seen(SmtpServer(ehlo=line + b"250 x\r\n"))
    assert evidence.stage is (ProbeStage.DONE if good else ProbeStage.EHLO)
    assert evidence.failure is (None if good else ProbeFailure.PROTOCOL)


@pytest.mark.parametrize(
    ("octets", "good"), [(MAX_REPLY - 1, True), (MAX_REPLY, True), (MAX_REPLY + 1, False)]
)
async def test_a_reply_has_a_bounded_length(octets: int, good: bool) -> None:
    begin, end = b"250-x\r\n250-STARTTLS\r\n", b"250 y\r\n"
    full, rest = divmod(octets - len(begin + end), 1_000)
    lines = [1_000] * (full - 1) + [1_000 + rest]
    filler = b"".join(b"250-" + b"x" * (size - 6) + b"\r\n" for size in lines)
    assert len(begin + filler + end) == octets
    evidence = await seen(SmtpServer(ehlo=begin + filler + end, starttls=b"502 no\r\n"))
    assert evidence.stage is (ProbeStage.DONE if good else ProbeStage.EHLO)
    assert evidence.failure is (None if good else ProbeFailure.LIMIT)


@pytest.mark.parametrize(
    ("lines", "good"), [(MAX_LINES - 1, True), (MAX_LINES, True), (MAX_LINES + 1, False)]
)
async def test_a_reply_has_a_bounded_number_of_lines(lines: int, good: bool) -> None:
    reply = b"250-x\r\n250-STARTTLS\r\n" + b"250-x\r\n" * (lines - 3) + b"250 x\r\n"
    evidence = await seen(SmtpServer(ehlo=reply, starttls=b"502 no\r\n"))
    assert evidence.stage is (ProbeStage.DONE if good else ProbeStage.EHLO)
    assert evidence.failure is (None if good else ProbeFailure.LIMIT)
    assert evidence.starttls_offered is (True if good else None)


async def test_a_keyword_beyond_what_postfix_keeps_is_not_seen() -> None:
    reply = b"250-x\r\n" + b"250-" + b"y" * 2_100 + b"\r\n250 STARTTLS\r\n"
    assert (await seen(SmtpServer(ehlo=reply))).starttls_offered is False


async def test_r62_nul_and_eight_bit_characters_do_not_pass() -> None:
    evidence = await seen(SmtpServer(banner=b"554 5.7.1 ab\x07c\xff\xfe\x1b[31m\0and\r\n"))
    reply = Reply(554, "5.7.1", "5.7.1 ab?c???[31m")
    assert_ended(evidence, ProbeStage.BANNER, ProbeFailure.REPLY, reply)


async def test_r62_a_long_text_is_cut() -> None:
    evidence = await seen(SmtpServer(banner=b"554 " + b"x" * 1_000 + b"\r\n"))
    assert evidence.reply == Reply(554, "", "x" * 200)


@pytest.mark.parametrize(
    ("banner", "stage"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProbeFailure.TIMEOUT),
        (b"SSH-2.0-OpenSSH\r\n", ProbeFailure.TIMEOUT),
        (b"\x00" * 100 + b"\r\n", ProbeFailure.TIMEOUT),
        (b"", ProbeFailure.TIMEOUT),
        (b"22", ProbeFailure.TIMEOUT),
        (b"2200 x\r\n", ProbeFailure.TIMEOUT),
    ],
)
async def test_what_is_no_reply_is_waited_over_as_postfix_does(
    banner: bytes, stage: ProbeFailure
) -> None:
    evidence = await seen(SmtpServer(banner=[banner, b"x", b"\r\n"]), limit=0.3)
    assert_ended(evidence, ProbeStage.BANNER, stage)


async def test_lines_that_are_no_reply_are_passed_over(tls: ssl.SSLContext) -> None:
    server = SmtpServer(tls=tls, banner=b"*** welcome ***\r\n220 mx.example.net\r\n")
    assert (await seen(server)).stage is ProbeStage.DONE


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\r\n"])
async def test_line_endings_of_all_kinds_are_understood(tls: ssl.SSLContext, ending: bytes) -> None:
    server = SmtpServer(
        tls=tls,
        banner=b"220 x" + ending,
        ehlo=EHLO.replace(b"\r\n", ending),
        ehlo_tls=EHLO_TLS.replace(b"\r\n", ending),
    )
    assert (await seen(server)).requiretls is True


async def test_a_reply_in_single_octets_is_put_together(tls: ssl.SSLContext) -> None:
    pieces = [EHLO[n : n + 1] for n in range(len(EHLO))]
    assert (await seen(SmtpServer(tls=tls, ehlo=pieces))).stage is ProbeStage.DONE


@pytest.mark.parametrize(
    ("line", "enhanced"),
    [
        (b"554 5.7.1 x", "5.7.1"),
        (b"554 5.7.1", "5.7.1"),
        (b"554 5.123.456 x", "5.123.456"),
        (b"554 4.7.1 x", ""),
        (b"554 5.7 x", ""),
        (b"554 5.7.1234 x", ""),
        (b"554 5.7.1x", ""),
        (b"554 x 5.7.1", ""),
        (b"354 3.7.1 x", ""),
        (b"554", ""),
    ],
)
async def test_an_enhanced_code_counts_if_its_class_is_that_of_the_code(
    line: bytes, enhanced: str
) -> None:
    evidence = await seen(SmtpServer(banner=line + b"\r\n"))
    assert evidence.reply is not None
    assert evidence.reply.code == int(line[:3])
    assert evidence.reply.enhanced == enhanced


@pytest.mark.parametrize("answer", [Close, Hang, b"", b"500 never\r\n", b"garbage"])
async def test_nothing_that_follows_quit_matters(
    tls: ssl.SSLContext, answer: ScriptedReply
) -> None:
    evidence = await seen(SmtpServer(tls=tls, quit=answer))
    assert evidence.stage is ProbeStage.DONE
    assert evidence.failure is None


@pytest.mark.parametrize("pause", [0.0, 0.2])
async def test_the_server_sees_an_orderly_end_inside_tls(certificate: Issued, pause: float) -> None:
    """Without the alert "close notify", or after a reset, OpenSSL tells the server of an error."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = asyncio.create_task(
            asyncio.to_thread(_blocking_session, listener, certificate.server_context(), pause)
        )
        evidence = await prober(timeout=5.0).probe(
            ServerTarget("127.0.0.1", listener.getsockname()[1], NAME)
        )
        assert evidence.stage is ProbeStage.DONE
        assert not server.done() or not pause, "the probe waited for the reply"
        assert await server == b""


def _blocking_session(listener: socket.socket, tls: ssl.SSLContext, pause: float) -> bytes:
    """A server that reads to the end; any error is raised."""
    plain, _ = listener.accept()
    plain.settimeout(5)
    with plain:
        plain.sendall(b"220 mx.example.net ESMTP\r\n")
        plain.recv(100)
        plain.sendall(EHLO)
        plain.recv(100)
        plain.sendall(b"220 ready\r\n")
        with tls.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as secure:
            secure.recv(100)
            secure.sendall(EHLO_TLS)
            assert secure.recv(100) == b"QUIT\r\n"
            time.sleep(pause)
            secure.sendall(b"221 bye\r\n")
            rest = secure.recv(100)
            secure.sendall(b"")
            return rest


async def test_a_greeter_that_waits_is_waited_for(tls: ssl.SSLContext) -> None:
    evidence = await seen(SmtpServer(tls=tls, pause=0.5), limit=1.0)
    assert evidence.stage is ProbeStage.DONE


# ---------------------------------------------------------------- whom we contact, and how often


async def test_a_forbidden_address_gets_no_packet(tls: ssl.SSLContext) -> None:
    async with SmtpServer(tls=tls) as server:
        evidence = await prober(policy=AddressPolicy([])).probe(
            ServerTarget("127.0.0.1", server.port, NAME)
        )
    assert evidence.stage is ProbeStage.CONNECT
    assert evidence.failure is ProbeFailure.FORBIDDEN
    assert "probe.allow_networks" in evidence.error
    assert server.connections == 0


async def test_nobody_is_contacted_where_probes_are_off(tls: ssl.SSLContext) -> None:
    async with SmtpServer(tls=tls) as server:
        evidence = await prober(enabled=False).probe(ServerTarget("127.0.0.1", server.port, NAME))
    assert evidence.stage is ProbeStage.NOT_PROBED
    assert evidence.failure is None
    assert server.connections == 0


async def test_one_address_is_probed_by_one_session_at_a_time(tls: ssl.SSLContext) -> None:
    async with SmtpServer(tls=tls, pause=0.05) as server:
        one = prober(timeout=2.0, limiter=limiters().probes)
        results = await asyncio.gather(
            *(
                one.probe(ServerTarget("127.0.0.1", server.port, name))
                for name in ("a.test", "b.test", "c.test")
            )
        )
    assert all(result.stage is ProbeStage.DONE for result in results)
    assert server.connections == 3
    assert server.most_at_once == 1


async def test_sessions_with_one_address_are_bounded(tls: ssl.SSLContext) -> None:
    counters = Counters()
    one = prober(timeout=2.0, limiter=limiters(counters, probes_per_host=2).probes)
    async with SmtpServer(tls=tls, pause=0.05) as server:
        await asyncio.gather(
            *(one.probe(ServerTarget("127.0.0.1", server.port, f"{n}.test")) for n in range(5))
        )
    assert server.connections == 5
    assert server.most_at_once == 2
    assert saturated(counters) == {"probes_per_host": 3}


async def test_sessions_that_begin_within_a_minute_are_bounded() -> None:
    counters = Counters()
    one = prober(limiter=limiters(counters, probes_per_minute=3).probes)
    async with SmtpServer(ehlo=b"250 mx\r\n", host="0.0.0.0") as server:
        calls = [
            asyncio.create_task(one.probe(ServerTarget(f"127.0.0.{n}", server.port, NAME)))
            for n in range(1, 6)
        ]
        done, waiting = await asyncio.wait(calls, timeout=0.5)
        assert len(done) == 3
        assert server.connections == 3
        assert saturated(counters) == {"probes_per_minute": 2}
        for call in waiting:
            call.cancel()


async def test_sessions_at_once_are_bounded(tls: ssl.SSLContext) -> None:
    counters = Counters()
    one = prober(timeout=2.0, limiter=limiters(counters, probes=2).probes)
    async with SmtpServer(tls=tls, host="0.0.0.0", pause=0.05) as server:
        results = await asyncio.gather(
            *(one.probe(ServerTarget(f"127.0.0.{n}", server.port, NAME)) for n in range(1, 7))
        )
    assert all(result.stage is ProbeStage.DONE for result in results)
    assert server.most_at_once == 2
    assert saturated(counters) == {"probes": 4}


async def test_cancelling_a_session_closes_it_and_frees_its_place() -> None:
    one = prober(timeout=5.0, limiter=limiters(probes=1).probes)
    async with SmtpServer(banner=Hang) as server:
        task = asyncio.create_task(one.probe(ServerTarget("127.0.0.1", server.port, NAME)))
        await until(lambda: server.at_once)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with SmtpServer(ehlo=b"250 mx\r\n") as server:
        evidence = await asyncio.wait_for(
            one.probe(ServerTarget("127.0.0.1", server.port, NAME)), 2
        )
    assert evidence.stage is ProbeStage.DONE


async def test_a_shortage_of_our_own_says_nothing_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    one = prober()
    monkeypatch.setattr("requiretls_milter.evidence.probe.socket.socket", none_left)
    evidence = await one.probe(ServerTarget("127.0.0.1", 25, NAME))
    assert evidence.stage is ProbeStage.NOT_PROBED
    assert evidence.failure is None
    assert "Too many open files" in evidence.error


async def test_r62_the_name_that_we_give_cannot_break_the_command(tls: ssl.SSLContext) -> None:
    named = Probe(command_timeout=1.0).model_copy(update={"helo": "a b\r\nRCPT"})
    one = Prober(LOOPBACK, named)
    async with SmtpServer(ehlo=b"250 mx\r\n") as server:
        await one.probe(ServerTarget("127.0.0.1", server.port, NAME))
    assert server.commands[0] == b"EHLO ab??RCPT\r\n"


# ---------------------------------------------------------------- one address, many names


async def probed_as(server: SmtpServer, *names: str) -> list[ProbeEvidence]:
    """Probe the server under each name in turn."""
    one = prober()
    async with server:
        return [await one.probe(ServerTarget(server.host, server.port, name)) for name in names]


@pytest.mark.parametrize(
    "replies",
    [
        {"banner": b"554 no\r\n"},
        {"banner": Close},
        {"ehlo": b"550 no\r\n", "helo": b"550 no\r\n"},
        {"ehlo": b"250 no starttls here\r\n"},
        {"starttls": b"454 not now\r\n"},
        {"starttls": Close},
    ],
)
async def test_what_a_server_does_before_it_knows_the_name_counts_for_all_its_names(
    replies: dict[str, Any],
) -> None:
    server = SmtpServer(**replies)
    first, second, third = await probed_as(server, "mx.a.example", "mx.b.example", "")
    assert server.connections == 1
    assert first == second == third


async def test_an_address_that_cannot_be_connected_to_is_tried_once_for_all_its_names() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        one = prober()
        first = await one.probe(ServerTarget("127.0.0.1", port, "mx.a.example"))
        with socket.socket() as server:
            unused.close()
            server.bind(("127.0.0.1", port))
            server.listen()
            assert await one.probe(ServerTarget("127.0.0.1", port, "mx.b.example")) == first


@pytest.mark.parametrize("peer", ["", "_alert", "_close"])
async def test_what_it_does_once_it_knows_the_name_counts_for_that_name_alone(
    tls: ssl.SSLContext, peer: str
) -> None:
    """The certificate, a failed handshake, REQUIRETLS: each may depend on the SNI."""
    server = SmtpServer(tls=tls, instead_of_tls=globals()[peer] if peer else None)
    one = prober(timeout=2.0)
    async with server:
        await one.probe(ServerTarget(server.host, server.port, "mx.a.example"))
        after_one = server.connections
        await one.probe(ServerTarget(server.host, server.port, "mx.b.example"))
    assert server.connections == 2 * after_one


async def test_the_name_that_met_it_gets_a_session_of_its_own_again() -> None:
    server = SmtpServer(banner=b"421 not now\r\n")
    await probed_as(server, "mx.a.example", "mx.a.example", "mx.a.example")
    assert server.connections == 3


async def test_it_counts_for_other_names_no_longer_than_for_its_own(tls: ssl.SSLContext) -> None:
    now = NOW
    settings = Probe(command_timeout=1.0, retry_after=RETRY_AFTER)
    one = Prober(LOOPBACK, settings, clock=lambda: now)
    async with SmtpServer(tls=tls, banner=b"421 not now\r\n") as server:
        first = await one.probe(ServerTarget(server.host, server.port, "mx.a.example"))
        now += RETRY_AFTER - 1
        assert await one.probe(ServerTarget(server.host, server.port, "mx.b.example")) == first
        server.banner = b"220 mx\r\n"
        now += 2
        second = await one.probe(ServerTarget(server.host, server.port, "mx.b.example"))
        assert second.stage is ProbeStage.DONE
        third = await one.probe(ServerTarget(server.host, server.port, "mx.c.example"))
    assert third.stage is ProbeStage.DONE
    assert server.connections == 3


# ---------------------------------------------------------------- budgets


def budgeted(counters: Counters, **limits: int) -> Prober:
    settings = Probe(connect_timeout=2.0, command_timeout=2.0)
    budgets = Budgets(Limits(**limits), counters)
    return Prober(LOOPBACK, settings, clock=lambda: NOW, budgets=budgets)


async def test_beyond_its_budget_an_address_gets_no_packet(tls: ssl.SSLContext) -> None:
    counters = Counters()
    one = budgeted(counters, address_per_minute=4)
    async with SmtpServer(tls=tls) as server:
        first = await one.probe(ServerTarget(server.host, server.port, "mx.a.example"))
        second = await one.probe(ServerTarget(server.host, server.port, "mx.a.example"))
    assert first.stage is ProbeStage.DONE
    assert (second.stage, second.failure) == (ProbeStage.NOT_PROBED, None)
    assert second.error.startswith("over budget: limits.address_per_minute")
    assert second.expires == NOW
    assert server.connections == 1
    assert saturated(counters) == {"address_per_minute": 1}


async def test_without_the_second_session_a_failed_handshake_proves_nothing() -> None:
    one = budgeted(Counters(), address_per_minute=4)
    async with SmtpServer(instead_of_tls=_alert) as server:
        found = await one.probe(ServerTarget(server.host, server.port, "mx.a.example"))
    assert server.connections == 1
    assert found.stage is ProbeStage.NOT_PROBED


# ---------------------------------------------------------------- LMTP


async def spoken_to(server: LmtpServer, protocol: MailProtocol) -> ProbeEvidence:
    return await prober(timeout=2.0).probe(ServerTarget("127.0.0.1", server.port, "", protocol))


async def test_a_server_of_lmtp_is_greeted_with_lhlo_and_gets_no_mail() -> None:
    with LmtpServer("127.0.0.1") as server:
        evidence = await spoken_to(server, MailProtocol.LMTP)
    assert (evidence.stage, evidence.failure) == (ProbeStage.DONE, None)
    assert evidence.starttls_offered is False
    assert server.commands == ["LHLO client.example.org", "QUIT"]


async def test_a_server_of_lmtp_is_none_of_smtp() -> None:
    with LmtpServer("127.0.0.1") as server:
        evidence = await spoken_to(server, MailProtocol.SMTP)
    assert (evidence.stage, evidence.failure) == (ProbeStage.EHLO, ProbeFailure.REPLY)
