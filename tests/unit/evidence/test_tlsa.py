from __future__ import annotations

import struct
from dataclasses import replace

import dns.message
import dns.rdatatype
import pytest

from requiretls_milter.config import Limits
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.tlsa import find_tlsa
from requiretls_milter.model import AddressLookup, DnsOutcome, TlsaEvidence, TlsaRecord
from requiretls_milter.telemetry.counting import Counters
from tests.support.dnsserver import (
    DnsServer,
    Scripted,
    failure,
    found,
    nodata,
    nxdomain,
)

NOW = 1_000_000.0
DIGEST = bytes(range(32))
RECORD = TlsaRecord(3, 1, 1, DIGEST)


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    return Resolver([server.nameserver], 1.0, clock=lambda: NOW)


def lookup(
    canonical: str = "mx.test",
    *,
    secure: bool = True,
    alias_secure: bool | None = None,
    alias_error: bool = False,
) -> AddressLookup:
    return AddressLookup(
        DnsOutcome.FOUND,
        secure,
        ("192.0.2.1",),
        canonical,
        alias_secure,
        alias_error,
        error="CNAME mx.test: timed out" if alias_error else "",
        expires=NOW + 300,
    )


def tlsa(base: str, *rdatas: str, ad: bool = True, ttl: int = 300) -> Scripted:
    rdatas = rdatas or (f"3 1 1 {DIGEST.hex()}",)
    return found(*(f"_25._tcp.{base} {ttl} IN TLSA {rdata}" for rdata in rdatas), ad=ad)


async def find(resolver: Resolver, addresses: AddressLookup, port: int = 25) -> TlsaEvidence:
    return await find_tlsa(resolver, "mx.test", port, addresses, lambda: NOW)


async def test_records_are_kept_as_they_stand(server: DnsServer, resolver: Resolver) -> None:
    server.set(
        "_25._tcp.mx.test",
        "TLSA",
        tlsa("mx.test", f"3 1 1 {DIGEST.hex()}", "0 0 0 aa", "3 1 99 bbcc", "255 255 255 dd"),
    )
    evidence = await find(resolver, lookup())
    assert evidence.queried
    assert evidence.secure
    assert evidence.base_domain == "mx.test"
    assert set(evidence.records) == {
        RECORD,
        TlsaRecord(0, 0, 0, b"\xaa"),
        TlsaRecord(3, 1, 99, b"\xbb\xcc"),
        TlsaRecord(255, 255, 255, b"\xdd"),
    }
    assert evidence.expires == NOW + 300


async def test_the_port_is_part_of_the_question(server: DnsServer, resolver: Resolver) -> None:
    await find(resolver, lookup(), port=587)
    assert server.asked == [("_587._tcp.mx.test", "TLSA", False)]


async def test_r36_malformed_records_do_not_make_the_lookup_fail(
    server: DnsServer, resolver: Resolver
) -> None:
    rdatas = [b"\x03\x01\x01" + DIGEST, b"\x03\x01\x01short", b"\x03\x01\x02" + DIGEST]
    rdatas += [b"", b"\x03", b"\x03\x01\x01"]

    def raw(query: dns.message.Message) -> bytes:
        wire = dns.message.make_response(query).to_wire()
        end = 12 + len(query.question[0].name.to_wire() or b"") + 4
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, dns.rdatatype.TLSA, 1, 300, len(rdata)) + rdata
            for rdata in rdatas
        )
        counts = struct.pack("!HHHH", 1, len(rdatas), 0, 0)
        return wire[:4] + counts + wire[12:end] + records

    server.set("_25._tcp.mx.test", "TLSA", Scripted(raw=raw))
    evidence = await find(resolver, lookup())
    assert evidence.outcome is DnsOutcome.FOUND
    assert set(evidence.records) == {
        RECORD,
        TlsaRecord(3, 1, 1, b"short"),
        TlsaRecord(3, 1, 2, DIGEST),
        TlsaRecord(255, 255, 255, b""),
        TlsaRecord(3, 255, 255, b""),
        TlsaRecord(3, 1, 1, b""),
    }


