"""Discovery and fetch against a real HTTPS server and a scripted resolver."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import dns.message
import dns.rrset
import pytest
import structlog
from aiohttp import web
from aiohttp.http_parser import HttpResponseParser, HttpResponseParserPy

from requiretls_milter.config import Limits
from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.mta_sts import FETCH_RETRY, MAX_NEGATIVE, MtaStsFetcher
from requiretls_milter.evidence.policyhost import MAX_POLICY
from requiretls_milter.model import MtaStsEvidence, MtaStsMode, MtaStsPolicy
from requiretls_milter.telemetry.counting import Counters
from tests.support.authority import DAY, Authority, Issued
from tests.support.dnsserver import DnsServer, Scripted, failure, found, nodata
from tests.support.limiters import limiters
from tests.support.stores import saturated

NOW = 1_000_000.0
DOMAIN = "example.test"
HOST = "mta-sts.example.test"
BODY = b"version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 86400\n"
LOOPBACK = AddressPolicy([ipaddress.ip_network("127.0.0.0/8")])

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class PolicyHost:
    """An HTTPS server; ``handler`` answers whatever is asked."""

    port: int = 0
    handler: Handler | None = None
    requests: list[web.BaseRequest] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.handler is not None:
            return await self.handler(request)
        return web.Response(body=BODY, content_type="text/plain")


@contextlib.asynccontextmanager
async def serving(
    certificate: Issued, handler: Handler | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[PolicyHost]:
    host = PolicyHost(handler=handler)
    context = context or certificate.server_context()
    context.sni_callback = lambda _, name, __: host.server_names.append(name)
    runner = web.ServerRunner(web.Server(host.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Issued:
    return authority.issue(HOST)


@pytest.fixture(autouse=True)
def published(server: DnsServer) -> None:
    server.set(
        "_mta-sts.example.test", "TXT", found('_mta-sts.example.test 60 IN TXT "v=STSv1; id=7"')
    )
    server.set(HOST, "A", found(f"{HOST} 300 IN A 127.0.0.1"))
    server.set(HOST, "AAAA", nodata())


def finder(
    server: DnsServer,
    host: PolicyHost | None,
    authority: Authority,
    *,
    policy: AddressPolicy = LOOPBACK,
    timeout: float = 5.0,
    **options: Any,
) -> MtaStsFetcher:
    return MtaStsFetcher(
        Resolver([server.nameserver], 1.0),
        policy,
        load_trust_store(str(authority.path)).authorities,
        port=host.port if host else 443,
        timeout=timeout,
        clock=lambda: NOW,
        **options,
    )


async def ask(
    server: DnsServer,
    authority: Authority,
    certificate: Issued,
    handler: Handler | None = None,
) -> MtaStsEvidence:
    async with serving(certificate, handler) as host:
        return await finder(server, host, authority).policy(DOMAIN)


def assert_failed(evidence: MtaStsEvidence, why: str) -> None:
    assert evidence.policy is None
    assert why in evidence.error
    assert evidence.error.isascii()
    assert evidence.expires == NOW + FETCH_RETRY


# ---------------------------------------------------------------- discovery


async def test_r50_a_policy_is_found_at_the_well_known_place(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    async with serving(certificate) as host:
        evidence = await finder(server, host, authority).policy(DOMAIN)
    assert evidence.policy == MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example.test",), 86400, "7")
    assert evidence.error == ""
    assert evidence.fetched_at == NOW
    assert evidence.expires == NOW + 60, "then the record is asked for its id"
    (request,) = host.requests
    assert request.path == "/.well-known/mta-sts.txt"
    assert request.method == "GET"
    assert request.headers["Host"].startswith(HOST)
    assert "Cookie" not in request.headers


@pytest.mark.parametrize("record", [nodata(), found('_mta-sts.example.test 60 IN TXT "v=spf1"')])
async def test_r46_without_a_record_nothing_is_fetched(
    server: DnsServer, authority: Authority, record: Scripted
) -> None:
    server.set("_mta-sts.example.test", "TXT", record)
    evidence = await finder(server, None, authority).policy(DOMAIN)
    assert evidence.policy is None
    assert evidence.error == ""
    assert evidence.expires > NOW
    assert server.types_asked(HOST) == []


@pytest.mark.parametrize(("minimum", "life"), [(900, 900), (86_400, MAX_NEGATIVE)])
async def test_r44_that_there_is_no_policy_holds_as_long_as_dns_says(
    server: DnsServer, authority: Authority, minimum: int, life: float
) -> None:
    soa = f"test. {minimum} IN SOA ns.test. root.test. 1 7200 3600 604800 {minimum}"
    server.set("_mta-sts.example.test", "TXT", Scripted(authority=[soa], ad=True))
    evidence = await finder(server, None, authority).policy(DOMAIN)
    assert (evidence.policy, evidence.error) == (None, "")
    assert evidence.expires == NOW + life


async def test_r46_strings_are_joined_without_spaces_and_aliases_followed(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    server.set(
        "_mta-sts.example.test",
        "TXT",
        found(
            "_mta-sts.example.test 60 IN CNAME _mta-sts.provider.test.",
            '_mta-sts.provider.test 60 IN TXT "v=STS" "v1; id=2016" "0831"',
        ),
    )
    evidence = await ask(server, authority, certificate)
    assert evidence.policy is not None
    assert evidence.policy.id == "20160831"


async def test_r46_two_records_are_none_and_it_is_said(
    server: DnsServer, authority: Authority
) -> None:
    server.set(
        "_mta-sts.example.test",
        "TXT",
        found(
            '_mta-sts.example.test 60 IN TXT "v=STSv1; id=1"',
            '_mta-sts.example.test 60 IN TXT "v=STSv1; id=2"',
        ),
    )
    with structlog.testing.capture_logs() as told:
        evidence = await finder(server, None, authority).policy(DOMAIN)
    assert evidence.policy is None
    assert evidence.error == "", "no failure that another attempt would mend"
    assert [line["error"] for line in told] == ["2 MTA-STS records instead of one"]


async def test_r46_other_texts_do_not_matter_however_many_there_are(
    server: DnsServer, authority: Authority
) -> None:
    others = [f'_mta-sts.example.test 60 IN TXT "{number}"' for number in range(300)]
    record = '_mta-sts.example.test 60 IN TXT "v=STSv1; id=1"'
    server.set("_mta-sts.example.test", "TXT", found(*others, record))
    assert (await finder(server, None, authority).record(DOMAIN)).id == "1"
    server.set(
        "_mta-sts.example.test", "TXT", found(record, *others, record.replace("id=1", "id=2"))
    )
    assert not (await finder(server, None, authority).record(DOMAIN)).id


async def test_a_failed_lookup_of_the_record_is_an_error(
    server: DnsServer, authority: Authority
) -> None:
    server.set("_mta-sts.example.test", "TXT", failure())
    evidence = await finder(server, None, authority).policy(DOMAIN)
    assert evidence.policy is None
    assert "TXT _mta-sts.example.test" in evidence.error
    assert evidence.expires == NOW


async def test_r53_the_id_can_be_looked_up_without_a_fetch(
    server: DnsServer, authority: Authority
) -> None:
    record = await finder(server, None, authority).record(DOMAIN)
    assert record.id == "7"
    assert record.expires == NOW + 60


async def test_r54_the_parent_domain_is_never_asked(
    server: DnsServer, authority: Authority
) -> None:
    await finder(server, None, authority).policy("mail.example.test")
    assert server.asked == [("_mta-sts.mail.example.test", "TXT", False)]


# ---------------------------------------------------------------- the reply


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 403, 404, 500, 503])
async def test_r50_no_status_but_200_is_good(
    server: DnsServer, authority: Authority, certificate: Issued, status: int
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=BODY, content_type="text/plain")

    assert_failed(await ask(server, authority, certificate, handler), f"status {status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_r50_a_redirect_is_never_followed(
    server: DnsServer, authority: Authority, certificate: Issued, status: int
) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        if request.path == "/moved":
            return web.Response(body=BODY, content_type="text/plain")
        return web.Response(status=status, headers={"Location": "/moved"})

    async with serving(certificate, handler) as host:
        evidence = await finder(server, host, authority).policy(DOMAIN)
    assert_failed(evidence, f"status {status}")
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "TEXT/Plain",
        "text/plain; charset=utf-8",
        "text/plain; foo=bar; charset=latin1",
    ],
)
async def test_r50_parameters_of_text_plain_are_ignored(
    server: DnsServer, authority: Authority, certificate: Issued, content_type: str
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY, headers={"Content-Type": content_type})

    assert (await ask(server, authority, certificate, handler)).policy is not None


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", "text", ""])
async def test_r50_another_media_type_is_refused(
    server: DnsServer, authority: Authority, certificate: Issued, content_type: str
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY, headers={"Content-Type": content_type})

    assert_failed(await ask(server, authority, certificate, handler), "media type")


def _padded(length: int) -> bytes:
    return BODY + b"x: " + b"y" * (length - len(BODY) - 4) + b"\n"


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(
    ("length", "good"), [(MAX_POLICY - 1, True), (MAX_POLICY, True), (MAX_POLICY + 1, False)]
)
async def test_r50_a_policy_has_at_most_64_kibibytes(
    server: DnsServer,
    authority: Authority,
    certificate: Issued,
    chunked: bool,
    length: int,
    good: bool,
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        response = web.Response(body=_padded(length), content_type="text/plain")
        if chunked:
            response.enable_chunked_encoding()
        return response

    evidence = await ask(server, authority, certificate, handler)
    assert (evidence.policy is not None) is good
    if not good:
        assert_failed(evidence, "longer than 65536 octets")


async def test_r50_a_body_without_end_is_cut_off(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    sent = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 100_000_000:
                await response.write(b"x" * 65_536)
                sent += 65_536
        return response

    assert_failed(await ask(server, authority, certificate, handler), "longer than")
    assert sent < 10_000_000


@contextlib.asynccontextmanager
async def saying(
    certificate: Issued, answer: bytes, version: str = "1.1"
) -> AsyncIterator[PolicyHost]:
    """An HTTPS server whose every connection ends, without TLS's own end, after *answer*."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()
        writer.transport.abort()

    context = certificate.server_context()
    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as tcp:
        yield PolicyHost(port=tcp.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (b"Content-Length: 64\r\n\r\n" + BODY, True),
        (b"Content-Length: 64\r\n\r\n" + BODY[:-4], False),
        (b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + BODY + b"\r\n0\r\n\r\n", True),
        (b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + BODY + b"\r\n", False),
        (b"Connection: close\r\n\r\n" + BODY, True),
        (b"Connection: close\r\n\r\n" + BODY[:-1], False),
        (b"Connection: close\r\n\r\n" + BODY[:-4], False),
    ],
)
async def test_r50_a_policy_cut_short_on_the_way_is_refused(
    server: DnsServer, authority: Authority, certificate: Issued, answer: bytes, good: bool
) -> None:
    """Whoever ends a connection must not make ``max_age: 86400`` a matter of 86 seconds."""
    assert len(BODY) == 64
    async with saying(certificate, answer) as host:
        found = await finder(server, host, authority).policy(DOMAIN)
    assert (found.policy is not None) is good
    if not good:
        assert found.expires == NOW + FETCH_RETRY


