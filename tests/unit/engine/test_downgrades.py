"""A feature that is gone is told once, and never invented."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from requiretls_milter.engine.downgrades import REMEMBERED, DowngradeTracker, observations
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    Feature,
    HopKind,
    HostEvidence,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    NextHop,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
    TlsaEvidence,
    TlsaRecord,
)
from requiretls_milter.store.base import StoreError, StoreKind
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from tests.support.memory import long_name, measured

DAY = 86400.0
NOW = 1_800_000_000.0
RECORD = TlsaRecord(3, 1, 1, bytes(32))
POLICY = MtaStsPolicy(MtaStsMode.ENFORCE, ("mx.example.org",), 86400, "1")


@dataclass(frozen=True)
class Offer:
    """What a domain with one host offers; None for what cannot be found out."""

    starttls: bool | None = True
    requiretls: bool | None = True
    tlsa: bool | None = True
    mta_sts: bool | None = True


def evidence(offer: Offer, domain: str = "example.org") -> DomainEvidence:
    host = f"mx.{domain}"
    tlsa = TlsaEvidence(True, DnsOutcome.NODATA, True, host)
    if offer.tlsa is None:
        tlsa = replace(tlsa, outcome=DnsOutcome.ERROR)
    elif offer.tlsa:
        tlsa = replace(tlsa, outcome=DnsOutcome.FOUND, records=(RECORD,))
    if offer.starttls is None:
        probe = ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.TIMEOUT)
    elif offer.starttls:
        stage = ProbeStage.DONE if offer.requiretls is not None else ProbeStage.HANDSHAKE
        probe = ProbeEvidence(
            "192.0.2.1", stage, starttls_offered=True, requiretls=offer.requiretls
        )
    else:
        probe = ProbeEvidence("192.0.2.1", ProbeStage.DONE, starttls_offered=False)
    sts = MtaStsEvidence(POLICY if offer.mta_sts else None, "timeout" * (offer.mta_sts is None))
    lookup = AddressLookup(DnsOutcome.FOUND, True, ("192.0.2.1",), host)
    return DomainEvidence(
        NextHop(HopKind.MX, domain),
        MxEvidence(DnsOutcome.FOUND, True),
        sts,
        (HostEvidence(host, 10, lookup, tlsa, (probe,)),),
    )


@dataclass
class World:
    """A tracker with its counters."""

    store: MemoryStore = field(default_factory=MemoryStore)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.tracker = DowngradeTracker(RecordStore(self.store, self.counters), self.counters)

    def restart(self) -> None:
        self.tracker = DowngradeTracker(RecordStore(self.store, self.counters), self.counters)

    async def sees(self, offer: Offer, day: float, domain: str = "example.org") -> float:
        return await self.tracker.observe(evidence(offer, domain), NOW + day * DAY)

    def counted(self) -> Counter[str]:
        return Counter(
            {
                labels[0]: int(value)
                for name, labels, value in self.counters.totals().counters
                if name == "downgrades_total" and value
            }
        )


@pytest.mark.parametrize("feature", list(Feature))
async def test_what_was_offered_and_is_gone_is_counted_once(feature: Feature) -> None:
    world = World()
    gone = replace(Offer(), **{feature.value: False})
    assert await world.sees(Offer(), 0) == 0
    for day in (1, 1.5, 2):
        assert await world.sees(gone, day) == NOW + DAY
    expected = {feature.value: 1}
    assert world.counted() == expected


async def test_what_comes_back_and_goes_again_is_counted_again() -> None:
    world = World()
    gone = Offer(requiretls=False)
    for day, offer in enumerate((Offer(), gone, Offer(), gone)):
        lost = await world.sees(offer, day)
    assert lost == NOW + 3 * DAY
    assert world.counted() == {"requiretls": 2}


async def test_what_was_never_offered_is_no_downgrade() -> None:
    world = World()
    for day in range(3):
        assert await world.sees(Offer(False, None, False, False), day) == 0
    assert not world.counted()


@pytest.mark.parametrize("feature", list(Feature))
async def test_what_cannot_be_found_out_is_no_downgrade(feature: Feature) -> None:
    world = World()
    await world.sees(Offer(), 0)
    assert await world.sees(replace(Offer(), **{feature.value: None}), 1) == 0
    assert not world.counted()


async def test_starttls_that_is_put_off_is_no_downgrade() -> None:
    world = World()
    await world.sees(Offer(), 0)
    seen = evidence(Offer())
    (host,) = seen.hosts
    put_off = replace(host.probes[0], requiretls=None, starttls_reply=Reply(454, "4.7.0"))
    seen = replace(seen, hosts=(replace(host, probes=(put_off,)),))
    assert await world.tracker.observe(seen, NOW + DAY) == 0
    assert not world.counted()


async def test_a_policy_that_is_withdrawn_in_mode_none_is_no_downgrade() -> None:
    world = World()
    await world.sees(Offer(), 0)
    withdrawn = replace(
        evidence(Offer()), mta_sts=MtaStsEvidence(replace(POLICY, mode=MtaStsMode.NONE))
    )
    assert await world.tracker.observe(withdrawn, NOW + DAY) == 0
    assert await world.sees(Offer(mta_sts=False), 2) == 0
    assert not world.counted()


async def test_r58_a_policy_that_vanishes_is_a_downgrade_while_it_still_applies() -> None:
    world = World()
    await world.sees(Offer(), 0)
    kept = MtaStsEvidence(POLICY, "the domain has no record any more", vanished=True)
    seen = replace(evidence(Offer()), mta_sts=kept)
    assert await world.tracker.observe(seen, NOW + DAY) == NOW + DAY
    assert world.counted() == {"mta_sts": 1}


async def test_a_downgrade_outlives_a_restart_and_is_not_counted_again() -> None:
    world = World()
    await world.sees(Offer(), 0)
    world.restart()
    assert await world.sees(Offer(tlsa=False), 1) == NOW + DAY
    world.restart()
    assert await world.sees(Offer(tlsa=False), 2) == NOW + DAY
    assert world.counted() == {"tlsa": 1}


class SlowStore(MemoryStore):
    """A store that takes its time to answer, as any that is not memory does."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        found = await super().get(kind, key, now)
        await asyncio.sleep(0.01)
        return found


