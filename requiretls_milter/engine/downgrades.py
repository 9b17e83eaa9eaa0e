"""What hosts and domains offered until lately, and do not now.

STARTTLS, REQUIRETLS, TLSA records and MTA-STS that were there and are gone are
what a failed certificate renewal looks like, and what an attack looks like. Each
change is told once; what is not known (a timeout, a lame resolver, our own
network down) is no change.

:func:`observations` is a pure reading of evidence; :class:`Ledger` remembers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from requiretls_milter.forecast.servers import secure_tlsa
from requiretls_milter.model import (
    DnsOutcome,
    DomainEvidence,
    Feature,
    HopKind,
    HostEvidence,
    MtaStsMode,
    ProbeEvidence,
    ProbeStage,
)
from requiretls_milter.store.base import CLOCK_SKEW, Store, StoreError, StoreKind
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import StoreOperation

REMEMBERED = 30 * 86400.0
"""Seconds for which it is remembered what was offered, or lost, and not seen since."""

WRITTEN_AGAIN = 3600.0
"""Seconds after which "still offered" is worth writing down again."""

MAX_ENTRIES = 50_000
"""Features of hosts and domains that are held in memory; the store holds all."""

_log = log.get_logger("engine.downgrades")


@dataclass(frozen=True, slots=True)
class Observation:
    """One feature of one host or domain. ``offered`` None: given up in good order.

    ``at`` is when it was found out, in seconds since the epoch; 0.0: just now.
    """

    feature: Feature
    subject: str
    offered: bool | None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """Since when a feature was seen, when last, and since when it is gone; 0 for never."""

    first_seen: float
    last_seen: float
    lost_at: float = 0.0


_records = TypeAdapter(Record)

_PROVEN_ABSENT = (DnsOutcome.NODATA, DnsOutcome.NXDOMAIN)


# ---------------------------------------------------------------- reading evidence


def observations(evidence: DomainEvidence) -> Iterator[Observation]:
    """What the evidence says for sure of each feature; nothing where it is not known."""
    if evidence.nexthop.kind is HopKind.MX:
        yield from _of_policy(evidence)
    for host in evidence.hosts:
        yield from _of_tlsa(host)
        yield from _of_servers(host)


def _of_policy(evidence: DomainEvidence) -> Iterator[Observation]:
    domain, found = evidence.nexthop.host, evidence.mta_sts
    if found.policy is not None and found.policy.mode is MtaStsMode.NONE:
        # RFC 8461 section 8.3: this is how a policy is withdrawn.
        yield Observation(Feature.MTA_STS, domain, None)
    elif found.vanished:
        yield Observation(Feature.MTA_STS, domain, False)
    elif not found.error:
        yield Observation(Feature.MTA_STS, domain, found.policy is not None)


def _of_tlsa(host: HostEvidence) -> Iterator[Observation]:
    """Gone is only what is proven absent: unsigned answers may be our resolver's fault."""
    if secure_tlsa(host):
        yield Observation(Feature.TLSA, host.host, True)
    elif host.tlsa.asked and host.tlsa.secure and host.tlsa.outcome in _PROVEN_ABSENT:
        yield Observation(Feature.TLSA, host.host, False)


def _of_servers(host: HostEvidence) -> Iterator[Observation]:
    """A host offers what each of its servers offers that let itself be asked."""
    at = max((probe.probed_at for probe in host.probes), default=0.0)
    starttls = [_starttls(probe) for probe in host.probes]
    if known := [offered for offered in starttls if offered is not None]:
        yield Observation(Feature.STARTTLS, host.host, all(known), at)
    if said := [probe.requiretls for probe in host.probes if probe.requiretls is not None]:
        yield Observation(Feature.REQUIRETLS, host.host, all(said), at)


def _starttls(probe: ProbeEvidence) -> bool | None:
    if probe.stage in (ProbeStage.HANDSHAKE, ProbeStage.EHLO_TLS):
        return True
    if probe.stage is not ProbeStage.DONE or probe.starttls_reply is not None:
        return None  # a server that puts STARTTLS off may do so for a moment
    return probe.starttls_offered


# ---------------------------------------------------------------- remembering


