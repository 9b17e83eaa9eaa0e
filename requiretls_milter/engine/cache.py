"""Evidence that is kept: the host layer and the domain layer.

Many domains share few mail servers, so what was seen of a host is kept by host
and address, and what a domain says by domain, never shared between domains
(rule 59). What was found lives as long as its TTL, a little shortened at
random so that what came together does not expire together. What could not be
found out is no verdict: it stands as the last attempt for a while, so that a
host in trouble is not asked again and again (rule 61).

Each key is looked for once, however many ask at the same time (rule 60); who
ceases to wait does not take it from the others.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from requiretls_milter.config import Limits
from requiretls_milter.engine.outage import Outbound, Server, Watch, Whom, could_not_connect
from requiretls_milter.engine.records import (
    KeptPolicy,
    RecordError,
    Scopes,
    decode_attempt,
    decode_policy,
    decode_probe,
    encode_attempt,
    encode_policy,
    encode_probe,
    worth_a_pause,
    worth_keeping,
)
from requiretls_milter.evidence.gathering import ANY_AGE, EvidenceSource
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    MtaStsEvidence,
    MtaStsMode,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    TlsaEvidence,
)
from requiretls_milter.store.base import OVERHEAD, Listed, Store, StoreError, StoreKind
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import (
    Bound,
    CacheResult,
    FleetResult,
    Layer,
    MtaStsResult,
    OutboundService,
    ProbeResult,
    RefreshResult,
    StoreOperation,
)

MAX_LIFE = 86_400.0
"""Seconds that evidence is kept at most (RFC 8767 section 4 advises a cap)."""

POLICY_GRACE = 300.0
"""Seconds after which a domain is asked whether its MTA-STS policy still is the same (R53)."""

POLICY_REFRESH = 86_400.0
"""Seconds after which a policy is fetched again at most, also where its id is the same (R53)."""

REFRESH_PART = 0.5
"""Part of its max_age after which it is, where that is sooner: there is time left to try again."""

REFRESH_INTERVAL = 600.0
"""Seconds between two looks for MTA-STS policies that are to be fetched anew, at most."""

SHORT_LIVED = 4 * REFRESH_INTERVAL
"""Seconds of max_age below which a policy is fetched on demand alone: half over at one look, which
may take as long as it is to the next, it may be at its end by then; and whoever publishes it wants
mail to ask anew."""

POLICY_IDLE = 30 * 86_400.0
"""Seconds for which a policy is kept fresh that no mail has asked for; then it ends by its max_age.

