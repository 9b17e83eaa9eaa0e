"""A scripted resolver: what it answers is what a test says, honest or not.

Real wire messages over UDP and TCP. A validating resolver cannot be made to
lie, to loop, to fall silent or to answer garbage: this one can.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from requiretls_milter.evidence.selftest import BOGUS_NAMES, INSECURE_NAMES
from requiretls_milter.syntax.endpoint import Nameserver


@dataclass
class Scripted:
    """One answer: sections as lines of a zone file."""

    answer: Sequence[str] = ()
    authority: Sequence[str] = ()
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    ad: bool = False
    truncated: bool = False
    """Over UDP only the header comes, with TC."""
    silent: bool = False
    unchecked: Scripted | None = None
    """What comes instead if the query has CD."""
    raw: Callable[[dns.message.Message], bytes] | None = None


SOA = "{} {} IN SOA ns.{} hostmaster.{} 1 3600 600 86400 {}"


def soa(zone: str, ttl: int = 300, minimum: int = 300) -> str:
    return SOA.format(zone, ttl, zone, zone, minimum)


def found(*answer: str, ad: bool = True) -> Scripted:
    return Scripted(answer, ad=ad)


def nodata(zone: str = "test.", ad: bool = True) -> Scripted:
    return Scripted(authority=[soa(zone)], ad=ad)


def nxdomain(zone: str = "test.", ad: bool = True, answer: Sequence[str] = ()) -> Scripted:
    return Scripted(answer, [soa(zone)], dns.rcode.NXDOMAIN, ad)


def failure(rcode: dns.rcode.Rcode = dns.rcode.SERVFAIL) -> Scripted:
    return Scripted(rcode=rcode)


def bogus(*answer: str) -> Scripted:
    """A validating resolver's answer for a name whose signatures are wrong: none, but with CD."""
    return Scripted(rcode=dns.rcode.SERVFAIL, unchecked=found(*answer, ad=False))


SILENT = Scripted(silent=True)


@dataclass
class DnsServer:
    """Answers from ``script``, keyed by name (no trailing dot) and type; else NXDOMAIN."""

    script: dict[tuple[str, str], Scripted] = field(default_factory=dict)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    """Each question: name, type, whether it came over TCP."""
    queries: list[dns.message.Message] = field(default_factory=list)
    address: str = ""
    host: str = "127.0.0.1"
    latency: float = 0.0
    """Seconds before each answer over UDP."""

    async def __aenter__(self) -> DnsServer:
        port = await self._listen()
        self.address = f"{self.host}:{port}"
        self.nameserver = Nameserver(self.host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    async def _listen(self) -> int:
        """Listen at one port of TCP and UDP; a socket of another test may have that of UDP."""
        loop = asyncio.get_running_loop()
        while True:
            self._tcp = await asyncio.start_server(self._stream, self.host, 0)
            port = int(self._tcp.sockets[0].getsockname()[1])
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=(self.host, port)
                )
            except OSError as error:
                self._tcp.close()
                await self._tcp.wait_closed()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                reply = self.reply(await _read_message(reader), tcp=True)
                if reply is not None:
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client has what it wanted
        finally:
            writer.close()

    def set(self, name: str, rdtype: str, scripted: Scripted) -> None:
        self.script[name.lower(), rdtype] = scripted

    def types_asked(self, name: str) -> list[str]:
        return [rdtype for asked, rdtype, _ in self.asked if asked == name]

    def scripted(self, name: str, rdtype: str) -> Scripted:
        """What is answered."""
        return self.script.get((name, rdtype), nxdomain(ad=False))

    def reply(self, wire: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.queries.append(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, rdtype, tcp))
        scripted = self.scripted(name, rdtype)
        if scripted.unchecked is not None and query.flags & dns.flags.CD:
            scripted = scripted.unchecked
        if scripted.silent:
            return None
        if scripted.raw is not None:
            return scripted.raw(query)
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(scripted.rcode)
        if scripted.ad:
            response.flags |= dns.flags.AD
        if scripted.truncated and not tcp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        for section, lines in (
            (response.answer, scripted.answer),
            (response.authority, scripted.authority),
        ):
            for line in lines:
                section.append(rrset(line))
        return response.to_wire(max_size=65535)


def show_validation(server: DnsServer) -> None:
    """Have *server* answer the self-test as a resolver does that validates."""
    server.set(".", "NS", found(". 300 IN NS a.root-servers.net."))
    for name in BOGUS_NAMES:
        server.set(name, "A", bogus(f"{name}. 300 IN A 192.0.2.1"))
    for name in INSECURE_NAMES:
        server.set(name, "A", found(f"{name}. 300 IN A 192.0.2.1", ad=False))


def rrset(line: str) -> dns.rrset.RRset:
    name, ttl, rdclass, rdtype, *rest = line.split(" ", 4)
    return dns.rrset.from_text(
        dns.name.from_text(name), int(ttl), rdclass, rdtype, *(rest or [r"\# 0"])
    )


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's own class is none of asyncio.DatagramTransport in Python 3.11.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.server.reply(data, tcp=False)
        if reply is None:
            return
        if self.server.latency:
            loop = asyncio.get_running_loop()
            loop.call_later(self.server.latency, self.transport.sendto, reply, addr)
        else:
            self.transport.sendto(reply, addr)


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)
