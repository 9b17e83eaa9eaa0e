"""The arithmetic of the simulation, for what is too large to be simulated.

Messages to a domain come at random (Poisson) at a rate that its popularity gives. A forecast never
outlives the evidence on which it rests, so that the first message that comes for any domain that
rests on a piece of evidence, after that has ended, has it looked up again. A piece that lives for
*T* seconds and is wanted at a rate *r* is therefore looked up r / (1 + r T) times a second. What is
the least recently used of a full cache is forgotten after a *characteristic time*: that in which so
many different keys are used as there is room for (Che's approximation). The sites and servers that
are summed over are those of the simulation's own world; of unpopular ones, a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from requiretls_milter.engine.answers import ANSWERS, WARM
from requiretls_milter.engine.cache.attempts import MAX_RETRY_AFTER
from requiretls_milter.engine.cache.policies import POLICY_REFRESH, REFRESH_SPREAD
from requiretls_milter.engine.cache.source import JITTER
from requiretls_milter.evidence.mta_sts import MAX_NEGATIVE
from requiretls_milter.evidence.probe import FRESH
from tests.bench.simulation import WORKERS, Setup
from tests.bench.world import (
    BY_DAY,
    DAY,
    FAMILIES,
    HOUR,
    NIGHT,
    TENANTS_ZONE,
    Host,
    Kind,
    Site,
    World,
)

EXACT = 500
"""The most popular domains, which are counted one by one."""

SAMPLE, GROWTH = 60, 1.3
"""Of the others so many of each group; each group reaches to GROWTH times as many ranks."""

CUT = 1.0 - JITTER / 2
"""The part of its life that evidence is kept on average."""

REGIMES = ((12 * HOUR, 24 / BY_DAY), (12 * HOUR, 24 / BY_DAY * NIGHT))
"""Day and night: seconds, and the rate as a part of the day's mean."""


@dataclass(frozen=True, slots=True)
class _Domains:
    """So many domains with one rate of messages each (at one service), and what they are like."""

    number: float
    rate: float
    site: Site


@dataclass
class Estimate:
    """What a day brings to all services together, unless said otherwise.

    ``seen`` are messages for domains that had mail in the three days before. ``room`` says after
    how many seconds what is not used is forgotten, by cache. ``domains_used`` had mail at one of
    the services since the beginning, ``domains_kept`` at each within three days, on average.
    """

    messages: float = 0.0
    recalled: float = 0.0
    waited: float = 0.0
    waited_long: float = 0.0
    seen: float = 0.0
    seen_waited: float = 0.0
    lookups: float = 0.0
    confirming: float = 0.0
    sessions: float = 0.0
    failed_sessions: float = 0.0
    fetches: float = 0.0
    tenant_lookups: float = 0.0
    tenant_sessions: float = 0.0
    gatherings: float = 0.0
    policy_reads: float = 0.0
    session_reads: float = 0.0
    domains_used: float = 0.0
    domains_kept: float = 0.0
    policies: float = 0.0
    room: dict[str, float] = field(default_factory=dict)


def misses(rate: float, life: float) -> float:
    """How often a day what lives for so long is looked up, if it is wanted at this mean rate."""
    return sum(seconds * rate * factor / (1 + rate * factor * life) for seconds, factor in REGIMES)


def estimate(world: World, setup: Setup, messages: float, days: float = 30) -> Estimate:
    """Estimate the last of so many days.

    Args:
        world: as for the simulation.
        setup: likewise; its services share the mail evenly.
        messages: a day, to all services.
        days: since the services were started.
    """
    return _Sum(world, setup, messages, days).total