def after(record: Record | None, offered: bool | None, at: float, now: float) -> Record | None:
    """What is known once a feature was looked for at *at*; None where nothing is.

    Who looked earlier may come later, with evidence that was kept: it changes
    nothing, unless it is the clock that went back.
    """
    if offered is None:
        return None
    if record is None:
        return Record(at, at) if offered else None
    if at < max(record.last_seen, record.lost_at) <= now:
        return record
    if offered:
        return Record(record.first_seen, at)
    return record if record.lost_at else replace(record, lost_at=at)


class Ledger:
    """Remembers what was offered; counts and tells each downgrade once.

    A store that fails costs the memory of what was seen before, nothing else.
    """

    def __init__(self, store: Store, counters: Counters, max_entries: int = MAX_ENTRIES) -> None:
        self._store = store
        self._counters = counters
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Record | None] = OrderedDict()

    async def observe(self, evidence: DomainEvidence, now: float) -> float:
        """Take note of *evidence*.

        Args:
            evidence: just gathered.
            now: seconds since the epoch.

        Returns:
            When the last of what this next hop does not offer any more was lost;
            0 where nothing is.
        """
        lost = [await self._note(observed, now) for observed in observations(evidence)]
        return max(lost, default=0.0)

    async def _note(self, observed: Observation, now: float) -> float:
        key = f"{observed.feature} {observed.subject}"
        before = await self._known(key, now)
        record = after(before, observed.offered, min(observed.at or now, now), now)
        if record is not None and record.lost_at and (before is None or not before.lost_at):
            self._tell(observed, record)
        if record is not None and before is not None and before.lost_at and not record.lost_at:
            _log.info("restored", kind=observed.feature, subject=observed.subject)
        await self._keep(key, before, record, now)
        return record.lost_at if record is not None else 0.0

    def _tell(self, observed: Observation, record: Record) -> None:
        self._counters.inc("downgrades_total", (observed.feature,))
        _log.warning(
            "downgrade",
            kind=observed.feature,
            subject=observed.subject,
            first_seen=round(record.first_seen),
            last_seen=round(record.last_seen),
        )

    async def _known(self, key: str, now: float) -> Record | None:
        if key in self._entries:
            self._entries.move_to_end(key)
            record = self._entries[key]
        else:
            record = await self._load(key, now)
            if key in self._entries:  # who looked at the same time was quicker
                record = self._entries[key]
        if record is not None and max(record.last_seen, record.lost_at) < now - REMEMBERED:
            return None
        return record

    async def _load(self, key: str, now: float) -> Record | None:
        try:
            kept = await self._store.get(StoreKind.OFFERED, key, now)
            record = None if kept is None else _records.validate_json(kept)
        except StoreError as error:
            _log.warning("store_failed", key=key, error=str(error))
            return None
        except ValidationError as error:
            self._counters.inc("store_errors_total", (StoreOperation.DECODE,))
            _log.warning("store_record_bad", key=key, error=str(error))
            return None
        if record is not None and not _possible(record, now):
            self._counters.inc("store_errors_total", (StoreOperation.DECODE,))
            _log.warning("store_record_bad", key=key, error="times that cannot be")
            return None
        return record

    async def _keep(
        self, key: str, before: Record | None, record: Record | None, now: float
    ) -> None:
        self._entries[key] = record
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        try:
            if record is None:
                if before is not None:
                    await self._store.delete(StoreKind.OFFERED, key)
            elif _worth_writing(before, record):
                keep_until = max(record.last_seen, record.lost_at) + REMEMBERED
                await self._store.put(
                    StoreKind.OFFERED, key, _records.dump_json(record), keep_until, now
                )
            else:
                # In memory too: "still offered" moves on only with what is written.
                self._entries[key] = before
        except StoreError as error:
            _log.warning("store_failed", key=key, error=str(error))


def _possible(record: Record, now: float) -> bool:
    """Whether nothing in a record lies ahead: mail would be deferred until then."""
    latest = now + CLOCK_SKEW
    return 0 <= record.first_seen <= record.last_seen <= latest and 0 <= record.lost_at <= latest


def _worth_writing(before: Record | None, record: Record) -> bool:
    if before is None or before.lost_at != record.lost_at:
        return True
    return record.last_seen - before.last_seen >= WRITTEN_AGAIN
