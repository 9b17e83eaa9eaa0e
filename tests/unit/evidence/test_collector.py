"""The live source, and what is gathered with it from servers on this host."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from requiretls_milter.config import Config, Limits
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.collector import Collector
from requiretls_milter.evidence.dns import AdTrust
from requiretls_milter.model import (
    DnsOutcome,
    HopKind,
    MtaStsEvidence,
    MtaStsMode,
    NextHop,
    ProbeFailure,
    ProbeStage,
    TlsaRecord,
)
from tests.support.authority import Authority, Issued
from tests.support.dnsserver import DnsServer, failure, found, nodata
from tests.support.gathered import gather
from tests.support.limiters import limiters
from tests.support.smtpserver import SmtpServer
from tests.unit.evidence.test_mta_sts import serving

NOW = 1_000_000.0
MX = HopKind.MX


def configured(**sections: dict[str, object]) -> Config:
    return Config.model_validate(sections)


# ---------------------------------------------------------------- real servers


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Issued:
    return authority.issue("mx1.a.test")


@pytest.fixture
def port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
async def collector(
    server: DnsServer, authority: Authority, port: int
) -> AsyncIterator[tuple[Collector, Config]]:
    config = configured(
        dns={"nameservers": [server.address], "timeout": 1.0},
        probe={
            "port": port,
            "ca_file": str(authority.path),
            "allow_networks": ["127.0.0.0/8"],
            "connect_timeout": 1.0,
            "command_timeout": 1.0,
            "helo": "client.example.org",
        },
    )
    trust = load_trust_store(config.probe.ca_file)
    collector = Collector(config, trust, limiters=limiters(), clock=lambda: NOW)
    yield collector, config
    await collector.close()


def publish(server: DnsServer, port: int) -> None:
    """Two MX, the first with TLSA records, the second unsigned."""
    server.set(
        "a.test",
        "MX",
        found("a.test 300 IN MX 10 mx1.a.test.", "a.test 300 IN MX 20 mx2.a.test."),
    )
    for number, ad in ((1, True), (2, False)):
        host = f"mx{number}.a.test"
        server.set(host, "A", found(f"{host} 300 IN A 127.0.0.{number}", ad=ad))
        server.set(host, "AAAA", nodata(ad=ad))
    server.set(
        f"_{port}._tcp.mx1.a.test",
        "TLSA",
        found(f"_{port}._tcp.mx1.a.test 300 IN TLSA 3 1 1 {'ab' * 32}"),
    )
    server.set("_mta-sts.a.test", "TXT", nodata())


async def test_all_evidence_of_a_domain_is_gathered(
    server: DnsServer, collector: tuple[Collector, Config], port: int, certificate: Issued
) -> None:
    source, config = collector
    publish(server, port)
    first = SmtpServer(tls=certificate.server_context(), host="127.0.0.1", port=port)
    second = SmtpServer(ehlo=b"250 mx2.a.test\r\n", host="127.0.0.2", port=port)
    async with first, second:
        evidence = await gather(NextHop(MX, "a.test"), source, config, NOW)
    assert evidence.nexthop == NextHop(MX, "a.test")
    assert evidence.gathered_at == NOW
    assert evidence.mx.secure
    assert evidence.mta_sts == MtaStsEvidence(expires=NOW + 300, observed_at=NOW)
    one, two = evidence.hosts
    assert (one.host, one.preference) == ("mx1.a.test", 10)
    assert one.addresses.secure
    assert one.tlsa.secure
    assert one.tlsa.records == (TlsaRecord(3, 1, 1, b"\xab" * 32),)
    assert one.probes[0].stage is ProbeStage.DONE
    assert one.probes[0].requiretls is True
    assert one.probes[0].chain == (certificate.der,)
    assert first.server_names == ["mx1.a.test"]
    assert {evidence.mx.observed_at, one.addresses.observed_at, one.tlsa.observed_at} == {NOW}
    assert not two.tlsa.queried
    assert two.probes[0].stage is ProbeStage.DONE
    assert two.probes[0].starttls_offered is False


async def test_servers_are_probed_where_a_lookup_of_their_keys_failed(
    server: DnsServer, collector: tuple[Collector, Config], port: int, certificate: Issued
) -> None:
    source, config = collector
    publish(server, port)
    server.set(f"_{port}._tcp.mx1.a.test", "TLSA", failure())
    async with SmtpServer(tls=certificate.server_context(), host="127.0.0.1", port=port):
        evidence = await gather(NextHop(MX, "a.test"), source, config, NOW)
    one, two = evidence.hosts
    assert one.tlsa.outcome is DnsOutcome.ERROR
    assert one.probes[0].requiretls is True
    assert two.probes[0].failure is ProbeFailure.REFUSED


async def test_a_policy_and_the_mail_exchangers_are_found_side_by_side(
    server: DnsServer, authority: Authority, port: int
) -> None:
    publish(server, port)
    server.set("_mta-sts.a.test", "TXT", found('_mta-sts.a.test 60 IN TXT "v=STSv1; id=7"'))
    server.set("mta-sts.a.test", "A", found("mta-sts.a.test 300 IN A 127.0.0.1"))
    config = configured(
        dns={"nameservers": [server.address]},
        probe={
            "enabled": False,
            "ca_file": str(authority.path),
            "allow_networks": ["127.0.0.0/8"],
        },
    )
    async with serving(authority.issue("mta-sts.a.test")) as host:
        source = Collector(
            config,
            load_trust_store(config.probe.ca_file),
            limiters=limiters(),
            policy_port=host.port,
            clock=lambda: NOW,
        )
        evidence = await gather(NextHop(MX, "a.test"), source, config, NOW)
        record = await source.mta_sts_record("a.test")
        await source.close()
    assert evidence.mta_sts.policy is not None
    assert evidence.mta_sts.policy.mode is MtaStsMode.ENFORCE
    assert record.id == "7"
    assert [host.probes[0].stage for host in evidence.hosts] == [ProbeStage.NOT_PROBED] * 2


async def test_the_collector_knows_whether_its_resolver_is_trusted(
    collector: tuple[Collector, Config],
) -> None:
    source, _ = collector
    assert source.resolver.trust is AdTrust.BELIEVED
    assert not (await source.resolver.root()).secure


async def test_the_collector_looks_up_the_protocols_of_every_transport(server: DnsServer) -> None:
    config = configured(
        dns={"nameservers": [server.address]},
        mta={
            "inet_protocols": ["ipv4"],
            "transport": {"smtp6": {"inet_protocols": ["ipv6"]}},
        },
    )
    trust = load_trust_store(config.probe.ca_file)
    source = Collector(config, trust, limiters=limiters())
    await source.addresses("mx.test")
    assert sorted(server.types_asked("mx.test")) == ["A", "AAAA"]


def test_a_collector_keeps_the_limits_of_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(fetch_timeout=5)
    config = Config(limits=limits)
    several = limiters()
    given: dict[str, Any] = {}
    for name in ("Resolver", "MtaStsFetcher", "Prober"):

        def note(*_: Any, name: str = name, **options: Any) -> None:
            given[name] = options

        monkeypatch.setattr(f"requiretls_milter.evidence.collector.{name}", note)
    Collector(config, load_trust_store(config.probe.ca_file), limiters=several)
    assert given["Resolver"]["limiter"] is several.lookups
    assert given["MtaStsFetcher"]["limiter"] is several.fetches
    assert given["MtaStsFetcher"]["timeout"] == 5
    assert given["Prober"]["limiter"] is several.probes
