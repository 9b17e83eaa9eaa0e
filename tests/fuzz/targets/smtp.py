"""What an SMTP server says to the probe."""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from unittest import mock

from OpenSSL import SSL

from requiretls_milter.config import Probe
from requiretls_milter.evidence import probe
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.connection import READ_SIZE, Connection, Leaving
from requiretls_milter.ipc import wire
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    HostEvidence,
    MxEvidence,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    ServerTarget,
)
from requiretls_milter.syntax.status import is_enhanced
from requiretls_milter.syntax.text import MAX_TEXT
from tests.fuzz import expect
from tests.fuzz.events import EVENTS
from tests.fuzz.identity import NAME, identity

ADDRESS = "192.0.2.1"
TLS_FROM_HERE = b"\x01"
"""The piece of a script from which on the server speaks TLS."""

_KEYWORD = re.compile(rb"(?i)[-\s=]requiretls(?:[\s=]|$)")


def ehlo(data: bytes) -> None:
    """The lines of a reply to EHLO, separated by LF."""
    lines = data.split(b"\n")
    found = probe.read_ehlo(lines)
    expect.one_line(found.name, MAX_TEXT)
    for keyword in found.keywords:
        expect.one_line(keyword, MAX_TEXT)
        assert keyword == keyword.upper()
    if "REQUIRETLS" in found.keywords:
        # Never claimed where the word does not stand by itself, nor of the first line (R4).
        assert any(_KEYWORD.search(line) for line in lines[1:])


# ---------------------------------------------------------------- a server without a network


class _Server(Connection):
    """In the place of a connection: a server that says *pieces*.

    Each read gets the next piece; where none is left the connection ends. If the
    client begins TLS where TLS_FROM_HERE is next, the server is a real one from
    there on, and says the others inside.
    """

    pieces: list[bytes]

    def __init__(self, _address: str) -> None:
        self._pieces = deque(piece for piece in self.pieces if piece)
        self._tls: SSL.Connection | None = None
        self._ready = False

    def limit(self, until: float) -> None:
        """Never be late."""

    async def connect(self, port: int) -> None:
        """Succeed."""

    async def send(self, data: bytes) -> None:
        """Take what the client says, but for TLS unheard."""
        hello = data.startswith(b"\x16\x03")  # a TLS record of type handshake
        if hello and self._tls is None and self._pieces and self._pieces[0] == TLS_FROM_HERE:
            self._pieces.popleft()
            self._tls = SSL.Connection(identity().server, None)
            self._tls.set_accept_state()
        if self._tls is not None:
            self._tls.bio_write(data)

    async def receive(self) -> bytes:
        """Say something."""
        if self._tls is None:
            return self._piece()[:READ_SIZE]
        try:
            self._advance(self._tls)
            return self._tls.bio_read(READ_SIZE)
        except SSL.Error:
            return b""

    def leave(self, leaving: Leaving) -> None:
        """Take leave."""

    def close(self) -> None:
        """There is nothing to close."""

    def _advance(self, tls: SSL.Connection) -> None:
        if not self._ready:
            try:
                tls.do_handshake()
            except SSL.WantReadError:
                return
            self._ready = True
        piece = self._piece()
        if piece:
            tls.sendall(piece)

    def _piece(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""


# ---------------------------------------------------------------- replies


def smtp_reply(data: bytes) -> None:
    """What a server sends, as it comes off the network in one piece, or octet by octet."""
    at_once = EVENTS.run_until_complete(_replies([data]))
    in_octets = EVENTS.run_until_complete(_replies([data[i : i + 1] for i in range(len(data))]))
    assert at_once == in_octets, "the size of packets matters"


async def _replies(pieces: list[bytes]) -> list[Reply | ProbeFailure]:
    _Server.pieces = pieces
    wire = probe._Wire(_Server(ADDRESS), Leaving(1.0), 10.0, 15.0)
    found: list[Reply | ProbeFailure] = []
    try:
        while True:
            reply, lines = await wire.reply(ProbeStage.BANNER)
            _check(reply)
            assert sum(map(len, lines)) <= probe.MAX_KEPT + probe.MAX_LINE
            assert all(b"\n" not in line for line in lines)
            found.append(reply)
    except probe._Ended as ended:
        found.append(ended.failure)
    finally:
        wire.close()
    return found


def _check(reply: Reply) -> None:
    assert 0 <= reply.code <= 999
    expect.one_line(reply.text, MAX_TEXT)
    if reply.enhanced:
        assert is_enhanced(reply.enhanced)
        assert reply.enhanced[0] == str(reply.code)[0]


# ---------------------------------------------------------------- the whole session

_CLOCK = 1.8e9


def smtp_session(data: bytes) -> None:
    """A server's side of a session, in pieces that NUL separates; see :class:`_Network`."""
    pieces = data.split(b"\0")
    _Server.pieces = pieces
    with mock.patch.object(probe, "Connection", _Server):
        seen = EVENTS.run_until_complete(_probe())
    assert seen.address == ADDRESS
    assert seen.probed_at == _CLOCK < seen.expires
    assert (seen.stage is ProbeStage.DONE) == (seen.failure is None)
    assert (seen.reply is not None) == (seen.failure is ProbeFailure.REPLY)
    for text in (seen.error, seen.ehlo_name):
        expect.one_line(text, MAX_TEXT)
    for reply in (seen.reply, seen.starttls_reply):
        if reply is not None:
            _check(reply)
    if seen.requiretls is not None:
        assert seen.stage is ProbeStage.DONE
        assert seen.tls_version.startswith("TLSv1.")
        assert seen.chain == identity().chain
    if seen.requiretls:
        inside = pieces[pieces.index(TLS_FROM_HERE) :]
        assert b"REQUIRETLS" in b"".join(inside).upper(), "not said inside TLS"
    if seen.chain:
        assert TLS_FROM_HERE in pieces, "a certificate that nobody sent"
    _sent_on(seen)


async def _probe() -> ProbeEvidence:
    settings = Probe(helo="probe.example.org")
    prober = probe.Prober(AddressPolicy(_ALLOWED), settings, clock=lambda: _CLOCK)
    return await prober.probe(ServerTarget(ADDRESS, 25, NAME))


_ALLOWED = (ipaddress.IPv4Network("192.0.2.0/24"),)


def _sent_on(seen: ProbeEvidence) -> None:
    """The engine can hand it to whoever asks."""
    found = AddressLookup(DnsOutcome.FOUND, addresses=(ADDRESS,), canonical=NAME)
    evidence = DomainEvidence(
        NextHop(HopKind.MX, "example.org"),
        MxEvidence(DnsOutcome.FOUND),
        hosts=(HostEvidence(NAME, 10, found, probes=(seen,)),),
    )
    reply = wire.EvidenceReply(id=0, evidence=evidence)
    assert wire.decode_reply(wire.encode(reply)[4:]) == reply
