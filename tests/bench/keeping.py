"""Keep many things of one kind, and tell how much memory they take; a process of row ``memory``.

    python -m tests.bench.keeping KIND NUMBER

Prints the octets by which the process has grown, and the octets of what is kept alone: each text
and each certificate once.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from requiretls_milter.clocks import SYSTEM_CLOCKS
from requiretls_milter.config import Config
from requiretls_milter.engine.answers import Answers
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.troubles import Troubles
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.ipc.kept import KeptForecasts
from requiretls_milter.ipc.wire import ForecastReply, decode_reply, encode
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Forecast,
    HopKind,
    HostEvidence,
    MtaStsEvidence,
    MxEvidence,
    MxRecord,
    NextHop,
    Outcome,
    ProbeEvidence,
    ProbeStage,
    Question,
    Reason,
    Requirement,
    ServerTarget,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters
from tests.support.memory import resident

LIFE = 3_600.0
"""Seconds that everything lives: nothing ends while it is measured."""

CONFIG = Config.model_validate({"limits": {"host_cache": 10_000_000, "domain_cache": 10_000_000}})

ISSUERS = 10
"""Authorities whose certificates follow the servers' own."""

LEAF, INTERMEDIATES = 1_250, (1_300, 1_400)
"""Octets of the certificates of a usual chain."""

PAIR = 2
"""MX hosts of a domain."""

_CHANCE = random.Random(1)  # noqa: S311 - the same each time
_ISSUED = [tuple(_CHANCE.randbytes(size) for size in INTERMEDIATES) for _ in range(ISSUERS)]


class _Network:
    """What the collector would find: each answer of new objects, as those read from a socket."""

    def __init__(self) -> None:
        self._now = time.time()
        self.octets = sum(len(one) for issued in _ISSUED for one in issued)

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        records = tuple(MxRecord(10 * n, f"mx{n}.{domain}") for n in range(PAIR))
        self.octets += len(domain) + sum(len(record.host) for record in records)
        return MxEvidence(
            *(DnsOutcome.FOUND, True, records),
            canonical=_new(domain),
            expires=self._now + LIFE,
            observed_at=self._now,
        )

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        raise NotImplementedError

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        return MtaStsEvidence(expires=self._now + LIFE, observed_at=self._now)

    async def mta_sts_record(self, domain: str) -> StsRecord:
        return StsRecord(expires=self._now + LIFE)

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        address = _address(host)
        self.octets += len(host) + len(address)
        return AddressLookup(
            *(DnsOutcome.FOUND, True, (address,)),
            canonical=_new(host),
            expires=self._now + LIFE,
            observed_at=self._now,
        )

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        record = TlsaRecord(3, 1, 1, _CHANCE.randbytes(32))
        self.octets += len(record.data)
        return TlsaEvidence(
            *(True, DnsOutcome.FOUND, True, _new(host), (record,)),
            expires=self._now + LIFE,
            observed_at=self._now,
        )

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        issued = _ISSUED[int(_digits(server.server_name)) % ISSUERS]
        dialogue = _dialogue(server.server_name)
        self.octets += LEAF + len(dialogue)
        return ProbeEvidence(
            _new(server.address),
            ProbeStage.DONE,
            starttls_offered=True,
            tls_version=_new("TLSv1.3"),
            chain=(_CHANCE.randbytes(LEAF), *(bytes(bytearray(one)) for one in issued)),
            requiretls=True,
            ehlo_name=_new(server.server_name),
            probed_at=self._now,
            expires=self._now + LIFE,
            cipher=_new("TLS_AES_256_GCM_SHA384"),
            smtputf8_in_clear=True,
            smtputf8=True,
            size_limit=52_428_800,
            group=_new("x25519"),
            dialogue=dialogue,
        )