WHOLE = b"version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mail.example.com\n"
CUT = WHOLE[: -len("m\n")]


def _chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


CODINGS = [
    "",
    "gzip",
    "GZIP",
    "deflate",
    "compress",
    "identity",
    "\tidentity",
    "trailers",
    "x-foo",
    "xchunked",
    "chunkedx",
    '"chunked"',
    "chunked",
    "CHUNKED",
    "chunked ",
    "chunked\t",
    "\tchunked",
    "chunked\x0b",
    "chunked,",
    ", chunked",
    "chunked;q=1",
    "chunked, identity",
    "chunked, gzip",
    "chunked, x-foo",
    "chunked, chunked",
    "identity, chunked",
    "gzip, chunked",
]

FRAMINGS = {
    **{f"coding {coding!r}": f"Transfer-Encoding: {coding}\r\n" for coding in CODINGS},
    "no framing": "",
    "mixed case": "tRANSFER-eNCODING: iDentity\r\n",
    "folded": "Transfer-Encoding: chunked,\r\n gzip\r\n",
    "folded chunked": "Transfer-Encoding:\r\n chunked\r\n",
    "blank before the colon": "Transfer-Encoding : chunked\r\n",
    "bare line feed": "Transfer-Encoding: gzip\n",
    "gzip, then chunked": "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "chunked, then gzip": "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    "chunked, then identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "chunked twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "upgrade": "Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: gzip\r\n",
    "length": f"Content-Length: {len(WHOLE)}\r\n",
    "length with a sign": f"Content-Length: +{len(CUT)}\r\n",
    "length in hexadecimal": f"Content-Length: {len(CUT):#x}\r\n",
    "no number as length": "Content-Length:\r\n",
    "no length": "Content-Length: 0\r\n",
    "largest length": "Content-Length: 18446744073709551615\r\n",
    "too large a length": "Content-Length: 99999999999999999999999\r\n",
    "a list of lengths": f"Content-Length: {len(CUT)}, {len(CUT)}\r\n",
    "two lengths": f"Content-Length: {len(CUT)}\r\nContent-Length: {len(WHOLE)}\r\n",
    "two lengths, the smaller last": (
        f"Content-Length: {len(WHOLE)}\r\nContent-Length: {len(CUT)}\r\n"
    ),
    "the same length twice": f"Content-Length: {len(CUT)}\r\n" * 2,
    "length, then coding": f"Content-Length: {len(CUT)}\r\nTransfer-Encoding: identity\r\n",
    "coding, then length": f"Transfer-Encoding: identity\r\nContent-Length: {len(CUT)}\r\n",
    "length, then chunked": f"Content-Length: {len(CUT)}\r\nTransfer-Encoding: chunked\r\n",
    "content coding": "Content-Encoding: gzip\r\n",
    "two content codings": "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
    "no content coding": "Content-Encoding: identity\r\n",
}


