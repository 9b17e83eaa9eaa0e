"""The resolver's self-test: an answer proves or convicts, the lack of one does neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from structlog.testing import capture_logs

from requiretls_milter.config import Config
from requiretls_milter.evidence.dns import AdTrust, Resolver
from requiretls_milter.evidence.selftest import (
    BOGUS_NAMES,
    FAILED_INTERVAL,
    INSECURE_NAMES,
    PASSED_INTERVAL,
    PROOF_LIFETIME,
    UNPROVEN_INTERVAL,
    ResolverWatch,
    SelfTest,
    SelfTestOutcome,
)
from requiretls_milter.model import DnsOutcome
from tests.support.dnsserver import (
    SILENT,
    DnsServer,
    Scripted,
    bogus,
    failure,
    found,
    nodata,
    nxdomain,
    show_validation,
)

NAMED = SelfTest("signed.test", ("bogus.test",), ("unsigned.test",))
PUBLIC = SelfTest()

SIGNED = found("signed.test. 300 IN A 192.0.2.1", ad=True)
UNSIGNED = found("unsigned.test. 300 IN A 192.0.2.1", ad=False)
BOGUS = bogus("bogus.test. 300 IN A 192.0.2.1")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """A resolver that does all three as it should."""
    async with DnsServer() as server:
        server.set("signed.test", "A", SIGNED)
        server.set("bogus.test", "A", BOGUS)
        server.set("unsigned.test", "A", UNSIGNED)
        show_validation(server)
        server.set("mx.test", "A", found("mx.test. 300 IN A 192.0.2.1", ad=True))
        yield server


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    return Resolver([server.nameserver], 0.5)


def configured(server: DnsServer, **keys: object) -> Config:
    names = {
        "selftest_secure": "signed.test",
        "selftest_bogus": "bogus.test",
        "selftest_insecure": "unsigned.test",
    }
    values = {"nameservers": [server.address], "timeout": 0.5, **names, **keys}
    return Config.model_validate({"dns": values})


def validates(watch: ResolverWatch) -> bool:
    """What the gauge shows."""
    return watch.validates


# ---------------------------------------------------------------- the test


@pytest.mark.parametrize("test", [NAMED, PUBLIC])
async def test_r20_a_resolver_that_validates_passes(resolver: Resolver, test: SelfTest) -> None:
    result = await test.run(resolver)
    assert (result.outcome, result.problems) == (SelfTestOutcome.PASSED, ())


@pytest.mark.parametrize(
    ("name", "lie", "told"),
    [
        ("signed.test", found("signed.test. 300 IN A 192.0.2.1", ad=False), "without AD"),
        ("signed.test", nodata(ad=False), "without AD"),
        ("bogus.test", found("bogus.test. 300 IN A 192.0.2.1", ad=False), "bogus"),
        ("bogus.test", found("bogus.test. 300 IN A 192.0.2.1", ad=True), "bogus"),
        ("bogus.test", nodata(ad=False), "bogus"),
        ("unsigned.test", found("unsigned.test. 300 IN A 192.0.2.1", ad=True), "with AD"),
        ("unsigned.test", nodata(ad=True), "with AD"),
    ],
)
async def test_r20_a_resolver_that_lies_fails_and_the_lie_is_told(
    server: DnsServer, resolver: Resolver, name: str, lie: Scripted, told: str
) -> None:
    server.set(name, "A", lie)
    result = await NAMED.run(resolver)
    assert result.outcome is SelfTestOutcome.FAILED
    (problem,) = result.problems
    assert name in problem
    assert told in problem


SERVFAIL_WITH_CD_TOO = failure()
NO_ANSWER_WITH_CD = Scripted(rcode=dns.rcode.SERVFAIL, unchecked=SILENT)
NO_SUCH_NAME_WITH_CD = Scripted(rcode=dns.rcode.SERVFAIL, unchecked=nxdomain(ad=False))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("bogus.test", SILENT),
        ("bogus.test", failure(dns.rcode.REFUSED)),
        ("bogus.test", nxdomain(ad=True)),
        ("bogus.test", SERVFAIL_WITH_CD_TOO),
        ("bogus.test", NO_ANSWER_WITH_CD),
        ("bogus.test", NO_SUCH_NAME_WITH_CD),
        ("unsigned.test", failure()),
        ("unsigned.test", SILENT),
        ("unsigned.test", nxdomain(ad=True)),
        ("unsigned.test", nxdomain(ad=False)),
    ],
)
async def test_r20_one_control_is_enough_and_without_any_nothing_is_shown(
    server: DnsServer, resolver: Resolver, name: str, answer: Scripted
) -> None:
    server.set(name, "A", answer)
    result = await NAMED.run(resolver)
    assert result.outcome is SelfTestOutcome.PASSED
    (problem,) = result.problems
    assert name in problem
    server.set("bogus.test" if name == "unsigned.test" else "unsigned.test", "A", SILENT)
    assert (await NAMED.run(resolver)).outcome is SelfTestOutcome.UNDECIDED


@pytest.mark.parametrize("answer", [failure(), SILENT])
async def test_r20_without_the_signed_name_nothing_is_shown_not_even_that_it_lies(
    server: DnsServer, resolver: Resolver, answer: Scripted
) -> None:
    server.set("signed.test", "A", answer)
    assert (await NAMED.run(resolver)).outcome is SelfTestOutcome.UNDECIDED


def copies_ad(query: dns.message.Message) -> bytes:
    """A forwarder that validates nothing: the AD bit of the query comes back in the answer."""
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= query.flags & dns.flags.AD
    response.answer.append(dns.rrset.from_text(".", 300, "IN", "NS", "a.root-servers.net."))
    return response.to_wire()


@pytest.mark.parametrize("rest", [SILENT, failure(), nxdomain(ad=False)])
async def test_r20_a_proxy_that_copies_ad_is_not_believed_where_only_the_root_is_seen(
    resolver: Resolver, server: DnsServer, rest: Scripted
) -> None:
    server.set(".", "NS", Scripted(raw=copies_ad))
    for name in (*BOGUS_NAMES, *INSECURE_NAMES):
        server.set(name, "A", rest)
    assert (await PUBLIC.run(resolver)).outcome is SelfTestOutcome.UNDECIDED


async def test_a_resolver_that_lies_fails_though_the_signed_name_cannot_be_seen(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("signed.test", "A", failure())
    server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
    assert (await NAMED.run(resolver)).outcome is SelfTestOutcome.FAILED


async def test_a_root_zone_without_ad_convicts_and_no_root_zone_does_not(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set(".", "NS", found(". 300 IN NS a.root-servers.net.", ad=False))
    assert (await PUBLIC.run(resolver)).outcome is SelfTestOutcome.FAILED
    server.set(".", "NS", nxdomain(ad=False))
    assert (await PUBLIC.run(resolver)).outcome is SelfTestOutcome.UNDECIDED


async def test_one_public_name_that_changes_hands_convicts_no_resolver(
    server: DnsServer, resolver: Resolver
) -> None:
    repaired, signed = BOGUS_NAMES[0], INSECURE_NAMES[0]
    server.set(repaired, "A", found(f"{repaired}. 300 IN A 192.0.2.1", ad=True))
    server.set(signed, "A", found(f"{signed}. 300 IN A 192.0.2.1", ad=True))
    assert (await PUBLIC.run(resolver)).outcome is SelfTestOutcome.PASSED


@pytest.mark.parametrize("names", [BOGUS_NAMES, INSECURE_NAMES])
async def test_all_public_names_of_a_kind_convict(
    server: DnsServer, resolver: Resolver, names: tuple[str, ...]
) -> None:
    for name in names:
        server.set(name, "A", found(f"{name}. 300 IN A 192.0.2.1", ad=True))
    assert (await PUBLIC.run(resolver)).outcome is SelfTestOutcome.FAILED


def test_empty_names_stand_for_the_public_ones() -> None:
    assert SelfTest.of(Config()) == PUBLIC
    dns = {"selftest_bogus": "Bogus.Test"}
    assert SelfTest.of(Config.model_validate({"dns": dns})).bogus == ("bogus.test",)


# ---------------------------------------------------------------- the watch

LIE = found("unsigned.test. 300 IN A 192.0.2.1", ad=True)


def blind(server: DnsServer) -> None:
    """From now on none of the names can be seen."""
    for name in ("signed.test", "bogus.test", "unsigned.test"):
        server.set(name, "A", failure())


def sighted(server: DnsServer) -> None:
    """From now on it shows that it validates."""
    for name, answer in (("signed", SIGNED), ("bogus", BOGUS), ("unsigned", UNSIGNED)):
        server.set(f"{name}.test", "A", answer)


async def test_r20_nothing_is_called_secure_while_the_resolver_lies(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    assert await watch.test_now()
    assert validates(watch)
    assert (await resolver.addresses("mx.test")).secure
    server.set("unsigned.test", "A", LIE)
    assert await watch.test_now()
    assert not validates(watch)
    assert not (await resolver.addresses("mx.test")).secure
    server.set("unsigned.test", "A", UNSIGNED)
    assert await watch.test_now()
    assert validates(watch)
    assert (await resolver.addresses("mx.test")).secure


async def test_r20_nothing_is_called_secure_before_something_was_shown(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    blind(server)
    assert resolver.trust is AdTrust.UNPROVEN
    assert not await watch.test_now(), "nothing was believed, and nothing is"
    assert not validates(watch)
    found = await resolver.addresses("mx.test")
    assert (found.outcome, found.secure, found.unproven) == (DnsOutcome.FOUND, False, True)
    sighted(server)
    assert await watch.test_now()
    assert validates(watch)
    found = await resolver.addresses("mx.test")
    assert (found.secure, found.unproven) == (True, False)


async def test_r20_one_control_is_proof_enough_before_the_test_has_ended(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("bogus.test", "A", SILENT)
    watch = ResolverWatch(resolver, configured(server, timeout=5))
    test = asyncio.create_task(watch.test_now())
    await watch.prove()
    assert not test.done()
    assert validates(watch)
    assert (await resolver.addresses("mx.test")).secure
    test.cancel()


@pytest.mark.parametrize("silent", [["unsigned.test", "bogus.test"], ["signed.test"]])
async def test_r20_what_proves_nothing_early_waits_for_the_test(
    server: DnsServer, resolver: Resolver, silent: list[str]
) -> None:
    for name in silent:
        server.set(name, "A", SILENT)
    watch = ResolverWatch(resolver, configured(server))
    await watch.prove()
    assert not resolver.tested.is_set()
    assert not validates(watch)


async def test_r20_a_lie_that_is_seen_later_ends_what_was_proven_early(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    await watch.prove()
    assert validates(watch)
    server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
    assert await watch.test_now()
    assert not validates(watch)


async def test_what_has_no_ad_bit_is_insecure_whether_or_not_the_resolver_validates(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    blind(server)
    await watch.test_now()
    server.set("mx.test", "A", found("mx.test. 300 IN A 192.0.2.1", ad=False))
    lookup = await resolver.addresses("mx.test")
    assert (lookup.secure, lookup.unproven) == (False, False)
    server.set("unsigned.test", "A", LIE)
    await watch.test_now()
    server.set("mx.test", "A", found("mx.test. 300 IN A 192.0.2.1", ad=True))
    lookup = await resolver.addresses("mx.test")
    assert (lookup.secure, lookup.unproven) == (False, False), "a liar's bit is no open question"


async def test_r20_an_answer_under_way_when_the_trust_changes_is_not_secure(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    blind(server)
    await watch.test_now()

    def meanwhile(query: dns.message.Message) -> bytes:
        resolver.rely_on(resolver.nameservers, AdTrust.BELIEVED)
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AD
        response.answer.append(dns.rrset.from_text("mx.test.", 300, "IN", "A", "192.0.2.1"))
        return response.to_wire()

    server.set("mx.test", "A", Scripted(raw=meanwhile))
    lookup = await resolver.addresses("mx.test")
    assert resolver.trust is AdTrust.BELIEVED
    assert (lookup.secure, lookup.unproven) == (False, True)


def told(lines: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    return [(line["event"], line["log_level"]) for line in lines]


async def test_each_change_is_one_loud_line(server: DnsServer, resolver: Resolver) -> None:
    watch = ResolverWatch(resolver, configured(server))
    with capture_logs() as lines:
        await watch.test_now()
        await watch.test_now()
        server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
        await watch.test_now()
        await watch.test_now()
        server.set("bogus.test", "A", BOGUS)
        await watch.test_now()
    assert told(lines) == [
        ("resolver_validates", "info"),
        ("resolver_does_not_validate", "error"),
        ("resolver_validates", "info"),
    ]
    assert "bogus.test" in lines[1]["why"]
    assert lines[1]["nameservers"] == server.address


async def test_that_nothing_was_shown_is_told_once_with_its_effect(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    blind(server)
    with capture_logs() as lines:
        await watch.test_now()
        await watch.test_now()
        sighted(server)
        await watch.test_now()
        blind(server)
        await watch.test_now()
        await watch.test_now()
    assert told(lines) == [
        ("resolver_not_tested", "warning"),
        ("resolver_validates", "info"),
        ("resolver_not_tested", "warning"),
    ]
    assert lines[0]["effect"] == "nothing is called secure"
    assert "believed as before" in lines[2]["effect"]


async def test_a_test_without_a_result_changes_nothing_for_a_day(
    server: DnsServer, resolver: Resolver
) -> None:
    now = 1000.0
    watch = ResolverWatch(
        resolver, configured(server), monotonic=lambda: now, wall=lambda: 5000 + now
    )
    assert await watch.test_now()
    assert watch.last_passed == 6000.0
    blind(server)
    now += PROOF_LIFETIME - 1
    assert not await watch.test_now()
    assert validates(watch), "a network that is down proves nothing against the resolver"
    assert watch.last_passed == 6000.0
    now += 1
    with capture_logs() as lines:
        assert await watch.test_now()
    assert told(lines) == [("resolver_not_tested", "warning")]
    assert not validates(watch), "what cannot be shown again does not last"
    assert resolver.trust is AdTrust.UNPROVEN


async def test_a_resolver_that_lied_stays_convicted_until_it_passes(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))

    async def trust() -> AdTrust:
        await watch.test_now()
        return resolver.trust

    server.set("signed.test", "A", found("signed.test. 300 IN A 192.0.2.1", ad=False))
    assert await trust() is AdTrust.IGNORED
    blind(server)
    assert await trust() is AdTrust.IGNORED
    sighted(server)
    assert await trust() is AdTrust.BELIEVED


async def test_a_resolver_on_an_untrusted_path_is_never_trusted(
    server: DnsServer, resolver: Resolver
) -> None:
    resolver.path_trusted = False  # as for a system resolver elsewhere
    watch = ResolverWatch(resolver, configured(server))
    with capture_logs() as lines:
        assert not await watch.test_now()
    assert not validates(watch)
    assert resolver.trust is AdTrust.IGNORED
    assert [line["event"] for line in lines] == ["resolver_not_trusted"]


async def test_lookups_wait_for_the_first_test(server: DnsServer, resolver: Resolver) -> None:
    server.set("signed.test", "A", found("signed.test. 300 IN A 192.0.2.1", ad=False))
    watch = ResolverWatch(resolver, configured(server))
    early = asyncio.create_task(resolver.addresses("mx.test"))
    for _ in range(20):  # turns of the loop: all that waits for nothing is done
        await asyncio.sleep(0)
    assert not early.done()
    assert server.types_asked("mx.test") == []
    assert await watch.test_now()
    answer = await early
    assert answer.outcome is DnsOutcome.FOUND
    assert not answer.secure


async def test_they_wait_no_longer_than_one_lookup_for_a_resolver_that_is_silent(
    server: DnsServer, resolver: Resolver
) -> None:
    for name in ("signed.test", "bogus.test", "unsigned.test"):
        server.set(name, "A", SILENT)
    watch = ResolverWatch(resolver, configured(server, timeout=0.2))
    loop = asyncio.get_running_loop()
    began = loop.time()
    lookup, _ = await asyncio.gather(resolver.addresses("mx.test"), watch.test_now())
    assert loop.time() - began < 2
    assert lookup.outcome is DnsOutcome.FOUND
    assert not lookup.secure


async def test_the_next_test_comes_the_sooner_the_less_is_known(
    server: DnsServer, resolver: Resolver
) -> None:
    now = 1000.0
    watch = ResolverWatch(resolver, configured(server), monotonic=lambda: now)

    async def test_in(interval: float) -> None:
        nonlocal now
        await watch.test_now()
        now += interval - 1
        assert not watch.due()
        now += 1
        assert watch.due()

    assert watch.due()
    await test_in(PASSED_INTERVAL)
    server.set("bogus.test", "A", SILENT)
    await test_in(FAILED_INTERVAL)
    server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
    await test_in(FAILED_INTERVAL)
    watch = ResolverWatch(resolver, configured(server), monotonic=lambda: now)
    blind(server)
    await test_in(UNPROVEN_INTERVAL)


# ---------------------------------------------------------------- several servers


@pytest.fixture
async def other() -> AsyncIterator[DnsServer]:
    """A second server, which has the same names and says what the test wants."""
    async with DnsServer() as other:
        sighted(other)
        other.set("mx.test", "A", found("mx.test. 300 IN A 192.0.2.66", ad=True))
        yield other


@pytest.mark.parametrize("lies", [True, False])
async def test_r20_of_several_servers_only_those_are_asked_that_have_shown_that_they_validate(
    server: DnsServer, other: DnsServer, lies: bool
) -> None:
    """Otherwise whoever silences the honest one chooses the one that is believed."""
    if lies:
        other.set("unsigned.test", "A", LIE)
    else:
        blind(other)
    resolver = Resolver([other.nameserver, server.nameserver], 0.5)
    both = configured(server, nameservers=[other.address, server.address])
    watch = ResolverWatch(resolver, both)
    with capture_logs() as lines:
        assert await watch.test_now()
    assert validates(watch)
    event = "resolver_does_not_validate" if lies else "resolver_not_tested"
    assert [(line["event"], line["nameservers"]) for line in lines] == [
        ("resolver_validates", server.address),
        (event, other.address),
    ]
    assert lines[1]["effect"] == "it is not asked"
    server.set("mx.test", "A", SILENT)
    assert (await resolver.addresses("mx.test")).outcome is DnsOutcome.ERROR
    assert other.types_asked("mx.test") == []
    sighted(other)
    assert await watch.test_now()
    assert (await resolver.addresses("mx.test")).secure
    assert other.types_asked("mx.test") != []


async def test_if_none_is_proven_all_are_asked_and_nothing_is_secure(
    server: DnsServer, other: DnsServer
) -> None:
    other.set("unsigned.test", "A", LIE)
    blind(server)
    resolver = Resolver([server.nameserver, other.nameserver], 2)
    both = configured(server, nameservers=[server.address, other.address])
    watch = ResolverWatch(resolver, both)
    await watch.test_now()
    assert not validates(watch)
    server.set("mx.test", "A", failure())
    lookup = await resolver.addresses("mx.test")
    assert (lookup.outcome, lookup.secure) == (DnsOutcome.FOUND, False)