class _Sum:
    def __init__(self, world: World, setup: Setup, messages: float, days: float) -> None:
        self._world = world
        self._services = setup.services
        self._limits = setup.config.limits
        self._since = days - 0.5
        self._stale_for = setup.stale_for
        self._domains = list(_domains(world, messages / setup.services / DAY))
        self._shared = self._rates_of_shared_hosts()
        self._lives = {id(one): self._life(one) for one in self._domains}
        self.total = Estimate(messages=messages)
        self._find_room()
        self._confirmed = dict.fromkeys(self._shared, 0.0)
        for one in self._domains:
            self._add_domain(one)
        for name, rate in self._shared.items():
            self._add_host(name, rate, 1.0, self._confirmed[name])

    # ------------------------------------------------------------ rates

    def _rates_of_shared_hosts(self) -> dict[str, float]:
        """Messages a second, at one service, for all domains that have a server in common."""
        rates: dict[str, float] = {}
        rest = 0.0
        for one in self._domains:
            if one.site.kind is Kind.LARGE or (one.site.kind is Kind.HOSTER and one.number == 1):
                for host in one.site.hosts:
                    rates[host] = rates.get(host, 0.0) + one.number * one.rate
            elif one.site.kind is Kind.HOSTER:
                rest += one.number * one.rate
        before = 0.0
        for hoster, share in enumerate(self._world.hoster_shares()):
            for n in range(2):
                host = f"mx{n}.hoster{hoster}.example"
                rates[host] = rates.get(host, 0.0) + (share - before) * rest
            before = share
        return rates

    def _life(self, one: _Domains) -> float:
        """Seconds for which a forecast lives on average: to the next end of any of its parts."""
        site = one.site
        record = site.record_ttl if site.has_policy else min(site.record_ttl, MAX_NEGATIVE)
        ends = [site.mx_ttl, record]
        for name in site.hosts:
            host = self._world.host(name)
            ends += [host.address_ttl, host.tlsa_ttl] if host.signed else [host.address_ttl]
            ends += [FRESH] * len(host.addresses)
        return max(1 / sum(1 / (CUT * end) for end in ends), CUT * min(ends) / 2)

    # ------------------------------------------------------------ caches

    def _find_room(self) -> None:
        limits, room = self._limits, self.total.room
        room["answers"] = self._characteristic(
            ANSWERS * limits.forecast_cache, lambda one: ((one.number, one.rate),)
        )
        room["forecasts"] = self._characteristic(
            limits.forecast_cache, lambda one: ((one.number, one.rate / WORKERS),)
        )
        room["domains"] = self._characteristic(
            limits.domain_cache, lambda one: ((2 * one.number, self._gathered(one)),)
        )

        def hosts(one: _Domains) -> Iterable[tuple[float, float]]:
            for name in one.site.hosts:
                if name not in self._shared:
                    yield one.number * _entries(self._world.host(name)), self._gathered(one)

        shared = [(_entries(self._world.host(name)), rate) for name, rate in self._shared.items()]
        room["hosts"] = self._characteristic(limits.host_cache, hosts, shared)

    def _gathered(self, one: _Domains) -> float:
        """Gatherings a second for one domain: at the end of each life, when mail comes."""
        return one.rate / (1 + one.rate * self._lives[id(one)])

    def _characteristic(
        self,
        limit: int,
        keys: Callable[[_Domains], Iterable[tuple[float, float]]],
        more: Iterable[tuple[float, float]] = (),
    ) -> float:
        """Seconds in which *limit* different keys are used; infinity if there are fewer."""
        used = [pair for one in self._domains for pair in keys(one)] + list(more)
        if sum(number for number, _ in used) <= limit:
            return math.inf
        low, high = 1.0, 400 * DAY
        for _ in range(40):
            middle = math.sqrt(low * high)
            if sum(number * -math.expm1(-rate * middle) for number, rate in used) < limit:
                low = middle
            else:
                high = middle
        return low

    # ------------------------------------------------------------ sums

    def _add_domain(self, one: _Domains) -> None:
        total, site, room = self.total, one.site, self.total.room
        number, rate, life = one.number * self._services, one.rate, self._lives[id(one)]

        def lookups(ttl: float) -> float:
            return number * misses(rate, _kept(CUT * ttl, room["domains"], life))

        record = site.record_ttl if site.has_policy else min(site.record_ttl, MAX_NEGATIVE)
        total.lookups += lookups(site.mx_ttl) + lookups(record)
        total.policy_reads += lookups(record)
        seen = -math.expm1(-rate * self._services * self._since * DAY)
        total.domains_used += one.number * seen
        total.domains_kept += one.number * -math.expm1(-rate * min(WARM, self._since * DAY))
        if site.has_policy:
            every = POLICY_REFRESH * (1 - REFRESH_SPREAD / 2)
            before, after = (
                -math.expm1(-rate * self._services * (self._since + half) * DAY)
                for half in (-0.5, 0.5)
            )
            fetches = one.number * (before * DAY / every + after - before)
            total.policies += one.number * seen
            total.fetches += fetches
            total.lookups += fetches * (FAMILIES + 1 + (self._services > 1))
        for name in site.hosts:
            if name not in self._shared:
                self._add_host(name, rate, one.number)
        # A worker keeps a forecast for its life; each asks by itself.
        kept = min(life, room["forecasts"])
        asked = number * misses(rate / WORKERS, kept) * WORKERS
        total.recalled += number * rate * DAY - asked
        total.gatherings += number * misses(rate, life)
        self._add_waits(one, number * rate * DAY)

    def _add_waits(self, one: _Domains, messages: float) -> None:
        total, rate = self.total, one.rate
        new = math.exp(-rate * min(WARM, self._since * DAY))
        alone = any(name not in self._shared for name in one.site.hosts)
        confirmed_for = self._confirmed_for(total.room["hosts"] if alone else math.inf)
        given_out = min(confirmed_for, total.room["answers"], self._since * DAY)
        waited = messages * math.exp(-rate * given_out)
        hosts = [self._world.host(name) for name in one.site.hosts]
        if not self._stale_for:
            waited = messages / (1 + rate * self._lives[id(one)])
        elif one.site.lame or any(host.dead for host in hosts):
            # What is deferred is never given out past its life, which is a pause.
            waited = messages / (1 + rate * MAX_RETRY_AFTER)
        total.seen += messages * (1 - new)
        total.seen_waited += max(0.0, waited - messages * new)
        total.waited += waited
        total.waited_long += waited if alone else 0.0
        # DNS confirms a forecast after a day without a message, and after two.
        costs = 2 + sum(
            FAMILIES + host.signed
            for name, host in zip(one.site.hosts, hosts, strict=True)
            if name not in self._shared
        )
        confirmed = sum(
            math.exp(-rate * gap * DAY)
            for gap in (1, 2)
            if self._stale_for and gap * DAY < given_out
        )
        for name in one.site.hosts:
            if name in self._shared:
                self._confirmed[name] += one.number * rate * confirmed
        total.confirming += messages * confirmed * costs
        total.lookups += messages * confirmed * costs

    def _confirmed_for(self, room: float) -> float:
        """Seconds after a message in which another does not wait, since DNS confirms the forecast.

        It does so each day, as long as the last sessions are remembered, which *room* says.
        """
        once = FRESH + self._stale_for
        return max(once, WARM + FRESH) if self._stale_for and room > once else once

    def _add_host(self, name: str, rate: float, number: float, confirmed: float = 0.0) -> None:
        """Add what is asked of a server.

        Args:
            name: of the server, or of one of *number* like it.
            rate: of all mail that may go there, a second at one service.
            confirmed: forecasts that are confirmed, likewise.
        """
        total, room, host = self.total, self.total.room, self._world.host(name)
        ttls = [host.address_ttl] * FAMILIES + [host.tlsa_ttl] * host.signed
        lookups = sum(
            number * self._services * misses(rate + confirmed, _kept(CUT * ttl, room["hosts"], 0.0))
            for ttl in ttls
        )
        total.lookups += lookups
        # One session for all services, since they share them; failures are each one's own.
        addresses = number * len(host.addresses)
        every = misses(rate * self._services, FRESH)
        total.session_reads += addresses * self._services * misses(rate, CUT * FRESH)
        if host.dead:
            failed = addresses * self._services * misses(rate, MAX_RETRY_AFTER)
            total.failed_sessions += failed
            total.sessions += failed
        else:
            total.sessions += addresses * every
        if name.endswith(TENANTS_ZONE):
            total.tenant_lookups += lookups
            total.tenant_sessions += addresses * every


