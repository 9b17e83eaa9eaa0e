"""The internet of the simulations, made up: who has which servers, and how well they are.

The popularity of domains follows Zipf's law. Most domains share the servers of providers. TTLs,
policies and latencies are as they are found. What is said of a name is drawn from the name itself,
so that it is the same each time, and in each simulation.
"""

from __future__ import annotations

import asyncio
import bisect
import enum
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from requiretls_milter.evidence.budgets import Budgets, host_and_network, zone_of
from requiretls_milter.evidence.gathering import ANY_AGE
from requiretls_milter.evidence.mta_sts import FETCH_RETRY, MAX_NEGATIVE, StsRecord
from requiretls_milter.evidence.probe import FRESH
from requiretls_milter.evidence.turns import Claim, Limiters
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    MxRecord,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    ServerTarget,
    TlsaEvidence,
)
from tests.support import build
from tests.support.virtualtime import VirtualClocks

HOUR, DAY = 3_600.0, 86_400.0
"""Seconds."""

LOOKUP, FETCH, SESSION = 0.03, 0.25, 0.4
"""Seconds that a lookup, the fetch of a policy and a session with a server take."""

LAME_TIMEOUT, DEAD_TIMEOUT = 5.0, 10.0
"""Seconds until a lookup and a connection are given up: dns.timeout, probe.connect_timeout."""

RETRY_AFTER = 60.0
"""Seconds for which a session that failed is evidence: probe.retry_after."""

MX_TTLS = (300, 600, 3_600, 3_600, 3_600, 14_400, 86_400)
ADDRESS_TTLS = (60, 300, 300, 3_600, 3_600, 14_400)
TLSA_TTLS = (300, 3_600, 3_600)
NEGATIVE_TTLS = (300, 900, 1_800, 3_600, 3_600, 10_800, 86_400)
POLICY_TTLS = (300, 3_600, 3_600)
"""Seconds; one of them for each name."""

TENANT_TTL = 10
"""Seconds: the TTL of the addresses of a tenant's name, with providers that balance load by DNS."""

FAMILIES = 2
"""Lookups that the addresses of a host take: A and AAAA."""

SERVERS = 5
"""Servers of a large provider, with one name each."""

TENANT_ADDRESSES = 2
"""Addresses of a tenant's name."""

PER_NETWORK = 16
"""Servers of the tenants' provider in one network."""

KEYS = 8
"""Different keys and certificates in the whole simulation: what is presented is one of them."""

LARGE_ZONE, TENANTS_ZONE = "large.example", "tenants.example"


class Kind(enum.Enum):
    """Who runs the servers of a domain."""

    LARGE = "one large provider, the same five names for all its domains"
    TENANTS = "a provider that gives each domain a server's name of its own"
    HOSTER = "a hoster with two servers for all its domains"
    OWN = "the domain itself, one server or two"


@dataclass(frozen=True)
class Health:
    """How often things go wrong: parts of all, unless said otherwise.

    Attributes:
        lame: domains whose name servers never answer.
        lookup: lookups that fail.
        dead: servers of hosters and of domains that never answer.
        session: sessions that end too early.
        slow: servers that take ten times as long.
        outage: seconds of each month in which such a server is away.
        rollover: seconds between two changes of a server's key; 0 for none.
        botched: servers whose TLSA records change six hours after the key.
    """

    lame: float = 0.0
    lookup: float = 0.0
    dead: float = 0.0
    session: float = 0.0
    slow: float = 0.0
    outage: float = 0.0
    rollover: float = 0.0
    botched: float = 0.0


WELL = Health()
USUAL = Health(
    lame=0.003,
    lookup=0.001,
    dead=0.01,
    session=0.003,
    slow=0.02,
    outage=HOUR,
    rollover=60 * DAY,
    botched=0.03,
)

MONTH, BOTCH = 30 * DAY, 6 * HOUR
"""Seconds."""


@dataclass(frozen=True)
class Host:
    """A server's name.

    ``key_phase`` and ``outage_phase`` are seconds within their periods.
    """

    addresses: tuple[str, ...]
    address_ttl: int
    tlsa_ttl: int
    signed: bool
    requiretls: bool
    certificate: str
    pace: float
    dead: bool
    botched: bool
    key_phase: float
    outage_phase: float


@dataclass(frozen=True)
class Site:
    """A domain."""

    kind: Kind
    hosts: tuple[str, ...]
    mx_ttl: int
    has_policy: bool
    record_ttl: int
    lame: bool


