"""Strangers' domains that all lead to a host of somebody else: real sockets count what it gets.

``ATTACK_DOMAINS`` is the number of domains: 20 here, 200 in ``make test-long``. Without budgets
the host would get a session for each of their 16 MX hosts, or two if its handshake fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import serialization

from requiretls_milter import config
from requiretls_milter.engine.assessor import Assessor
from requiretls_milter.engine.cache.source import CachedSource
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.model import Forecast, Outcome, Question, Requirement
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.syntax import nexthop as nexthops
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.authority import Authority, Issued
from tests.support.dnsserver import DnsServer, found, nodata
from tests.support.smtpserver import EHLO_TLS, SmtpServer
from tests.support.stores import saturated

DOMAINS = int(os.environ.get("ATTACK_DOMAINS", "20"))

HOSTS = 16
"""MX hosts of each domain: as many sessions as are held for one next hop."""

SHARE_AT_ONCE, SHARE_PER_MINUTE = 30, 60
"""Of limits.address_per_minute: half of it for one zone, and half of that at once."""

pytestmark = pytest.mark.timeout(600)

AS_LONG_AS_IT_TAKES = {"evidence_wait": 150, "assessment_timeout": 300}
"""Longer than any MTA waits: thousands of lookups take time, and the budgets are to decide."""

Zone = Callable[[int], str]
Lead = Callable[[int, int], str]


def one_zone(number: int) -> str:
    return f"d{number}.attacker.test"


def to_the_victim(_domain: int, _host: int) -> str:
    return "127.0.0.1"


@dataclass
class Attack:
    dns: DnsServer
    victim: SmtpServer
    assessor: Assessor
    counters: Counters
    domains: list[str]

    async def run(self) -> tuple[list[Forecast], float]:
        """Mail to all domains at once; the forecasts, and the seconds that all took."""
        started = time.monotonic()
        forecasts = await asyncio.gather(*map(self.ask, self.domains))
        await self.assessor.finish(300)
        return list(forecasts), time.monotonic() - started

    async def ask(self, domain: str) -> Forecast:
        question = Question(domain, "smtp", Requirement.REQUIRETLS, Requirement.REQUIRETLS)
        return await self.assessor.assess(question)


@asynccontextmanager
async def attack(
    authority: Authority,
    victim: SmtpServer,
    *,
    domain_of: Zone = one_zone,
    address_of: Lead = to_the_victim,
    limits: str = "",
    policy_port: int = 443,
) -> AsyncIterator[Attack]:
    domains = [domain_of(number) for number in range(DOMAINS)]
    async with DnsServer() as dns, victim:
        for number, domain in enumerate(domains):
            hosts = [f"m{host}.{domain}" for host in range(HOSTS)]
            dns.set(domain, "MX", found(*(f"{domain}. 300 IN MX 10 {host}." for host in hosts)))
            for index, host in enumerate(hosts):
                address = address_of(number, index)
                dns.set(host, "A", found(f"{host}. 300 IN A {address}", ad=False))
                dns.set(host, "AAAA", nodata(ad=False))
        text = f"""