def _new(text: str) -> str:
    """The same text in another object."""
    return text.encode().decode()


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _address(host: str) -> str:
    number = int(_digits(host))
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _dialogue(name: str) -> str:
    extensions = "PIPELINING|SIZE 52428800|ETRN|STARTTLS|ENHANCEDSTATUSCODES|8BITMIME|DSN|SMTPUTF8"
    offered = "".join(f"S: 250-{word}\n" for word in extensions.split("|"))
    return (
        f"S: 220 {name} ESMTP Postfix\nC: EHLO mta.example.net\nS: 250-{name}\n{offered}"
        f"C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\nC: EHLO mta.example.net\n"
        f"S: 250-{name}\n{offered}S: 250 REQUIRETLS\nC: QUIT\n"
    )


def _source(network: _Network) -> CachedSource:
    return CachedSource(network, MemoryStore(0), CONFIG, Counters(), authorities="")


async def hosts(number: int) -> tuple[Any, int]:
    """What the engine's cache keeps of so many MX hosts, each with one server."""
    network = _Network()
    source = _source(network)
    for host in (f"mx{n}.example.net" for n in range(number)):
        addresses = await source.addresses(host)
        await source.tlsa(host, 25, addresses)
        await source.probe(ServerTarget(addresses.addresses[0], 25, host))
    return source, network.octets


async def domains(number: int) -> tuple[Any, int]:
    """What it keeps of so many domains: MX records, and that there is no policy."""
    network = _Network()
    source = _source(network)
    for domain in (f"domain-{n}.example" for n in range(number)):
        await source.mx(domain)
        await source.mta_sts(domain)
    return source, network.octets


async def forecasts(number: int) -> tuple[Any, int]:
    """The forecasts that a worker keeps, as they come from the engine's socket."""
    kept = KeptForecasts(10 * number)
    octets = 0
    for question, forecast in _forecasts(number):
        reply = decode_reply(encode(ForecastReply(id=1, generation=1, forecast=forecast))[4:])
        assert isinstance(reply, ForecastReply)
        kept.keep(question, reply.forecast)
        octets += len(question.nexthop) + len(forecast.mx) + len(forecast.text)
    return kept, octets


async def answers(number: int) -> tuple[Any, int]:
    """The answers that the engine keeps beyond their life."""
    kept = Answers(86_400.0, 10 * number, Troubles(SYSTEM_CLOCKS))
    octets = 0
    for question, forecast in _forecasts(number):
        nexthop = NextHop(HopKind.MX, question.nexthop)
        addresses = AddressLookup(DnsOutcome.FOUND, True, (_address(question.nexthop),))
        host = HostEvidence(
            *(f"mx0.{question.nexthop}", 10, addresses, TlsaEvidence(True, DnsOutcome.FOUND, True)),
            probes=(ProbeEvidence(addresses.addresses[0], ProbeStage.DONE),),
        )
        evidence = DomainEvidence(nexthop, MxEvidence(DnsOutcome.FOUND), hosts=(host,))
        kept.note(question, forecast, evidence, SYSTEM_CLOCKS.monotonic())
        octets += len(question.nexthop) + len(forecast.mx) + len(forecast.text)
    return kept, octets


def _forecasts(number: int) -> Iterator[tuple[Question, Forecast]]:
    until = time.time() + LIFE
    for n in range(number):
        domain = f"domain-{n}.example"
        question = Question(domain, "smtp", Requirement.REQUIRETLS, Requirement.REQUIRETLS)
        mx = f"mx0.{domain}[{_address(domain)}]:25"
        text = f"{mx} offers REQUIRETLS, its certificate is verified by DANE"
        forecast = Forecast("2.0.0", Outcome.DELIVER, Reason.OK, text, True, mx, _new("dane"))
        object.__setattr__(forecast, "valid_until", until)
        yield question, forecast


KINDS: dict[str, Callable[[int], Any]] = {
    "hosts": hosts,
    "domains": domains,
    "forecasts": forecasts,
    "answers": answers,
}


def main() -> None:
    """Keep a few first, so that what is imported late and made once does not count."""
    kind, number = KINDS[sys.argv[1]], int(sys.argv[2])
    few = asyncio.run(kind(100))
    gc.collect()
    before = resident("self")
    kept, octets = asyncio.run(kind(number))
    gc.collect()
    print(resident("self") - before, octets)
    del few, kept


if __name__ == "__main__":
    main()