Mail that goes out once a month finds the policy in force; a domain of long ago is left alone.
"""

REFRESHES = 4
"""Policies that are fetched anew at once in the background."""

MAX_REFRESHES = 1_000
"""Policies that are fetched anew in one go; those that end first, the others in the next."""

FIRST_REFRESH_PAUSE = 600.0
LAST_REFRESH_PAUSE = 6 * 3600.0
"""Seconds between attempts to fetch a policy anew in the background while they fail; doubling.
Mail that needs it tries more often (RFC 8461 section 3.3: not within five minutes)."""

CLAIM_LIFE = 30.0
"""Seconds for which a fleet believes that one of it is at work: most sessions take a few."""

FLEET_WAIT = 8.0
"""Seconds that the others wait for what it finds: postscreen keeps a client waiting for six."""

FIRST_FLEET_LOOK = 0.05
LAST_FLEET_LOOK = 0.5
"""Seconds between two looks at whether it has found it."""

MAX_RETRY_AFTER = 900.0
"""Seconds to which probe.retry_after doubles while attempts fail."""

LEAST_ASKING_PAUSE = 60.0
MOST_ASKING_PAUSE = 300.0
"""Seconds between two times that those who answered lately are asked whether it is we who reach
nobody: probe.retry_after, but that it must neither burden them nor let an outage go on for long."""

ENTRY_OCTETS = 8_192
"""Octets that an entry has on average at most: a usual chain has half of it."""

JITTER = 0.1
"""Part of a life that is cut off at random, or added to a pause."""

_log = log.get_logger("engine.cache")

T = TypeVar("T", MxEvidence, MtaStsEvidence, AddressLookup, TlsaEvidence, ProbeEvidence)
L = TypeVar("L", MxEvidence, AddressLookup)
Evidence = MxEvidence | MtaStsEvidence | AddressLookup | TlsaEvidence | ProbeEvidence


class LiveSource(EvidenceSource, Protocol):
    """A source that finds out afresh each time, and can tell whether a policy has changed."""

    async def mta_sts_record(self, domain: str) -> StsRecord:
        """Look up the TXT record alone."""
        ...


class BusyError(Exception):
    """More is under way than the engine takes on at once."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Evidence, and the end of its life on both clocks: neither may prolong it.

    ``pause`` is 0 for what was found, and for a failed attempt the seconds
    until the next one, before jitter.
    """

    value: Any
    stored: float
    until: float
    monotonic_until: float
    pause: float = 0.0


@dataclass(slots=True)
class _Shelf:
    """One layer: bounded; what was not used for the longest time goes first."""

    layer: Layer
    limit: int
    bound: Bound
    entries: OrderedDict[Hashable, _Entry]
    octets: int = 0
    """Of what servers and zones fill at will; all entries together have so many each."""

    def put(self, key: Hashable, entry: _Entry) -> bool:
        """Put it there; returns whether another had to make room."""
        self.drop(key)
        self.entries[key] = entry
        self.octets += _octets(entry.value)
        full = False
        while len(self.entries) > self.limit or self.octets > self.limit * ENTRY_OCTETS:
            full = True
            self.drop(next(iter(self.entries)))
        return full

    def drop(self, key: Hashable) -> None:
        """Forget an entry; there may be none."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.octets -= _octets(entry.value)

    def forget_failures(self) -> None:
        """Nothing is known of failed attempts any more: they may be made again at once."""
        for key in [key for key, entry in self.entries.items() if entry.pause]:
            self.drop(key)


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    """How evidence of one kind is looked upon."""

    shelf: _Shelf
    failed: Callable[[T], bool]
    max_life: float = MAX_LIFE
    ends: Callable[[T], float] = lambda _: float("inf")
    """Seconds since the epoch after which nobody may rely on it, whatever else is known."""


