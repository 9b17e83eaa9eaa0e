"""Fetch a text from a policy host over HTTPS (RFC 8461 section 3.3).

PKIX vouches for what is fetched, but an attacker on the path can end the connection whenever
it likes: a text counts only if its end was seen (RFC 9112 section 6.3). Whatever the host
sends has a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Sequence

import aiohttp
import aiohttp.abc
from aiohttp import AddrInfoType

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.syntax.text import printable

MAX_POLICY = 65_536
"""Octets of a policy (RFC 8461 section 3.3 suggests 64 kilobytes)."""

MAX_HEADER_LINE = 8_190
"""Octets of a line of the HTTP header."""

MAX_HEADERS = 64
"""Fields of the HTTP header, at most MAX_HEADER_LINE octets each."""

HTTPS_PORT = 443


class ReplyError(RequiretlsMilterError, ValueError):
    """A policy host does not give a whole text as RFC 8461 section 3.3 demands; it says how.

    The catcher concludes that the fetch has failed.
    """


class _Resolved(aiohttp.abc.AbstractResolver):
    """Gives aiohttp the addresses to connect to, which have been looked up before.

    A policy host is always a name ("mta-sts." before a domain), so that aiohttp gets every
    address from here.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        """Give the addresses, whatever family is wanted."""
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held open."""


class Calls:
    """The connections of one fetch: aiohttp tries the addresses of the host one after the other.

    Args:
        budgets: how many connections an address may get; None for any number.
        domain: the policy domain.
    """

    def __init__(self, budgets: Budgets | None, domain: str) -> None:
        self._budgets = budgets
        self._domain = domain
        self.made = 0
        self.refused = ""
        """Why a connection was not made; "" if none was refused."""

    def socket(self, info: AddrInfoType) -> socket.socket:
        """Make the socket for one address; raise OSError if it is not to be called now."""
        family, kind, protocol, _, address = info
        if self._budgets and (spent := self._budgets.connection(str(address[0]), self._domain)):
            self.refused = spent
            raise OSError(errno.EAGAIN, spent)
        self.made += 1
        return socket.socket(family, kind, protocol)


class PolicyHosts:
    """Fetches texts from policy hosts.

    Args:
        authorities: certificates (DER) of the authorities that the hosts are verified by.
        port: the port of the hosts.
        timeout: seconds for one fetch.

    Raises:
        ssl.SSLError: one of *authorities* is no certificate.
    """

    def __init__(self, authorities: Sequence[bytes], port: int, timeout: float) -> None:
        self._tls = _tls_context(authorities)
        self._port_number = port
        self._port = "" if port == HTTPS_PORT else f":{port}"
        self._timeout = timeout

    async def fetch(self, domain: str, addresses: Sequence[str], calls: Calls) -> bytes:
        """Fetch the policy of *domain* from one of the *addresses* of its policy host (R50).

        Raises:
            ReplyError, aiohttp.ClientError, OSError, ValueError: there is none.
        """
        connector = aiohttp.TCPConnector(
            resolver=_Resolved(addresses),
            ssl=self._tls,
            use_dns_cache=False,
            force_close=True,
            socket_factory=calls.socket,
        )
        url = f"https://mta-sts.{domain}{self._port}/.well-known/mta-sts.txt"
        async with session(connector, self._timeout) as opened:
            return await get(opened, url)

    async def certificate(self, domain: str, addresses: Sequence[str], calls: Calls) -> bytes:
        """Look which certificate the policy host presents, good or not; b"" for none.

        It is read, and never relied on: nothing is verified here.
        """
        name = f"mta-sts.{domain}"
        for address in addresses:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    return await self._presented(name, address, calls)
        return b""

    async def _presented(self, name: str, address: str, calls: Calls) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        port = self._port_number
        connection = calls.socket((family, socket.SOCK_STREAM, 0, "", (address, port)))
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        _, writer = await asyncio.open_connection(
            sock=connection, ssl=context, server_hostname=name
        )
        try:
            session = writer.get_extra_info("ssl_object")
            return session.getpeercert(binary_form=True) or b""
        finally:
            writer.transport.abort()


def session(connector: aiohttp.BaseConnector, timeout: float) -> aiohttp.ClientSession:
    """Open a session without cache, cookies or a proxy, in which everything has a bound."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept": "text/plain", "Accept-Encoding": "identity"},
        trust_env=False,
        auto_decompress=False,
        read_bufsize=MAX_POLICY,
        max_line_size=MAX_HEADER_LINE,
        max_field_size=MAX_HEADER_LINE,
        max_headers=MAX_HEADERS,
    )


