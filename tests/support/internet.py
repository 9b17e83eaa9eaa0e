"""A small internet on loopback: a resolver that says what the test wants, and a mail server."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.support.authority import Authority
from tests.support.dnsserver import DnsServer, found, nodata, show_validation
from tests.support.smtpserver import EHLO_TLS, SmtpServer
from tests.support.threaded import held_open

WITHOUT_REQUIRETLS = b"250-mx.example.net hello\r\n250 SIZE 1000\r\n"


@dataclass
class Internet:
    """``good.test`` keeps REQUIRETLS (DANE, offered), ``lacking.test`` does not offer it.

    ``renewing.test`` keeps it too, and what is known of it lives for a second.
    """

    dns: DnsServer
    good: SmtpServer
    lacking: SmtpServer
    renewing: SmtpServer
    authority: Authority

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that issued the servers' certificates."""
        return self.authority.path

    @property
    def config(self) -> str:
        return f"""
[mta]
tls_security_level = "dane"
[dns]
nameservers = ["{self.dns.address}"]
timeout = 2
[probe]
port = {self.good.port}
ca_file = "{self.ca_file}"
allow_networks = ["127.0.0.0/8"]
"""


@contextmanager
def loopback_internet(directory: Path) -> Iterator[Internet]:
    """The servers, in a thread of their own."""
    authority = Authority(directory)
    issued = authority.issue("mx.good.test", "mx.lacking.test")
    dns = DnsServer()
    good = SmtpServer(tls=issued.server_context(), host="127.0.0.2", ehlo_tls=EHLO_TLS)
    lacking = SmtpServer(tls=issued.server_context(), host="127.0.0.3", ehlo_tls=WITHOUT_REQUIRETLS)
    renewing = SmtpServer(tls=issued.server_context(), host="127.0.0.4", ehlo_tls=EHLO_TLS)
    spki = issued.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(spki).hexdigest()

    @asynccontextmanager
    async def servers() -> AsyncIterator[None]:
        async with dns, good:
            lacking.port = renewing.port = good.port
            async with lacking, renewing:
                for domain, ttl, server in (
                    ("good.test", 300, good),
                    ("lacking.test", 300, lacking),
                    ("renewing.test", 1, renewing),
                ):
                    host = f"mx.{domain}"
                    dns.set(domain, "MX", found(f"{domain}. {ttl} IN MX 10 {host}."))
                    dns.set(host, "A", found(f"{host}. {ttl} IN A {server.host}"))
                    dns.set(host, "AAAA", nodata())
                    name = f"_{good.port}._tcp.{host}"
                    dns.set(name, "TLSA", found(f"{name}. {ttl} IN TLSA 3 1 1 {digest}"))
                show_validation(dns)
                yield

    with held_open(servers()):
        yield Internet(dns, good, lacking, renewing, authority)