class CachedSource:
    """Implements :class:`EvidenceSource`: keeps what another source finds.

    Args:
        source: where evidence comes from.
        store: where MTA-STS policies are kept until their max_age, and sessions as
            long as they are fresh; where it is a fleet's, what others found is used.
        scopes: what separates these from those of another configuration.
        retry_after: seconds between the first two attempts where one fails.
        node: who we are among those with the same store: calls that failed are each one's own.
        outbound: is told what failed and what did not, and says whether it was we.
        limits: how many entries are kept and how many flights are under way, and for
            how long.
        wall, monotonic: clocks, in seconds.
        jitter: gives a number from 0 to 1.
    """

    def __init__(
        self,
        source: LiveSource,
        *,
        store: Store,
        retry_after: float,
        counters: Counters,
        scopes: Scopes = Scopes(),  # noqa: B008 - frozen
        node: str = "",
        outbound: Outbound | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._store = store
        self._retry_after = retry_after
        self._counters = counters
        self._scopes = scopes
        self._wall = wall
        self._monotonic = monotonic
        self._jitter = jitter
        self.outbound = outbound if outbound is not None else Outbound(monotonic=monotonic)
        """Whether we reach anything at all."""
        self._limits = limits
        self._hosts = _Shelf(Layer.HOST, limits.host_cache, Bound.HOST_CACHE, OrderedDict())
        self._domains = _Shelf(Layer.DOMAIN, limits.domain_cache, Bound.DOMAIN_CACHE, OrderedDict())
        self._flights: dict[tuple[Hashable, bool], asyncio.Task[Any]] = {}
        self._mx: _Kind[MxEvidence] = _Kind(self._domains, _lookup_failed)
        self._mta_sts: _Kind[MtaStsEvidence] = _Kind(
            self._domains, lambda e: bool(e.error), max_life=POLICY_GRACE, ends=_policy_ends
        )
        self._addresses: _Kind[AddressLookup] = _Kind(
            self._hosts, lambda e: e.alias_error or _lookup_failed(e)
        )
        self._tlsa: _Kind[TlsaEvidence] = _Kind(
            self._hosts, lambda e: e.outcome is DnsOutcome.ERROR
        )
        self._probe: _Kind[ProbeEvidence] = _Kind(self._hosts, worth_a_pause)
        self._node = node
        self._remember_until = monotonic() + self._longest_pause
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._refresh_pauses: dict[str, tuple[float, float]] = {}

    # ------------------------------------------------------------ the evidence

    async def mx(self, domain: str, *, since: float = ANY_AGE) -> MxEvidence:
        """The MX lookup of ``domain``."""
        return await self._get(
            self._mx, ("mx", domain), lambda: self._look_up(self._source.mx, domain), since
        )

    async def mta_sts(self, domain: str, *, since: float = ANY_AGE) -> MtaStsEvidence:
        """The MTA-STS policy of ``domain``; a kept one beside an error where it is not renewed."""
        self._asked[domain] = self._wall()
        self._asked.move_to_end(domain)
        while len(self._asked) > self._domains.limit:
            self._asked.popitem(last=False)
        return await self._get(
            self._mta_sts, ("mta_sts", domain), lambda: self._look_for_policy(domain), since
        )

    async def addresses(self, host: str, *, since: float = ANY_AGE) -> AddressLookup:
        """The addresses of ``host``."""
        return await self._get(
            self._addresses,
            ("addresses", host),
            lambda: self._look_up(self._source.addresses, host),
            since,
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
        return await self._get(
            self._tlsa, key, lambda: self._source.tlsa(host, port, addresses), since
        )

    async def probe(
        self, address: str, port: int, server_name: str, *, since: float = ANY_AGE
    ) -> ProbeEvidence:
        """What one server did when we called."""

        async def call() -> ProbeEvidence:
            found = await self._call(address, port, server_name)
            await self._keep_probe(record, found)
            return found

        async def stored() -> ProbeEvidence | None:
            found = await self._stored_probe(record, address)
            if found is not None:
                seconds_ago = _age(found, self._wall())
                self.outbound.knows_probe(found, port, server_name, seconds_ago)
            return found

        async def look() -> ProbeEvidence:
            if since > ANY_AGE:
                return await call()
            held = await self._held_attempt(key, record, address)
            if held is not None:
                return held
            kept = await stored()
            if kept is not None:
                self._count(Layer.HOST, CacheResult.STORED)
                return kept
            return await self._agreed(StoreKind.PROBE, record, stored, call)

        key = ("probe", address, port, server_name)
        record = f"{address} {port} {server_name}{self._scopes.probe}"
        return await self._get(
            self._probe,
            key,
            look,
            since,
            lambda found, pause: self._keep_attempt(record, found, pause),
        )

    def entries(self) -> dict[Layer, int]:
        """How much each layer holds."""
        return {shelf.layer: len(shelf.entries) for shelf in (self._hosts, self._domains)}

    @property
    def in_flight(self) -> int:
        """How much is being looked for."""
        return len(self._flights)

    async def close(self) -> None:
        """Give up what is being looked for."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    # ------------------------------------------------------------ how it is kept

    async def _get(
        self,
        kind: _Kind[T],
        key: Hashable,
        look: Callable[[], Awaitable[T]],
        since: float,
        note: Callable[[T, float], Awaitable[None]] | None = None,
    ) -> T:
        kept = self._kept(kind.shelf, key, since)
        if kept is not None:
            return cast(T, kept)
        # A fresh look must not be given what another one takes from the store.
        fresh = since > ANY_AGE
        flight = self._flights.get((key, True))
        if flight is None and not fresh:
            flight = self._flights.get((key, False))
        if flight is None:
            if len(self._flights) >= self._limits.flights:
                self._counters.inc("saturated_total", (Bound.FLIGHTS,))
                raise BusyError(f"{len(self._flights)} lookups are under way")
            self._count(kind.shelf.layer, CacheResult.MISS)
            flight = asyncio.create_task(self._fly(kind, key, look, note), name=str(key)[:200])
            self._flights[key, fresh] = flight
            flight.add_done_callback(lambda done: self._landed(key, fresh, done))
        else:
            self._count(kind.shelf.layer, CacheResult.JOINED)
        # who waits may be cancelled; the flight is everybody's
        return await asyncio.shield(flight)

    def _kept(self, shelf: _Shelf, key: Hashable, since: float) -> Any | None:
        entry = shelf.entries.get(key)
        if entry is None or entry.stored < since:
            return None
        wall, monotonic = self._wall(), self._monotonic()
        if wall >= entry.until or monotonic >= entry.monotonic_until:
            return None
        shelf.entries.move_to_end(key)
        self._count(shelf.layer, CacheResult.HELD if entry.pause else CacheResult.HIT)
        # A clock that was set back must not make others keep it for longer.
        left = entry.monotonic_until - monotonic
        if wall + left < entry.until - 1.0:
            return replace(entry.value, expires=wall + left)
        return entry.value

    async def _fly(
        self,
        kind: _Kind[T],
        key: Hashable,
        look: Callable[[], Awaitable[T]],
        note: Callable[[T, float], Awaitable[None]] | None,
    ) -> T:
        """Find out and keep it; *note* is told of pauses that begin, and (0) of their end."""
        try:
            async with asyncio.timeout(self._limits.flight_timeout) as patience:
                found = await look()
        except TimeoutError:
            if patience.expired():
                self._counters.inc("saturated_total", (Bound.FLIGHT_TIMEOUT,))
            raise
        wall, monotonic = self._wall(), self._monotonic()
        last = kind.shelf.entries.get(key)
        held = last is not None and last.value is found
        if held:
            return found  # a call that failed before we were started: its pause goes on
        life = min(found.expires - wall, kind.max_life)
        pause = 0.0
        if kind.failed(found):
            pause = self._pause(last, monotonic)
            life = max(pause, life) * (1.0 + JITTER * self._jitter())
        else:
            life *= 1.0 - JITTER * self._jitter()
        # A pause holds attempts back; it makes nothing good for longer than it is.
        life = min(life, kind.ends(found) - wall)
        if life <= 0:
            kind.shelf.drop(key)
            return found
        kept = replace(found, expires=wall + life)
        stored = monotonic - _age(found, wall)
        entry = _Entry(kept, stored, wall + life, monotonic + life, pause)
        if kind.shelf.put(key, entry):
            self._counters.inc("saturated_total", (kind.shelf.bound,))
        if note is not None and (pause or (last is not None and last.pause)):
            await note(kept, pause)
        return kept

    def _pause(self, last: _Entry | None, monotonic: float) -> float:
        """Seconds until the next attempt: twice the last pause where that failed not long ago.

        While it is we who reach nobody, failures are not theirs, and the first
        success must not be long in coming.
        """
        if any(map(self.outbound.out, OutboundService)):
            return self._retry_after
        most = self._longest_pause
        if last is None or not last.pause or monotonic > last.monotonic_until + most:
            return self._retry_after
        return min(2 * last.pause, most)

    @property
    def _longest_pause(self) -> float:
        return max(MAX_RETRY_AFTER, self._retry_after)

    def _heard(self, back: bool) -> None:
        """What failed while nobody could be reached is looked at anew, once somebody can."""
        if back:
            self._remember_until = self._monotonic()
            self._hosts.forget_failures()
            self._domains.forget_failures()

    def _landed(self, key: Hashable, fresh: bool, flight: asyncio.Task[Any]) -> None:
        del self._flights[key, fresh]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._tell_lost(key, error)

    def _tell_lost(self, key: Hashable, error: BaseException) -> None:
        if isinstance(error, TimeoutError):
            _log.warning("evidence_late", key=key, seconds=self._limits.flight_timeout)
        else:
            # Sources do not raise for what the network does: this is a mistake of ours.
            _log.error("evidence_failed", key=key, error=repr(error), exc_info=error)

    # ------------------------------------------------------------ is it we?

    async def ask_again(self) -> None:
        """Where it seems that we reach nobody, ask some who answered lately; else do nothing.

        To be awaited every few seconds, once at a time.
        """
        pace = min(max(self._retry_after, LEAST_ASKING_PAUSE), MOST_ASKING_PAUSE)
        async with asyncio.TaskGroup() as tasks:
            for watch, whom in self.outbound.doubts(pace):
                tasks.create_task(self._ask_again(watch, whom))

    async def _ask_again(self, watch: Watch, whom: Sequence[Whom]) -> None:
        errors = await asyncio.gather(*map(self._error_of, whom))
        silent = {who: error for who, error in zip(whom, errors, strict=True) if error is not None}
        self.outbound.asked(watch, silent)

    async def _error_of(self, who: Whom) -> str | None:
        """Ask one past all that is kept; returns why it could not be reached, None if not so.

        What is kept of it stands: that it cannot be reached now may be our fault.
        """
        try:
            async with asyncio.timeout(self._limits.flight_timeout):
                if isinstance(who, Server):
                    called = await self._call(who.address, who.port, who.server_name)
                    return called.error if could_not_connect(called) else None
                found: MxEvidence | AddressLookup
                if who.is_domain:
                    found = await self._look_up(self._source.mx, who.name)
                else:
                    found = await self._look_up(self._source.addresses, who.name)
                return found.error if _lookup_failed(found) else None
        except Exception as error:  # noqa: BLE001 - whatever it is must not end the others' asking
            self._tell_lost(("again", who), error)
            return None

    # ------------------------------------------------------------ what the network says

    async def _look_up(self, look: Callable[[str], Awaitable[L]], name: str) -> L:
        """Ask the resolver, and take note of whether it answers."""
        found = await look(name)
        self._heard(self.outbound.saw_lookup(name, found))
        return found

    async def _call(self, address: str, port: int, server_name: str) -> ProbeEvidence:
        """Call a server, and take note of whether it answers."""
        found = await self._source.probe(address, port, server_name)
        self._count_probe(found)
        self._heard(self.outbound.saw_probe(found, port, server_name))
        return found

    # ------------------------------------------------------------ the store, and the fleet

    async def _agreed(
        self,
        kind: StoreKind,
        key: str,
        find: Callable[[], Awaitable[T | None]],
        look: Callable[[], Awaitable[T]],
    ) -> T:
        """Look, unless another of the fleet does so at this moment: then wait for what it finds.

        Args:
            kind, key: the record that ``look`` may put into the store.
            find: gives what is in the store; None where that is not good enough.
            look: finds out.
        """
        if not self._store.shared:
            return await look()
        token = await self._store.claim(kind, key, CLAIM_LIFE)
        result = FleetResult.OURS
        found: T | None = None
        if token is not None:
            found = await find()  # another may have ended just before we came
        else:
            ends = asyncio.get_running_loop().time() + self._fleet_wait()
            pause = FIRST_FLEET_LOOK
            while token is None and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, LAST_FLEET_LOOK)
                token = await self._store.claim(kind, key, CLAIM_LIFE)
                if (found := await find()) is not None:
                    break
            if token is None:
                result = FleetResult.IN_VAIN
        try:
            if found is not None:
                result = FleetResult.THEIRS
                return found
            return await look()
        finally:
            self._counters.inc("fleet_flights_total", (result,))
            if token:
                await self._store.release(kind, key, token)

    def _fleet_wait(self) -> float:
        return FLEET_WAIT * (1.0 + JITTER * self._jitter())

    async def _stored_probe(self, key: str, address: str) -> ProbeEvidence | None:
        now = self._wall()
        value = await self._read(StoreKind.PROBE, key)
        if value is None:
            return None
        try:
            found = decode_probe(value, address, now)
        except RecordError as error:
            self._bad_record(StoreKind.PROBE, key, error)
            return None
        return found if found.expires > now else None

    async def _keep_probe(self, key: str, found: ProbeEvidence) -> None:
        if worth_keeping(found):
            await self._write(StoreKind.PROBE, key, encode_probe(found), found.expires)

    async def _held_attempt(self, key: Hashable, record: str, address: str) -> ProbeEvidence | None:
        """What failed before we were started, while there is to be no other attempt.

        It takes its place on the shelf also where its time is over, so that the
        next pause is twice as long. After a while nothing of it can matter.
        """
        if key in self._hosts.entries or self._monotonic() >= self._remember_until:
            return None
        wall, monotonic = self._wall(), self._monotonic()
        value = await self._read(StoreKind.ATTEMPT, self._attempt_key(record))
        if value is None:
            return None
        try:
            kept = decode_attempt(value, address, wall, self._longest_pause)
        except RecordError as error:
            self._bad_record(StoreKind.ATTEMPT, record, error)
            return None
        if kept is None:
            return None
        found, left = kept.found, kept.found.expires - wall
        entry = _Entry(found, monotonic, found.expires, monotonic + left, kept.pause)
        self._hosts.put(key, entry)
        if left <= 0:
            return None
        self._count(Layer.HOST, CacheResult.HELD)
        return found

    async def _keep_attempt(self, record: str, found: ProbeEvidence, pause: float) -> None:
        """Remember over a restart that a call failed, or that a later one did not (pause 0).

        Not while it is we who reach nobody: the first success is to end all pauses.
        """
        if not pause:
            await self._write(StoreKind.ATTEMPT, self._attempt_key(record), None, 0.0)
        elif not self.outbound.out(OutboundService.SMTP):
            await self._write(
                StoreKind.ATTEMPT,
                self._attempt_key(record),
                encode_attempt(found, pause),
                found.expires + self._longest_pause,
            )

    def _attempt_key(self, record: str) -> str:
        return f"{record}@{self._node}"

    async def _read(self, kind: StoreKind, key: str) -> bytes | None:
        try:
            return await self._store.get(kind, key, self._wall())
        except StoreError as error:
            _log.warning("store_failed", kind=kind, key=key, error=str(error))
            return None

    async def _write(
        self, kind: StoreKind, key: str, value: bytes | None, keep_until: float
    ) -> None:
        try:
            if value is None:
                await self._store.delete(kind, key)
            else:
                await self._store.put(kind, key, value, keep_until, self._wall())
        except StoreError as error:
            _log.warning("store_failed", kind=kind, key=key, error=str(error))

    def _bad_record(self, kind: StoreKind, key: str, error: RecordError) -> None:
        self._counters.inc("store_errors_total", (StoreOperation.DECODE,))
        _log.warning("store_record_bad", kind=kind, key=key, error=str(error))

    # ------------------------------------------------------------ MTA-STS

    async def _look_for_policy(self, domain: str, *, renew: bool = False) -> MtaStsEvidence:
        """Look for the policy; where there is none now, one that was found lives on (R52, R58).

        RFC 8461 section 3.3: the TXT record tells whether the policy is still
        the same, and one that can no longer be fetched, or whose record is
        gone, applies until its max_age has passed. With ``renew`` it is fetched
        whatever the record tells.
        """
        known = await self._known_policy(domain)
        if known is None:
            return await self._fetch_policy(domain, None)
        evidence = known.evidence
        refresh_after = _refresh_after(known.policy.max_age)
        if not renew and self._wall() < evidence.fetched_at + refresh_after:
            record = await self._source.mta_sts_record(domain)
            if record.id == known.policy.id:
                return replace(evidence, expires=min(evidence.expires, record.expires))
        found = await self._fetch_policy(domain, known)
        if found.policy is None and self._wall() >= evidence.expires:
            return found  # it came to its end while we looked
        if found.policy is not None:
            self._counters.inc("mta_sts_refreshes_total", (RefreshResult.RENEWED,))
            return found
        error = found.error or "the domain has no MTA-STS record any more"
        self._tell_not_renewed(domain, known, error, vanished=not found.error)
        return replace(
            evidence,
            error=error,
            vanished=not found.error,
            expires=min(evidence.expires, found.expires),
        )

    def _tell_not_renewed(
        self, domain: str, known: KeptPolicy, error: str, *, vanished: bool
    ) -> None:
        result = RefreshResult.VANISHED if vanished else RefreshResult.FAILED
        self._counters.inc("mta_sts_refreshes_total", (result,))
        # RFC 8461 section 3.3: one that asks for nothing need not alarm anybody.
        tell = _log.info if known.policy.mode is MtaStsMode.NONE else _log.warning
        tell(
            "policy_not_renewed",
            domain=domain,
            error=error,
            mode=known.policy.mode,
            applies_until=round(known.evidence.expires),
        )

    async def _fetch_policy(self, domain: str, known: KeptPolicy | None) -> MtaStsEvidence:
        """Find and fetch the policy; one that another of the fleet fetches now will do."""

        async def look() -> MtaStsEvidence:
            found = await self._source.mta_sts(domain)
            self._count_mta_sts(found)
            await self._keep_policy(domain, found, known)
            return found

        async def find() -> MtaStsEvidence | None:
            newer = await self._known_policy(domain)
            if newer is None or (
                known is not None and newer.evidence.fetched_at <= known.evidence.fetched_at
            ):
                return None
            return newer.evidence

        if self._store.shared:
            record = await self._source.mta_sts_record(domain)
            if not record.id:  # there is nothing to fetch, and nothing to agree upon
                return await look()
        return await self._agreed(StoreKind.MTA_STS_POLICY, self._policy_key(domain), find, look)

    async def _keep_policy(
        self, domain: str, found: MtaStsEvidence, known: KeptPolicy | None
    ) -> None:
        policy = found.policy
        if policy is None:
            return
        value = None
        if policy.max_age:  # 0: good for one attempt only (R49)
            before = known.asked_at if known is not None else self._wall()
            asked_at = self._asked.get(domain, before)
            value = encode_policy(policy, found.fetched_at, asked_at)
        await self._write(
            StoreKind.MTA_STS_POLICY,
            self._policy_key(domain),
            value,
            found.fetched_at + policy.max_age,
        )

    async def _known_policy(self, domain: str) -> KeptPolicy | None:
        key, now = self._policy_key(domain), self._wall()
        value = await self._read(StoreKind.MTA_STS_POLICY, key)
        if value is None:
            return None
        try:
            known = decode_policy(value, now)
        except RecordError as error:
            self._bad_record(StoreKind.MTA_STS_POLICY, key, error)
            return None
        return known if known.evidence.expires > now else None

    def _policy_key(self, domain: str) -> str:
        return domain + self._scopes.policy

    async def refresh_policies(self) -> None:
        """Fetch anew, needed or not, policies of a day ago and those that are half over (R53).

        To be awaited each :data:`REFRESH_INTERVAL` at least. Not all at the same
        hour: each domain has its own part of :data:`JITTER`.
        """
        try:
            listed = await self._store.listing(StoreKind.MTA_STS_POLICY, self._wall())
        except StoreError as error:
            _log.warning("store_failed", kind=StoreKind.MTA_STS_POLICY, error=str(error))
            return
        written = {
            domain: one
            for one in listed
            for domain, scope in [_split(one.key)]
            if scope == self._scopes.policy
        }
        self._refresh_pauses = {
            domain: pause for domain, pause in self._refresh_pauses.items() if domain in written
        }
        due = sorted(
            (one.keep_until, domain)
            for domain, one in written.items()
            if self._wall() >= _refresh_due(domain, one)
            and self._monotonic() >= self._refresh_pauses.get(domain, (0.0, 0.0))[1]
        )
        slots = asyncio.Semaphore(REFRESHES)
        until = self._monotonic() + REFRESH_INTERVAL

        async def refresh(domain: str) -> None:
            async with slots:
                if self._monotonic() < until:  # hosts that hang must not hold up the next look
                    await self._refresh(domain)

        async with asyncio.TaskGroup() as tasks:
            for _, domain in due[:MAX_REFRESHES]:
                tasks.create_task(refresh(domain))

    async def _refresh(self, domain: str) -> None:
        known = await self._known_policy(domain)
        if known is None:
            return
        idle = self._wall() - self._asked.get(domain, known.asked_at) > POLICY_IDLE
        if not idle:
            try:
                found = await self._get(
                    self._mta_sts,
                    ("mta_sts", domain),
                    lambda: self._look_for_policy(domain, renew=True),
                    self._monotonic(),
                )
            except Exception:  # noqa: BLE001 - too much is under way, or the flight has told it
                return
            if not found.error:
                self._refresh_pauses.pop(domain, None)
                return
        last = self._refresh_pauses.get(domain, (0.0, 0.0))[0]
        pause = min(max(2 * last, FIRST_REFRESH_PAUSE), LAST_REFRESH_PAUSE)
        self._refresh_pauses[domain] = (pause, self._monotonic() + pause)

    # ------------------------------------------------------------ counting

    def _count(self, layer: Layer, result: CacheResult) -> None:
        self._counters.inc("cache_requests_total", (layer, result))

    def _count_mta_sts(self, found: MtaStsEvidence) -> None:
        if found.error:
            result = MtaStsResult.FAILED
        else:
            result = MtaStsResult.NONE if found.policy is None else MtaStsResult.POLICY
        self._counters.inc("mta_sts_fetches_total", (result,))

    def _count_probe(self, found: ProbeEvidence) -> None:
        if found.stage is ProbeStage.NOT_PROBED and found.failure is None:
            return
        self._counters.inc("probes_total", (_probe_result(found),))


_PROBE_RESULTS = {
    ProbeStage.CONNECT: ProbeResult.CONNECT,
    ProbeStage.BANNER: ProbeResult.BANNER,
    ProbeStage.EHLO: ProbeResult.EHLO,
    ProbeStage.STARTTLS: ProbeResult.STARTTLS,
    ProbeStage.HANDSHAKE: ProbeResult.HANDSHAKE,
    ProbeStage.EHLO_TLS: ProbeResult.EHLO_TLS,
    ProbeStage.DONE: ProbeResult.DONE,
}


def _probe_result(found: ProbeEvidence) -> ProbeResult:
    if found.failure is ProbeFailure.FORBIDDEN:
        return ProbeResult.FORBIDDEN
    return _PROBE_RESULTS.get(found.stage, ProbeResult.CONNECT)


def _split(key: str) -> tuple[str, str]:
    """The domain and the scope of a policy's key."""
    domain, mark, scope = key.partition("#")
    return domain, mark + scope


def _spread(domain: str) -> float:
    """A number from 0 to 1 that is always the same for a domain."""
    return zlib.crc32(domain.encode()) / 0xFFFFFFFF


def _refresh_after(max_age: float) -> float:
    """Seconds after which a policy is fetched anew that was fetched with this max_age."""
    return min(POLICY_REFRESH, REFRESH_PART * max_age)


def _refresh_due(domain: str, policy: Listed) -> float:
    """When the background is to fetch it anew: well before its end, or never."""
    max_age = policy.keep_until - policy.written
    if max_age < SHORT_LIVED:
        return policy.keep_until
    return policy.written + _refresh_after(max_age) * (1.0 - JITTER * _spread(domain))


def _policy_ends(found: MtaStsEvidence) -> float:
    """When the max_age of the policy has passed, renewed or not (RFC 8461 section 3.3, R52)."""
    return found.fetched_at + found.policy.max_age if found.policy is not None else float("inf")


def _octets(found: Evidence) -> int:
    """Octets of what a stranger may make as large as a message lets him."""
    if isinstance(found, ProbeEvidence):
        return sum(map(len, found.chain))
    if isinstance(found, TlsaEvidence):
        return sum(len(record.data) for record in found.records)
    if isinstance(found, MtaStsEvidence) and found.policy is not None:
        return sum(len(pattern) + OVERHEAD for pattern in found.policy.mx)
    return 0


def _age(found: Evidence, now: float) -> float:
    """Seconds since it was found out; a session may have been held by another, or before us."""
    return max(0.0, now - found.probed_at) if isinstance(found, ProbeEvidence) else 0.0


def _lookup_failed(found: MxEvidence | AddressLookup | TlsaEvidence) -> bool:
    """Whether nothing was found out: no answer is not "no records" (R21)."""
    return found.outcome is DnsOutcome.ERROR
