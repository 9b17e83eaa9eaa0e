"""The life of MTA-STS policies: fetched, checked by their id, refreshed, and kept to the end.

A policy outlives what an attacker can take away: if its record is gone or it cannot be fetched
any more, the known one applies until its max_age has passed (RFC 8461 section 3.3). It is
therefore in the store, checked against the TXT record's id when mail wants it, fetched anew
when it is a day old or half over, and refreshed in the background while mail goes to its domain.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import Clocks
from requiretls_milter.engine.cache.fleet import Fleet
from requiretls_milter.engine.records import KeptPolicy, decode_policy, encode_policy
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.evidence.mta_sts import StsRecord
from requiretls_milter.model import MtaStsEvidence, MtaStsMode, MtaStsPolicy
from requiretls_milter.store.base import Listed, StoreKind, taken_in_turns
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import MtaStsResult, RefreshResult

POLICY_REFRESH = 86_400.0
"""Seconds after which a policy is fetched anew at the latest, even if its id is the same (R53)."""

REFRESH_PART = 0.5
"""Part of its max_age after which it is fetched anew if that is sooner: time is left to retry."""

REFRESH_INTERVAL = 600.0
"""Seconds between two background passes over the policies, at most."""

REFRESH_SPREAD = 0.1
"""Part of a policy's life by which its refresh may come earlier: not all at the same hour."""

SHORT_LIVED = 4 * REFRESH_INTERVAL
"""Seconds of max_age below which a policy is fetched on demand only: it could end between two
background passes, and its publisher wants it to be read again when mail needs it."""

POLICY_IDLE = 30 * 86_400.0
"""Seconds for which a policy is refreshed that no mail has asked for; then its max_age ends it.

Mail that goes out once a month finds the policy in force; a domain of long ago is left alone.
"""

REFRESHES = 4
"""Policies that are fetched anew at once in the background."""

MAX_REFRESHES = 2_000
"""Policies that are fetched anew in one pass: those that end first, the others in the next. One
engine of a fleet does it for 200,000 policies, of which each is due once a day."""

FIRST_REFRESH_PAUSE = 600.0
LAST_REFRESH_PAUSE = 6 * 3600.0
"""Seconds between background attempts to fetch a policy anew while they fail; doubling.
Mail that needs it tries more often (RFC 8461 section 3.3: not within five minutes)."""

MAX_WANTED_OCTETS = 8 << 20
"""Octets of memory for when mail asked for policies: those of 15,000 usual names. One that is
forgotten counts as wanted when it was last stored."""

LISTED_OCTETS = 640
"""Octets of memory that a pass takes for each policy in the store, at most."""

MAX_PAUSES_OCTETS = 4 << 20
"""Octets of memory for pauses after refreshes that failed; what is forgotten is tried sooner."""

_log = log.get_logger("engine.cache")


class PolicySource(Protocol):
    """Where policies come from; nothing that it returns is kept by it."""

    async def mta_sts(self, domain: str) -> MtaStsEvidence:
        """Find and fetch the policy of a domain."""
        ...

    async def mta_sts_record(self, domain: str) -> StsRecord:
        """Look up the TXT record alone."""
        ...


@dataclass(frozen=True, slots=True)
class _RefreshPause:
    """After a refresh that failed: how long to wait, and until when (monotonic)."""

    seconds: float = 0.0
    until: float = 0.0


