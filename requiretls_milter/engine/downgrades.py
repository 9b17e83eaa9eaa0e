"""Downgrades: what hosts and domains offered until lately, and do not now.

STARTTLS, REQUIRETLS, TLSA records and MTA-STS that were there and are gone are
what a failed certificate renewal looks like, and what an attack looks like. Each
change is logged once; what is not known (a timeout, a lame resolver, our own
network down) is no change.

:func:`observations` is a pure reading of evidence; :class:`DowngradeTracker` remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.recordstore import RecordStore
from requiretls_milter.engine.troubles import Troubles, lost
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
from requiretls_milter.store.base import CLOCK_SKEW, StoreKind
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters

REMEMBERED = 30 * 86400.0
"""Seconds for which a feature is remembered that was offered, or lost, and not seen since."""

WRITTEN_AGAIN = 3600.0
"""Seconds after which "still offered" is worth writing down again."""

MAX_ENTRIES = 50_000
"""Features of hosts and domains that are held in memory; the store holds all."""

MAX_OCTETS = 16 << 20
"""Octets of memory that these take at most: those of 30,000 usual names."""

_log = log.get_logger("engine.downgrades")


@dataclass(frozen=True, slots=True)
class FeatureObservation:
    """One feature of one host or domain, as it was found.

    ``offered`` is None if it was withdrawn in good order. ``at`` is when it was found, in
    seconds since the epoch; 0.0: just now.
    """

    feature: Feature
    subject: str
    offered: bool | None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureHistory:
    """Since when a feature was seen, when last, and since when it is gone; 0 for never."""

    first_seen: float
    last_seen: float
    lost_at: float = 0.0


_histories = TypeAdapter(FeatureHistory)

_PROVEN_ABSENT = (DnsOutcome.NODATA, DnsOutcome.NXDOMAIN)


# ---------------------------------------------------------------- reading evidence


def observations(evidence: DomainEvidence) -> Iterator[FeatureObservation]:
    """What the evidence says for sure of each feature; nothing if it is not known."""
    if evidence.nexthop.kind is HopKind.MX:
        yield from _of_policy(evidence)
    for host in evidence.hosts:
        yield from _of_tlsa(host)
        yield from _of_servers(host)


def _of_policy(evidence: DomainEvidence) -> Iterator[FeatureObservation]:
    domain, found = evidence.nexthop.host, evidence.mta_sts
    if found.policy is not None and found.policy.mode is MtaStsMode.NONE:
        # RFC 8461 section 8.3: this is how a policy is withdrawn.
        yield FeatureObservation(Feature.MTA_STS, domain, None)
    elif found.vanished:
        yield FeatureObservation(Feature.MTA_STS, domain, False)
    elif not found.error:
        yield FeatureObservation(Feature.MTA_STS, domain, found.policy is not None)


def _of_tlsa(host: HostEvidence) -> Iterator[FeatureObservation]:
    """Only proven absence is a loss: unsigned answers may be our resolver's fault."""
    if secure_tlsa(host):
        yield FeatureObservation(Feature.TLSA, host.host, True)
    elif host.tlsa.queried and host.tlsa.secure and host.tlsa.outcome in _PROVEN_ABSENT:
        yield FeatureObservation(Feature.TLSA, host.host, False)


def _of_servers(host: HostEvidence) -> Iterator[FeatureObservation]:
    """A host offers what each of its servers offers, among those that answered."""
    at = max((probe.probed_at for probe in host.probes), default=0.0)
    starttls = [_starttls(probe) for probe in host.probes]
    if known := [offered for offered in starttls if offered is not None]:
        yield FeatureObservation(Feature.STARTTLS, host.host, all(known), at)
    if said := [probe.requiretls for probe in host.probes if probe.requiretls is not None]:
        yield FeatureObservation(Feature.REQUIRETLS, host.host, all(said), at)


def _starttls(probe: ProbeEvidence) -> bool | None:
    if probe.stage in (ProbeStage.HANDSHAKE, ProbeStage.EHLO_TLS):
        return True
    if probe.stage is not ProbeStage.DONE or probe.starttls_reply is not None:
        return None  # a server that puts STARTTLS off may do so for a moment
    return probe.starttls_offered


# ---------------------------------------------------------------- remembering


def after(
    history: FeatureHistory | None, offered: bool | None, at: float, now: float
) -> FeatureHistory | None:
    """What is known once a feature was looked for at *at*; None if nothing is.

    An earlier finding may come later, with evidence that was kept: it changes
    nothing, unless it is the clock that went back.
    """
    if offered is None:
        return None
    if history is None:
        return FeatureHistory(at, at) if offered else None
    if at < max(history.last_seen, history.lost_at) <= now:
        return history
    if offered:
        return FeatureHistory(history.first_seen, at)
    return history if history.lost_at else replace(history, lost_at=at)