[dns]
nameservers = ["{dns.address}"]
[mta]
mx_address_limit = 0
tls_security_level = "verify"
[mta.transport.dane]
tls_security_level = "dane"
[probe]
port = {victim.port}
ca_file = "{authority.path}"
allow_networks = ["127.0.0.0/8"]
[limits]
flights = 20000
{limits}
"""
        settings = config.parse(text.encode(), "config.toml")
        patient = settings.limits.model_copy(update=AS_LONG_AS_IT_TAKES)
        settings = settings.model_copy(update={"limits": patient})
        counters = Counters()
        trust = load_trust_store(settings.probe.ca_file)
        limiters = AllShares.of(settings.limits, counters).limiters()
        live = Collector(
            settings, trust, limiters=limiters, counters=counters, policy_port=policy_port
        )
        source = CachedSource(live, MemoryStore(), settings, counters, authorities=trust.digest)
        assessor = Assessor(settings, source, trust, counters, Gauges())
        yield Attack(dns, victim, assessor, counters, domains)
        await assessor.close()
        await source.close()


@pytest.fixture
def certificate(authority: Authority) -> Issued:
    return authority.issue("mx.honest.test")


MANY_LOOKUPS = "zone_lookups_per_minute = 100000\nzone_lookups_per_hour = 100000"


def assert_all_but_a_few_unknown(forecasts: list[Forecast]) -> None:
    unknown = [forecast for forecast in forecasts if forecast.outcome is Outcome.UNKNOWN]
    assert len(unknown) >= 0.8 * len(forecasts)
    assert all("over budget: limits." in forecast.text for forecast in unknown)
    assert all(forecast.status == "unknown" for forecast in unknown)


# ---------------------------------------------------------------- one address


async def test_one_zone_whose_servers_all_have_one_address_causes_few_sessions_with_it(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context())
    async with attack(authority, victim, limits=MANY_LOOKUPS) as one:
        forecasts, seconds = await one.run()
        assert victim.connections <= SHARE_AT_ONCE + 1 + SHARE_PER_MINUTE * seconds / 60
        assert_all_but_a_few_unknown(forecasts)
        assert saturated(one.counters)["address_per_minute"] > 0


async def test_so_they_do_if_its_handshake_fails_and_each_probe_takes_two_sessions(
    authority: Authority,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x15\x03\x01\x00\x02\x02\x28")  # a fatal alert: handshake failure

    victim = SmtpServer(instead_of_tls=refuse)
    async with attack(authority, victim, limits=MANY_LOOKUPS) as one:
        forecasts, seconds = await one.run()
        assert victim.connections <= SHARE_AT_ONCE + 1 + SHARE_PER_MINUTE * seconds / 60
        assert_all_but_a_few_unknown(forecasts)


async def test_what_ends_before_a_name_is_sent_is_seen_once_for_all_names(
    authority: Authority,
) -> None:
    victim = SmtpServer(ehlo=b"250 mx.victim.test\r\n")  # no STARTTLS
    async with attack(authority, victim, limits=MANY_LOOKUPS) as one:
        forecasts, _ = await one.run()
        assert victim.connections == 1
        assert {forecast.rfc8689.status for forecast in forecasts if forecast.rfc8689} == {"5.7.10"}


async def test_any_number_of_zones_causes_no_more_than_the_whole_budget(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context())
    async with attack(authority, victim, domain_of=lambda n: f"attacker{n}.test") as one:
        forecasts, seconds = await one.run()
        assert victim.connections <= 2 * SHARE_AT_ONCE + 1 + 2 * SHARE_PER_MINUTE * seconds / 60
        assert_all_but_a_few_unknown(forecasts)


async def test_a_network_whose_addresses_are_all_named_gets_few_sessions(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context(), host="0.0.0.0")
    limits = f"{MANY_LOOKUPS}\nnetwork_per_minute = 80"
    async with attack(
        authority,
        victim,
        address_of=lambda domain, host: f"127.0.9.{1 + (domain * HOSTS + host) % 250}",
        limits=limits,
    ) as one:
        _, seconds = await one.run()
        assert victim.connections <= 20 + 1 + 40 * seconds / 60
        assert saturated(one.counters)["network_per_minute"] > 0


async def test_an_honest_domain_at_the_same_address_is_judged_all_the_same(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context(), ehlo_tls=EHLO_TLS)
    async with attack(authority, victim, limits=MANY_LOOKUPS) as one:
        publish_honest(one.dns, victim, certificate)
        await one.run()
        question = Question("honest.test", "dane", Requirement.REQUIRETLS, Requirement.REQUIRETLS)
        assert (await one.assessor.assess(question)).status == "2.0.0"


def publish_honest(dns: DnsServer, server: SmtpServer, certificate: Issued) -> None:
    key = certificate.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    tlsa = f"_{server.port}._tcp.mx.honest.test"
    dns.set("honest.test", "MX", found("honest.test. 300 IN MX 10 mx.honest.test."))
    dns.set("mx.honest.test", "A", found(f"mx.honest.test. 300 IN A {server.host}"))
    dns.set("mx.honest.test", "AAAA", nodata())
    dns.set(tlsa, "TLSA", found(f"{tlsa}. 300 IN TLSA 3 1 1 {hashlib.sha256(key).hexdigest()}"))


# ---------------------------------------------------------------- DNS and policies


async def test_servers_named_in_another_zone_cause_few_lookups_there(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context())
    limits = "zone_lookups_per_minute = 200"
    async with attack(authority, victim, limits=limits) as one:
        # 20 domains of the attacker; their MX hosts lie in the victim's zone and do not exist.
        for number, domain in enumerate(one.domains):
            records = (f"{domain}. 300 IN MX 10 r{number}-{n}.victim.test." for n in range(HOSTS))
            one.dns.set(domain, "MX", found(*records))
        forecasts, seconds = await one.run()
        # A question that is put again, since its answer was late, is one lookup.
        at_victim = {question for question in one.dns.asked if question[0].endswith("victim.test")}
        assert len(at_victim) <= 100 + 1 + 200 * seconds / 60
        assert victim.connections == 0
        unknown = [forecast for forecast in forecasts if forecast.status == "unknown"]
        assert unknown
        assert all("zone_lookups_per_minute" in forecast.text for forecast in unknown)
        assert saturated(one.counters)["zone_lookups_per_minute"] > 0


async def test_policy_hosts_that_all_have_one_address_cause_few_connections_with_it(
    authority: Authority, certificate: Issued
) -> None:
    calls = 0

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    web = await asyncio.start_server(accept, "127.0.0.1", 0)
    victim = SmtpServer(tls=certificate.server_context())
    limits = f"{MANY_LOOKUPS}\naddress_per_minute = 20"
    port = web.sockets[0].getsockname()[1]
    async with web, attack(authority, victim, limits=limits, policy_port=port) as one:
        for domain in one.domains:
            one.dns.set(
                f"_mta-sts.{domain}", "TXT", found(f'_mta-sts.{domain}. 60 IN TXT "v=STSv1; id=1"')
            )
            host = f"mta-sts.{domain}"
            one.dns.set(host, "A", found(f"{host}. 300 IN A 127.0.0.1"))
        forecasts, seconds = await one.run()
        assert calls + victim.connections <= 5 + 1 + 10 * seconds / 60
        assert_all_but_a_few_unknown(forecasts)


# ---------------------------------------------------------------- what a refresh may do


async def test_a_refresh_by_hand_is_bounded_as_well(
    authority: Authority, certificate: Issued
) -> None:
    victim = SmtpServer(tls=certificate.server_context(), ehlo_tls=EHLO_TLS)
    async with attack(authority, victim, limits="address_per_minute = 20") as one:
        publish_honest(one.dns, victim, certificate)
        nexthop = nexthops.parse("honest.test")
        found = [await one.assessor.evidence(nexthop, refresh=True) for _ in range(20)]
        assert victim.connections <= 7
        assert found[0].hosts[0].probes[0].requiretls
        assert "over budget" in found[-1].hosts[0].probes[0].error
        # What is known stands: a question that needs no new session is answered.
        question = Question("honest.test", "dane", Requirement.REQUIRETLS, Requirement.REQUIRETLS)
        assert (await one.assessor.assess(question)).status == "2.0.0"