class Policies:
    """Finds policies, and remembers them in the store until their max_age.

    Args:
        source: where policies come from.
        records: where they are stored.
        fleet: agrees with other engines on which of them fetches a policy.
        counters: where fetches and refreshes are counted.
        clocks: by which policies age.
        scope: separates policies that other authorities vouched for.
        max_domains: domains for which it is remembered when mail asked last.
    """

    def __init__(
        self,
        source: PolicySource,
        records: RecordStore,
        fleet: Fleet,
        counters: Counters,
        clocks: Clocks,
        *,
        scope: str,
        max_domains: int,
    ) -> None:
        self._source = source
        self._records = records
        self._fleet = fleet
        self._counters = counters
        self._clocks = clocks
        self._scope = scope
        self._wanted_at: BoundedMap[str, float] = BoundedMap(
            max_domains, max_weight=MAX_WANTED_OCTETS, weigh=entry_octets, lasting=True
        )
        self._pauses: BoundedMap[str, _RefreshPause] = BoundedMap(
            max_weight=MAX_PAUSES_OCTETS, weigh=entry_octets
        )

    def note_wanted(self, domain: str) -> None:
        """Note that mail wants this policy now: it stays refreshed for :data:`POLICY_IDLE`."""
        self._wanted_at.put(domain, self._clocks.wall())

    # ------------------------------------------------------------ finding one

    async def find(self, domain: str, *, renew: bool = False) -> MtaStsEvidence:
        """Find the policy; if there is none now, a known one lives on (R52, R58).

        RFC 8461 section 3.3: the TXT record tells whether the policy is still
        the same, and one that can no longer be fetched, or whose record is
        gone, applies until its max_age has passed.

        Args:
            domain: the policy domain.
            renew: fetch it whatever the record tells.
        """
        known = await self._known(domain)
        if known is None:
            return await self._fetch(domain, None)
        evidence = known.evidence
        refresh_at = evidence.fetched_at + _refresh_after(known.policy.max_age)
        if not renew and self._clocks.wall() < refresh_at:
            record = await self._source.mta_sts_record(domain)
            if record.id == known.policy.id:  # (R53)
                return replace(evidence, expires=min(evidence.expires, record.expires))
        found = await self._fetch(domain, known)
        if found.policy is None and self._clocks.wall() >= evidence.expires:
            return found  # the known policy ended while this one was being fetched
        if found.policy is not None:
            self._counters.inc("mta_sts_refreshes_total", (RefreshResult.RENEWED,))
            return found
        error = found.error or "the domain has no MTA-STS record any more"
        vanished = not found.error
        self._report_not_renewed(domain, known, error, vanished=vanished)
        expires = min(evidence.expires, found.expires)
        return replace(evidence, error=error, vanished=vanished, expires=expires)

    def _report_not_renewed(
        self, domain: str, known: KeptPolicy, error: str, *, vanished: bool
    ) -> None:
        result = RefreshResult.VANISHED if vanished else RefreshResult.FAILED
        self._counters.inc("mta_sts_refreshes_total", (result,))
        # RFC 8461 section 3.3: a policy that demands nothing is no reason for an alarm.
        report = _log.info if known.policy.mode is MtaStsMode.NONE else _log.warning
        report(
            "policy_not_renewed",
            domain=domain,
            error=error,
            mode=known.policy.mode,
            applies_until=round(known.evidence.expires),
        )

    async def _fetch(self, domain: str, known: KeptPolicy | None) -> MtaStsEvidence:
        """Find and fetch the policy; one that another of the fleet fetches now will do."""

        async def fetch() -> MtaStsEvidence:
            found = await self._source.mta_sts(domain)
            self._count_fetch(found)
            if found.policy is not None:
                await self._keep(domain, found, found.policy, known)
            return found

        if not self._fleet.exists:
            return await fetch()
        record = await self._source.mta_sts_record(domain)
        if not record.id:  # there is nothing to fetch, and nothing to agree upon
            return await fetch()

        async def stored() -> MtaStsEvidence | None:
            newer = await self._known(domain)
            if newer is None or (
                known is not None and newer.evidence.fetched_at <= known.evidence.fetched_at
            ):
                return None
            evidence = newer.evidence
            return replace(evidence, expires=min(evidence.expires, record.expires))

        kind, key = StoreKind.MTA_STS_POLICY, self._key(domain)
        return await self._fleet.find_once(kind, key, stored, fetch)

    def _count_fetch(self, found: MtaStsEvidence) -> None:
        if found.unasked:
            return  # there was none
        if found.error:
            result = MtaStsResult.FAILED
        else:
            result = MtaStsResult.NONE if found.policy is None else MtaStsResult.POLICY
        self._counters.inc("mta_sts_fetches_total", (result,))

    # ------------------------------------------------------------ the store

    async def _keep(
        self, domain: str, found: MtaStsEvidence, policy: MtaStsPolicy, known: KeptPolicy | None
    ) -> None:
        kind, key, now = StoreKind.MTA_STS_POLICY, self._key(domain), self._clocks.wall()
        if not policy.max_age:  # good for one attempt only (R49)
            await self._records.delete(kind, key)
            return
        wanted_at = self._wanted_at.get(domain)
        if wanted_at is None:
            wanted_at = known.asked_at if known is not None else now
        value = encode_policy(policy, found.fetched_at, wanted_at)
        await self._records.write(kind, key, value, found.fetched_at + policy.max_age, now)

    async def _known(self, domain: str) -> KeptPolicy | None:
        now = self._clocks.wall()
        known = await self._records.read(
            StoreKind.MTA_STS_POLICY,
            self._key(domain),
            lambda value: decode_policy(value, now),
            now,
        )
        return known if known is not None and known.evidence.expires > now else None

    def _key(self, domain: str) -> str:
        return domain + self._scope

    # ------------------------------------------------------------ the background pass

    async def refresh_due(self, renew: Callable[[str], Awaitable[MtaStsEvidence]]) -> None:
        """Fetch anew those policies that are due, whether or not mail wants them now (R53).

        To be awaited each :data:`REFRESH_INTERVAL` at least. In a fleet one engine does it: to
        look through what a hundred of them have stored costs more than all else that is asked of
        the store.

        Args:
            renew: has the cache fetch one policy.
        """
        if not await self._fleet.leads(StoreKind.MTA_STS_POLICY, self._scope):
            return
        listed = await self._records.listing(StoreKind.MTA_STS_POLICY, self._clocks.wall())
        if listed is None:
            return
        # There may be a hundred thousand; the loop has other work meanwhile.
        due: list[tuple[float, str]] = []
        async for piece in taken_in_turns(listed):
            for one in piece:
                domain, scope = _split(one.key)
                if scope == self._scope and self._is_due(domain, one):
                    due.append((one.keep_until, domain))
            if len(due) > 2 * MAX_REFRESHES:
                _keep_first(due)
        # A listing may be a part of what there is. What was not tried again is there no more.
        ended = self._clocks.monotonic() - LAST_REFRESH_PAUSE
        for domain in [domain for domain, pause in self._pauses.items() if pause.until < ended]:
            self._pauses.pop(domain)
        _keep_first(due)
        first = iter(due)
        until = self._clocks.monotonic() + REFRESH_INTERVAL

        async def refresh_some() -> None:
            for _, domain in first:
                # Hosts that hang must not hold up the next pass.
                if self._clocks.monotonic() >= until:
                    return
                await self._refresh(domain, renew)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(REFRESHES):
                tasks.create_task(refresh_some())

    def _is_due(self, domain: str, stored: Listed) -> bool:
        pause = self._pauses.get(domain) or _RefreshPause()
        if self._clocks.monotonic() < pause.until:
            return False
        return self._clocks.wall() >= _due_at(domain, stored)

    async def _refresh(
        self, domain: str, renew: Callable[[str], Awaitable[MtaStsEvidence]]
    ) -> None:
        known = await self._known(domain)
        if known is None:
            return
        wanted_at = self._wanted_at.get(domain)
        last_wanted = known.asked_at if wanted_at is None else wanted_at
        if self._clocks.wall() - last_wanted <= POLICY_IDLE:
            try:
                found = await renew(domain)
            except Exception:  # noqa: BLE001 - too much is under way, or the flight has logged it
                return
            if not found.error:
                self._pauses.pop(domain)
                return
        last = (self._pauses.get(domain) or _RefreshPause()).seconds
        seconds = min(max(2 * last, FIRST_REFRESH_PAUSE), LAST_REFRESH_PAUSE)
        self._pauses.put(domain, _RefreshPause(seconds, self._clocks.monotonic() + seconds))


def _keep_first(due: list[tuple[float, str]]) -> None:
    """Keep those that end first, in order; what is in order already is sorted in no time."""
    due.sort()
    del due[MAX_REFRESHES:]


def _split(key: str) -> tuple[str, str]:
    """The domain and the scope of a policy's key."""
    domain, mark, scope = key.partition("#")
    return domain, mark + scope


def _refresh_after(max_age: float) -> float:
    """Seconds after which a policy with this max_age is fetched anew."""
    return min(POLICY_REFRESH, REFRESH_PART * max_age)


def _due_at(domain: str, stored: Listed) -> float:
    """When the background fetches it anew: well before its end, each domain at its own hour."""
    max_age = stored.keep_until - stored.written
    if max_age < SHORT_LIVED:
        return stored.keep_until
    spread = zlib.crc32(domain.encode()) / 0xFFFFFFFF  # from 0 to 1, the same at each start
    return stored.written + _refresh_after(max_age) * (1.0 - REFRESH_SPREAD * spread)
