"""The way of queries and replies: which servers are asked, when, and whose replies count."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import dns.message
import dns.name
import dns.rdatatype
import pytest

from requiretls_milter.evidence import stub as stub_module
from requiretls_milter.evidence.dnsreply import DnsReply
from requiretls_milter.evidence.stub import LATE_FOR, NoReplyError, Stub
from requiretls_milter.syntax.endpoint import Nameserver
from tests.support.dnsserver import SILENT, DnsServer, failure, found, rrset
from tests.support.waiting import until

NAME = dns.name.from_text("a.test.")
MX = dns.rdatatype.MX
ANSWER = found("a.test 300 IN MX 10 mx.a.test.")


def ask(
    *servers: Nameserver, limit: float = 10.0, stub: Stub | None = None
) -> asyncio.Task[DnsReply]:
    async def within_limit() -> DnsReply:
        async with asyncio.timeout(limit):
            return await (stub or Stub(servers, checking_disabled=False)).ask(NAME, MX)

    return asyncio.ensure_future(within_limit())


class Peer:
    """A server that a test plays by hand."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.nameserver = Nameserver("127.0.0.1", self.socket.getsockname()[1])

    async def query(self) -> tuple[dns.message.Message, tuple[str, int]]:
        """The next query, and from where it comes."""
        loop = asyncio.get_running_loop()
        wire, address = await asyncio.wait_for(loop.sock_recvfrom(self.socket, 4096), 5)
        return dns.message.from_wire(wire), address

    def reply(
        self, query: dns.message.Message, address: tuple[str, int], exchange: str = "mx.a.test."
    ) -> None:
        self.socket.sendto(answer_to(query, exchange), address)


def answer_to(query: dns.message.Message, exchange: str = "mx.a.test.") -> bytes:
    message = dns.message.make_response(query)
    message.answer.append(rrset(f"a.test. 300 IN MX 10 {exchange}"))
    return message.to_wire()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.socket.close()


@pytest.fixture
async def other() -> AsyncIterator[DnsServer]:
    async with DnsServer() as running:
        yield running


# ---------------------------------------------------------------- which server


async def test_a_dead_first_server_costs_one_lookup_a_moment_and_later_ones_nothing(
    server: DnsServer, other: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub_module, "NEXT_SERVER", 0.2)
    server.set("a.test", "MX", SILENT)
    other.set("a.test", "MX", ANSWER)
    stub = Stub([server.nameserver, other.nameserver], checking_disabled=False)
    assert (await ask(stub=stub)).rdatas
    for _ in range(5):
        assert (await ask(stub=stub)).rdatas
    assert len(server.asked) == 1
    assert len(other.asked) == 6


async def test_a_server_that_was_late_is_asked_first_again_after_a_while(
    server: DnsServer, other: DnsServer
) -> None:
    stub = Stub([server.nameserver, other.nameserver], checking_disabled=False)
    stub.missed(server.nameserver, since=10.0, now=11.0)
    assert stub.in_order(11.0) == [other.nameserver, server.nameserver]
    assert stub.in_order(11.1 + LATE_FOR) == [server.nameserver, other.nameserver]
    stub.missed(server.nameserver, since=50.0, now=51.0)
    stub.heard_of(server.nameserver, 52.0)
    assert stub.in_order(52.0) == [server.nameserver, other.nameserver]


async def test_a_server_that_answers_others_is_not_late_for_one_slow_name(peer: Peer) -> None:
    stub = Stub([peer.nameserver], checking_disabled=False)
    stub.heard_of(peer.nameserver, 12.0)
    stub.missed(peer.nameserver, since=11.0, now=13.0)
    assert stub.in_order(13.0) == [peer.nameserver]
    assert not stub._late_until


async def test_the_late_reply_of_the_first_server_counts(
    peer: Peer, other: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub_module, "NEXT_SERVER", 0.05)
    other.set("a.test", "MX", SILENT)
    lookup = ask(peer.nameserver, other.nameserver)
    query, address = await peer.query()
    await until(lambda: bool(other.asked))
    peer.reply(query, address)
    assert (await lookup).rdatas


async def test_the_only_server_is_asked_again(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_module, "ATTEMPT_TIMEOUT", 0.05)
    lookup = ask(peer.nameserver)
    first, _ = await peer.query()
    second, address = await peer.query()
    assert first.question == second.question
    peer.reply(second, address)
    assert (await lookup).rdatas


