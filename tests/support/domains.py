"""Domains below ``test`` for ``check``: a scripted resolver, SMTP servers, a configuration."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.authority import Authority, Issued
from tests.support.dnsserver import DnsServer, found, nodata, show_validation
from tests.support.smtpserver import SmtpServer

CARRIES = 'mta.carries = "requiretls"'


class Domains:
    """Domains below ``test``, each with a host or more; see :meth:`domain`."""

    def __init__(self, directory: Path, dns: DnsServer, authority: Authority) -> None:
        self.directory = directory
        self.dns = dns
        self.authority = authority
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Domains:
        show_validation(self.dns)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def server(self, name: str, *, host: str = "127.0.0.1", **replies: Any) -> SmtpServer:
        """A server with a certificate for *name*, signed addresses and a matching TLSA record."""
        issued = self.authority.issue(name)
        server = SmtpServer(tls=issued.server_context(), host=host, **replies)
        await self._stack.enter_async_context(server)
        self.address(name, host)
        self.tlsa(name, server.port, issued)
        return server

    def down(self, name: str, port: int, host: str = "127.0.0.1") -> None:
        """A host with a TLSA record on which no server listens."""
        self.address(name, host)
        self.tlsa(name, port, self.authority.issue(name))

    def address(self, name: str, address: str) -> None:
        self.dns.set(name, "A", found(f"{name}. 300 IN A {address}"))
        self.dns.set(name, "AAAA", nodata())

    def tlsa(self, name: str, port: int, issued: Issued) -> None:
        key = issued.certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashlib.sha256(key).hexdigest()
        owner = f"_{port}._tcp.{name}"
        self.dns.set(owner, "TLSA", found(f"{owner}. 300 IN TLSA 3 1 1 {digest}"))

    def mx(self, domain: str, *hosts: str) -> None:
        lines = [f"{domain}. 300 IN MX {10 * (i + 1)} {host}." for i, host in enumerate(hosts)]
        self.dns.set(domain, "MX", found(*lines))
        self.dns.set(f"_mta-sts.{domain}", "TXT", nodata())

    def config(
        self, *more: str, name: str = "config.toml", timeout: float = 3, lookup: float = 2
    ) -> str:
        """Write a configuration and return its path.

        Args:
            more: Further lines.
            name: Of the file.
            timeout: Seconds for a command of SMTP.
            lookup: Seconds for a lookup in DNS.
        """
        path = self.directory / name
        # Otherwise a Postfix of the machine on which the test runs would say it.
        carries = () if any("mta.carries" in line for line in more) else (CARRIES,)
        path.write_text(
            "\n".join(
                (
                    f'engine.socket = "{self.directory}/engine.sock"',
                    f'dns.nameservers = ["{self.dns.address}"]',
                    f"dns.timeout = {lookup}",
                    'mta.tls_security_level = "dane"',
                    f'probe.ca_file = "{self.authority.path}"',
                    'probe.allow_networks = ["127.0.0.0/8"]',
                    f"probe.command_timeout = {timeout}",
                    *carries,
                    *more,
                )
            )
        )
        return str(path)
