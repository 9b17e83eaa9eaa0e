"""MTA-STS: discover, fetch and read the policy of a domain (RFC 8461 section 3).

PKIX vouches for a policy, not DNS: the TXT record only says *that* there is a policy
and when it changed. Everything that makes a policy believable is in how it is fetched.
What must outlive this process, a policy until its max_age above all, is kept by the
engine and its store.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import aiohttp.abc
import dns.rdatatype
from aiohttp import AddrInfoType

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.budgets import Budgets, host_and_network
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.turns import FREE, Claim, Limiter
from requiretls_milter.model import DnsOutcome, MtaStsEvidence, MtaStsMode, MtaStsPolicy
from requiretls_milter.syntax.names import address_literal
from requiretls_milter.syntax.text import error_text, printable
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound

MAX_POLICY = 65_536
"""Octets of a policy (RFC 8461 section 3.3 suggests 64 kilobytes)."""

MAX_HEADER_LINE = 8_190
"""Octets of a line of the HTTP header."""

MAX_HEADERS = 64
"""Fields of the HTTP header, at most MAX_HEADER_LINE octets each."""

FETCH_RETRY = 300.0
"""Seconds until a fetch that failed may be tried again for the same id (section 3.3)."""

MAX_AGE = 31_557_600
"""Seconds that a policy may be kept (section 3.2)."""

HTTPS_PORT = 443

_WSP = " \t"

_RECORD_VERSION = re.compile(r"v=STSv1[ \t]*;")
_RECORD_FIELD = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(?P<value>[\x21-\x3a\x3c\x3e-\x7e]+)"
)
_RECORD_ID = re.compile(r"[A-Za-z0-9]{1,32}")

_POLICY_FIELD = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(?P<value>.*)")
_POLICY_MX = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
)

_log = log.get_logger("evidence.mta_sts")


class PolicyError(RequiretlsMilterError, ValueError):
    """A record, a policy or an HTTP reply does not follow RFC 8461; the text says how.

    The catcher concludes that the domain has no policy now. One that was fetched before
    stays in force until its max_age (RFC 8461 section 3.3).
    """


@dataclass(frozen=True, slots=True)
class StsRecord:
    """The TXT record of a domain.

    Attributes:
        id: the policy's id; empty if the domain has no valid record.
        error: why the record could not be looked up.
        expires: when the answer ends, seconds since the epoch.
        unasked: it was not looked up, since the budget of the zone is spent.
    """

    id: str = ""
    error: str = ""
    expires: float = 0.0
    unasked: bool = False


def read_record(texts: Iterable[bytes]) -> str:
    """Find the one MTA-STS record among the TXT records of a name, and return its id.

    A record begins with ``v=STSv1``, followed by blanks and a semicolon (section 3.1, R46,
    R47).

    Args:
        texts: the records; the strings of each joined without spaces.

    Returns:
        The id, or "" if none of them is an MTA-STS record.

    Raises:
        PolicyError: there are several records, or one that is not valid. For a sender
            both mean the same as none.
    """
    records = [
        text for one in texts if _RECORD_VERSION.match(text := one.decode("latin-1")) is not None
    ]
    if not records:
        return ""
    if len(records) > 1:
        raise PolicyError(f"{len(records)} MTA-STS records instead of one")
    fields = [part.strip(_WSP) for part in records[0].split(";")[1:]]
    if fields and fields[-1] == "":
        fields.pop()
    found = ""
    for text in fields:
        field = _RECORD_FIELD.fullmatch(text)
        if field is None:
            raise PolicyError(f"MTA-STS record: not a field: {printable(text, 60)!r}")
        if field["name"] == "id" and not found:
            if _RECORD_ID.fullmatch(field["value"]) is None:
                raise PolicyError(f"MTA-STS record: bad id: {printable(field['value'], 60)!r}")
            found = field["value"]
    if not found:
        raise PolicyError("MTA-STS record without an id")
    return found


def read_policy(body: bytes, policy_id: str) -> MtaStsPolicy:
    """Read a policy (section 3.2, R48); *policy_id* is the id of the TXT record for it.

    Lines end in LF or CRLF; empty ones are skipped. Of several equal keys the first counts,
    but each ``mx`` does. Unknown keys are ignored if they are well-formed.

    Raises:
        PolicyError: the text is not a policy.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError("the policy is not UTF-8") from error
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        content = line.removesuffix("\r").rstrip(_WSP)
        if not content:
            continue
        field = _POLICY_FIELD.fullmatch(content)
        if field is None:
            raise PolicyError(f"line {number}: not a key and a value: {printable(content, 60)!r}")
        name, value = field["name"], field["value"]
        if not value or any(c < " " or c == "\x7f" for c in value):
            raise PolicyError(f"line {number}: {name}: no value, or control characters in it")
        if name == "mx":
            patterns.append(_mx_pattern(value, number))
        else:
            fields.setdefault(name, value)
    for key in ("version", "mode", "max_age"):
        if key not in fields:
            raise PolicyError(f"no {key}")
    if fields["version"] != "STSv1":
        raise PolicyError(f"unknown version: {printable(fields['version'], 20)!r}")
    try:
        mode = MtaStsMode(fields["mode"])
    except ValueError as error:
        raise PolicyError(f"unknown mode: {printable(fields['mode'], 20)!r}") from error
    if not patterns and mode is not MtaStsMode.NONE:
        raise PolicyError(f"mode {mode} without an mx")
    return MtaStsPolicy(
        mode, tuple(dict.fromkeys(patterns)), _max_age(fields["max_age"]), policy_id
    )


