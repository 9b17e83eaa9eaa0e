"""The cache of evidence: the five questions of an evidence source, with answers that are kept.

Evidence has two layers. Many domains share few mail servers, so what was seen of a host is kept
by host and address (the *host layer*), and what a domain publishes is kept by domain (the
*domain layer*) and never shared between domains (R59).

What was found is kept for its TTL, shortened a little at random, so that what was found together
does not expire together. A failure to find something out proves nothing about a server. It is kept
for a pause, and until the pause ends it is the answer, so that a host in trouble is not asked
again and again (R61).

The answer comes from the first of these that has it: the *shelf*, where earlier answers are kept
(:mod:`~requiretls_milter.engine.cache.shelf`); a *flight*, in which the same question is being
answered (:mod:`~requiretls_milter.engine.cache.flights`); for a probe or a policy the store, or
another engine of the fleet (:mod:`~requiretls_milter.engine.cache.fleet`); the network
(:mod:`~requiretls_milter.engine.cache.reachability`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from requiretls_milter.clocks import SYSTEM_CLOCKS, Clocks, Life
from requiretls_milter.config import Config
from requiretls_milter.engine.cache.alive import IN_HAND_OCTETS, LiveEvidence
from requiretls_milter.engine.cache.attempts import Attempts, SessionKey
from requiretls_milter.engine.cache.fleet import Fleet
from requiretls_milter.engine.cache.flights import Flights
from requiretls_milter.engine.cache.packing import Certificates, Evidence
from requiretls_milter.engine.cache.policies import Policies, PolicySource
from requiretls_milter.engine.cache.reachability import WatchedSource
from requiretls_milter.engine.cache.shelf import Entry, Shelf
from requiretls_milter.engine.outage import OutageDetector
from requiretls_milter.engine.records import (
    Scopes,
    decode_probe,
    encode_probe,
    worth_a_pause,
    worth_keeping,
)
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.troubles import Subject, Troubles
from requiretls_milter.evidence.gathering import ANY_AGE, EvidenceSource
from requiretls_milter.evidence.turns import BusyError
from requiretls_milter.forecast.mta_sts import policy_end
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MxEvidence,
    ProbeEvidence,
    ProbeStage,
    ServerTarget,
    TlsaEvidence,
)
from requiretls_milter.store.base import Store, StoreKind
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer

MAX_LIFE = 86_400.0
"""Seconds that evidence is kept at most (RFC 8767 section 4 advises a cap)."""

JITTER = 0.1
"""The largest part of a lifetime that is cut off at random, or of a pause that is added to it."""

T = TypeVar("T", MxEvidence, MtaStsEvidence, AddressLookup, TlsaEvidence, ProbeEvidence)


class LiveSource(EvidenceSource, PolicySource, Protocol):
    """A source that asks the network each time, and can tell whether a policy has changed."""


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    """How evidence of one kind is kept.

    Attributes:
        shelf: where it is kept.
        failed: whether an answer is a failure, which is followed by a pause.
        end: the time (seconds since the epoch) after which an answer must not be used, even
            if a pause lasts longer.
    """

    shelf: Shelf
    failed: Callable[[T], bool]
    end: Callable[[T], float] = lambda _: float("inf")


class CachedSource:
    """Implements :class:`EvidenceSource`: keeps what a live source finds.

    What a domain says is kept by domain, even if domains share their servers (R59).

    Args:
        source: asks the network each time.
        store: keeps MTA-STS policies until their max_age, and sessions as long as they
            are fresh; in a fleet, what the other engines stored is used.
        config: the sections ``probe`` and ``limits`` count.
        authorities: the digest of those that vouch for the source's policies.
        counters: where hits, sessions, fetches and refusals are counted.
        outage: is shown what failed and what did not, and says whether our own network is at
            fault.
        node: this host's name among the hosts that share the store: failed sessions are
            stored for each host separately.
        troubles: where it is noted what failed or was found again; None if nobody asks.
        clocks: by which evidence ages.
        jitter: gives a number from 0 to 1.
    """

    def __init__(
        self,
        source: LiveSource,
        store: Store,
        config: Config,
        counters: Counters,
        *,
        authorities: str,
        outage: OutageDetector | None = None,
        node: str = "",
        troubles: Troubles | None = None,
        clocks: Clocks = SYSTEM_CLOCKS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        limits, retry_after = config.limits, config.probe.retry_after
        scopes = Scopes.of(config, authorities)
        self._live = source
        self._clocks = clocks
        self._jitter = jitter
        self._probe_scope = scopes.probe
        self._troubles = troubles if troubles is not None else Troubles(clocks)
        self.outage = outage if outage is not None else OutageDetector(clocks=clocks)
        """Says whether there is an outage of our own."""
        self._watched = WatchedSource(
            source,
            self.outage,
            counters,
            retry_after=retry_after,
            timeout=limits.flight_timeout,
            on_recovery=self._forget_failures,
            clock=clocks.wall,
        )
        self._records = RecordStore(store, counters)
        self._fleet = Fleet(store, counters, jitter)
        self._flights = Flights(limits.flights, limits.flight_timeout, counters)
        self._attempts = Attempts(
            self._records, self.outage, clocks, retry_after=retry_after, node=node
        )
        self._policies = Policies(
            source,
            self._records,
            self._fleet,
            counters,
            clocks,
            scope=scopes.policy,
            max_domains=limits.domain_cache,
        )
        self._hosts = Shelf(Layer.HOST, limits.host_cache, Bound.HOST_CACHE, counters, clocks)
        self._domains = Shelf(
            Layer.DOMAIN, limits.domain_cache, Bound.DOMAIN_CACHE, counters, clocks
        )
        self._alive = LiveEvidence(IN_HAND_OCTETS)
        self._certificates = Certificates()
        self._counters = counters
        self._mx: _Kind[MxEvidence] = _Kind(self._domains, _lookup_failed)
        self._mta_sts: _Kind[MtaStsEvidence] = _Kind(
            self._domains, lambda found: bool(found.error), policy_end
        )
        self._addresses: _Kind[AddressLookup] = _Kind(
            self._hosts, lambda found: found.alias_error or _lookup_failed(found)
        )
        self._tlsa: _Kind[TlsaEvidence] = _Kind(self._hosts, _lookup_failed)
        self._probe: _Kind[ProbeEvidence] = _Kind(self._hosts, worth_a_pause)

    # ------------------------------------------------------------ the five questions

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        """The MX lookup of ``domain``."""
        return await self._kept_or_found(
            self._mx, ("mx", domain), lambda: self._watched.mx(domain), since
        )

    async def srv(self, name: str, *, since: float = ANY_AGE) -> MxEvidence:
        """The SRV lookup of ``name``, which begins with the service."""
        return await self._kept_or_found(
            self._mx, ("srv", name), lambda: self._watched.srv(name), since
        )

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        """The MTA-STS policy of ``domain``: the known one and an error, if renewing it failed."""
        # By domain alone: domains that share their servers share no policy (R59).
        self._policies.note_wanted(domain)
        return await self._kept_or_found(
            self._mta_sts, ("mta_sts", domain), lambda: self._policies.find(domain), since
        )

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        """The addresses of ``host``."""
        return await self._kept_or_found(
            self._addresses, ("addresses", host), lambda: self._watched.addresses(host), since
        )

    async def tlsa(
        self, host: str, port: int, addresses: AddressLookup, *, since: float = ANY_AGE
    ) -> TlsaEvidence:
        """The TLSA lookup of ``host``, which depends on what its addresses looked like."""
        key = (
            "tlsa",
            host,
            port,
            addresses.outcome,
            addresses.secure,
            addresses.canonical,
            addresses.alias_secure,
            addresses.alias_error,
        )
        return await self._kept_or_found(
            self._tlsa, key, lambda: self._live.tlsa(host, port, addresses), since
        )

    async def probe(self, server: ServerTarget, *, since: float = ANY_AGE) -> ProbeEvidence:
        """The SMTP session with one server."""
        key = ("probe", *server)
        session = SessionKey(server, self._probe_scope)

        async def find() -> ProbeEvidence:
            if since > ANY_AGE:
                return await self._probe_and_store(session)
            return await self._recalled_or_probed(key, session)

        return await self._kept_or_found(
            self._probe,
            key,
            find,
            since,
            lambda found, pause: self._attempts.keep(session, found, pause),
        )

    def kept_session(self, server: ServerTarget) -> ProbeEvidence | None:
        """The last session with one server, also if its life is over; None if none is in memory.

        It counts as used: what confirms forecasts day by day must not be the first to make room.
        """
        entry = self._hosts.used_entry(("probe", *server))
        return cast(ProbeEvidence, entry.evidence) if entry is not None else None

    # ------------------------------------------------------------ work in the background

    async def recheck_reachability(self) -> None:
        """If an outage of our own is suspected, call some servers; see :class:`WatchedSource`."""
        await self._watched.recheck()

    async def refresh_policies(self) -> None:
        """Fetch anew those MTA-STS policies that are due; see :meth:`Policies.refresh_due`."""

        async def renew(domain: str) -> MtaStsEvidence:
            return await self._kept_or_found(
                self._mta_sts,
                ("mta_sts", domain),
                lambda: self._policies.find(domain, renew=True),
                self._clocks.monotonic(),
            )

        await self._policies.refresh_due(renew)

    def entries(self) -> dict[Layer, int]:
        """The number of entries in each layer."""
        return {shelf.layer: len(shelf) for shelf in (self._hosts, self._domains)}

    @property
    def in_flight(self) -> int:
        """The number of questions whose answers are being found."""
        return len(self._flights)

    def forget(self) -> Iterator[None]:
        """Forget all that is kept in memory: another configuration finds other things.

        It is freed piece by piece while the caller iterates.
        """
        return itertools.chain(self._hosts.clear(), self._domains.clear())

    async def close(self) -> None:
        """Give up what is under way."""
        await self._flights.close()

    def _forget_failures(self) -> None:
        """Drop all failures, so that what failed during an outage of our own is asked again."""
        self._attempts.stop_recalling()
        self._troubles.note_all_renewed()
        self._hosts.forget_failures()
        self._domains.forget_failures()

    # ------------------------------------------------------------ shelf and flight

    async def _kept_or_found(
        self,
        kind: _Kind[T],
        key: tuple[Any, ...],
        find: Callable[[], Awaitable[T]],
        since: float,
        note_pause: Callable[[T, float], Awaitable[None]] | None = None,
    ) -> T:
        """Take the answer from the shelf, or have it found by a flight, and keep it.

        Args:
            kind: how the answer is kept.
            key: identifies the question.
            find: finds the answer.
            since: an answer that was found before this time is not used.
            note_pause: called with the answer and the length of a pause that begins, or with 0
                when the pause has ended.
        """
        kept = kind.shelf.fresh(key, since)
        if kept is not None:
            if not self._alive.may_be_held(kept):
                raise self._no_room()
            self._alive.add(kept)
            return cast(T, kept)
        if self._alive.is_full:
            raise self._no_room()
        try:
            found: T = await self._flights.join(
                kind.shelf,
                key,
                find,
                lambda found: self._keep(kind, key, found, note_pause),
                fresh=since > ANY_AGE,
            )
        except TimeoutError:
            self._troubles.note(_subject(key), key)
            raise
        if not self._alive.may_be_held(found):
            # It may be on the shelf, but no caller holds it as well; nor does an exception.
            del found
            raise self._no_room()
        return found

    def _no_room(self) -> BusyError:
        """What to raise if callers hold too much; counted."""
        self._counters.inc("saturated_total", (Bound.FLIGHTS,))
        return BusyError("what was found takes too much memory")

    async def _keep(
        self,
        kind: _Kind[T],
        key: tuple[Any, ...],
        found: T,
        note_pause: Callable[[T, float], Awaitable[None]] | None,
    ) -> T:
        """Put what was found on the shelf; return it with the time at which it ends (R61)."""
        if _was_not_asked(found):
            return found  # what is kept stands, and no pause begins: nothing was tried
        wall, monotonic = self._clocks.wall(), self._clocks.monotonic()
        last = kind.shelf.entry(key)
        if last is not None and not last.life.is_over(wall, monotonic):
            if last.evidence == found:
                return found  # it failed before the engine was started: its pause goes on
            self._troubles.note_renewed(_subject(key))
        seconds = min(found.expires - wall, MAX_LIFE)
        pause = 0.0
        if kind.failed(found):
            self._troubles.note(_subject(key), key)
            pause = self._attempts.next_pause(last, monotonic)
            seconds = max(pause, seconds) * (1.0 + JITTER * self._jitter())
        else:
            self._troubles.end(_subject(key), key)
            seconds *= 1.0 - JITTER * self._jitter()
        # A pause delays the next attempt. It must not extend the life of a policy beyond its end.
        seconds = min(seconds, kind.end(found) - wall)
        if seconds <= 0:
            kind.shelf.drop(key)
            self._alive.add(found)
            return found
        life = Life.of(seconds, wall, monotonic)
        if isinstance(found, ProbeEvidence):
            chain = self._certificates.shared(found.chain)
            kept = replace(found, expires=life.wall_end, chain=chain)
        else:
            kept = replace(found, expires=life.wall_end)
        self._alive.add(kept)
        kind.shelf.put(key, Entry(kept, monotonic - _age(found, wall), life, pause))
        if note_pause is not None and (pause or (last is not None and last.pause)):
            await note_pause(kept, pause)
        return kept

    # ------------------------------------------------------------ sessions, store and fleet

    async def _recalled_or_probed(self, key: Hashable, session: SessionKey) -> ProbeEvidence:
        """Use a stored session, or one of another engine, before calling the server."""
        held = await self._held_back(key, session)
        if held is not None:
            return held
        stored = await self._stored_session(session)
        if stored is not None:
            self._hosts.count(CacheResult.STORED)
            return stored
        return await self._fleet.find_once(
            StoreKind.PROBE,
            str(session),
            lambda: self._stored_session(session),
            lambda: self._probe_and_store(session),
        )

    async def _held_back(self, key: Hashable, session: SessionKey) -> ProbeEvidence | None:
        """The session that failed before the engine's start, until its pause has ended; else None.

        It is put on the shelf even if its pause has ended, so that the next pause is twice as
        long.
        """
        if key in self._hosts:
            return None
        entry = await self._attempts.recall(session)
        if entry is None:
            return None
        self._alive.add(entry.evidence)
        self._hosts.put(key, entry)
        if entry.life.is_over(self._clocks.wall(), self._clocks.monotonic()):
            return None
        self._hosts.count(CacheResult.HELD)
        return cast(ProbeEvidence, entry.evidence)

    async def _stored_session(self, session: SessionKey) -> ProbeEvidence | None:
        now = self._clocks.wall()
        found = await self._records.read(
            StoreKind.PROBE,
            str(session),
            lambda value: decode_probe(value, session.server.address, now),
            now,
        )
        if found is None or found.expires <= now:
            return None
        self.outage.knows_probe(found, session.server, _age(found, now))
        return found

    async def _probe_and_store(self, session: SessionKey) -> ProbeEvidence:
        found = await self._watched.probe(session.server)
        if worth_keeping(found):
            await self._records.write(
                StoreKind.PROBE,
                str(session),
                encode_probe(found),
                found.expires,
                self._clocks.wall(),
            )
        return found


def _subject(key: tuple[Any, ...]) -> Subject:
    """What a question is about: its kind, and the name or the address."""
    return key[0], key[1]


def _age(found: Evidence, now: float) -> float:
    """Seconds since it was found: a session from the store may be old, all else is new."""
    return max(0.0, now - found.probed_at) if isinstance(found, ProbeEvidence) else 0.0


def _was_not_asked(found: Evidence) -> bool:
    """Whether our own budgets allowed no question, so that this is no answer."""
    if isinstance(found, ProbeEvidence):
        return found.stage is ProbeStage.NOT_PROBED
    return found.unasked


def _lookup_failed(found: MxEvidence | AddressLookup | TlsaEvidence) -> bool:
    """Whether the lookup failed, which is never "no records" (R21)."""
    return found.outcome is DnsOutcome.ERROR