async def test_r27_where_the_addresses_are_insecure_nothing_is_asked(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.mx.test", "TLSA", failure())
    evidence = await find(resolver, lookup(secure=False))
    assert not evidence.queried
    assert evidence.outcome is DnsOutcome.NODATA
    assert server.asked == []


@pytest.mark.parametrize("outcome", [DnsOutcome.NODATA, DnsOutcome.NXDOMAIN, DnsOutcome.ERROR])
async def test_r27_without_addresses_nothing_is_asked(
    server: DnsServer, resolver: Resolver, outcome: DnsOutcome
) -> None:
    assert not (await find(resolver, AddressLookup(outcome, secure=True))).queried
    assert server.asked == []


async def test_r21_a_failed_lookup_is_an_error(server: DnsServer, resolver: Resolver) -> None:
    server.set("_25._tcp.mx.test", "TLSA", failure())
    evidence = await find(resolver, lookup())
    assert evidence.queried
    assert evidence.outcome is DnsOutcome.ERROR
    assert not evidence.secure
    assert "TLSA _25._tcp.mx.test" in evidence.error


@pytest.mark.parametrize("ad", [True, False])
async def test_r22_proven_absence_is_told_from_an_insecure_denial(
    server: DnsServer, resolver: Resolver, ad: bool
) -> None:
    server.set("_25._tcp.mx.test", "TLSA", nxdomain(ad=ad))
    evidence = await find(resolver, lookup())
    assert (evidence.outcome, evidence.secure) == (DnsOutcome.NXDOMAIN, ad)


async def test_r34_records_over_an_insecure_path_are_told_apart(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test", ad=False))
    evidence = await find(resolver, lookup())
    assert evidence.outcome is DnsOutcome.FOUND
    assert not evidence.secure
    assert evidence.records == (RECORD,)


async def test_r29_the_expanded_name_is_the_first_choice(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.host.test", "TLSA", tlsa("host.test"))
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test", "3 1 1 aa"))
    evidence = await find(resolver, lookup("host.test"))
    assert evidence.base_domain == "host.test"
    assert evidence.records == (RECORD,)
    assert server.types_asked("_25._tcp.mx.test") == []


@pytest.mark.parametrize("first", [nodata(), nxdomain(), tlsa("host.test", "3 1 1 aa", ad=False)])
async def test_r29_the_original_name_is_the_second_choice(
    server: DnsServer, resolver: Resolver, first: Scripted
) -> None:
    server.set("_25._tcp.host.test", "TLSA", first)
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test", ttl=3600))
    evidence = await find(resolver, lookup("host.test"))
    assert evidence.base_domain == "mx.test"
    assert evidence.records == (RECORD,)
    assert evidence.secure
    assert evidence.expires == NOW + 300


async def test_r29_where_the_first_lookup_fails_there_is_no_second(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.host.test", "TLSA", failure())
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test"))
    evidence = await find(resolver, lookup("host.test"))
    assert evidence.outcome is DnsOutcome.ERROR
    assert evidence.base_domain == "host.test"
    assert server.types_asked("_25._tcp.mx.test") == []


async def test_r29_unusable_records_at_the_expanded_name_are_records_all_the_same(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.host.test", "TLSA", tlsa("host.test", "0 0 1 aa"))
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test"))
    evidence = await find(resolver, lookup("host.test"))
    assert evidence.base_domain == "host.test"


async def test_r29_where_only_the_alias_is_signed_the_original_name_alone_is_asked(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("_25._tcp.mx.test", "TLSA", tlsa("mx.test"))
    evidence = await find(resolver, lookup("host.uns", secure=False, alias_secure=True))
    assert evidence.base_domain == "mx.test"
    assert evidence.secure
    assert server.asked == [("_25._tcp.mx.test", "TLSA", False)]


async def test_r30_where_the_alias_is_unsigned_too_nothing_is_asked(
    server: DnsServer, resolver: Resolver
) -> None:
    evidence = await find(resolver, lookup("host.uns", secure=False, alias_secure=False))
    assert not evidence.queried
    assert server.asked == []


async def test_r30_where_the_alias_stays_unknown_the_lookup_has_failed(
    server: DnsServer, resolver: Resolver
) -> None:
    evidence = await find(resolver, lookup("host.uns", secure=False, alias_error=True))
    assert evidence.queried
    assert evidence.outcome is DnsOutcome.ERROR
    assert evidence.error
    assert server.asked == []


@pytest.mark.parametrize("ad", [True, False])
async def test_r31_an_alias_of_the_tlsa_name_is_followed_and_must_be_secure(
    server: DnsServer, resolver: Resolver, ad: bool
) -> None:
    server.set(
        "_25._tcp.mx.test", "TLSA", found("_25._tcp.mx.test 300 IN CNAME tlsa.uns.", ad=True)
    )
    server.set("tlsa.uns", "TLSA", found(f"tlsa.uns 60 IN TLSA 3 1 1 {DIGEST.hex()}", ad=ad))
    evidence = await find(resolver, lookup())
    assert evidence.records == (RECORD,)
    assert evidence.secure is ad
    assert evidence.base_domain == "mx.test"
    assert evidence.expires == NOW + 60


async def test_r31_a_loop_of_aliases_is_an_error(server: DnsServer, resolver: Resolver) -> None:
    server.set("_25._tcp.mx.test", "TLSA", found("_25._tcp.mx.test 300 IN CNAME b.test."))
    server.set("b.test", "TLSA", found("b.test 300 IN CNAME _25._tcp.mx.test."))
    assert (await find(resolver, lookup())).outcome is DnsOutcome.ERROR


async def test_an_address_in_the_place_of_a_host_has_no_tlsa_records(
    server: DnsServer, resolver: Resolver
) -> None:
    addresses = await resolver.addresses("192.0.2.1")
    evidence = await find_tlsa(resolver, "192.0.2.1", 25, addresses, lambda: NOW)
    assert not evidence.queried
    assert server.asked == []


async def test_records_that_were_not_looked_up_are_neither_there_nor_missing(
    server: DnsServer,
) -> None:
    budgets = Budgets(Limits(zone_lookups_per_minute=2), Counters())
    resolver = Resolver([server.nameserver], 1.0, clock=lambda: NOW, budgets=budgets)
    budgets.lookup("another.mx.test")
    found = await find(resolver, lookup())
    assert (found.queried, found.outcome, found.unasked) == (True, DnsOutcome.ERROR, True)
    assert "over budget" in found.error
    assert not server.asked


async def test_of_an_alias_that_was_not_looked_up_nothing_is_known(resolver: Resolver) -> None:
    addresses = replace(lookup(secure=False, alias_error=True), unasked=True)
    assert (await find(resolver, addresses)).unasked