async def test_domains_that_share_a_host_and_are_looked_at_at_once_count_its_loss_once() -> None:
    world = World(store=SlowStore())
    await world.sees(Offer(), 0)
    world.restart()  # nothing is in memory: both ask the store
    gone = evidence(Offer(requiretls=False))
    other = replace(gone, nexthop=NextHop(HopKind.MX, "other.example"))
    looks = [world.tracker.observe(seen, NOW + DAY + n) for n, seen in enumerate((gone, other))]
    assert await asyncio.gather(*looks) == [NOW + DAY, NOW + DAY]
    assert world.counted() == {"requiretls": 1}


async def test_a_look_from_before_the_loss_restores_nothing() -> None:
    """A domain's look may last, with evidence of a host of which another has found out more."""
    world = World()
    old, gone, back = (
        at(evidence(Offer(requiretls=offered)), NOW + hour * 3600)
        for hour, offered in enumerate((True, False, True))
    )
    await world.tracker.observe(old, NOW)
    assert await world.tracker.observe(gone, NOW + 3600.5) == NOW + 3600
    assert await world.tracker.observe(old, NOW + 3601) == NOW + 3600
    assert await world.tracker.observe(gone, NOW + 3602) == NOW + 3600
    assert world.counted() == {"requiretls": 1}
    assert await world.tracker.observe(back, NOW + 7200) == 0
    assert await world.tracker.observe(gone, NOW + 7201) == 0
    assert world.counted() == {"requiretls": 1}


async def test_a_clock_that_goes_back_hides_no_loss() -> None:
    world = World()
    await world.sees(Offer(), 1)
    assert await world.sees(Offer(tlsa=False), 0) == NOW
    assert world.counted() == {"tlsa": 1}


def at(seen: DomainEvidence, moment: float) -> DomainEvidence:
    """The same, found out at that moment."""
    (host,) = seen.hosts
    probes = tuple(replace(probe, probed_at=moment) for probe in host.probes)
    return replace(seen, hosts=(replace(host, probes=probes),))


