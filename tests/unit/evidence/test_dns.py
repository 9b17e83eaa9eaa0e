from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from requiretls_milter.config import Limits
from requiretls_milter.evidence.budgets import Budgets
from requiretls_milter.evidence.dns import (
    MAX_CNAMES,
    MAX_RECORDS,
    MAX_TTL,
    PARTIAL_TTL,
    AdTrust,
    Resolver,
)
from requiretls_milter.evidence.tlsa import find_tlsa
from requiretls_milter.model import AddressLookup, DnsOutcome, MxEvidence, MxRecord
from requiretls_milter.syntax.endpoint import DNS_PORT, Nameserver
from requiretls_milter.telemetry.counting import Counters
from tests.support.dnsserver import (
    SILENT,
    DnsServer,
    Scripted,
    failure,
    found,
    nodata,
    nxdomain,
    soa,
)
from tests.support.limiters import limiters
from tests.support.stores import saturated
from tests.support.waiting import until

NOW = 1_000_000.0


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    return Resolver([server.nameserver], 1.0, clock=lambda: NOW)


def holding(records: dns.rrset.RRset) -> Callable[[dns.message.Message], bytes]:
    """Answers that hold *records*, be they many: what is made before no resolver waits for."""

    def answer(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.answer.append(records)
        return response.to_wire(max_size=65_535)

    return answer


def impatient(server: DnsServer, timeout: float = 0.3, **options: Any) -> Resolver:
    return Resolver([server.nameserver], timeout, clock=lambda: NOW, **options)


# ---------------------------------------------------------------- who is believed


async def test_r20_the_ad_bit_of_a_configured_resolver_counts(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN MX 10 mx.a.test.", ad=True))
    server.set("b.test", "MX", found("b.test 300 IN MX 10 mx.b.test.", ad=False))
    assert resolver.trust is AdTrust.BELIEVED
    assert (await resolver.mx("a.test")).secure
    assert not (await resolver.mx("b.test")).secure


async def test_r20_the_ad_bit_of_a_system_resolver_elsewhere_is_ignored(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN MX 10 mx.a.test.", ad=True))
    server.set(".", "NS", found(". 300 IN NS a.root."))
    elsewhere = [("192.0.2.53", 53)]
    monkeypatch.setattr("requiretls_milter.evidence.dns._system_nameservers", lambda: elsewhere)
    resolver = Resolver([], 1.0)
    assert resolver.trust is AdTrust.IGNORED
    # The packets go to the scripted server all the same.
    resolver._stub.nameservers = Resolver([server.nameserver], 1.0)._stub.nameservers
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.FOUND
    assert not evidence.secure
    assert not (await resolver.root()).secure


def test_a_system_that_asks_others_by_now_is_told_from_one_that_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/etc/resolv.conf is read once; at a reload it is compared."""
    here, elsewhere = [("127.0.0.1", 53)], [("192.0.2.53", 53)]
    monkeypatch.setattr("requiretls_milter.evidence.dns._system_nameservers", lambda: here)
    of_system, configured = Resolver([], 1.0), Resolver([Nameserver("127.0.0.1", DNS_PORT)], 1.0)
    assert of_system.is_current()
    monkeypatch.setattr("requiretls_milter.evidence.dns._system_nameservers", lambda: elsewhere)
    assert not of_system.is_current()
    assert configured.is_current()


@pytest.mark.parametrize(
    ("addresses", "trusted"),
    [
        (["127.0.0.53"], True),
        (["::1", "127.0.0.1"], True),
        (["127.0.0.1", "192.0.2.1"], False),
        (["192.0.2.1"], False),
    ],
)
def test_r20_system_resolvers_are_trusted_if_all_are_on_this_host(
    addresses: list[str], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "requiretls_milter.evidence.dns._system_nameservers",
        lambda: [(address, 53) for address in addresses],
    )
    assert (Resolver([], 1.0).trust is AdTrust.BELIEVED) is trusted


async def test_r20_the_root_zone_is_secure_where_it_has_the_ad_bit(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(".", "NS", found(". 300 IN NS a.root.", ad=True))
    assert (await resolver.root()).secure
    server.set(".", "NS", found(". 300 IN NS a.root.", ad=False))
    assert not (await resolver.root()).secure
    server.set(".", "NS", failure())
    assert not (await resolver.root()).secure


async def test_queries_ask_for_dnssec_and_carry_no_search_list(
    server: DnsServer, resolver: Resolver
) -> None:
    await resolver.mx("single")
    (query,) = server.queries
    assert query.question[0].name.to_text() == "single."
    assert query.edns == 0
    assert query.ednsflags & dns.flags.DO
    assert query.flags & dns.flags.AD
    assert query.flags & dns.flags.RD


# ---------------------------------------------------------------- answers and errors


@pytest.mark.parametrize(
    "rcode",
    [
        dns.rcode.SERVFAIL,
        dns.rcode.REFUSED,
        dns.rcode.NOTIMP,
        dns.rcode.FORMERR,
        dns.rcode.YXDOMAIN,
        dns.rcode.NOTAUTH,
    ],
)
async def test_r21_a_failure_of_the_resolver_is_never_no_records(
    server: DnsServer, resolver: Resolver, rcode: dns.rcode.Rcode
) -> None:
    server.set("a.test", "MX", failure(rcode))
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.ERROR
    assert not evidence.secure
    assert evidence.error.startswith("MX a.test: ")
    assert evidence.expires == NOW


async def test_r21_silence_is_an_error_within_one_deadline(server: DnsServer) -> None:
    server.set("a.test", "MX", SILENT)
    started = time.monotonic()
    evidence = await impatient(server).mx("a.test")
    assert time.monotonic() - started < 1.0
    assert evidence.outcome is DnsOutcome.ERROR
    assert "timed out" in evidence.error


async def test_r21_a_server_that_is_not_there_is_an_error() -> None:
    evidence = await Resolver([Nameserver("127.0.0.1", 1)], 0.3).mx("a.test")
    assert evidence.outcome is DnsOutcome.ERROR


def _garbage(_: dns.message.Message) -> bytes:
    return b"\xff" * 40


def _cut_short(query: dns.message.Message) -> bytes:
    return dns.message.make_response(query).to_wire()[:14]


def _another_question(query: dns.message.Message) -> bytes:
    other = dns.message.make_query("other.test", "MX", id=query.id)
    response = dns.message.make_response(other)
    response.answer.append(dns.rrset.from_text("other.test.", 300, "IN", "MX", "10 evil.test."))
    return response.to_wire()


def _another_id(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.id = query.id ^ 1
    return response.to_wire()


def _no_response_bit(query: dns.message.Message) -> bytes:
    return query.to_wire()


@pytest.mark.parametrize(
    "lie", [_garbage, _cut_short, _another_question, _another_id, _no_response_bit]
)
async def test_r21_a_malformed_or_foreign_reply_is_no_answer(
    server: DnsServer, lie: Callable[[dns.message.Message], bytes]
) -> None:
    server.set("a.test", "MX", Scripted(raw=lie))
    evidence = await impatient(server).mx("a.test")
    assert evidence.outcome is DnsOutcome.ERROR
    assert evidence.records == ()


async def test_r21_the_next_server_is_asked_where_one_fails(server: DnsServer) -> None:
    async with DnsServer() as broken:
        broken.set("a.test", "MX", failure())
        server.set("a.test", "MX", found("a.test 300 IN MX 10 mx.a.test."))
        evidence = await Resolver([broken.nameserver, server.nameserver], 1.0).mx("a.test")
    assert evidence.outcome is DnsOutcome.FOUND


@pytest.mark.parametrize("signed", [True, False])
async def test_r22_nodata_and_nxdomain_are_answers_signed_or_not(
    server: DnsServer, resolver: Resolver, signed: bool
) -> None:
    server.set("a.test", "MX", nodata(ad=signed))
    server.set("b.test", "MX", nxdomain(ad=signed))
    no_mx, no_domain = await resolver.mx("a.test"), await resolver.mx("b.test")
    assert (no_mx.outcome, no_mx.secure) == (DnsOutcome.NODATA, signed)
    assert (no_domain.outcome, no_domain.secure) == (DnsOutcome.NXDOMAIN, signed)
    assert no_mx.error == no_domain.error == ""


async def test_records_of_another_owner_are_not_taken(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("evil.test 300 IN MX 10 mx.evil.test."))
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.NODATA
    assert evidence.records == ()


async def test_a_truncated_answer_is_asked_for_again_over_tcp(
    server: DnsServer, resolver: Resolver
) -> None:
    records = [f"a.test 300 IN MX {n} mx{n}.a.test." for n in range(90)]
    server.set("a.test", "MX", Scripted(records, ad=True, truncated=True))
    evidence = await resolver.mx("a.test")
    assert len(evidence.records) == 90
    assert evidence.secure
    assert [tcp for _, _, tcp in server.asked] == [False, True]


async def test_r22_a_name_that_is_none_does_not_exist_and_is_not_asked_for(
    server: DnsServer, resolver: Resolver
) -> None:
    for name in ("", ".", "a..test", "-a.test", "a b.test", "a\0.test", "a\n.test", "1.2.3.4"):
        assert (await resolver.mx(name)).outcome is DnsOutcome.NXDOMAIN
    assert server.asked == []


# ---------------------------------------------------------------- time to live


async def test_r44_a_negative_answer_lives_as_the_soa_says(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", Scripted(authority=[soa("test.", ttl=500, minimum=120)]))
    server.set("b.test", "MX", Scripted(authority=[soa("test.", ttl=90, minimum=120)]))
    assert (await resolver.mx("a.test")).expires == NOW + 120
    assert (await resolver.mx("b.test")).expires == NOW + 90


async def test_r44_the_shortest_ttl_on_the_path_counts(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(
        "a.test",
        "MX",
        found("a.test 70 IN CNAME b.test.", "b.test 600 IN MX 10 mx.b.test."),
    )
    assert (await resolver.mx("a.test")).expires == NOW + 70


@pytest.mark.parametrize(
    ("ttl", "kept"),
    [(0, 0), (1, 1), (MAX_TTL, MAX_TTL), (MAX_TTL + 1, MAX_TTL), (2**31 - 1, MAX_TTL)],
)
async def test_r44_a_ttl_is_kept_within_its_bounds(
    server: DnsServer, resolver: Resolver, ttl: int, kept: int
) -> None:
    server.set("a.test", "MX", found(f"a.test {ttl} IN MX 10 mx.a.test."))
    assert (await resolver.mx("a.test")).expires == NOW + kept


async def test_r44_a_ttl_of_2_to_the_31_is_none(server: DnsServer, resolver: Resolver) -> None:
    def beyond(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text("a.test.", 0x11223344, "IN", "MX", "1 mx.test."))
        return response.to_wire().replace(b"\x11\x22\x33\x44", b"\x80\x00\x00\x00")

    server.set("a.test", "MX", Scripted(raw=beyond))
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.FOUND
    assert evidence.expires == NOW


# ---------------------------------------------------------------- MX


async def test_mail_exchangers_are_sorted_by_preference_then_name(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(
        "a.test",
        "MX",
        found(
            "a.test 300 IN MX 20 c.a.test.",
            "a.test 300 IN MX 10 B.A.test.",
            "a.test 300 IN MX 10 a.a.test.",
        ),
    )
    evidence = await resolver.mx("A.Test")
    assert evidence.records == (
        MxRecord(10, "a.a.test"),
        MxRecord(10, "b.a.test"),
        MxRecord(20, "c.a.test"),
    )
    assert evidence.canonical == "a.test"


@pytest.mark.parametrize("preference", [0, 10])
async def test_r25_a_single_dot_is_a_null_mx(
    server: DnsServer, resolver: Resolver, preference: int
) -> None:
    server.set("a.test", "MX", found(f"a.test 300 IN MX {preference} ."))
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.FOUND
    assert evidence.null_mx
    assert not evidence.null_among
    assert evidence.records == ()
    assert evidence.error == ""


async def test_r25_a_dot_among_others_is_dropped_and_remembered(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN MX 0 .", "a.test 300 IN MX 10 mx.a.test."))
    evidence = await resolver.mx("a.test")
    assert not evidence.null_mx
    assert evidence.null_among
    assert evidence.records == (MxRecord(10, "mx.a.test"),)


async def test_an_mx_that_is_an_address_stays(server: DnsServer, resolver: Resolver) -> None:
    server.set(
        "a.test",
        "MX",
        found("a.test 300 IN MX 10 192.0.2.1.", "a.test 300 IN MX 20 2001:DB8:0::1."),
    )
    evidence = await resolver.mx("a.test")
    assert [record.host for record in evidence.records] == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    "host",
    [
        r"mx\032a.test.",
        r"mx\000.test.",
        r"mx\.a.test.",
        r"mx\010.a.test.",
        r"b\252cher.test.",
        "-.test.",
    ],
)
async def test_an_mx_that_is_no_host_name_is_dropped(
    server: DnsServer, resolver: Resolver, host: str
) -> None:
    server.set(
        "a.test", "MX", found(f"a.test 300 IN MX 10 {host}", "a.test 300 IN MX 20 mx.a.test.")
    )
    server.set("b.test", "MX", found(f"b.test 300 IN MX 10 {host}"))
    assert [record.host for record in (await resolver.mx("a.test")).records] == ["mx.a.test"]
    alone = await resolver.mx("b.test")
    assert alone.outcome is DnsOutcome.FOUND
    assert alone.records == ()
    assert alone.error


async def test_of_thousands_of_mail_exchangers_the_best_are_kept(
    server: DnsServer, resolver: Resolver
) -> None:
    # About as many as one message of 64 KiB can hold.
    texts = [f"{65_000 - n} m." for n in range(4_000)]
    many = dns.rrset.from_text_list("a.test.", 300, "IN", "MX", texts)
    server.set("a.test", "MX", Scripted(raw=holding(many)))
    evidence = await resolver.mx("a.test")
    assert len(evidence.records) == MAX_RECORDS
    assert evidence.records[0] == MxRecord(65_000 - 3_999, "m")
    assert evidence.partial


@pytest.mark.parametrize(("count", "partial"), [(MAX_RECORDS, False), (MAX_RECORDS + 1, True)])
async def test_it_is_told_where_there_are_more_records_than_are_kept(
    server: DnsServer, resolver: Resolver, count: int, partial: bool
) -> None:
    server.set("a.test", "MX", found(*(f"a.test 60 IN MX {n} mx{n}.test." for n in range(count))))
    assert (await resolver.mx("a.test")).partial is partial
    tlsa = [f"_25._tcp.mx.test 60 IN TLSA 3 1 1 {n:064x}" for n in range(count)]
    server.set("_25._tcp.mx.test", "TLSA", found(*tlsa))
    secure = AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), canonical="mx.test")
    assert (await find_tlsa(resolver, "mx.test", 25, secure)).partial is partial
    # of both families together
    half = count // 2
    v4 = [f"mx.test 60 IN A 192.0.2.{n}" for n in range(half)]
    v6 = [f"mx.test 60 IN AAAA 2001:db8::{n:x}" for n in range(count - half)]
    server.set("mx.test", "A", found(*v4))
    server.set("mx.test", "AAAA", found(*v6))
    assert (await resolver.addresses("mx.test")).partial is partial


# ---------------------------------------------------------------- aliases


async def test_r26_an_alias_at_the_domain_is_followed_to_the_end_of_the_chain(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(
        "a.test",
        "MX",
        found(
            "a.test 300 IN CNAME b.test.",
            "b.test 300 IN CNAME C.test.",
            "c.test 300 IN MX 10 mx.c.test.",
        ),
    )
    evidence = await resolver.mx("a.test")
    assert evidence.canonical == "c.test"
    assert evidence.records == (MxRecord(10, "mx.c.test"),)


async def test_r26_an_alias_without_its_target_is_asked_for_again(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN CNAME b.test."))
    server.set("b.test", "MX", found("b.test 300 IN MX 10 mx.b.test."))
    evidence = await resolver.mx("a.test")
    assert evidence.records == (MxRecord(10, "mx.b.test"),)
    assert evidence.secure
    assert evidence.canonical == "b.test"


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False)])
async def test_r26_one_insecure_link_makes_all_insecure(
    server: DnsServer, resolver: Resolver, first: bool, second: bool
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN CNAME b.test.", ad=first))
    server.set("b.test", "MX", found("b.test 300 IN MX 10 mx.b.test.", ad=second))
    assert not (await resolver.mx("a.test")).secure


async def test_r26_an_alias_whose_target_cannot_be_looked_up_is_an_error(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN CNAME b.test."))
    server.set("b.test", "MX", failure())
    assert (await resolver.mx("a.test")).outcome is DnsOutcome.ERROR


async def test_r26_an_alias_to_nowhere_tells_nodata_from_nxdomain(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", nxdomain(answer=["a.test 300 IN CNAME b.test."]))
    server.set("c.test", "MX", found("c.test 300 IN CNAME d.test."))
    server.set("d.test", "MX", nodata())
    assert (await resolver.mx("a.test")).outcome is DnsOutcome.NXDOMAIN
    assert (await resolver.mx("c.test")).outcome is DnsOutcome.NODATA


@pytest.mark.parametrize(
    "chain",
    [
        ["a.test 300 IN CNAME a.test."],
        ["a.test 300 IN CNAME b.test.", "b.test 300 IN CNAME a.test."],
    ],
)
async def test_r26_a_loop_of_aliases_in_one_answer_is_an_error(
    server: DnsServer, resolver: Resolver, chain: list[str]
) -> None:
    server.set("a.test", "MX", found(*chain))
    assert (await resolver.mx("a.test")).outcome is DnsOutcome.ERROR


async def test_r26_a_loop_of_aliases_over_several_answers_is_an_error(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "MX", found("a.test 300 IN CNAME b.test."))
    server.set("b.test", "MX", found("b.test 300 IN CNAME a.test."))
    assert (await resolver.mx("a.test")).outcome is DnsOutcome.ERROR
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("links", "outcome"),
    [
        (MAX_CNAMES - 1, DnsOutcome.FOUND),
        (MAX_CNAMES, DnsOutcome.FOUND),
        (MAX_CNAMES + 1, DnsOutcome.ERROR),
    ],
)
@pytest.mark.parametrize("in_one_answer", [True, False])
async def test_r26_a_chain_has_a_bounded_length(
    server: DnsServer, resolver: Resolver, links: int, outcome: DnsOutcome, in_one_answer: bool
) -> None:
    chain = [f"a{n}.test 300 IN CNAME a{n + 1}.test." for n in range(links)]
    end = f"a{links}.test 300 IN MX 10 mx.test."
    if in_one_answer:
        server.set("a0.test", "MX", found(*chain, end))
    else:
        for n, link in enumerate(chain):
            server.set(f"a{n}.test", "MX", found(link))
        server.set(f"a{links}.test", "MX", found(end))
    assert (await resolver.mx("a0.test")).outcome is outcome


async def test_r26_an_alias_that_is_no_host_name_is_an_error(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(
        "a.test",
        "MX",
        found(r"a.test 300 IN CNAME b\000.test.", r"b\000.test 300 IN MX 10 mx.test."),
    )
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.ERROR
    assert "\0" not in evidence.error


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(("v4", "v6"), [(True, False), (False, True), (True, True)])
async def test_r28_one_address_set_that_validates_is_enough(
    server: DnsServer, resolver: Resolver, v4: bool, v6: bool
) -> None:
    server.set("mx.test", "A", found("mx.test 300 IN A 192.0.2.1", ad=v4))
    server.set("mx.test", "AAAA", found("mx.test 300 IN AAAA 2001:db8::1", ad=v6))
    result = await resolver.addresses("mx.test")
    assert result.secure
    assert result.addresses == ("192.0.2.1", "2001:db8::1")
    assert result.canonical == "mx.test"
    assert result.alias_secure is None


@pytest.mark.parametrize("broken", [failure(), nodata(ad=False)])
async def test_r28_a_broken_denial_of_aaaa_does_not_void_a_signed_a(
    server: DnsServer, resolver: Resolver, broken: Scripted
) -> None:
    server.set("mx.test", "A", found("mx.test 300 IN A 192.0.2.1"))
    server.set("mx.test", "AAAA", broken)
    result = await resolver.addresses("mx.test")
    assert result.outcome is DnsOutcome.FOUND
    assert result.secure


async def test_half_an_answer_is_kept_for_a_short_time_only(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("mx.test", "A", found("mx.test 3600 IN A 192.0.2.1"))
    server.set("mx.test", "AAAA", failure())
    result = await resolver.addresses("mx.test")
    assert result.expires == NOW + PARTIAL_TTL
    assert "AAAA mx.test" in result.error


@pytest.mark.parametrize("other", [nodata(), nxdomain(), failure()])
async def test_r21_an_error_dominates_where_no_address_was_found(
    server: DnsServer, resolver: Resolver, other: Scripted
) -> None:
    server.set("mx.test", "A", failure())
    server.set("mx.test", "AAAA", other)
    assert (await resolver.addresses("mx.test")).outcome is DnsOutcome.ERROR


async def test_a_host_without_addresses_is_told_from_one_that_does_not_exist(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "A", nodata())
    server.set("a.test", "AAAA", nodata())
    server.set("b.test", "A", nxdomain())
    server.set("b.test", "AAAA", nxdomain())
    assert (await resolver.addresses("a.test")).outcome is DnsOutcome.NODATA
    assert (await resolver.addresses("b.test")).outcome is DnsOutcome.NXDOMAIN


@pytest.mark.parametrize(
    ("protocols", "addresses", "asked"),
    [
        (("ipv4",), ("192.0.2.1",), ["A"]),
        (("ipv6",), ("2001:db8::1",), ["AAAA"]),
        (("ipv4", "ipv6"), ("192.0.2.1", "2001:db8::1"), ["A", "AAAA"]),
    ],
)
async def test_only_the_protocols_of_the_mta_are_asked_for(
    server: DnsServer, protocols: tuple[str, ...], addresses: tuple[str, ...], asked: list[str]
) -> None:
    server.set("mx.test", "A", found("mx.test 300 IN A 192.0.2.1"))
    server.set("mx.test", "AAAA", found("mx.test 300 IN AAAA 2001:db8::1"))
    result = await Resolver([server.nameserver], 1.0, protocols).addresses("mx.test")
    assert result.addresses == addresses
    assert sorted(server.types_asked("mx.test")) == asked


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_stands_for_itself_without_a_query_and_insecurely(
    server: DnsServer, resolver: Resolver, address: str
) -> None:
    result = await resolver.addresses(address)
    assert result.outcome is DnsOutcome.FOUND
    assert result.addresses == (address,)
    assert not result.secure
    assert server.asked == []


async def test_an_address_of_a_protocol_that_the_mta_lacks_is_no_address(
    server: DnsServer,
) -> None:
    result = await Resolver([server.nameserver], 1.0, ["ipv4"]).addresses("2001:db8::1")
    assert result.outcome is DnsOutcome.NODATA
    assert result.addresses == ()


async def test_of_thousands_of_addresses_a_bounded_number_is_kept(
    server: DnsServer, resolver: Resolver
) -> None:
    texts = [f"10.0.{n // 250}.{n % 250}" for n in range(3_000)]
    many = dns.rrset.from_text_list("mx.test.", 300, "IN", "A", texts)
    server.set("mx.test", "A", Scripted(raw=holding(many)))
    assert len((await resolver.addresses("mx.test")).addresses) == MAX_RECORDS


@pytest.mark.parametrize("signed", [True, False])
async def test_r30_an_explicit_cname_query_says_whether_the_alias_is_signed(
    server: DnsServer, resolver: Resolver, signed: bool
) -> None:
    chain = ["mx.test 300 IN CNAME host.uns.", "host.uns 300 IN A 192.0.2.1"]
    server.set("mx.test", "A", found(*chain, ad=False))
    server.set("mx.test", "CNAME", found("mx.test 40 IN CNAME host.uns.", ad=signed))
    result = await resolver.addresses("mx.test")
    assert result.canonical == "host.uns"
    assert not result.secure
    assert result.alias_secure is signed
    assert not result.alias_error
    assert result.expires == NOW + 40


@pytest.mark.parametrize("answer", [failure(), nodata(), nxdomain()])
async def test_r30_an_alias_whose_security_stays_unknown_is_an_error_of_its_own(
    server: DnsServer, resolver: Resolver, answer: Scripted
) -> None:
    chain = ["mx.test 300 IN CNAME host.uns.", "host.uns 300 IN A 192.0.2.1"]
    server.set("mx.test", "A", found(*chain, ad=False))
    server.set("mx.test", "CNAME", answer)
    result = await resolver.addresses("mx.test")
    assert result.outcome is DnsOutcome.FOUND
    assert result.alias_error
    assert result.alias_secure is None
    assert result.error


async def test_r30_the_question_does_not_arise_for_a_secure_path_or_without_an_alias(
    server: DnsServer, resolver: Resolver
) -> None:
    chain = ["mx.test 300 IN CNAME host.test.", "host.test 300 IN A 192.0.2.1"]
    server.set("mx.test", "A", found(*chain, ad=True))
    server.set("plain.test", "A", found("plain.test 300 IN A 192.0.2.1", ad=False))
    assert (await resolver.addresses("mx.test")).alias_secure is None
    assert (await resolver.addresses("plain.test")).alias_secure is None
    assert "CNAME" not in [rdtype for _, rdtype, _ in server.asked]


# ---------------------------------------------------------------- limits


async def test_the_whole_chase_has_one_deadline(server: DnsServer) -> None:
    for n in range(8):
        server.set(f"a{n}.test", "MX", found(f"a{n}.test 300 IN CNAME a{n + 1}.test."))
    server.set("a8.test", "MX", SILENT)
    started = time.monotonic()
    evidence = await impatient(server, 0.4).mx("a0.test")
    assert evidence.outcome is DnsOutcome.ERROR
    assert time.monotonic() - started < 1.0


async def test_lookups_at_once_are_bounded(server: DnsServer) -> None:
    counters = Counters()
    server.set("slow.test", "MX", SILENT)
    server.set("a.test", "MX", found("a.test 300 IN MX 10 mx.a.test."))
    resolver = impatient(server, 0.4, limiter=limiters(counters, lookups=2).lookups)
    slow = [asyncio.create_task(resolver.mx("slow.test")) for _ in range(2)]
    await until(lambda: server.types_asked("slow.test") == ["MX", "MX"])
    evidence = await resolver.mx("a.test")
    assert evidence.outcome is DnsOutcome.FOUND
    assert any(task.done() for task in slow), "it waited for the end of one of them"
    assert saturated(counters) == {"lookups": 1}
    await asyncio.gather(*slow)


async def test_cancelling_a_lookup_frees_its_place(server: DnsServer) -> None:
    server.set("slow.test", "MX", SILENT)
    resolver = impatient(server, 5.0, limiter=limiters(lookups=1).lookups)
    task = asyncio.create_task(resolver.mx("slow.test"))
    await until(lambda: server.types_asked("slow.test"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await asyncio.wait_for(resolver.mx("a.test"), 1)).outcome is DnsOutcome.NXDOMAIN


async def test_types_other_than_mx_and_addresses_can_be_looked_up(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("a.test", "TXT", found('a.test 300 IN TXT "one" "two"'))
    result = await resolver.lookup("a.test", dns.rdatatype.TXT)
    assert result.outcome is DnsOutcome.FOUND
    assert len(result.rdatas) == 1


# ---------------------------------------------------------------- SRV records


async def test_srv_records_name_hosts_ports_and_priorities(
    server: DnsServer, resolver: Resolver
) -> None:
    owner = "_submission._tcp.a.test"
    server.set(
        owner,
        "SRV",
        found(
            f"{owner}. 300 IN SRV 20 1 587 b.a.test.",
            f"{owner}. 300 IN SRV 10 0 2525 a.a.test.",
            f"{owner}. 300 IN SRV 10 5 587 a.a.test.",
        ),
    )
    assert await resolver.srv(owner) == MxEvidence(
        DnsOutcome.FOUND,
        secure=True,
        records=(
            MxRecord(10, "a.a.test", 587),
            MxRecord(10, "a.a.test", 2525),
            MxRecord(20, "b.a.test", 587),
        ),
        canonical=owner,
        expires=(await resolver.srv(owner)).expires,
    )


async def test_a_single_srv_record_with_a_dot_says_that_there_is_no_service(
    server: DnsServer, resolver: Resolver
) -> None:
    owner = "_submission._tcp.a.test"
    server.set(owner, "SRV", found(f"{owner}. 300 IN SRV 0 0 0 ."))
    assert (await resolver.srv(owner)).null_mx
    assert (await resolver.srv("_smtp._tcp.a.test")).outcome is DnsOutcome.NXDOMAIN


# ---------------------------------------------------------------- budgets


def budgeted(server: DnsServer, **limits: int) -> Resolver:
    budgets = Budgets(Limits(**limits), Counters())
    return Resolver([server.nameserver], 1.0, clock=lambda: NOW, budgets=budgets)


async def test_beyond_the_budget_of_its_zone_a_name_is_not_looked_up(server: DnsServer) -> None:
    resolver = budgeted(server, zone_lookups_per_minute=4)
    await resolver.mx("r1.victim.test")
    await resolver.mx("r2.victim.test")
    found = await resolver.mx("r3.victim.test")
    assert (found.outcome, found.unasked) == (DnsOutcome.ERROR, True)
    assert found.error.startswith("over budget: limits.zone_lookups_per_minute")
    assert found.expires == NOW
    assert len(server.asked) == 2
    assert not (await resolver.mx("a.other.test")).unasked


async def test_of_a_host_of_which_one_lookup_was_made_not_all_is_known(server: DnsServer) -> None:
    server.set("mx.victim.test", "A", found("mx.victim.test. 300 IN A 192.0.2.1"))
    server.set("mx.victim.test", "AAAA", found("mx.victim.test. 300 IN AAAA 2001:db8::1"))
    resolver = budgeted(server, zone_lookups_per_minute=2)
    seen = await resolver.addresses("mx.victim.test")
    assert seen.unasked
    assert len(server.asked) == 1


async def test_of_an_alias_that_was_not_looked_up_not_all_is_known(server: DnsServer) -> None:
    chain = ("mx.victim.test. 300 IN CNAME other.test.", "other.test. 300 IN A 192.0.2.1")
    server.set("mx.victim.test", "A", found(*chain, ad=False))
    server.set("mx.victim.test", "AAAA", nodata(ad=False))
    resolver = budgeted(server, zone_lookups_per_minute=4)
    seen = await resolver.addresses("mx.victim.test")
    assert (seen.alias_error, seen.unasked) == (True, True)


async def test_the_test_of_the_resolver_has_no_budget(server: DnsServer) -> None:
    resolver = budgeted(server, zone_lookups_per_minute=2)
    for _ in range(5):
        await resolver.root()
    assert len(server.asked) == 5