async def get(opened: aiohttp.ClientSession, url: str) -> bytes:
    """Fetch a text; a redirect is not followed (section 3.3, R50).

    Raises:
        ReplyError, aiohttp.ClientError, OSError, ValueError: there is none.
    """
    async with opened.get(url, allow_redirects=False) as response:
        return await _text(response)


async def _text(response: aiohttp.ClientResponse) -> bytes:
    """Read the text of a reply; raise ReplyError if it is none, or perhaps a part of one."""
    if response.status != 200:
        raise ReplyError(f"HTTP status {response.status} instead of 200")
    if response.content_type != "text/plain":
        raise ReplyError(f"media type {printable(response.content_type, 60)} instead of text/plain")
    encodings = response.headers.getall("Content-Encoding", ["identity"])
    if [encoding.lower() for encoding in encodings] != ["identity"]:
        raise ReplyError("the policy is compressed")
    chunked = _is_chunked(response)
    body, chunk_ended = await _read(response.content)
    if not (chunk_ended if chunked else _is_whole(response, body)):
        raise ReplyError("the policy may have been cut short")
    return body


async def _read(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    """Read a body; say too whether its end is that of a chunk.

    Raises:
        ReplyError: it is empty, or longer than MAX_POLICY.
    """
    if content.at_eof():  # One object stands for all empty bodies: its chunks never end.
        raise ReplyError("the policy is empty")
    body = bytearray()
    chunk_ended = False
    async for data, end_of_chunk in content.iter_chunks():
        body += data
        chunk_ended = end_of_chunk
        if len(body) > MAX_POLICY:
            raise ReplyError(f"the policy is longer than {MAX_POLICY} octets")
    return bytes(body), chunk_ended


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    """Say whether the body is sent in chunks, of which the last one tells its end.

    A body that is said to be chunked must end with the end of a chunk all the same: parsers
    differ in which blanks around the word they take.

    Raises:
        ReplyError: there is another coding, or a coding together with what forbids it: a
            length (RFC 9112 section 6.3) or HTTP/1.0 (section 6.1). A body in a coding that
            is not understood ends with the connection, which an attacker can end.
    """
    codings = response.headers.getall("Transfer-Encoding", ())
    if not codings:
        return False
    if [coding.lower() for coding in codings] != ["chunked"]:
        text = printable(", ".join(codings), 60)
        raise ReplyError(f"transfer coding {text!r} instead of chunked")
    if "Content-Length" in response.headers or response.version != aiohttp.HttpVersion11:
        raise ReplyError("a chunked reply with a length, or of another version than HTTP/1.1")
    return True


def _is_whole(response: aiohttp.ClientResponse, body: bytes) -> bool:
    """Say whether no line of a body without a transfer coding was cut (RFC 9112 section 6.3).

    Without a length the body ends with the connection, and an attacker on the path can end
    that: asyncio does not say whether TLS was closed. Whole lines may be missing then, which
    makes a policy stricter; but ``mx.example.com`` must not become ``mx.example.co``.
    """
    lengths = response.headers.getall("Content-Length", ())
    if lengths:
        return len(lengths) == 1 and int(lengths[0]) == len(body)
    return body.endswith(b"\n")


def _tls_context(authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Set up the check of the policy host (sections 3.3 and 7.2, R51).

    It demands a chain to one of *authorities*, TLS 1.2 or later, and the name as a DNS-ID.
    OpenSSL checks the name, with wildcards for the whole left-most label alone (Python's
    default). ssl.create_default_context() would add what differs between versions of Python:
    whether a certificate is good must not depend on that.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if authorities:
        context.load_verify_locations(cadata=b"".join(authorities))
    return context