def _mx_pattern(value: str, number: int) -> str:
    """Read a pattern: a host name or ``*.`` before one (section 4.1, R55)."""
    pattern = value.lower().removesuffix(".")
    if (
        _POLICY_MX.fullmatch(value) is None
        or len(pattern) > 255
        or address_literal(pattern) is not None
    ):
        raise PolicyError(f"line {number}: mx: not a pattern: {printable(value, 60)!r}")
    return pattern


def _max_age(value: str) -> int:
    """Read 1 to 10 digits; more than a year means a year (section 3.2, erratum 7282, R49)."""
    if re.fullmatch(r"[0-9]{1,10}", value) is None:
        raise PolicyError(f"bad max_age: {printable(value, 20)!r}")
    return min(int(value), MAX_AGE)


class _PolicyHost(aiohttp.abc.AbstractResolver):
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


class _Calls:
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


class MtaStsFetcher:
    """Finds the policies of domains.

    Args:
        resolver: looks up TXT records and policy hosts.
        policy: which addresses may be contacted.
        authorities: certificates (DER) of the authorities that policy hosts are verified by.
        port: the port of policy hosts.
        timeout: seconds for one fetch (section 3.3 suggests a minute at most). Before it
            the host's name is looked up, within the resolver's own limit.
        limiter: says when a fetch may begin.
        clock: the time, seconds since the epoch.
        counters: where it is counted that a fetch takes too long.
        budgets: how many connections an address may get; None for any number.

    Raises:
        ssl.SSLError: one of *authorities* is no certificate.
    """

    def __init__(
        self,
        resolver: Resolver,
        policy: AddressPolicy,
        authorities: Sequence[bytes],
        *,
        port: int = HTTPS_PORT,
        timeout: float = 30.0,
        limiter: Limiter = FREE,
        clock: Callable[[], float] = time.time,
        counters: Counters | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._budgets = budgets
        self._resolver = resolver
        self._policy = policy
        self._tls = _tls_context(authorities)
        self._port = port
        self._timeout = timeout
        self._clock = clock
        self._counters = counters or Counters()
        self._limiter = limiter

    async def record(self, domain: str) -> StsRecord:
        """Look up ``_mta-sts.DOMAIN`` (section 3.1), and follow aliases. Never raises.

        Several records, or one that is not valid, count as none: another attempt would not
        change that.
        """
        found = await self._resolver.lookup(f"_mta-sts.{domain}", dns.rdatatype.TXT)
        expires = self._clock() + found.ttl
        if found.outcome is DnsOutcome.ERROR:
            return StsRecord(error=found.error, expires=expires, unasked=found.unasked)
        try:
            policy_id = read_record(
                b"".join(rdata.strings) for rdata in cast(Iterable[Any], found.rdatas)
            )
        except PolicyError as error:
            _log.info("mta_sts_record_invalid", domain=domain, error=str(error))
            return StsRecord(expires=expires)
        return StsRecord(policy_id, expires=expires)

    async def policy(self, domain: str) -> MtaStsEvidence:
        """Discover and fetch the policy of *domain*. Never raises for what the network does.

        ``expires`` is the end of the policy's max_age; without a policy, it is when
        another attempt is worth while.
        """
        record = await self.record(domain)
        if not record.id:
            return MtaStsEvidence(
                error=record.error, expires=record.expires, unasked=record.unasked
            )
        calls = _Calls(self._budgets, domain)
        try:
            # Looked up first: a name server that is silent must not hold the place of a fetch.
            addresses = await self._addresses(f"mta-sts.{domain}")
            _, network = host_and_network(addresses[0])
            body = await self._limiter.run(
                Claim(network), lambda: self._fetch(domain, addresses, calls)
            )
            policy = read_policy(body, record.id)
        except (PolicyError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if calls.refused and not calls.made:
                return MtaStsEvidence(error=calls.refused, expires=self._clock(), unasked=True)
            return self._failed(domain, error)
        now = self._clock()
        return MtaStsEvidence(policy, fetched_at=now, expires=now + policy.max_age)

    def _failed(self, domain: str, error: Exception) -> MtaStsEvidence:
        text = _why(error)
        if isinstance(error, TimeoutError):
            self._counters.inc("saturated_total", (Bound.FETCH_TIMEOUT,))
            text = "timed out"
        return MtaStsEvidence(
            error=printable(f"policy of {domain}: {text}"), expires=self._clock() + FETCH_RETRY
        )

    async def _addresses(self, host: str) -> Sequence[str]:
        """Look *host* up; raise OSError if it has no address that may be contacted."""
        found = await self._resolver.addresses(host)
        allowed = [address for address in found.addresses if self._policy.allows(address)]
        if not allowed and found.addresses:
            forbidden = ", ".join(found.addresses[:3])
            raise OSError(errno.EACCES, f"{host} has no address that may be contacted: {forbidden}")
        if not allowed:
            raise OSError(
                errno.EHOSTUNREACH, f"{host} has no address: {found.error or found.outcome}"
            )
        return allowed

    async def _fetch(self, domain: str, addresses: Sequence[str], calls: _Calls) -> bytes:
        """Fetch the policy by https: no redirect, cache, cookie or proxy (section 3.3, R50)."""
        port = "" if self._port == HTTPS_PORT else f":{self._port}"
        connector = aiohttp.TCPConnector(
            resolver=_PolicyHost(addresses),
            ssl=self._tls,
            use_dns_cache=False,
            force_close=True,
            socket_factory=calls.socket,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "text/plain", "Accept-Encoding": "identity"},
                trust_env=False,
                auto_decompress=False,
                read_bufsize=MAX_POLICY,
                max_line_size=MAX_HEADER_LINE,
                max_field_size=MAX_HEADER_LINE,
                max_headers=MAX_HEADERS,
            ) as session,
            session.get(
                f"https://mta-sts.{domain}{port}/.well-known/mta-sts.txt", allow_redirects=False
            ) as response,
        ):
            if response.status != 200:
                raise PolicyError(f"HTTP status {response.status} instead of 200")
            if response.content_type != "text/plain":
                raise PolicyError(
                    f"media type {printable(response.content_type, 60)} instead of text/plain"
                )
            encodings = response.headers.getall("Content-Encoding", ["identity"])
            if [encoding.lower() for encoding in encodings] != ["identity"]:
                raise PolicyError("the policy is compressed")
            chunked = _is_chunked(response)
            body, chunk_ended = await _read(response.content)
            if not (chunk_ended if chunked else _is_whole(response, body)):
                raise PolicyError("the policy may have been cut short")
            return body