@dataclass(frozen=True, eq=False)
class World:
    """What is where.

    Attributes:
        domains: to which there is mail at all; the n-th gets a share of 1/n.
        kinds: the part of the domains of each kind.
        pool: addresses of the tenants' provider.
        hosters: how many.
        skew: the n-th hoster has a share of 1 / n ** skew.
        policies: the part of the domains of each kind that has an MTA-STS policy.
        signed: the part of the hosters' and of the domains' own servers with DANE; with 1, of all.
        offers: the part of the servers that offer REQUIRETLS.
        tenant_ttl: seconds; 0 for one like that of any other server.
        health: what goes wrong.
    """

    domains: int
    kinds: Mapping[Kind, float]
    pool: int
    hosters: int
    skew: float
    policies: Mapping[Kind, float]
    signed: float
    offers: float
    tenant_ttl: int
    health: Health
    _sites: dict[str, Site] = field(init=False, default_factory=dict)
    _hosts: dict[str, Host] = field(init=False, default_factory=dict)
    _hoster_shares: list[float] = field(init=False, default_factory=list)

    # ------------------------------------------------------------ domains

    def site(self, domain: str) -> Site:
        """What there is to know of a domain."""
        known = self._sites.get(domain)
        if known is None:
            known = self._sites[domain] = self._make_site(domain)
        return known

    def _make_site(self, domain: str) -> Site:
        chance = _chance(domain)
        (kind,) = chance.choices(list(self.kinds), list(self.kinds.values()))
        if kind is Kind.LARGE:
            hosts = tuple(f"mx{n}.{LARGE_ZONE}" for n in range(SERVERS))
        elif kind is Kind.TENANTS:
            hosts = (f"{domain.removesuffix('.example')}.{TENANTS_ZONE}",)
        elif kind is Kind.HOSTER:
            hoster = bisect.bisect(self.hoster_shares(), chance.random())
            hosts = tuple(f"mx{n}.hoster{hoster}.example" for n in range(2))
        else:
            hosts = tuple(f"mx{n}.{domain}" for n in range(chance.choice((1, 1, 2))))
        has_policy = chance.random() < self.policies[kind]
        return Site(
            kind,
            hosts,
            mx_ttl=chance.choice(MX_TTLS),
            has_policy=has_policy,
            record_ttl=chance.choice(POLICY_TTLS if has_policy else NEGATIVE_TTLS),
            lame=chance.random() < self.health.lame,
        )

    def hoster_shares(self) -> list[float]:
        """The parts of the hosted domains that the first, the first two, ... hosters have."""
        if not self._hoster_shares:
            shares = [1 / n**self.skew for n in range(1, self.hosters + 1)]
            whole = sum(shares)
            self._hoster_shares.extend(share / whole for share in itertools.accumulate(shares))
            self._hoster_shares[-1] = 1.0
        return self._hoster_shares

    # ------------------------------------------------------------ servers

    def host(self, name: str) -> Host:
        """What there is to know of a server."""
        known = self._hosts.get(name)
        if known is None:
            known = self._hosts[name] = self._make_host(name)
        return known

    def _make_host(self, name: str) -> Host:
        chance, health = _chance(f"host {name}"), self.health
        tenant, large = name.endswith(TENANTS_ZONE), name.endswith(LARGE_ZONE)
        shared = tenant or large
        signed = self.signed == 1.0 or (not shared and chance.random() < self.signed)
        ttl = chance.choice(ADDRESS_TTLS)
        zone = TENANTS_ZONE if tenant else LARGE_ZONE
        return Host(
            self._addresses(name, chance),
            address_ttl=self.tenant_ttl if tenant and self.tenant_ttl else ttl,
            tlsa_ttl=chance.choice(TLSA_TTLS),
            signed=signed,
            requiretls=shared or chance.random() < self.offers,
            certificate=f"*.{zone}" if shared and not signed else "",
            pace=10.0 if not shared and chance.random() < health.slow else 1.0,
            dead=not shared and chance.random() < health.dead,
            botched=chance.random() < health.botched,
            key_phase=chance.random() * health.rollover,
            outage_phase=MONTH if shared else chance.random() * MONTH,
        )

    def _addresses(self, name: str, chance: random.Random) -> tuple[str, ...]:
        if name.endswith(TENANTS_ZONE):
            numbers = chance.sample(range(self.pool), TENANT_ADDRESSES)
            return tuple(
                f"11.{n // PER_NETWORK >> 8}.{n // PER_NETWORK & 255}.{n % PER_NETWORK + 1}"
                for n in numbers
            )
        first, _, rest = name.partition(".")
        last = int(first.removeprefix("mx")) + 1
        if name.endswith(LARGE_ZONE):
            return (f"12.0.{last}.1",)
        label = rest.partition(".")[0]
        if label.startswith("hoster"):
            number, base = int(label.removeprefix("hoster")), 13
        else:
            number, base = int(label.removeprefix("d")), 20
        return (f"{base + (number >> 16)}.{number >> 8 & 255}.{number & 255}.{last}",)

    def is_away(self, host: Host, now: float) -> bool:
        """Whether a server is in one of its outages; *now* in seconds since the beginning."""
        return (now + host.outage_phase) % MONTH < self.health.outage

    def key(self, host: Host, name: str, now: float, *, published: bool) -> build.Presented:
        """The certificate of a server, or the one that its TLSA record tells of."""
        if host.certificate:
            return build.certificate(host.certificate)
        late = BOTCH if published and host.botched else 0.0
        every = self.health.rollover
        changes = int((now - late + host.key_phase) // every) if every else 0
        return build.certificate(f"key{(len(name) + changes) % KEYS}.example")


def _chance(seed: object) -> random.Random:
    """What is random in the simulation, and the same each time."""
    return random.Random(str(seed))  # noqa: S311 - not to be secret


# ---------------------------------------------------------------- what goes out to it


class Calls:
    """What goes out to the network: in all, and in each hour and minute of the day that counts.

    ``busy`` are counted by what they go to: sessions by address and by network, lookups by zone.
    """

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.by_minute: dict[str, Counter[int]] = {}
        self.busy: Counter[tuple[str, str, int, int]] = Counter()
        self.since = 0.0

    def note(self, kind: str, now: float, *parties: tuple[str, str]) -> None:
        """Note one call at *now* (seconds since the beginning)."""
        if now < self.since:
            return
        self.total[kind] += 1
        self.by_minute.setdefault(kind, Counter())[int(now // 60)] += 1
        for what, name in parties:
            for seconds in (60, 3_600):
                self.busy[what, name, seconds, int(now // seconds)] += 1

    def begin(self, now: float) -> None:
        """Count from *now* on."""
        self.total.clear()
        self.by_minute.clear()
        self.busy.clear()
        self.since = now

    def busiest(self, what: str, seconds: int) -> tuple[int, str]:
        """The most calls to one address, network or zone within an hour or minute, and to which."""
        found = (
            (count, name)
            for (kind, name, length, _), count in self.busy.items()
            if (kind, length) == (what, seconds)
        )
        return max(found, default=(0, ""))

    def peak(self, kind: str) -> float:
        """Calls a second in the busiest minute."""
        return max(self.by_minute.get(kind, Counter()).values(), default=0) / 60


class _Failed(NamedTuple):
    """A lookup that failed, as evidence says it."""

    error: str
    expires: float
    unasked: bool


@dataclass
class Internet:
    """Implements the cache's LiveSource, with turns and budgets as the collector has them.

    Args:
        world: what is where.
        clocks: the virtual ones.
        calls: where it is counted what goes out.
        limiters: say when a lookup, a fetch or a session may begin.
        budgets: how often zones and addresses may be asked.
        chance: of what goes wrong once.
    """

    world: World
    clocks: VirtualClocks
    calls: Calls
    limiters: Limiters
    budgets: Budgets
    chance: random.Random

    async def _lookup(self, name: str, *, lame: bool = False) -> _Failed | None:
        """Look a name up; returns why that failed, if it did."""
        if spent := self.budgets.lookup(name):
            return _Failed(spent, self.clocks.wall(), True)
        zone = zone_of(name)

        async def ask() -> _Failed | None:
            self.calls.note("lookups", self.clocks.monotonic(), ("zone", zone))
            await asyncio.sleep(LAME_TIMEOUT if lame else LOOKUP)
            failed = lame or self._goes_wrong(self.world.health.lookup)
            return _Failed("timed out", self.clocks.wall(), False) if failed else None

        return await self.limiters.lookups.run(Claim(zone), ask)

    def _goes_wrong(self, part: float) -> bool:
        return bool(part) and self.chance.random() < part

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        site = self.world.site(domain)
        failed = await self._lookup(domain, lame=site.lame)
        if failed is not None:
            return MxEvidence(DnsOutcome.ERROR, **failed._asdict())
        records = tuple(MxRecord(10 * n, host) for n, host in enumerate(site.hosts, 1))
        return MxEvidence(
            DnsOutcome.FOUND,
            self.world.host(site.hosts[0]).signed,
            records,
            canonical=domain,
            expires=self.clocks.wall() + site.mx_ttl,
        )

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        raise NotImplementedError

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        known = self.world.host(host)
        failed, _ = await asyncio.gather(*(self._lookup(host) for _ in range(FAMILIES)))
        if failed is not None:  # IPv6 has none
            return AddressLookup(DnsOutcome.ERROR, **failed._asdict())
        expires = self.clocks.wall() + known.address_ttl
        return AddressLookup(DnsOutcome.FOUND, known.signed, known.addresses, host, expires=expires)

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        if addresses.outcome is not DnsOutcome.FOUND:
            return TlsaEvidence()
        if not addresses.secure:
            return TlsaEvidence(expires=addresses.expires)
        known = self.world.host(host)
        failed = await self._lookup(f"_{port}._tcp.{host}")
        if failed is not None:
            return TlsaEvidence(
                queried=True, outcome=DnsOutcome.ERROR, base_domain=host, **failed._asdict()
            )
        record = self.world.key(known, host, self.clocks.monotonic(), published=True).tlsa()
        expires = self.clocks.wall() + known.tlsa_ttl
        return TlsaEvidence(True, DnsOutcome.FOUND, True, host, (record,), expires=expires)

    async def mta_sts_record(self, domain: str) -> StsRecord:
        site = self.world.site(domain)
        failed = await self._lookup(f"_mta-sts.{domain}", lame=site.lame)
        if failed is not None:
            return StsRecord(**failed._asdict())
        expires = self.clocks.wall() + site.record_ttl
        return StsRecord("1" if site.has_policy else "", expires=expires)

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        record = await self.mta_sts_record(domain)
        if not record.id:
            expires = min(record.expires, self.clocks.wall() + MAX_NEGATIVE)
            return MtaStsEvidence(error=record.error, expires=expires, unasked=record.unasked)
        policy_host = f"mta-sts.{domain}"
        unknown, _ = await asyncio.gather(*(self._lookup(policy_host) for _ in range(FAMILIES)))

        async def fetch() -> bool:
            self.calls.note("fetches", self.clocks.monotonic())
            await asyncio.sleep(FETCH)
            return self._goes_wrong(self.world.health.session)

        failed = unknown is not None or await self.limiters.fetches.run(Claim(policy_host), fetch)
        now = self.clocks.wall()
        if failed:
            return MtaStsEvidence(error="the fetch failed", expires=now + FETCH_RETRY)
        hosts = self.world.site(domain).hosts
        policy = MtaStsPolicy(MtaStsMode.ENFORCE, hosts, 7 * int(DAY), "1")
        return MtaStsEvidence(policy, fetched_at=now, expires=record.expires)

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        address, server_name = server.address, server.server_name
        host, network = host_and_network(address)

        async def hold() -> ProbeEvidence:
            now = self.clocks.wall()
            if spent := self.budgets.connection(address, server_name):
                return ProbeEvidence(address, error=spent, probed_at=now, expires=now)
            self.calls.note(
                "sessions", self.clocks.monotonic(), ("address", host), ("network", network)
            )
            return await self._session(address, server_name)

        return await self.limiters.probes.run(Claim(network, host), hold)

    async def _session(self, address: str, server_name: str) -> ProbeEvidence:
        known = self.world.host(server_name)
        failure, stage = None, ProbeStage.DONE
        if known.dead:
            await asyncio.sleep(DEAD_TIMEOUT)
            failure, stage = ProbeFailure.TIMEOUT, ProbeStage.CONNECT
        elif self.world.is_away(known, self.clocks.monotonic()):
            await asyncio.sleep(0.1)
            failure, stage = ProbeFailure.REFUSED, ProbeStage.CONNECT
        else:
            await asyncio.sleep(SESSION * known.pace)
            if self._goes_wrong(self.world.health.session):
                failure, stage = ProbeFailure.CLOSED, ProbeStage.EHLO
        now = self.clocks.wall()
        if failure is not None:
            return ProbeEvidence(
                address,
                stage,
                failure=failure,
                error=failure.value,
                probed_at=now,
                expires=now + RETRY_AFTER,
            )
        presented = self.world.key(known, server_name, self.clocks.monotonic(), published=False)
        good = build.probe(address, presented, requiretls=known.requiretls)
        return replace(good, probed_at=now, expires=now + FRESH)


# ---------------------------------------------------------------- the mail

NIGHT = 1 / 6
"""The traffic of an hour of the night, as a part of that of an hour of the day (7 to 19)."""

BY_DAY = 12 * 1.0 + 12 * NIGHT
"""Hours of the day in which a whole day's traffic would come if each were one of the day."""


def traffic(world: World, messages: int, days: int, seed: int) -> Iterator[tuple[float, str]]:
    """When a message comes, and for which domain: *messages* a day, for so many days."""
    chance = _chance(seed)
    shares = list(itertools.accumulate(1 / n for n in range(1, world.domains + 1)))
    hours = list(itertools.accumulate(1.0 if 7 <= hour < 19 else NIGHT for hour in range(24)))
    for day in range(days):
        times = sorted(
            bisect.bisect(hours, chance.random() * hours[-1]) * HOUR + HOUR * chance.random()
            for _ in range(messages)
        )
        for time in times:
            yield day * DAY + time, f"d{_one_of(shares, chance)}.example"


def _one_of(shares: Sequence[float], chance: random.Random) -> int:
    return bisect.bisect(shares, chance.random() * shares[-1])
