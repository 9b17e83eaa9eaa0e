"""What a domain publishes beside its servers: looked at anew, and from a real HTTPS server."""

from __future__ import annotations

import datetime
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from aiohttp import web

from requiretls_milter.evidence.addresses import AddressPolicy
from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.mta_sts import MtaStsFetcher
from requiretls_milter.evidence.published import find_published
from requiretls_milter.model import DomainEvidence, HostEvidence, PublishedEvidence
from tests.support.authority import DAY, Authority
from tests.support.build import domain, host
from tests.support.dnsserver import DnsServer, failure, found, nodata

DOMAIN = "example.org"
POLICY_HOST = f"mta-sts.{DOMAIN}"
BODY = b"version: STSv1\nmode: enforce\nmx: mx1.example.org\nmax_age: 86400\n"
MX = "mx1.example.org"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def dns(server: DnsServer) -> DnsServer:
    server.set(f"_mta-sts.{DOMAIN}", "TXT", found(f'_mta-sts.{DOMAIN} 60 IN TXT "v=STSv1; id=7"'))
    server.set(POLICY_HOST, "A", found(f"{POLICY_HOST} 300 IN A 127.0.0.1"))
    server.set(POLICY_HOST, "AAAA", nodata())
    server.set(f"_smtp._tls.{DOMAIN}", "TXT", nodata())
    return server


class Looking:
    """Looks at a domain with a policy host that presents what a test says."""

    def __init__(self, dns: DnsServer, authority: Authority) -> None:
        self.dns = dns
        self.authority = authority
        self.port = 1

    async def look(self, *hosts: HostEvidence) -> PublishedEvidence:
        resolver = Resolver([self.dns.nameserver], 1.0)
        policies = MtaStsFetcher(
            resolver,
            AddressPolicy([ip_network("127.0.0.0/8")]),
            load_trust_store(str(self.authority.path)).authorities,
            port=self.port,
            timeout=5.0,
        )
        evidence: DomainEvidence = domain(*hosts)
        return await find_published(resolver, policies, evidence, 25)

    async def serve(self, end: datetime.timedelta) -> web.ServerRunner:
        async def handle(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(body=BODY, content_type="text/plain")

        issued = self.authority.issue(POLICY_HOST, start=-30 * DAY, end=end)
        self.der = issued.der
        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=issued.server_context())
        await site.start()
        self.port = runner.addresses[0][1]
        return runner


@pytest.fixture
def looking(dns: DnsServer, authority: Authority) -> Looking:
    return Looking(dns, authority)


async def test_the_policy_and_the_certificate_of_its_host_are_seen(looking: Looking) -> None:
    runner = await looking.serve(30 * DAY)
    seen = await looking.look(host())
    await runner.cleanup()
    assert seen.mta_sts.policy is not None
    assert seen.policy_certificate == looking.der


async def test_a_certificate_that_has_expired_is_seen_although_the_fetch_fails(
    looking: Looking,
) -> None:
    runner = await looking.serve(-DAY)
    seen = await looking.look(host())
    await runner.cleanup()
    assert seen.mta_sts.policy is None
    assert "expired" in seen.mta_sts.error
    assert seen.policy_certificate == looking.der


async def test_a_policy_host_that_is_down_presents_nothing(looking: Looking) -> None:
    seen = await looking.look(host())
    assert seen.mta_sts.error
    assert not seen.mta_sts.unasked
    assert seen.policy_certificate == b""


async def test_a_domain_without_a_policy_causes_no_session(looking: Looking) -> None:
    looking.dns.set(f"_mta-sts.{DOMAIN}", "TXT", nodata())
    seen = await looking.look(host())
    assert seen.mta_sts.policy is None
    assert seen.mta_sts.error == ""
    assert looking.dns.types_asked(POLICY_HOST) == []


async def test_a_tlsrpt_record_is_there_or_not_or_not_known(looking: Looking) -> None:
    name = f"_smtp._tls.{DOMAIN}"
    assert (await looking.look(host())).tlsrpt is False
    looking.dns.set(name, "TXT", found(f'{name} 60 IN TXT "v=spf1"'))
    assert (await looking.look(host())).tlsrpt is False
    looking.dns.set(name, "TXT", found(f'{name} 60 IN TXT "v=TLSRPTv1; rua=mailto:a@b.test"'))
    assert (await looking.look(host())).tlsrpt is True
    looking.dns.set(name, "TXT", failure())
    assert (await looking.look(host())).tlsrpt is None


async def test_records_of_a_host_that_can_have_no_dane_are_found(looking: Looking) -> None:
    name = f"_25._tcp.{MX}"
    looking.dns.set(name, "TLSA", found(f"{name} 60 IN TLSA 3 1 1 {'00' * 32}", ad=False))
    assert (await looking.look(host(secure=False))).unsigned_tlsa == (MX,)
    looking.dns.set(name, "TLSA", nodata(ad=False))
    assert (await looking.look(host(secure=False))).unsigned_tlsa == ()
    signed = host()
    unknown = replace(host(), tlsa=replace(signed.tlsa, secure=False, error="SERVFAIL"))
    looking.dns.asked.clear()
    assert (await looking.look(signed, unknown)).unsigned_tlsa == ()
    assert looking.dns.types_asked(name) == []