async def _read(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    """Read a body; say too whether its end is that of a chunk.

    Raises:
        PolicyError: it is empty, or longer than MAX_POLICY.
    """
    if content.at_eof():  # One object stands for all empty bodies: its chunks never end.
        raise PolicyError("the policy is empty")
    body = bytearray()
    chunk_ended = False
    async for data, end_of_chunk in content.iter_chunks():
        body += data
        chunk_ended = end_of_chunk
        if len(body) > MAX_POLICY:
            raise PolicyError(f"the policy is longer than {MAX_POLICY} octets")
    return bytes(body), chunk_ended


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    """Say whether the body is sent in chunks, of which the last one tells its end.

    A body that is said to be chunked must end with the end of a chunk all the same: parsers
    differ in which blanks around the word they take.

    Raises:
        PolicyError: there is another coding, or a coding together with what forbids it: a
            length (RFC 9112 section 6.3) or HTTP/1.0 (section 6.1). A body in a coding that
            is not understood ends with the connection, which an attacker can end.
    """
    codings = response.headers.getall("Transfer-Encoding", ())
    if not codings:
        return False
    if [coding.lower() for coding in codings] != ["chunked"]:
        text = printable(", ".join(codings), 60)
        raise PolicyError(f"transfer coding {text!r} instead of chunked")
    if "Content-Length" in response.headers or response.version != aiohttp.HttpVersion11:
        raise PolicyError("a chunked reply with a length, or of another version than HTTP/1.1")
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


def _why(error: Exception) -> str:
    """Say what went wrong, without what aiohttp wraps around it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error_text(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return error_text(error.os_error)
    return error_text(error)


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