async def test_what_was_offered_long_ago_is_forgotten() -> None:
    world = World()
    await world.sees(Offer(), 0)
    assert await world.sees(Offer(tlsa=False), REMEMBERED / DAY + 1) == 0
    assert not world.counted()


class BrokenStore(MemoryStore):
    """A store whose disk is gone."""

    async def get(self, kind: StoreKind, key: str, now: float) -> bytes | None:
        raise StoreError("disk gone")

    async def put(
        self, kind: StoreKind, key: str, value: bytes, keep_until: float, now: float
    ) -> None:
        raise StoreError("disk gone")


async def test_a_broken_store_costs_no_more_than_memory_over_a_restart() -> None:
    world = World(store=BrokenStore())
    await world.sees(Offer(), 0)
    assert await world.sees(Offer(tlsa=False), 1) == NOW + DAY
    assert world.counted() == {"tlsa": 1}


async def test_a_resolver_that_no_longer_validates_is_no_downgrade() -> None:
    world = World()
    await world.sees(Offer(), 0)
    seen = evidence(Offer())
    (host,) = seen.hosts
    unsigned = replace(
        host, addresses=replace(host.addresses, secure=False), tlsa=TlsaEvidence(queried=False)
    )
    assert await world.tracker.observe(replace(seen, hosts=(unsigned,)), NOW + DAY) == 0
    assert not world.counted()


def test_a_host_offers_what_all_of_its_servers_offer() -> None:
    seen = evidence(Offer())
    (host,) = seen.hosts
    other = ProbeEvidence("192.0.2.2", ProbeStage.DONE, starttls_offered=False)
    seen = replace(seen, hosts=(replace(host, probes=(*host.probes, other)),))
    starttls = [o.offered for o in observations(seen) if o.feature is Feature.STARTTLS]
    assert starttls == [False]


# ---------------------------------------------------------------- thirty days

OF_HOSTS = (Feature.STARTTLS, Feature.REQUIRETLS, Feature.TLSA)
SHARED_HOSTS = 50
"""Half of the domains have one of these, the others a host of their own."""