async def test_a_server_that_is_not_there_is_passed_over_at_once(other: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = Nameserver("127.0.0.1", nobody.getsockname()[1])
    other.set("a.test", "MX", ANSWER)
    began = time.monotonic()
    assert (await ask(gone, other.nameserver)).rdatas
    assert time.monotonic() - began < stub_module.NEXT_SERVER


async def test_if_all_fail_it_is_told_what_each_did(server: DnsServer, other: DnsServer) -> None:
    server.set("a.test", "MX", failure())
    other.set("a.test", "MX", failure())
    with pytest.raises(NoReplyError) as told:
        await ask(server.nameserver, other.nameserver)
    assert told.value.servfail
    for one in (server, other):
        assert f"{one.nameserver.address}@{one.nameserver.port}: SERVFAIL" in str(told.value)


# ---------------------------------------------------------------- whose replies


@pytest.mark.parametrize("forgery", ["id", "question", "no reply", "octets", "empty"])
async def test_what_is_no_reply_to_the_query_is_as_if_it_had_not_come(
    peer: Peer, forgery: str
) -> None:
    lookup = ask(peer.nameserver)
    query, address = await peer.query()
    wire = bytearray(answer_to(query, "evil.test."))
    match forgery:
        case "id":
            wire[1] ^= 1
        case "question":
            wire[13] ^= 1
        case "no reply":
            wire[2] &= 0x7F
        case "octets":
            wire = wire[:-3]
        case "empty":
            wire = bytearray()
    peer.socket.sendto(bytes(wire), address)
    await asyncio.sleep(0.02)
    assert not lookup.done()
    peer.reply(query, address)
    (rdata,) = (await lookup).rdatas or ()
    assert "mx.a.test." in rdata.to_text()


async def test_a_reply_from_another_port_is_not_taken(peer: Peer) -> None:
    lookup = ask(peer.nameserver)
    query, address = await peer.query()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind(("127.0.0.1", 0))
        forger.sendto(answer_to(query, "evil.test."), address)
    await asyncio.sleep(0.02)
    assert not lookup.done()
    peer.reply(query, address)
    assert "evil" not in str((await lookup).rdatas)


async def _ports_and_numbers(peer: Peer, count: int) -> tuple[set[int], set[int]]:
    stub = Stub([peer.nameserver], checking_disabled=False)
    under_way = [ask(stub=stub) for _ in range(count)]
    queries = [await peer.query() for _ in range(count)]
    for query, address in queries:
        peer.reply(query, address)
    for each in under_way:
        await each
    return {address[1] for _, address in queries}, {query.id for query, _ in queries}


async def test_queries_to_another_host_go_from_a_port_of_their_own(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Nameserver, "is_loopback", False)
    ports, numbers = await _ports_and_numbers(peer, 50)
    assert len(ports) == 50
    assert len(numbers) > 45
    # neither are numbered one after the other
    assert max(numbers) - min(numbers) > 10_000


async def test_queries_to_this_host_share_a_socket_under_different_ids(peer: Peer) -> None:
    ports, numbers = await _ports_and_numbers(peer, 50)
    assert len(ports) == 1
    assert len(numbers) == 50
    again, _ = await _ports_and_numbers(peer, 2)
    assert again != ports, "a socket that no query needs is closed"


async def test_a_lookup_that_is_given_up_leaves_nothing_open(peer: Peer) -> None:
    stub = Stub([peer.nameserver], checking_disabled=False)
    lookup = ask(stub=stub)
    await peer.query()
    lookup.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lookup
    assert all(one.closed for one in stub._shared.values())


# ---------------------------------------------------------------- TCP


async def test_a_truncated_reply_is_asked_for_over_tcp_at_once(server: DnsServer) -> None:
    answer = found("a.test 300 IN MX 10 mx.a.test.")
    answer.truncated = True
    server.set("a.test", "MX", answer)
    assert (await ask(server.nameserver)).rdatas
    assert [tcp for *_, tcp in server.asked] == [False, True]


async def test_a_server_that_truncates_and_has_no_tcp_is_passed_over(
    peer: Peer, other: DnsServer
) -> None:
    other.set("a.test", "MX", ANSWER)
    lookup = ask(peer.nameserver, other.nameserver)
    query, address = await peer.query()
    wire = bytearray(answer_to(query))
    wire[2] |= 0x02  # TC
    peer.socket.sendto(bytes(wire), address)
    assert (await lookup).rdatas
