"""An SMTP session with one server, as far as the EHLO inside TLS, and QUIT.

The dialogue is that of Postfix's smtp(8), so that the probe sees what the MTA will see.
Only the limits are stricter: how much a server may say, and how long it may take. No
mail is offered and no certificate is verified: the forecast says what the certificates
prove.

The session begins TLS as smtp(8) does if it verifies the server. If that handshake fails,
a second session begins TLS as smtp(8) does if it does not verify the server. So a server
with old TLS, or without a certificate, is not taken for a broken one.

A failure is evidence too: how far a session came, and why it ended, is recorded and
never raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from OpenSSL import SSL, crypto

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.clocks import Life
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.budgets import Budgets, host_and_network
from requiretls_milter.evidence.connection import READ_SIZE, Connection, Leaving
from requiretls_milter.evidence.turns import FREE, Claim, Limiter
from requiretls_milter.model import (
    MAX_SIZE,
    MailProtocol,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    ServerTarget,
)
from requiretls_milter.syntax.ciphers import is_in_finite_field
from requiretls_milter.syntax.text import error_text, printable

if TYPE_CHECKING:
    from requiretls_milter.config import Probe

MAX_LINE = 2_048
"""Octets of a reply line that are kept (Postfix: line_length_limit)."""

MAX_LINE_READ = 2 * MAX_LINE
"""Octets of a line that are read, its end included: Postfix keeps line_length_limit of them, skips
as many again, and then gives up."""

MAX_KEPT = 2_048
"""Octets of a reply that are kept; lines that begin later are skipped, as by Postfix."""

MAX_LINES = 1_000
"""Lines of a reply; Postfix has no limit."""

MAX_REPLY = 65_536
"""Octets of a reply."""

MAX_HANDSHAKE = 262_144
"""Octets that a server may send until the handshake is done."""

MAX_SESSION = 1_048_576
"""Octets that a server may send in a session."""

MAX_CHAIN = 20
"""Certificates kept of a chain: more than a path may have that an MTA verifies
(``forecast.path.MAX_INTERMEDIATES``)."""

MAX_CHAIN_OCTETS = 262_144
"""Octets of certificates kept."""

FRESH = 3_600.0
"""Seconds for which a completed session is good evidence."""

MAX_DIALOGUE = 3_072
"""Characters kept of what both sides say: three times what most servers need."""

QUIT_WAIT = 1.0
"""Seconds for which a socket is kept after QUIT, so that the server can end its side."""

COMMANDS = 5
"""Steps that may each take command_timeout: greeting, EHLO, STARTTLS, handshake, EHLO. With
connect_timeout they limit the time of a whole session."""

MAX_NAMELESS = 2_000
"""Addresses of which it is remembered that a session ended before the handshake, each in less than
a kibibyte: as many as have a session within some ten seconds (limits.probes_per_minute)."""

_MORE = "..."
"""The last line of a dialogue of which more was said than is kept."""

MAX_GROUP = 32
"""Characters of the name of a group."""

AUTHENTICATING = b"ALL:!aNULL:!eNULL:@SECLEVEL=1"
"""The ciphers of smtp(8) if it verifies the server (TLS_MUST_MATCH in its tls_client.c)."""

STRONG = b"ALL:!aNULL:!eNULL:@SECLEVEL=2"
"""The same for an MTA that takes no key of less than 112 bits (RFC 9325 section 4.5)."""

OPPORTUNISTIC = b"ALL:!eNULL:@SECLEVEL=0"
"""The ciphers of smtp(8) if it does not: old TLS, weak keys and no certificate are accepted."""

UNREACHABLE = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM}
)
"""Errors of connect(2) that mean that no packet reached a server: no route, or a local filter."""

_BEFORE_HANDSHAKE = frozenset(
    {ProbeStage.CONNECT, ProbeStage.BANNER, ProbeStage.EHLO, ProbeStage.STARTTLS}
)

_CODE = re.compile(rb"[0-9]{3}(?=[ -]|$)")
_ENHANCED = re.compile(rb" +([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")
_KEYWORD = re.compile(rb"[- ]*[^- ]+[- ]?[ =]*(?P<word>[^ =]*)")
_SIZE = re.compile(rb"[- ]*[^- ]+[- ]?[ =]*SIZE[ =]+([0-9]{1,20})(?: .*)?", re.IGNORECASE)
_UNPRINTABLE = re.compile(rb"[^ -~]")


class _Ended(Exception):
    """The session ended early; says at which stage and how.

    It never leaves this module: the catcher records it as evidence.
    """

    def __init__(
        self,
        stage: ProbeStage,
        failure: ProbeFailure,
        error: str = "",
        reply: Reply | None = None,
    ) -> None:
        super().__init__(error)
        self.stage = stage
        self.failure = failure
        self.error = error
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _Ehlo:
    """A 2xx reply to EHLO or HELO: the name that the server gives itself, and its keywords.

    ``size`` is the number after the keyword SIZE; None if there is none.
    """

    name: str
    keywords: frozenset[str]
    size: int | None = None


class Prober:
    """Probes servers.

    Args:
        policy: which addresses may be contacted.
        settings: the section ``[probe]``.
        limiter: says when a session may begin.
        clock: the time, seconds since the epoch.
        budgets: how many sessions an address may get; None for any number.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        settings: Probe,
        *,
        limiter: Limiter = FREE,
        clock: Callable[[], float] = time.time,
        budgets: Budgets | None = None,
    ) -> None:
        self._budgets = budgets
        self._nameless = _Nameless(clock)
        self._policy = policy
        self._settings = settings
        helo = settings.helo or socket.gethostname()
        self._helo = printable(helo).replace(" ", "").encode("ascii")
        self._clock = clock
        self._authenticating = _tls_context(AUTHENTICATING)
        self._opportunistic = _tls_context(OPPORTUNISTIC)
        self._strong = _tls_context(STRONG)
        self._limiter = limiter
        self._leaving = Leaving(QUIT_WAIT)

    async def probe(self, server: ServerTarget) -> ProbeEvidence:
        """Go through a session with *server*, or two; never raise for what the network does."""
        now = self._clock()
        address = server.address
        evidence = ProbeEvidence(address=address, probed_at=now, expires=now + FRESH)
        if not self._settings.enabled:
            return replace(evidence, error="probe.enabled is false")
        if not self._policy.allows(address):
            return replace(
                evidence,
                stage=ProbeStage.CONNECT,
                failure=ProbeFailure.FORBIDDEN,
                error="not a global address, and not in probe.allow_networks",
            )
        found = await self._in_turn(server, self._authenticating)
        if is_in_finite_field(found.cipher):
            strong = await self._in_turn(server, self._strong)
            return _with_group(found, strong)
        if found.stage is not ProbeStage.HANDSHAKE or found.failure is ProbeFailure.TIMEOUT:
            return found
        other = await self._in_turn(server, self._opportunistic)
        if other.stage is ProbeStage.NOT_PROBED:
            return other  # whether it was a strange server or a broken one is not known
        if not other.tls_version:
            return found
        # The first session may have failed by chance: the evidence ends early, as a failure does.
        expires = min(found.expires, other.expires)
        return replace(other, only_opportunistic=found.error or "failed", expires=expires)

    def close(self) -> None:
        """Close connections that wait for their servers' end of them."""
        self._leaving.close()

    async def _in_turn(self, server: ServerTarget, context: SSL.Context) -> ProbeEvidence:
        address = server.address
        first = context is self._authenticating

        async def hold() -> ProbeEvidence:
            # Under another name the same may have been seen while this session waited.
            if first and (seen := self._nameless.seen(server)) is not None:
                return seen
            if self._budgets and (spent := self._budgets.connection(address, server.server_name)):
                now = self._clock()
                return ProbeEvidence(address, error=spent, probed_at=now, expires=now)
            found = await self._session(server, context)
            if first:
                self._nameless.note(found, server)
            return found

        host, network = host_and_network(address)
        return await self._limiter.run(Claim(network, host), hold)

    async def _session(self, server: ServerTarget, context: SSL.Context) -> ProbeEvidence:
        settings, address = self._settings, server.address
        try:
            connection = Connection(address)
        except OSError as error:  # out of descriptors, no IPv6: this says nothing about the server
            now = self._clock()
            return ProbeEvidence(address, error=error_text(error), probed_at=now, expires=now)
        wire = _Wire(connection, self._leaving, settings.connect_timeout, settings.command_timeout)
        session = _Session(wire, self._helo, server, context)
        try:
            await session.run(server.port)
        except _Ended as ended:
            session.evidence = replace(
                session.evidence,
                stage=ended.stage,
                failure=ended.failure,
                reply=ended.reply,
                error=printable(ended.error),
            )
        finally:
            wire.close()
        now = self._clock()
        evidence = session.evidence
        refused = evidence.starttls_reply
        temporary = evidence.failure is not None or (refused is not None and refused.code < 500)
        expires = now + (self._settings.retry_after if temporary else FRESH)
        return replace(evidence, probed_at=now, expires=expires, dialogue="\n".join(wire.dialogue))