def _kept(life: float, room: float, forecast: float) -> float:
    """Seconds for which evidence is of use: it may be forgotten, but forecasts made of it live."""
    return min(life, max(room, forecast))


def _entries(host: Host) -> float:
    """Entries of the cache for a server: its addresses, its TLSA records, a session for each."""
    return 2.0 + len(host.addresses)


def _domains(world: World, rate: float) -> Iterator[_Domains]:
    """All domains: the most popular ones by themselves, the others by a sample of each group."""
    whole = _harmonic(world.domains)
    for rank in range(1, min(EXACT, world.domains) + 1):
        yield _Domains(1, rate / rank / whole, world.site(f"d{rank - 1}.example"))
    first = EXACT + 1
    while first <= world.domains:
        last = min(int(first * GROWTH) + SAMPLE, world.domains)
        number = last - first + 1
        mean = rate * (_harmonic(last) - _harmonic(first - 1)) / number / whole
        sample = min(SAMPLE, number)
        for n in range(sample):
            rank = first + n * number // sample
            yield _Domains(number / sample, mean, world.site(f"d{rank - 1}.example"))
        first = last + 1


def _harmonic(n: int) -> float:
    """The sum of 1/1 to 1/n."""
    if n < 100:
        return math.fsum(1 / k for k in range(1, n + 1))
    return math.log(n) + 0.5772156649 + 1 / (2 * n) - 1 / (12 * n * n)
