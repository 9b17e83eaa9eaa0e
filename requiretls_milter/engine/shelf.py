"""One layer of the cache: a bounded number of entries, each with an end on two clocks."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import Clocks, Life
from requiretls_milter.model import (
    AddressLookup,
    MtaStsEvidence,
    MxEvidence,
    ProbeEvidence,
    TlsaEvidence,
)
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer

ENTRY_OCTETS = 8_192
"""Octets that an entry may have on average, with its key; a typical chain uses half of it."""

CLOCK_STEP = 1.0
"""Seconds by which the clocks must have parted before an entry's end is told anew."""

Evidence = MxEvidence | MtaStsEvidence | AddressLookup | TlsaEvidence | ProbeEvidence


@dataclass(frozen=True, slots=True)
class Entry:
    """Evidence on the shelf.

    ``found_at`` is when it was found, on the monotonic clock. ``pause`` is 0 for a finding;
    for a failed attempt, the seconds until the next one, before jitter.
    """

    evidence: Evidence
    found_at: float
    life: Life
    pause: float = 0.0


class Shelf:
    """Entries of one layer; the least recently used one goes first.

    Args:
        layer: which layer, as the metrics name it.
        limit: the largest number of entries.
        bound: the name of that limit.
        counters: where hits and evictions are counted.
        clocks: by which entries end.
    """

    def __init__(
        self, layer: Layer, limit: int, bound: Bound, counters: Counters, clocks: Clocks
    ) -> None:
        self.layer = layer
        self._bound = bound
        self._counters = counters
        self._wall = clocks.wall
        self._monotonic = clocks.monotonic
        self._entries: BoundedMap[Hashable, Entry] = BoundedMap(
            limit, max_weight=limit * ENTRY_OCTETS, weigh=entry_octets
        )

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def entry(self, key: Hashable) -> Entry | None:
        """The entry, also if its life is over; None if there is none."""
        return self._entries.get(key)

    def used_entry(self, key: Hashable) -> Entry | None:
        """The same, and it is a use."""
        entry = self.entry(key)
        if entry is not None:
            self._entries.touch(key)
        return entry

    def fresh(self, key: Hashable, since: float) -> Evidence | None:
        """The evidence, if it may still be used and was not found before *since*; counted."""
        entry = self.entry(key)
        if entry is None or entry.found_at < since:
            return None
        wall, life = self._wall(), entry.life
        left = life.left(wall, self._monotonic())
        if left <= 0:
            return None
        self._entries.touch(key)
        self.count(CacheResult.HELD if entry.pause else CacheResult.HIT)
        # A clock that was set back must not make the caller keep it for longer (R61).
        if wall + left < life.wall_end - CLOCK_STEP:
            return replace(entry.evidence, expires=wall + left)
        return entry.evidence

    def put(self, key: Hashable, entry: Entry) -> None:
        """Keep an entry in the place of an earlier one; another may have to make room."""
        if self._entries.put(key, entry):
            self._counters.inc("saturated_total", (self._bound,))

    def drop(self, key: Hashable) -> None:
        """Forget an entry; there may be none."""
        self._entries.pop(key)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def forget_failures(self) -> None:
        """Forget failed attempts, so that they may be made again at once."""
        for key in [key for key, entry in self._entries.items() if entry.pause]:
            self._entries.pop(key)

    def count(self, result: CacheResult) -> None:
        """Count what became of a question to this layer."""
        self._counters.inc("cache_requests_total", (self.layer, result))