class _Nameless:
    """Sessions that ended before a name was sent: they say the same of all names of an address.

    The first thing that a server learns of the name is the SNI in the TLS handshake. What it did
    until then (no connection, its greeting, its EHLO reply, no STARTTLS) does not depend on the
    name. What came after may: the certificate, the failure of a handshake, REQUIRETLS. That is
    never used for another name.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: BoundedMap[tuple[str, int, MailProtocol], tuple[str, ProbeEvidence, Life]] = (
            BoundedMap(MAX_NAMELESS)
        )

    def seen(self, server: ServerTarget) -> ProbeEvidence | None:
        """What another name met at this address and port, while that is good evidence."""
        kept = self._seen.get((server.address, server.port, server.protocol))
        if kept is None:
            return None
        name, found, life = kept
        own = name == server.server_name
        return None if own or life.is_over(self._clock(), time.monotonic()) else found

    def note(self, found: ProbeEvidence, server: ServerTarget) -> None:
        """Keep a session that ended before the handshake; another one replaces it."""
        if found.stage is ProbeStage.NOT_PROBED:
            return
        key = (server.address, server.port, server.protocol)
        refused = found.starttls_reply is not None or found.starttls_offered is False
        if found.stage in _BEFORE_HANDSHAKE or (found.stage is ProbeStage.DONE and refused):
            now = self._clock()
            life = Life.of(found.expires - now, now, time.monotonic())
            self._seen.put(key, (server.server_name, found, life))
        else:
            self._seen.pop(key)


class _Session:
    """The dialogue of one session; each step adds to :attr:`evidence`.

    Only the EHLO reply inside TLS says whether the server offers REQUIRETLS (R3).
    """

    def __init__(
        self, wire: _Wire, helo: bytes, server: ServerTarget, context: SSL.Context
    ) -> None:
        self._wire = wire
        self._helo = helo
        self._server_name = server.server_name
        self._lmtp = server.protocol is MailProtocol.LMTP
        self._context = context
        self.evidence = ProbeEvidence(address=server.address, stage=ProbeStage.CONNECT)

    async def run(self, port: int) -> None:
        """Go through the session to its end; raise _Ended if it ends early."""
        wire = self._wire
        await wire.connect(port)
        try:
            greeting, lines = await wire.reply(ProbeStage.BANNER)
            if greeting.code // 100 != 2:
                raise _Ended(ProbeStage.BANNER, ProbeFailure.REPLY, reply=greeting)
            ehlo = await self._hello(ProbeStage.EHLO, extended=not _is_masked(lines))
            offered = "STARTTLS" in ehlo.keywords
            self.evidence = replace(
                self.evidence,
                starttls_offered=offered,
                ehlo_name=ehlo.name,
                smtputf8_in_clear="SMTPUTF8" in ehlo.keywords,
                size_limit=ehlo.size or 0,
            )
            if offered and await self._starttls():
                ehlo = await self._hello(ProbeStage.EHLO_TLS)
                # Only this reply counts (RFC 8689 section 2, R3): an attacker may have
                # written what was said in clear.
                self.evidence = replace(
                    self.evidence,
                    requiretls="REQUIRETLS" in ehlo.keywords,
                    ehlo_name=ehlo.name,
                    smtputf8="SMTPUTF8" in ehlo.keywords,
                    # Postfix keeps the former limit if there is no other.
                    size_limit=self.evidence.size_limit if ehlo.size is None else ehlo.size,
                )
            self.evidence = replace(self.evidence, stage=ProbeStage.DONE)
        except _Ended as ended:
            if ended.failure is ProbeFailure.REPLY:
                await wire.quit()
            raise
        await wire.quit()

    async def _hello(self, stage: ProbeStage, *, extended: bool = True) -> _Ehlo:
        """Say EHLO, and HELO if EHLO is refused: a server that takes only HELO has no keywords.

        421 ends the session at once (Postfix's smtp_helo(); RFC 5321 section 3.8). A server of
        LMTP takes LHLO and nothing else (RFC 2033 section 4.1).
        """
        reply: Reply | None = None
        if self._lmtp:
            reply, lines = await self._wire.command(b"LHLO " + self._helo, stage)
            if reply.code // 100 == 2:
                return read_ehlo(lines)
            raise _Ended(stage, ProbeFailure.REPLY, reply=reply)
        if extended:
            reply, lines = await self._wire.command(b"EHLO " + self._helo, stage)
            if reply.code // 100 == 2:
                return read_ehlo(lines)
        if reply is None or reply.code != 421:
            reply, lines = await self._wire.command(b"HELO " + self._helo, stage)
            if reply.code // 100 == 2:
                return _Ehlo(read_ehlo(lines).name, frozenset())
        raise _Ended(stage, ProbeFailure.REPLY, reply=reply)

    async def _starttls(self) -> bool:
        """Start TLS; return False if the server offers STARTTLS and then refuses it."""
        reply, _ = await self._wire.command(b"STARTTLS", ProbeStage.STARTTLS)
        if reply.code // 100 != 2:
            self.evidence = replace(self.evidence, starttls_reply=reply)
            return False
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode("ascii"))
        await self._wire.start_tls(connection)
        version = connection.get_protocol_version_name()
        chain, cut = _presented(connection)
        self.evidence = replace(
            self.evidence,
            tls_version=version,
            chain=chain,
            chain_cut=cut,
            cipher=connection.get_cipher_name() or "",
            group=_group(connection),
        )
        return True


class _Wire:
    """A connection, with or without TLS, that yields replies and keeps the limits."""

    def __init__(
        self,
        connection: Connection,
        leaving: Leaving,
        connect_timeout: float,
        command_timeout: float,
    ) -> None:
        self._connection = connection
        self._leaving = leaving
        self._now = asyncio.get_running_loop().time
        self._connect_timeout = connect_timeout
        self._command_timeout = command_timeout
        self._deadline = self._now() + connect_timeout + COMMANDS * command_timeout
        self._tls: SSL.Connection | None = None
        self._buffer = bytearray()
        self._received = 0
        self._room = MAX_DIALOGUE
        self.dialogue: list[str] = []
        """What both sides have said so far, as :attr:`ProbeEvidence.dialogue` has it."""

    def _note(self, line: str) -> None:
        """Keep a line of the dialogue while there is room; a mark says that more was said."""
        room, self._room = self._room, self._room - len(line) - 1
        if self._room >= len(_MORE):
            self.dialogue.append(line)
        elif room >= len(_MORE):
            self.dialogue.append(_MORE)
            self._room = 0

    def close(self) -> None:
        """Close the connection, whatever state the session is in."""
        self._connection.close()

    async def connect(self, port: int) -> None:
        """Connect; no name is looked up here."""
        stage = ProbeStage.CONNECT
        with self._limits(stage, self._connect_timeout):
            try:
                await self._connection.connect(port)
            except TimeoutError:
                raise
            except OSError as error:
                unreachable = error.errno in UNREACHABLE
                failure = ProbeFailure.UNREACHABLE if unreachable else ProbeFailure.REFUSED
                raise _Ended(stage, failure, error_text(error)) from error

    async def command(self, line: bytes, stage: ProbeStage) -> tuple[Reply, list[bytes]]:
        """Send a command and read the reply to it, within one time limit."""
        with self._limits(stage):
            self._note("C: " + line.decode("ascii"))
            await self._send(line + b"\r\n")
            return await self._read_reply(stage)

    async def reply(self, stage: ProbeStage) -> tuple[Reply, list[bytes]]:
        """Read a reply to no command: the greeting."""
        with self._limits(stage):
            return await self._read_reply(stage)

    async def quit(self) -> None:
        """Say QUIT, and end the connection in good order.

        The reply, or its absence, says nothing about the server's TLS: like smtp(8)
        (smtp_skip_quit_response) the probe does not wait for it.
        """
        with contextlib.suppress(_Ended), self._limits(ProbeStage.DONE):
            self._note("C: QUIT")
            await self._send(b"QUIT\r\n")
            if self._tls is not None:
                with contextlib.suppress(SSL.Error):
                    self._tls.shutdown()  # the alert "close notify"
                await self._flush(self._tls)
            self._connection.leave(self._leaving)

    async def start_tls(self, connection: SSL.Connection) -> None:
        """Do the handshake.

        Plaintext after the reply to STARTTLS may have been injected, so that it passes for
        part of the protected dialogue (CVE-2011-0411). It is discarded, as by Postfix.
        """
        stage = ProbeStage.HANDSHAKE
        self._buffer.clear()
        limit = self._received + MAX_HANDSHAKE
        with self._limits(stage):
            while True:
                try:
                    connection.do_handshake()
                except SSL.WantReadError:
                    await self._flush(connection)
                except (SSL.Error, ValueError) as error:
                    await self._flush(connection)
                    raise _Ended(stage, ProbeFailure.PROTOCOL, _ssl_text(error)) from error
                else:
                    await self._flush(connection)
                    break
                if self._received > limit:
                    raise _Ended(
                        stage,
                        ProbeFailure.PROTOCOL,
                        f"handshake longer than {MAX_HANDSHAKE} octets",
                    )
                connection.bio_write(await self._receive(stage))
        self._tls = connection
        self._note(f"({connection.get_protocol_version_name()} begins)")

    @contextlib.contextmanager
    def _limits(self, stage: ProbeStage, seconds: float | None = None) -> Iterator[None]:
        """End the session if time runs out or the connection breaks."""
        limit = self._command_timeout if seconds is None else seconds
        self._connection.limit(min(self._now() + limit, self._deadline))
        try:
            yield
        except TimeoutError as error:
            raise _Ended(stage, ProbeFailure.TIMEOUT, "timed out") from error
        except OSError as error:
            raise _Ended(stage, ProbeFailure.CLOSED, error_text(error)) from error

    async def _receive(self, stage: ProbeStage) -> bytes:
        """Read what has come; raise _Ended if the server has closed the connection."""
        data = await self._connection.receive()
        if not data:
            raise _Ended(stage, ProbeFailure.CLOSED, "connection closed by the server")
        self._received += len(data)
        if self._received > MAX_SESSION:
            raise _Ended(stage, ProbeFailure.LIMIT, f"more than {MAX_SESSION} octets")
        return data

    async def _send(self, data: bytes) -> None:
        if self._tls is None:
            await self._connection.send(data)
            return
        try:
            self._tls.sendall(data)
        except SSL.Error as error:
            raise ConnectionAbortedError(_ssl_text(error)) from error
        await self._flush(self._tls)

    async def _flush(self, connection: SSL.Connection) -> None:
        """Send what OpenSSL has written: records, or the alert that ends a handshake."""
        while True:
            try:
                data = connection.bio_read(READ_SIZE)
            except SSL.WantReadError:
                return
            await self._connection.send(data)

    async def _fill(self, stage: ProbeStage) -> None:
        """Add to the buffer what the server sends, decrypted."""
        if self._tls is None:
            self._buffer += await self._receive(stage)
            return
        while True:
            try:
                self._buffer += self._tls.recv(READ_SIZE)
            except SSL.WantReadError:
                self._tls.bio_write(await self._receive(stage))
            except SSL.ZeroReturnError as error:
                raise _Ended(stage, ProbeFailure.CLOSED, "TLS closed by the server") from error
            except SSL.Error as error:
                # An alert, often of a server that demands a client certificate: for an SMTP
                # client the connection is lost.
                raise _Ended(stage, ProbeFailure.CLOSED, _ssl_text(error)) from error
            else:
                return

    async def _read_reply(self, stage: ProbeStage) -> tuple[Reply, list[bytes]]:
        """Read lines up to one that begins with a code and no hyphen.

        Like Postfix's smtp_chat_resp(), skip lines that are not a reply, drop the excess of
        a line and of a reply, and take the code of the last line.
        """
        lines: list[bytes] = []
        kept = taken = 0
        for _ in range(MAX_LINES):
            line, octets = await self._read_line(stage, MAX_REPLY - taken)
            taken += octets
            if kept < MAX_KEPT:
                self._note("S: " + printable(line))
                lines.append(line)
                kept += len(line) + bool(kept)  # with what stands between two lines
            if _CODE.match(line) and line[3:4] != b"-":
                return _reply(line, lines), lines
        raise _Ended(stage, ProbeFailure.LIMIT, f"reply of more than {MAX_LINES} lines")

    async def _read_line(self, stage: ProbeStage, limit: int) -> tuple[bytes, int]:
        """Read a line; return at most MAX_LINE octets of it, and how many it took.

        *limit* is how many octets the reply may still have. At that limit the probe gives up
        (LIMIT), while an MTA would read on. At a line that is too long Postfix ends the
        connection, and so does the probe (PROTOCOL).
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched >= MAX_LINE_READ:
                break
            await self._fill(stage)
        if end < 0 or end >= MAX_LINE_READ:
            raise _Ended(stage, ProbeFailure.PROTOCOL, f"line of more than {MAX_LINE_READ} octets")
        if end >= limit:
            raise _Ended(stage, ProbeFailure.LIMIT, f"reply of more than {MAX_REPLY} octets")
        line = bytes(self._buffer[: min(end, MAX_LINE)]).rstrip(b"\r")
        del self._buffer[: end + 1]
        # For Postfix a line ends at NUL, and characters that cannot be printed are "?".
        return _UNPRINTABLE.sub(b"?", line.partition(b"\0")[0]), end + 1


def read_ehlo(lines: list[bytes]) -> _Ehlo:
    """Read the name and the keywords of a reply to EHLO (RFC 5321 section 4.1.1.1).

    A keyword is the first word after the code, in any case, on each line but the first
    (R4). A word ends at a blank or, since some servers write that, at "=". As in
    smtp_helo() of Postfix, anything may stand in the place of the code.
    """
    words = []
    for line in lines:
        found = _KEYWORD.match(line)
        if found and found["word"]:
            words.append(printable(found["word"]))
    sizes = [int(found[1]) for line in lines[1:] if (found := _SIZE.fullmatch(line))]
    return _Ehlo(
        words[0] if words else "",
        frozenset(word.upper() for word in words[1:]),
        min(sizes[-1], MAX_SIZE) if sizes else None,
    )


def _is_masked(greeting: list[bytes]) -> bool:
    """Say whether a greeting is all stars: a Cisco PIX firewall on the way rewrites it so.

    Postfix then says HELO (smtp_pix_workarounds = disable_esmtp), since a PIX breaks ESMTP.
    """
    return not b"".join(greeting).strip(b"20 *")


def _reply(last: bytes, lines: list[bytes]) -> Reply:
    """Make a Reply; drop an enhanced code whose class differs from the code's (RFC 3463)."""
    enhanced = _ENHANCED.match(last[3:])
    valid = enhanced is not None and enhanced[1][:1] == last[:1]
    text = b" ".join(line[4:] if _CODE.match(line) else line for line in lines)
    return Reply(
        code=int(last[:3]),
        enhanced=enhanced[1].decode("ascii") if enhanced is not None and valid else "",
        text=printable(text.strip()),
    )


def _presented(connection: SSL.Connection) -> tuple[tuple[bytes, ...], bool]:
    """Return the chain as presented, DER, leaf first; and whether it was cut."""
    certificates = connection.get_peer_cert_chain() or []
    chain: list[bytes] = []
    octets = 0
    for certificate in certificates[:MAX_CHAIN]:
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        octets += len(der)
        if octets > MAX_CHAIN_OCTETS:
            break
        chain.append(der)
    return tuple(chain), len(chain) < len(certificates)


def _group(connection: SSL.Connection) -> str:
    """Name the group of the key exchange; "" if there is none, or OpenSSL is older than 3.2."""
    try:
        return printable(connection.get_group_name() or "", MAX_GROUP)
    except NotImplementedError:
        return ""


def _ssl_text(error: Exception) -> str:
    """Give OpenSSL's reasons, without the names of its functions."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list):
        reasons = [str(entry[-1]) for entry in queue if entry]
        if reasons:
            return "; ".join(reasons)
    return error_text(error)


def _with_group(found: ProbeEvidence, strong: ProbeEvidence) -> ProbeEvidence:
    """Add to a session what one shows that takes no small group: OpenSSL does not tell its size.

    A second session that fails in another way than by its handshake shows nothing: it is not
    known for long.
    """
    if strong.tls_version:
        return found
    error = strong.error or "failed"
    if strong.stage is ProbeStage.HANDSHAKE and strong.failure is ProbeFailure.PROTOCOL:
        return replace(found, small_group=error)
    return replace(found, small_group=error, expires=min(found.expires, strong.expires))


def _tls_context(ciphers: bytes) -> SSL.Context:
    """Set up the client's side of TLS: any version from 1.0 on, any cipher of *ciphers*."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_VERSION)
    context.set_cipher_list(ciphers)
    context.set_options(SSL.OP_ALL | SSL.OP_LEGACY_SERVER_CONNECT | SSL.OP_NO_RENEGOTIATION)
    # No Python callback: it would need memory that is writable and executable,
    # which the hardened unit denies.
    context.set_verify(SSL.VERIFY_NONE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context
