"""The resolver's self-test: an answer convicts it, the lack of one does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from requiretls_milter.config import Config
from requiretls_milter.evidence.dns import Resolver
from requiretls_milter.evidence.selftest import (
    BOGUS_NAMES,
    FAILED_INTERVAL,
    INSECURE_NAMES,
    PASSED_INTERVAL,
    ResolverWatch,
    SelfTest,
    SelfTestOutcome,
)
from requiretls_milter.model import DnsOutcome
from tests.support.dnsserver import (
    SILENT,
    DnsServer,
    Scripted,
    failure,
    found,
    nodata,
    nxdomain,
)

NAMED = SelfTest("signed.test", ("bogus.test",), ("unsigned.test",))
PUBLIC = SelfTest()

SIGNED = found("signed.test. 300 IN A 192.0.2.1", ad=True)
UNSIGNED = found("unsigned.test. 300 IN A 192.0.2.1", ad=False)


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """A resolver that does all three as it should."""
    async with DnsServer() as server:
        server.set("signed.test", "A", SIGNED)
        server.set("bogus.test", "A", failure())
        server.set("unsigned.test", "A", UNSIGNED)
        server.set(".", "NS", found(". 300 IN NS a.root-servers.net.", ad=True))
        for name in BOGUS_NAMES:
            server.set(name, "A", failure())
        for name in INSECURE_NAMES:
            server.set(name, "A", found(f"{name}. 300 IN A 192.0.2.1", ad=False))
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


@pytest.mark.parametrize(
    ("name", "answer", "verdict"),
    [
        # Without the signed name nothing is shown: not even that it lies.
        ("signed.test", failure(), SelfTestOutcome.UNDECIDED),
        ("signed.test", SILENT, SelfTestOutcome.UNDECIDED),
        # Without the others it still has been seen to validate.
        ("bogus.test", SILENT, SelfTestOutcome.PASSED),
        ("bogus.test", nxdomain(ad=True), SelfTestOutcome.PASSED),
        ("unsigned.test", failure(), SelfTestOutcome.PASSED),
        ("unsigned.test", SILENT, SelfTestOutcome.PASSED),
        ("unsigned.test", nxdomain(ad=True), SelfTestOutcome.PASSED),
    ],
)
async def test_a_lookup_that_fails_convicts_no_resolver(
    server: DnsServer, resolver: Resolver, name: str, answer: Scripted, verdict: SelfTestOutcome
) -> None:
    server.set(name, "A", answer)
    assert (await NAMED.run(resolver)).outcome is verdict


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


async def test_r20_nothing_is_called_secure_while_the_resolver_lies(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    assert not await watch.test_now()  # as was believed
    assert validates(watch)
    assert (await resolver.addresses("mx.test")).secure
    server.set("unsigned.test", "A", found("unsigned.test. 300 IN A 192.0.2.1", ad=True))
    assert await watch.test_now()
    assert not validates(watch)
    assert not (await resolver.addresses("mx.test")).secure
    server.set("unsigned.test", "A", UNSIGNED)
    assert await watch.test_now()
    assert validates(watch)
    assert (await resolver.addresses("mx.test")).secure


async def test_each_change_is_one_loud_line(server: DnsServer, resolver: Resolver) -> None:
    watch = ResolverWatch(resolver, configured(server))
    with capture_logs() as lines:
        await watch.test_now()
        await watch.test_now()
        server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
        await watch.test_now()
        await watch.test_now()
        server.set("bogus.test", "A", failure())
        await watch.test_now()
    told = [(line["event"], line["log_level"]) for line in lines]
    assert told == [
        ("resolver_validates", "info"),
        ("resolver_does_not_validate", "error"),
        ("resolver_validates", "info"),
    ]
    assert "bogus.test" in lines[1]["why"]
    assert lines[1]["nameservers"] == server.address


async def test_a_test_without_a_result_changes_nothing(
    server: DnsServer, resolver: Resolver
) -> None:
    watch = ResolverWatch(resolver, configured(server))
    server.set("signed.test", "A", failure())
    assert not await watch.test_now()
    assert resolver.trusted
    assert not validates(watch), "nobody has seen it validate"
    server.set("signed.test", "A", found("signed.test. 300 IN A 192.0.2.1", ad=False))
    assert await watch.test_now()
    server.set("signed.test", "A", failure())
    assert not await watch.test_now()
    assert not resolver.trusted


async def test_a_resolver_on_an_untrusted_path_is_never_trusted(
    server: DnsServer, resolver: Resolver
) -> None:
    resolver.trusted = False  # as for a system resolver elsewhere
    watch = ResolverWatch(resolver, configured(server))
    with capture_logs() as lines:
        assert not await watch.test_now()
    assert not validates(watch)
    assert not resolver.trusted
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


async def test_the_test_is_hourly_and_soon_where_it_was_not_passed(
    server: DnsServer, resolver: Resolver
) -> None:
    now = 1000.0
    watch = ResolverWatch(resolver, configured(server), monotonic=lambda: now)
    assert watch.due()
    await watch.test_now()
    now += PASSED_INTERVAL - 1
    assert not watch.due()
    now += 1
    assert watch.due()
    server.set("bogus.test", "A", found("bogus.test. 300 IN A 192.0.2.1", ad=False))
    await watch.test_now()
    now += FAILED_INTERVAL - 1
    assert not watch.due()
    now += 1
    assert watch.due()
