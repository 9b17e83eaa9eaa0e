"""Certificates and handshakes that nobody sends by mistake; what a policy host may send instead."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from OpenSSL import SSL

from requiretls_milter.model import ProbeFailure, ProbeStage, ServerTarget
from tests.support.authority import RSA_16384, Authority, Issued, with_a_mebibyte
from tests.support.dnsserver import DnsServer, found, nodata
from tests.support.paths import REPOSITORY
from tests.support.smtpserver import EHLO_TLS, SmtpServer
from tests.unit.evidence.test_mta_sts import BODY, HOST, ask
from tests.unit.evidence.test_probe import NAME, assert_ended, prober, seen

PATIENCE = 10.0
"""Seconds for one signature with such a key, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Issued:
    return authority.issue(NAME)


def context(path: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path)
    return made


async def stalls(until: asyncio.Event) -> float:
    """The longest time for which the loop did not turn."""
    longest = 0.0
    while not until.is_set():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest


# ---------------------------------------------------------------- certificates


async def test_a_certificate_of_a_mebibyte_is_no_handshake(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "big.pem"
    path.write_bytes(with_a_mebibyte(authority.issue(NAME).path.read_bytes(), authority.key))
    evidence = await seen(SmtpServer(tls=context(path)))
    assert_ended(evidence, ProbeStage.HANDSHAKE, ProbeFailure.PROTOCOL)
    assert evidence.chain == ()


SERVING = """
import asyncio, ssl, sys
from tests.support.smtpserver import SmtpServer

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    async with SmtpServer(tls=context) as server:
        print(server.port, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
"""In a process of its own: how long the server takes to sign must not be measured."""


async def test_a_key_of_16384_bits_does_not_stop_the_loop() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVING, RSA_16384, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )
    over = asyncio.Event()
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        watching = asyncio.create_task(stalls(over))
        evidence = await prober(timeout=PATIENCE).probe(ServerTarget("127.0.0.1", port, NAME))
        over.set()
        assert await watching < 1.0
    finally:
        server.kill()
        await server.wait()
    assert evidence.stage is ProbeStage.DONE
    assert evidence.requiretls is True
    assert len(evidence.chain) == 1


# ---------------------------------------------------------------- renegotiation


async def test_a_server_that_wants_to_renegotiate_is_not_followed(certificate: Issued) -> None:
    refused = []

    async def renegotiating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = SSL.Context(SSL.TLS_SERVER_METHOD)
        tls.set_max_proto_version(SSL.TLS1_2_VERSION)
        tls.use_certificate_file(str(certificate.path))
        tls.use_privatekey_file(str(certificate.path))
        connection = SSL.Connection(tls, None)
        connection.set_accept_state()

        async def pump(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except SSL.WantReadError:
                    await flush()
                    data = await reader.read(16_384)
                    if not data:
                        raise ConnectionAbortedError from None
                    connection.bio_write(data)

        async def flush() -> None:
            with contextlib.suppress(SSL.WantReadError):
                writer.write(connection.bio_read(65_536))
            await writer.drain()

        await pump(connection.do_handshake)
        await flush()
        assert await pump(lambda: connection.recv(1_000)) == b"EHLO client.example.org\r\n"
        connection.renegotiate()
        connection.send(EHLO_TLS)
        try:
            await pump(connection.do_handshake)
            await pump(lambda: connection.recv(1_000))
        except (SSL.Error, ConnectionError) as error:
            refused.append(error)

    evidence = await seen(SmtpServer(instead_of_tls=renegotiating))
    assert evidence.tls_version == "TLSv1.2"
    assert refused, "it was followed"
    assert evidence.stage in (ProbeStage.DONE, ProbeStage.EHLO_TLS)


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize("body", [b"", b"\0" * 1_000, bytes(range(256)), b"\xff\xfe" + BODY])
async def test_a_policy_that_is_empty_or_binary_is_none(
    server: DnsServer, authority: Authority, body: bytes
) -> None:
    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body, content_type="text/plain")

    server.set(
        "_mta-sts.example.test", "TXT", found('_mta-sts.example.test 60 IN TXT "v=STSv1; id=7"')
    )
    server.set(HOST, "A", found(f"{HOST} 300 IN A 127.0.0.1"))
    server.set(HOST, "AAAA", nodata())
    evidence = await ask(server, authority, authority.issue(HOST), handler)
    assert evidence.policy is None
    assert evidence.error
