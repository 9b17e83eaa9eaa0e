"""One layer of the cache: a bounded number of entries, each with an end on two clocks.

Entries are kept as octets (:mod:`~requiretls_milter.engine.cache.packing`); each reader gets
objects of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from requiretls_milter.bounded import BoundedMap, entry_octets
from requiretls_milter.clocks import Clocks, Life
from requiretls_milter.engine.cache.packing import Evidence, Packed, pack, unpack
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, CacheResult, Layer

ENTRY_OCTETS = 6_144
"""Octets that an entry may have on average, with its key; a usual chain takes 4 KiB."""

CLOCK_STEP = 1.0
"""Seconds by which the clocks must have parted before an entry's end is told anew."""

_TIMES = struct.Struct("4d")
"""When it was found, both ends of its life, and the pause: what stands before packed evidence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Evidence on the shelf, which ends with its ``life`` on the wall clock.

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
        self._entries: BoundedMap[Hashable, Packed] = BoundedMap(
            limit, max_weight=limit * ENTRY_OCTETS, weigh=entry_octets, lasting=True
        )
        self._failures: set[Hashable] = set()
        """Keys of failed attempts, and of some that are gone."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def entry(self, key: Hashable) -> Entry | None:
        """The entry, also if its life is over; None if there is none."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        found_at, wall_end, monotonic_end, pause = _times(kept)
        return Entry(_evidence(kept, wall_end), found_at, Life(wall_end, monotonic_end), pause)

    def used_entry(self, key: Hashable) -> Entry | None:
        """The same, and it is a use."""
        entry = self.entry(key)
        if entry is not None:
            self._entries.touch(key)
        return entry

    def fresh(self, key: Hashable, since: float) -> Evidence | None:
        """The evidence, if it may still be used and was not found before *since*; counted."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        found_at, wall_end, monotonic_end, pause = _times(kept)
        wall = self._wall()
        left = min(wall_end - wall, monotonic_end - self._monotonic())
        if found_at < since or left <= 0:
            return None
        self._entries.touch(key)
        self.count(CacheResult.HELD if pause else CacheResult.HIT)
        # A clock that was set back must not make the caller keep it for longer (R61).
        set_back = wall + left < wall_end - CLOCK_STEP
        return _evidence(kept, wall + left if set_back else wall_end)

    def put(self, key: Hashable, entry: Entry) -> None:
        """Keep an entry in the place of an earlier one; another may have to make room."""
        if entry.pause:
            if len(self._failures) > 2 * len(self._entries) + 1:
                self._failures.intersection_update(self._entries)
            self._failures.add(key)
        else:
            self._failures.discard(key)
        if self._entries.put(key, _kept(entry)):
            self._counters.inc("saturated_total", (self._bound,))

    def drop(self, key: Hashable) -> None:
        """Forget an entry; there may be none."""
        self._failures.discard(key)
        self._entries.pop(key)

    def clear(self) -> Iterator[None]:
        """Forget all entries now; see :meth:`BoundedMap.clear_in_pieces`."""
        self._failures.clear()
        return self._entries.clear_in_pieces()

    def forget_failures(self) -> None:
        """Forget failed attempts, so that they may be made again at once."""
        for key in self._failures:
            self._entries.pop(key)
        self._failures.clear()

    def count(self, result: CacheResult) -> None:
        """Count what became of a question to this layer."""
        self._counters.inc("cache_requests_total", (self.layer, result))


def _kept(entry: Entry) -> Packed:
    """An entry as octets; its evidence ends with its life."""
    life = entry.life
    times = _TIMES.pack(entry.found_at, life.wall_end, life.monotonic_end, entry.pause)
    packed = pack(entry.evidence)
    if isinstance(packed, bytes):
        return times + packed
    return (times + packed[0], *packed[1:])


def _times(kept: Packed) -> tuple[float, float, float, float]:
    found: tuple[float, float, float, float] = _TIMES.unpack_from(
        kept if isinstance(kept, bytes) else kept[0]
    )
    return found


def _evidence(kept: Packed, expires: float) -> Evidence:
    if isinstance(kept, bytes):
        return unpack(kept[_TIMES.size :], expires)
    return unpack((kept[0][_TIMES.size :], *kept[1:]), expires)