class DowngradeTracker:
    """Remembers what was offered; counts and logs each downgrade once.

    Args:
        records: where it is stored. A store that fails costs the memory of what was seen
            before, and nothing else.
        counters: where downgrades are counted.
        troubles: where it is noted what is not offered any more; None if nobody asks.
        max_entries: features that are held in memory.
    """

    def __init__(
        self,
        records: RecordStore,
        counters: Counters,
        troubles: Troubles | None = None,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._records = records
        self._counters = counters
        self._troubles = troubles if troubles is not None else Troubles()
        self._entries: BoundedMap[str, FeatureHistory | None] = BoundedMap(
            max_entries, max_weight=MAX_OCTETS, weigh=entry_octets
        )

    def __len__(self) -> int:
        """The number of features that are held in memory."""
        return len(self._entries)

    async def observe(self, evidence: DomainEvidence, now: float) -> float:
        """Take note of *evidence*.

        Args:
            evidence: just gathered.
            now: seconds since the epoch.

        Returns:
            When the last of what this next hop does not offer any more was lost;
            0 if nothing is.
        """
        # At once: a store that is slow delays a forecast once, and not once for each feature.
        domain = evidence.nexthop.host
        found = (self._note(observed, domain, now) for observed in observations(evidence))
        lost_at = await asyncio.gather(*found)
        return max(lost_at, default=0.0)

    async def _note(self, observed: FeatureObservation, domain: str, now: float) -> float:
        key = f"{observed.feature} {observed.subject}"
        before = await self._known(key, now)
        history = after(before, observed.offered, min(observed.at or now, now), now)
        if history is not None and history.lost_at and (before is None or not before.lost_at):
            self._report(observed, domain, history)
        if history is not None and before is not None and before.lost_at and not history.lost_at:
            _log.info("restored", kind=observed.feature, subject=observed.subject, domain=domain)
        if history is not None and history.lost_at:
            self._troubles.note(lost(observed.feature, observed.subject))
        await self._keep(key, before, history, now)
        return history.lost_at if history is not None else 0.0

    def _report(self, observed: FeatureObservation, domain: str, history: FeatureHistory) -> None:
        self._counters.inc("downgrades_total", (observed.feature,))
        _log.warning(
            "downgrade",
            kind=observed.feature,
            subject=observed.subject,
            domain=domain,  # whose mail found it out: the host may serve others too
            first_seen=round(history.first_seen),
            last_seen=round(history.last_seen),
        )

    async def _known(self, key: str, now: float) -> FeatureHistory | None:
        if key in self._entries:
            self._entries.touch(key)
            history = self._entries.get(key)
        else:
            history = await self._records.read(
                StoreKind.OFFERED, key, lambda value: decode_history(value, now), now
            )
            if key in self._entries:  # another question was quicker
                history = self._entries.get(key)
        if history is not None and max(history.last_seen, history.lost_at) < now - REMEMBERED:
            return None
        return history

    async def _keep(
        self, key: str, before: FeatureHistory | None, history: FeatureHistory | None, now: float
    ) -> None:
        if history is None:
            self._entries.put(key, None)
            if before is not None:
                await self._records.delete(StoreKind.OFFERED, key)
        elif _worth_writing(before, history):
            self._entries.put(key, history)
            keep_until = max(history.last_seen, history.lost_at) + REMEMBERED
            value = _histories.dump_json(history)
            await self._records.write(StoreKind.OFFERED, key, value, keep_until, now)
        else:
            # In memory too: "still offered" moves on only with what is written.
            self._entries.put(key, before)


def decode_history(value: bytes, now: float) -> FeatureHistory:
    """Decode a record of the store.

    Raises:
        RecordError: the bytes are not a record, or one that cannot be true.
    """
    try:
        history = _histories.validate_json(value)
    except ValidationError as error:
        raise RecordError(str(error)) from error
    if not _possible(history, now):
        raise RecordError("times that cannot be")
    return history


def _possible(history: FeatureHistory, now: float) -> bool:
    """Whether nothing in it lies ahead: mail would be deferred until then."""
    latest = now + CLOCK_SKEW
    return 0 <= history.first_seen <= history.last_seen <= latest and 0 <= history.lost_at <= latest


def _worth_writing(before: FeatureHistory | None, history: FeatureHistory) -> bool:
    if before is None or before.lost_at != history.lost_at:
        return True
    return history.last_seen - before.last_seen >= WRITTEN_AGAIN
