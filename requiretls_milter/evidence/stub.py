"""The stub resolver: sends queries to name servers, and takes the replies to them.

A lookup sends its query to the first server. If that says that it cannot answer, or has sent
nothing for a while, the query goes to the next one, and so on in turn until the lookup's time is
over; the replies of all that were asked count, whichever comes first. A server that has sent
nothing while a query waited goes last for :data:`LATE_FOR`, so that not each lookup waits for a
server that is dead.

**Against forged replies** (RFC 5452): each query has an ID that cannot be guessed, and a reply has
to come from the address and port that were asked, to the port that asked, with that ID and that
question. To a server of another host each query goes from a socket of its own, whose port the
kernel chooses at random. To a server of this host, whose replies no other host can forge, all
queries that are under way share a socket; it is closed when none is.

A truncated reply is asked for over TCP at once. Octets that are no reply to what was asked are not
looked at any further, as if they had not come.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Sequence

import dns.flags
import dns.name
import dns.rcode
import dns.rdatatype

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.dnsreply import (
    DnsQuestion,
    DnsReply,
    DnsReplyError,
    TruncatedError,
    read_reply,
)
from requiretls_milter.syntax.endpoint import Nameserver
from requiretls_milter.syntax.text import error_text

ATTEMPT_TIMEOUT = 2.0
"""Seconds until a query is sent again to the only server (dnspython's own default)."""

NEXT_SERVER = 1.0
"""Seconds until a query is sent to a further server as well. A resolver that has to ask around may
take longer; its reply is taken when it comes."""

ROUND_PAUSE = 0.1
"""Seconds until the first server is asked again, if all that are left have failed."""

LATE_FOR = 30.0
"""Seconds for which a server that has sent nothing is asked last."""

UDP_PAYLOAD = 1232
"""Octets offered by EDNS0, so that no answer is fragmented (DNS flag day 2020)."""

_RANDOM_OCTETS = 512
"""Octets that are asked of the kernel at once: it takes longer to ask than to give them."""

_MAX_DATAGRAM = 65_535
_READS = 64
"""Datagrams that are read at once, before other tasks have their turn."""

_OPT = struct.pack("!BHHIH", 0, dns.rdatatype.OPT, UDP_PAYLOAD, dns.flags.DO, 0)
"""EDNS0 with DO (RFC 6891 section 6.1.2, RFC 3225)."""


class NoReplyError(RequiretlsMilterError):
    """No server has answered; the text says what each did.

    Args:
        said: what each server did.
        servfail: each server has sent a reply, and each reply was SERVFAIL.
    """

    def __init__(self, said: Sequence[str], *, servfail: bool) -> None:
        super().__init__("; ".join(dict.fromkeys(said)) or "no server answered")
        self.servfail = servfail


class Stub:
    """Asks name servers; EDNS0 with DO, AD wanted, no search list, no cache.

    Args:
        nameservers: in the order in which they are asked.
        checking_disabled: set CD in each query (RFC 4035 section 3.2.2).
    """

    def __init__(self, nameservers: Sequence[Nameserver], *, checking_disabled: bool) -> None:
        self.nameservers = tuple(nameservers)
        cd = dns.flags.CD if checking_disabled else 0
        self._header = struct.pack("!HHHHH", dns.flags.RD | dns.flags.AD | cd, 1, 0, 0, 1)
        self._shared: dict[Nameserver, _Socket] = {}
        self._ids = _Ids()
        self._heard: dict[Nameserver, float] = {}
        self._late_until: dict[Nameserver, float] = {}

    async def ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> DnsReply:
        """Ask until a server answers: NOERROR or NXDOMAIN. To be called within a deadline.

        Raises:
            NoReplyError: each server has said, in its own way, that it cannot answer.
        """
        lookup = _Lookup(self, DnsQuestion(name, rdtype))
        try:
            return await lookup.run()
        finally:
            lookup.end()

    def query(self, question: DnsQuestion) -> bytes:
        """The octets of a query, but for its ID."""
        return b"".join((self._header, question.wire, _OPT))

    def in_order(self, now: float) -> list[Nameserver]:
        """The servers in the order in which they are to be asked."""
        late = {server for server, until in self._late_until.items() if until > now}
        return sorted(self.nameservers, key=late.__contains__) if late else list(self.nameservers)

    def open_socket(self, server: Nameserver) -> _Socket:
        """A socket for one more query to a server.

        Raises:
            OSError: there is none, or no way to the server.
        """
        if not server.is_loopback:
            return _Socket(server, self._ids)
        shared = self._shared.get(server)
        if shared is None or shared.closed:
            shared = self._shared[server] = _Socket(server, self._ids)
        return shared

    def heard_of(self, server: Nameserver, now: float) -> None:
        """Note that a server has sent a reply."""
        self._heard[server] = now
        self._late_until.pop(server, None)

    def missed(self, server: Nameserver, since: float, now: float) -> None:
        """Note that a server did not reply to a query that was sent then."""
        if self._heard.get(server, 0.0) <= since:
            self._late_until[server] = now + LATE_FOR


class _Ids:
    """IDs for queries, which cannot be guessed: the kernel's random octets, many at a time."""

    def __init__(self) -> None:
        self._left = b""

    def take(self) -> bytes:
        """An ID that was not given out before."""
        if not self._left:
            self._left = secrets.token_bytes(_RANDOM_OCTETS)
        taken, self._left = self._left[:2], self._left[2:]
        return taken


class _Attempt:
    """One query that was sent to one server."""

    __slots__ = ("lookup", "number", "sent", "server", "socket")

    def __init__(self, lookup: _Lookup, server: Nameserver, socket: _Socket, sent: float) -> None:
        self.lookup = lookup
        self.server = server
        self.socket = socket
        self.sent = sent
        self.number = b""


class _Socket:
    """A connected UDP socket, and the queries that wait for replies to it.

    Raises:
        OSError: there is none, or no way to the server.
    """

    def __init__(self, server: Nameserver, ids: _Ids) -> None:
        self._loop = asyncio.get_running_loop()
        self._ids = ids
        self._waiting: dict[bytes, _Attempt] = {}
        self.closed = False
        family, _, _, _, address = socket.getaddrinfo(
            server.address, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(address)
            self._loop.add_reader(self._socket.fileno(), self._readable)
        except OSError:
            self._socket.close()
            raise

    def send(self, attempt: _Attempt, query: bytes) -> None:
        """Send a query under an ID that no other one has here.

        Raises:
            OSError: it cannot be sent; a host on the way may have said so before.
        """
        number = self._ids.take()
        while number in self._waiting:
            number = self._ids.take()
        attempt.number = number
        self._waiting[number] = attempt
        with contextlib.suppress(BlockingIOError):  # the kernel's buffer is full: as if it got lost
            self._socket.send(number + query)

    def forget(self, attempt: _Attempt) -> None:
        """Wait for the reply to a query no longer."""
        self._waiting.pop(attempt.number, None)
        if not self._waiting and not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        for _ in range(_READS):
            if self.closed:
                return
            try:
                wire = self._socket.recv(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except (
                OSError
            ) as error:  # a host on the way, or the server's, says that it is not there
                for attempt in tuple(self._waiting.values()):
                    attempt.lookup.failed(attempt, error_text(error))
                return
            waiting = self._waiting.get(wire[:2])
            if waiting is not None:
                waiting.lookup.received(waiting, wire)


class _Lookup:
    """One question, from the first query to the answer."""

    def __init__(self, stub: Stub, question: DnsQuestion) -> None:
        self._stub = stub
        self._question = question
        self._query = stub.query(question)
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[DnsReply] = self._loop.create_future()
        self._usable = stub.in_order(self._loop.time())
        self._left = list(self._usable)
        self._open: list[_Attempt] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tcp: set[asyncio.Task[None]] = set()
        self._said: list[str] = []
        self._only_servfail = True

    async def run(self) -> DnsReply:
        """Ask; raises NoReplyError if no server is left that could answer."""
        self._ask_next()
        return await self._answer

    def end(self) -> None:
        """Let go of all that is under way."""
        self._stop_timer()
        for task in self._tcp:
            task.cancel()
        for attempt in self._open:
            attempt.socket.forget(attempt)
        self._open.clear()

    def _ask_next(self) -> None:
        """Send the query to the next server that takes it."""
        self._stop_timer()
        while self._left:
            server = self._left.pop(0)
            now = self._loop.time()
            try:
                attempt = _Attempt(self, server, self._stub.open_socket(server), now)
                self._open.append(attempt)
                attempt.socket.send(attempt, self._query)
            except OSError as error:
                self._drop(server, error_text(error))
                continue
            patience = NEXT_SERVER if self._left else ATTEMPT_TIMEOUT
            self._timer = self._loop.call_later(patience, self._overdue, attempt)
            return
        if not self._usable:
            self._give_up()
            return
        self._timer = self._loop.call_later(ROUND_PAUSE, self._begin_again)

    def _begin_again(self) -> None:
        self._left = list(self._usable)
        self._ask_next()

    def _overdue(self, attempt: _Attempt) -> None:
        """Ask the next server as well; the reply of this one still counts."""
        self._stub.missed(attempt.server, attempt.sent, self._loop.time())
        self._said.append(f"{_name(attempt.server)}: timed out")
        self._only_servfail = False
        if self._left:
            self._ask_next()
        else:
            self._begin_again()

    def received(self, attempt: _Attempt, wire: bytes) -> None:
        """Take a datagram with the ID of an attempt."""
        try:
            reply = read_reply(wire, self._question)
        except TruncatedError:
            self._ask_over_tcp(attempt)
        except DnsReplyError:
            return  # forged, or broken: as if it had not come
        else:
            self._take(attempt.server, reply)

    def _ask_over_tcp(self, attempt: _Attempt) -> None:
        if self._tcp:
            return
        self._stop_timer()
        task = asyncio.ensure_future(self._exchange(attempt.server))
        self._tcp.add(task)
        task.add_done_callback(self._tcp.discard)

    async def _exchange(self, server: Nameserver) -> None:
        """Ask a server over TCP (RFC 7766)."""
        number = secrets.token_bytes(2)
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                wire = await _over_tcp(server, number + self._query)
            if wire[:2] != number:
                raise DnsReplyError("a reply with another ID")
            reply = read_reply(wire, self._question)
        except TimeoutError:
            self._tcp.clear()
            self._said.append(f"{_name(server)}: timed out")
            self._only_servfail = False
            self._ask_next()
        except (OSError, EOFError, DnsReplyError, TruncatedError) as error:
            self._tcp.clear()
            self._failed(server, error_text(error))
        else:
            self._take(server, reply)

    def _take(self, server: Nameserver, reply: DnsReply) -> None:
        self._stub.heard_of(server, self._loop.time())
        if self._answer.done():
            return
        if reply.rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            self._answer.set_result(reply)
            return
        self._failed(server, dns.rcode.to_text(reply.rcode), servfail=_is_servfail(reply))

    def failed(self, attempt: _Attempt, why: str) -> None:
        """Note that the server of an attempt cannot be reached."""
        self._failed(attempt.server, why)

    def _failed(self, server: Nameserver, why: str, *, servfail: bool = False) -> None:
        """Go on without a server, unless the lookup is at its end."""
        if self._answer.done() or server not in self._usable:
            return
        self._drop(server, why, servfail=servfail)
        if not self._tcp:
            self._ask_next()

    def _drop(self, server: Nameserver, why: str, *, servfail: bool = False) -> None:
        self._said.append(f"{_name(server)}: {why}")
        self._only_servfail = self._only_servfail and servfail
        self._usable.remove(server)
        if server in self._left:
            self._left.remove(server)
        for attempt in [one for one in self._open if one.server == server]:
            self._open.remove(attempt)
            attempt.socket.forget(attempt)

    def _give_up(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(NoReplyError(self._said, servfail=self._only_servfail))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_servfail(reply: DnsReply) -> bool:
    return reply.rcode == dns.rcode.SERVFAIL


async def _over_tcp(server: Nameserver, query: bytes) -> bytes:
    """Send a message over TCP and read one: each behind two octets of length."""
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()


def _name(server: Nameserver) -> str:
    return f"Do53:{server.address}@{server.port}"
