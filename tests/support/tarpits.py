"""An internet on loopback of which a part is slow, and the engine's inside that looks at it.

Each name has a behaviour, and a number that makes it a new one:

- ``healthyN.test``: an MX host of its own with signed addresses, a TLSA record, REQUIRETLS;
- ``tarpitN.test``: 16 MX hosts, each in a network of its own, that take 14 s for each reply;
- ``silentN.test``: 16 MX hosts whose name servers do not answer;
- ``mtastsN.test``: healthy but for a policy host that accepts connections and says nothing;
- ``mixedN.test``: a healthy MX host, and 15 of the kind of ``tarpitN.test`` behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import serialization

from requiretls_milter.config import Config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.model import Forecast, Question, Requirement
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import Lane
from tests.support.authority import Authority
from tests.support.dnsserver import SILENT, DnsServer, Scripted, found, nodata
from tests.support.smtpserver import SmtpServer

HOSTS = 16
"""MX hosts of a slow domain: as many as the engine calls."""

STEP = 14.0
"""Seconds that a tarpit takes for each reply: a little less than probe.command_timeout."""

AGAIN = 1.0
"""Seconds from an answer about a slow domain to the next question about it."""

HEALTHY = "healthy"
TARPIT = "tarpit"
SILENT_DNS = "silent"
MTA_STS = "mtasts"
MIXED = "mixed"

_NAME = re.compile(
    r"(?:_[^.]+\.|mta-sts\.)*(?:m(?P<host>[0-9]+)\.)?(?P<kind>[a-z]+)(?P<number>[0-9]+)\.test"
)


class SlowInternet:
    """The servers; they run in the loop that enters it.

    Args:
        directory: for the certification authority.
        latency: seconds before each answer of what is healthy.
    """

    def __init__(self, directory: Path, latency: float = 0.0) -> None:
        authority = Authority(directory)
        issued = authority.issue("mx.test")
        public = issued.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._digest = hashlib.sha256(public).hexdigest()
        self._ca_file = authority.path
        self.healthy = SmtpServer(tls=issued.server_context(), pause=latency, piece_pause=latency)
        self.tarpit = SmtpServer(piece_pause=STEP, instead_of_tls=_read_on)
        self.dns = _Names(self, latency)
        self.held = 0
        """Connections to policy hosts that are held open."""
        self.port = 0
        self.policy_port = 0
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> SlowInternet:
        await self._stack.enter_async_context(self.dns)
        await self._stack.enter_async_context(self.healthy)
        await self._stack.enter_async_context(self.tarpit)
        mail = await asyncio.start_server(self._mail, "0.0.0.0", 0, backlog=4096)
        policies = await asyncio.start_server(self._hold, "0.0.0.0", 0, backlog=4096)
        for server in (mail, policies):
            self._stack.callback(server.close)
        self.port = mail.sockets[0].getsockname()[1]
        self.policy_port = policies.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = cast(tuple[str, int], writer.get_extra_info("sockname"))[0]
        server = self.healthy if address.startswith("127.20.") else self.tarpit
        await server.serve(reader, writer)

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held += 1
        try:
            await reader.read()
        finally:
            self.held -= 1
            writer.close()

    def answer(self, name: str, rdtype: str) -> Scripted:
        """What DNS says."""
        match = _NAME.fullmatch(name)
        if match is None:
            return nodata()
        kind, number = match["kind"], int(match["number"])
        host = None if match["host"] is None else int(match["host"])
        domain = f"{kind}{number}.test"
        many = kind in (TARPIT, SILENT_DNS, MIXED)
        if rdtype == "MX" and host is None:
            hosts = range(HOSTS if many else 1)
            # Of equal preference, so that an MTA may try any of them: all are called.
            best = 10 if kind == MIXED else 20
            return found(
                *(f"{domain}. 300 IN MX {20 if n else best} m{n}.{domain}." for n in hosts)
            )
        if rdtype == "TXT" and kind == MTA_STS:
            return found(f'{name}. 300 IN TXT "v=STSv1; id=1"')
        if rdtype == "A" and name.startswith("mta-sts."):
            return found(f"{name}. 300 IN A 127.{100 + number // 256}.{number % 256}.1")
        if host is None:
            return nodata()
        if kind == SILENT_DNS:
            return SILENT
        if rdtype == "A":
            slow = kind == TARPIT or (kind == MIXED and host)
            address = f"127.20.{number // 250}.{number % 250 + 1}"
            if slow:
                index = number * HOSTS + host
                address = f"127.{64 + index // 256}.{index % 256}.1"
            return found(f"{name}. 300 IN A {address}")
        if rdtype == "TLSA":
            return found(f"{name}. 300 IN TLSA 3 1 1 {self._digest}")
        return nodata()

    def config(self, limits: str = "") -> str:
        """A configuration for it."""
        return f"""
[mta]
tls_security_level = "dane"
[dns]
nameservers = ["{self.dns.address}"]
[probe]
port = {self.port}
ca_file = "{self._ca_file}"
allow_networks = ["127.0.0.0/8"]
[limits]
{limits}
"""


async def _read_on(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A handshake that never ends."""
    await reader.read()


class _Names(DnsServer):
    """A resolver that answers for as many names as are asked."""

    def __init__(self, internet: SlowInternet, latency: float) -> None:
        super().__init__(latency=latency)
        self._internet = internet

    def scripted(self, name: str, rdtype: str) -> Scripted:
        return self._internet.answer(name, rdtype)


class Engine:
    """The inside of an engine, without its process and its socket."""

    def __init__(self, config: Config, policy_port: int) -> None:
        self.counters = Counters()
        self.gauges = Gauges()
        self.shares = AllShares.of(config.limits, self.counters)
        trust = load_trust_store(config.probe.ca_file)
        self._live = Collector(
            config,
            trust,
            limiters=self.shares.limiters(),
            policy_port=policy_port,
            counters=self.counters,
        )
        self._source = CachedSource(
            self._live, MemoryStore(), config, self.counters, authorities=trust.digest
        )
        self.assessor = Assessor(config, self._source, trust, self.counters, self.gauges)

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.assessor.close()
        await self._source.close()
        await self._live.close()

    def waits_promptly(self) -> int:
        """How much waits for its turn that has not been slow."""
        several = (self.shares.probes, self.shares.lookups, self.shares.fetches)
        return sum(shares.waiting()[Lane.PROMPT] for shares in several)

    async def forecast(self, kind: str, number: int) -> Forecast:
        """Ask what becomes of REQUIRETLS mail to a domain."""
        required = Requirement.REQUIRETLS
        return await self.assessor.assess(
            Question(f"{kind}{number}.test", "smtp", required, required)
        )


@contextlib.asynccontextmanager
async def in_flight(engine: Engine, kinds: tuple[str, ...], count: int) -> AsyncIterator[None]:
    """While this lasts *count* slow domains are looked at, and questions about them wait."""

    async def ask(number: int) -> None:
        while True:
            await engine.forecast(kinds[number % len(kinds)], number)
            await asyncio.sleep(AGAIN)  # what failed is kept for a while, and told at once

    tasks = [asyncio.create_task(ask(number)) for number in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