@pytest.mark.parametrize("parser", [HttpResponseParser, HttpResponseParserPy])
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
async def test_r50_no_framing_hides_that_a_policy_was_cut_short(
    server: DnsServer,
    authority: Authority,
    certificate: Issued,
    monkeypatch: pytest.MonkeyPatch,
    framing: str,
    parser: type,
) -> None:
    """``mail.example.com`` cut in its middle is not ``mail.example.co`` (RFC 9112 section 6.3)."""
    monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", parser)
    bodies = [b"", CUT, _chunks(CUT), b"%x\r\n%b" % (len(WHOLE), CUT)]
    for version, body in itertools.product(("1.1", "1.0"), bodies):
        async with saying(certificate, f"{framing}\r\n".encode() + body, version) as host:
            found = await finder(server, host, authority).policy(DOMAIN)
        assert_failed(found, "")


@pytest.mark.parametrize("parser", [HttpResponseParser, HttpResponseParserPy])
@pytest.mark.parametrize(
    ("coding", "good"),
    [
        ("chunked", True),
        ("Chunked", True),
        ("gzip, chunked", False),
        ("identity, chunked", False),
        ("chunked, chunked", False),
    ],
)
async def test_r50_a_whole_policy_in_another_coding_than_chunked_is_refused(
    server: DnsServer,
    authority: Authority,
    certificate: Issued,
    monkeypatch: pytest.MonkeyPatch,
    coding: str,
    good: bool,
    parser: type,
) -> None:
    monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", parser)
    answer = f"Transfer-Encoding: {coding}\r\n\r\n".encode()
    answer += _chunks(WHOLE[:30]) + _chunks(WHOLE[30:]) + b"0\r\n\r\n"
    async with saying(certificate, answer) as host:
        found = await finder(server, host, authority).policy(DOMAIN)
    assert (found.policy is not None) is good
    if not good:
        assert_failed(found, f"transfer coding '{coding}' instead of chunked")