@dataclass
class Internet:
    """What 1,000 domains and their hosts offer, and what was ever seen of that.

    ``seen`` is since when something that was seen offered is not, 0.0 where it still is;
    ``expected`` is counted from the truth.
    """

    chance: random.Random
    hosts: dict[str, dict[Feature, bool]] = field(default_factory=dict)
    policies: dict[str, bool] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    seen: dict[tuple[Feature, str], float] = field(default_factory=dict)
    expected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for number in range(1000):
            domain = f"d{number}.example"
            shares = number % 2
            host = f"mx{number % SHARED_HOSTS}.shared.example" if shares else f"mx.{domain}"
            self.domains[domain] = host
            self.hosts[host] = {feature: self.chance.random() < 0.8 for feature in OF_HOSTS}
            self.policies[domain] = self.chance.random() < 0.5

    def change(self) -> None:
        """A day's losses and renewals."""
        for offered in self.hosts.values():
            for feature, now in offered.items():
                if self.chance.random() < (0.02 if now else 0.06):
                    offered[feature] = not now
        for domain, now in self.policies.items():
            if self.chance.random() < (0.02 if now else 0.06):
                self.policies[domain] = not now

    def look(self, domain: str, trouble: str) -> DomainEvidence:
        """What is found out of a domain in that trouble; "" is none."""
        name = self.domains[domain]
        offered = self.hosts[name]
        shown = evidence(
            Offer(
                starttls=None if trouble in ("network", "timeout") else offered[Feature.STARTTLS],
                requiretls=None if trouble == "handshake" else offered[Feature.REQUIRETLS],
                tlsa=None if trouble in ("network", "lame") else offered[Feature.TLSA],
                mta_sts=None if trouble in ("network", "lame") else self.policies[domain],
            ),
            domain,
        )
        (host,) = shown.hosts
        host = replace(host, host=name)
        if trouble == "unsigned":  # a resolver that does not validate any more
            host = replace(host, tlsa=TlsaEvidence(True, DnsOutcome.NODATA, False, name))
        if trouble == "put off":
            reply = Reply(454, "4.7.0")
            probe = replace(host.probes[0], stage=ProbeStage.DONE, requiretls=None)
            host = replace(host, probes=(replace(probe, starttls_reply=reply),))
        if trouble == "withdrawn":
            self.policies[domain] = False
            given_up = replace(POLICY, mode=MtaStsMode.NONE)
            shown = replace(shown, mta_sts=MtaStsEvidence(given_up))
        if trouble == "vanished" and not self.policies[domain]:
            kept = MtaStsEvidence(POLICY, "the domain has no record any more", vanished=True)
            shown = replace(shown, mta_sts=kept)
        return replace(shown, hosts=(host,))

    def lost(self, domain: str, trouble: str, now: float) -> float:
        """When the last of what such a look finds gone was lost; it is counted here."""
        name = self.domains[domain]
        offered = self.hosts[name]
        found = []
        if trouble not in ("network", "timeout", "put off"):
            found.append((Feature.STARTTLS, name, offered[Feature.STARTTLS]))
            if offered[Feature.STARTTLS] and trouble != "handshake":
                found.append((Feature.REQUIRETLS, name, offered[Feature.REQUIRETLS]))
        if trouble not in ("network", "lame", "unsigned"):
            found.append((Feature.TLSA, name, offered[Feature.TLSA]))
        if trouble == "withdrawn":
            self.seen.pop((Feature.MTA_STS, domain), None)
        elif trouble not in ("network", "lame"):
            found.append((Feature.MTA_STS, domain, self.policies[domain]))
        return max([self._lost(*one, now) for one in found], default=0.0)

    def _lost(self, feature: Feature, subject: str, offered: bool, now: float) -> float:
        if offered:
            self.seen[feature, subject] = 0.0
        elif self.seen.get((feature, subject)) == 0.0:
            self.seen[feature, subject] = now
            self.expected[feature.value] += 1
        return self.seen.get((feature, subject), 0.0)


async def test_thirty_days_of_a_thousand_domains_are_counted_exactly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Losses, renewals, outages and restarts; each loss counted and told once, none invented.

    The grace of each begins when it was seen, and at no later look.
    """
    chance = random.Random(8689)  # noqa: S311 - the same days in every run
    log.configure("logfmt", "warning")
    world, internet = World(), Internet(chance)
    troubles = ("timeout", "lame", "handshake", "put off", "unsigned", "vanished", "withdrawn")
    for day in range(31):
        if day:
            internet.change()
        for domain in internet.domains:
            for hour in range(chance.randint(1, 2)):
                trouble = chance.choice(troubles) if chance.random() < 0.15 else ""
                if day in (11, 12):
                    trouble = "network"  # it is we who reach nobody
                now = NOW + day * DAY + hour * 3600
                found = await world.tracker.observe(internet.look(domain, trouble), now)
                assert found == internet.lost(domain, trouble, now)
        assert world.counted() == internet.expected
        if day % 7 == 3:
            world.restart()
    assert all(internet.expected[feature.value] > 100 for feature in Feature)
    told = re.findall(r"event=downgrade .*?kind=(\w+)", capsys.readouterr().err)
    assert Counter(told) == internet.expected


async def test_what_is_remembered_takes_no_more_memory_than_is_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of names of the largest size, offered or not; the store holds all."""
    promised = 1 << 20
    monkeypatch.setattr("requiretls_milter.engine.downgrades.MAX_OCTETS", promised)
    counters = Counters()
    tracker = DowngradeTracker(RecordStore(MemoryStore(max_records=0), counters), counters)
    nothing = DomainEvidence(NextHop(HopKind.MX, ""), MxEvidence(DnsOutcome.FOUND))
    found = replace(nothing, mta_sts=MtaStsEvidence(POLICY))
    with measured() as taken:
        for number in range(4_000):
            seen = found if number % 2 else nothing
            hop = NextHop(HopKind.MX, long_name(number))
            await tracker.observe(replace(seen, nexthop=hop), NOW + number)
        kept = taken()
    assert 0.6 * promised < kept <= promised