async def test_r50_a_chunked_policy_of_http_1_0_is_refused(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    """HTTP/1.0 has no transfer codings: the framing is faulty (RFC 9112 section 6.1)."""
    answer = b"Transfer-Encoding: chunked\r\n\r\n" + _chunks(WHOLE) + b"0\r\n\r\n"
    async with saying(certificate, answer, "1.0") as host:
        assert_failed(await finder(server, host, authority).policy(DOMAIN), "HTTP/1.1")


async def test_r50_a_compressed_policy_is_refused_unopened(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    bomb = gzip.compress(b"x" * 10_000_000)

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(
            body=bomb, content_type="text/plain", headers={"Content-Encoding": "gzip"}
        )

    assert_failed(await ask(server, authority, certificate, handler), "compressed")


@pytest.mark.parametrize(
    "headers",
    [{"X": "y" * 10_000}, {"X" * 10_000: "y"}, {f"X-{n}": "y" for n in range(200)}],
)
async def test_r50_a_header_without_bounds_is_refused(
    server: DnsServer, authority: Authority, certificate: Issued, headers: dict[str, str]
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain", headers=headers)

    assert (await ask(server, authority, certificate, handler)).policy is None


@pytest.mark.parametrize("where", ["header", "body"])
async def test_r50_the_whole_fetch_has_a_deadline(
    server: DnsServer, authority: Authority, certificate: Issued, where: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        if where == "body":
            await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                if where == "body":
                    await response.write(b"x")
                await asyncio.sleep(0.1)
        return response

    async with serving(certificate, handler) as host:
        started = time.monotonic()
        counters = Counters()
        found = finder(server, host, authority, timeout=0.5, counters=counters)
        evidence = await found.policy(DOMAIN)
        assert time.monotonic() - started < 2
    assert saturated(counters) == {"fetch_timeout": 1}
    assert_failed(evidence, "timed out")


async def test_a_policy_that_cannot_be_read_says_which_line(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY + b"mx: *\n", content_type="text/plain")

    assert_failed(await ask(server, authority, certificate, handler), "line 5: mx")


async def test_r49_a_policy_of_no_age_is_good_for_this_attempt_only(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY.replace(b"86400", b"0"), content_type="text/plain")

    evidence = await ask(server, authority, certificate, handler)
    assert evidence.policy is not None
    assert evidence.expires == NOW


# ---------------------------------------------------------------- the certificate


@pytest.mark.parametrize("name", [HOST, "*.example.test"])
async def test_r51_the_certificate_names_the_policy_host_or_a_wildcard_for_its_label(
    server: DnsServer, authority: Authority, name: str
) -> None:
    assert (await ask(server, authority, authority.issue("other.test", name))).policy is not None


@pytest.mark.parametrize(
    "names",
    [(DOMAIN,), ("mta-sts.other.test",), ("*.test",), ("mta-*.example.test",), ("*.*.test",), ()],
)
async def test_r51_no_other_dns_name_will_do(
    server: DnsServer, authority: Authority, names: tuple[str, ...]
) -> None:
    certificate = authority.issue(*names, common_name=HOST)
    assert_failed(await ask(server, authority, certificate), "certificate")


@pytest.mark.parametrize(
    ("start", "end"), [(-2 * DAY, -DAY), (DAY, 2 * DAY)], ids=["expired", "not yet valid"]
)
async def test_r51_the_certificate_is_valid_now(
    server: DnsServer, authority: Authority, start: datetime.timedelta, end: datetime.timedelta
) -> None:
    certificate = authority.issue(HOST, start=start, end=end)
    assert_failed(await ask(server, authority, certificate), "certificate")


async def test_r51_the_chain_ends_at_a_trusted_authority(
    server: DnsServer, authority: Authority, stranger: Authority
) -> None:
    assert_failed(await ask(server, authority, stranger.issue(HOST)), "certificate")


async def test_r51_the_name_is_sent_in_the_handshake(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    async with serving(certificate) as host:
        await finder(server, host, authority).policy(DOMAIN)
    assert host.server_names == [HOST]


async def test_r51_no_tls_older_than_1_2_will_do(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    context = certificate.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.deprecated_call():
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(certificate, context=context) as host:
        assert_failed(await finder(server, host, authority).policy(DOMAIN), "")
    assert host.requests == []


# ---------------------------------------------------------------- where we go


async def test_an_address_that_may_not_be_contacted_is_not(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    async with serving(certificate) as host:
        found_ = await finder(server, host, authority, policy=AddressPolicy([])).policy(DOMAIN)
    assert_failed(found_, "may be contacted: 127.0.0.1")
    assert host.server_names == []


ALLOWED, PRIVATE = "127.0.0.1", "127.0.0.2"
ONLY_ALLOWED = AddressPolicy([ipaddress.ip_network(f"{ALLOWED}/32")])


@contextlib.asynccontextmanager
async def private(port: int) -> AsyncIterator[list[str]]:
    """Listens where nobody may go, at the policy host's port, and tells who came."""
    came: list[str] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername")[0])
        writer.close()

    async with await asyncio.start_server(note, PRIVATE, port):
        yield came


@pytest.mark.parametrize("addresses", [(PRIVATE, ALLOWED), (ALLOWED, PRIVATE)])
async def test_of_several_addresses_only_those_that_may_be_contacted_are_tried(
    server: DnsServer, authority: Authority, certificate: Issued, addresses: tuple[str, str]
) -> None:
    server.set(HOST, "A", found(*(f"{HOST} 300 IN A {address}" for address in addresses)))
    async with serving(certificate) as host, private(host.port) as came:
        evidence = await finder(server, host, authority, policy=ONLY_ALLOWED).policy(DOMAIN)
    assert evidence.policy is not None
    assert came == []
    # Nor where it is the only one at which somebody listens.
    async with private(host.port) as came:
        assert_failed(
            await finder(server, host, authority, policy=ONLY_ALLOWED).policy(DOMAIN), "refused"
        )
    assert came == []


async def test_what_dns_says_when_we_connect_is_what_was_judged(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    """DNS rebinding: an address that we may contact for who judges, ours for who connects."""
    said: list[str] = []

    def rebinding(query: dns.message.Message) -> bytes:
        said.append(PRIVATE if said else ALLOWED)
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, 0, "IN", "A", said[-1]))
        return response.to_wire()

    server.set(HOST, "A", Scripted(raw=rebinding))
    async with serving(certificate) as host, private(host.port) as came:
        one = finder(server, host, authority, policy=ONLY_ALLOWED)
        assert (await one.policy(DOMAIN)).policy is not None
        assert_failed(await one.policy(DOMAIN), f"may be contacted: {PRIVATE}")
    assert said == [ALLOWED, PRIVATE]
    assert len(host.requests) == 1
    assert came == []


@pytest.mark.parametrize("answer", [nodata(), failure()])
async def test_a_policy_host_without_an_address_is_a_failed_fetch(
    server: DnsServer, authority: Authority, answer: Scripted
) -> None:
    server.set(HOST, "A", answer)
    assert_failed(await finder(server, None, authority).policy(DOMAIN), "has no address")


async def test_a_policy_host_that_is_not_there_is_a_failed_fetch(
    server: DnsServer, authority: Authority
) -> None:
    host = PolicyHost(port=1)
    assert_failed(await finder(server, host, authority).policy(DOMAIN), "refused")


async def test_a_proxy_of_the_environment_is_not_used(
    server: DnsServer, authority: Authority, certificate: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await ask(server, authority, certificate)).policy is not None


async def test_a_host_that_speaks_no_tls_is_a_failed_fetch(
    server: DnsServer, authority: Authority
) -> None:
    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + BODY)
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1", 0) as plain:
        host = PolicyHost(port=plain.sockets[0].getsockname()[1])
        assert_failed(await finder(server, host, authority).policy(DOMAIN), "wrong version")


async def test_fetches_at_once_are_bounded(
    server: DnsServer,
    authority: Authority,
    certificate: Issued,
) -> None:
    counters = Counters()
    at_once = most = 0

    async def handler(_: web.BaseRequest) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1
        return web.Response(body=BODY, content_type="text/plain")

    async with serving(certificate, handler) as host:
        finder_ = finder(server, host, authority, limiter=limiters(counters, fetches=2).fetches)
        results = await asyncio.gather(*(finder_.policy(DOMAIN) for _ in range(6)))
    assert all(result.policy is not None for result in results)
    assert most == 2
    assert saturated(counters) == {"fetches": 4}


async def test_r51_without_any_authority_no_policy_is_believed(
    server: DnsServer, certificate: Issued
) -> None:
    """Whatever the system's store has."""
    async with serving(certificate) as host:
        fetcher = MtaStsFetcher(
            Resolver([server.nameserver], 1.0), LOOPBACK, (), port=host.port, clock=lambda: NOW
        )
        assert_failed(await fetcher.policy(DOMAIN), "unable to get local issuer certificate")


# ---------------------------------------------------------------- budgets


async def test_beyond_its_budget_a_policy_host_is_not_called(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    counters = Counters()
    budgets = Budgets(Limits(address_per_minute=4), counters)
    async with serving(certificate) as host:
        fetcher = finder(server, host, authority, budgets=budgets)
        first = await fetcher.policy(DOMAIN)
        second = await fetcher.policy(DOMAIN)
    assert first.policy is not None
    assert (second.policy, second.unasked, second.expires) == (None, True, NOW)
    assert second.error.startswith("over budget: limits.address_per_minute")
    assert len(host.requests) == 1
    assert saturated(counters) == {"address_per_minute": 1}


async def test_each_address_of_a_policy_host_that_is_tried_is_counted(
    server: DnsServer, authority: Authority, certificate: Issued
) -> None:
    addresses = [f"127.0.0.{n}" for n in range(2, 8)]  # nothing listens there
    server.set(HOST, "A", found(*(f"{HOST} 300 IN A {address}" for address in addresses)))
    budgets = Budgets(Limits(network_per_minute=12), Counters())
    async with serving(certificate) as host:
        found_policy = await finder(server, host, authority, budgets=budgets).policy(DOMAIN)
    assert (found_policy.policy, found_policy.unasked) == (None, False)
    assert budgets.connection("127.0.0.2", DOMAIN)


async def test_a_record_that_was_not_looked_up_is_not_missing(
    server: DnsServer, authority: Authority
) -> None:
    budgets = Budgets(Limits(zone_lookups_per_minute=2), Counters())
    budgets.lookup(DOMAIN)
    resolver = Resolver([server.nameserver], 1.0, budgets=budgets)
    trusted = load_trust_store(str(authority.path)).authorities
    fetcher = MtaStsFetcher(resolver, LOOPBACK, trusted, clock=lambda: NOW)
    record = await fetcher.record(DOMAIN)
    assert (record.id, record.unasked) == ("", True)
    evidence = await fetcher.policy(DOMAIN)
    assert (evidence.policy, evidence.unasked) == (None, True)
    assert not server.asked
