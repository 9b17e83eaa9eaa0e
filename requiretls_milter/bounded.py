"""Whatever is kept in memory is bounded, in number and in weight.

Keys and values come from strangers: without a bound, whoever publishes many names or long
certificate chains could fill the memory. The order of eviction is the same everywhere: the
entry that was put or used least recently goes first.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import sys
from collections import deque
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


ALIGNMENT = 16
"""Octets of which Python's allocator gives out multiples."""

LARGEST_SHARED = 256
"""The largest number that CPython has one object of."""


def octets(value: object) -> int:
    """The memory that *value* takes with all that it holds, in octets.

    It may be a dataclass or a tuple of others, and so on. What several values share is counted
    for each of them, so that the sum of several is an upper bound. What there is only one of,
    such as a small number or a member of an enumeration, is not counted.
    """
    total = 0
    left: list[Any] = [value]
    size = sys.getsizeof
    for one in left:  # the list grows meanwhile
        kind: Any = type(one)
        if kind not in _LEAVES:
            if kind is tuple:
                left += one
            elif kind is int:
                if 0 <= one <= LARGEST_SHARED:
                    continue
            else:
                parts = _parts_of(kind)
                if parts is None:
                    continue
                left += parts(one)
        total += size(one) + (ALIGNMENT - 1) & -ALIGNMENT
    return total


_LEAVES = frozenset({str, bytes, float})


@functools.cache
def _parts_of(kind: type) -> Callable[[Any], Iterable[object]] | None:
    """What tells the values that one of a type holds; None if such a value is not counted."""
    if kind in (type(None), bool) or issubclass(kind, enum.Enum):
        return None
    if issubclass(kind, tuple):
        return iter
    names = tuple(getattr(kind, "__dataclass_fields__", ()))
    return attrgetter(*names) if len(names) > 1 else lambda one: [getattr(one, n) for n in names]


MAP_OCTETS = 256
"""Octets that a map itself takes for an entry, at most: after it has grown, before it is full."""

PIECE = 2_000
"""Entries that are looked at or freed without a pause: less than a millisecond."""

OLDEST = 64
"""Keys that are looked up at once when the oldest entries have to go: a dict passes over all that
was deleted at its beginning, which may be much."""


def entry_octets(key: object, value: object) -> int:
    """The memory that an entry of a map takes with all that it holds, in octets."""
    return octets(key) + octets(value) + MAP_OCTETS


class BoundedMap(Generic[K, V]):
    """A map with a limit; the least recently used entry makes room for a new one.

    Reading is not using: call :meth:`touch` for an entry that was of use. Iteration goes
    from the entry that would be evicted first to the one that would be evicted last.

    Args:
        limit: the largest number of entries; may be changed, which takes effect with the
            next :meth:`put`.
        max_weight: the largest sum of their weights; may be changed likewise.
        weigh: gives the weight of an entry, as it is when it is put.
        lasting: an entry always has the same weight, so that it need not be kept: octets and texts
            of ASCII, which do not grow when they are used.
    """

    __slots__ = (
        *("_entries", "_lasting", "_moved", "_oldest", "_weigh", "_weights"),
        *("get", "limit", "max_weight", "weight"),
    )

    def __init__(
        self,
        limit: float = math.inf,
        *,
        max_weight: float = math.inf,
        weigh: Callable[[K, V], int] | None = None,
        lasting: bool = False,
    ) -> None:
        self.limit = limit
        self.max_weight = max_weight
        self.weight = 0
        """The sum of all weights; 0 without ``weigh``."""
        self._weigh = weigh
        self._entries: dict[K, V] = {}  # the order is that of use
        self.get: Callable[[K], V | None] = self._entries.get
        """Gives the value; None if there is none. This does not count as a use."""
        # The octets of a text may grow when it is used: what was added is what is taken off.
        self._weights: dict[K, int] = {}
        self._lasting = lasting
        self._oldest: deque[K] = deque()  # some of the oldest, the oldest first
        self._moved: set[K] = set()  # those of them that were used or put anew since

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def items(self) -> ItemsView[K, V]:
        """The entries, the least recently used first."""
        return self._entries.items()

    def touch(self, key: K) -> None:
        """Note that an entry was used.

        Raises:
            KeyError: there is none.
        """
        self._entries[key] = self._entries.pop(key)
        if self._oldest:
            self._note_moved(key)

    def _note_moved(self, key: K) -> None:
        self._moved.add(key)
        if len(self._moved) > OLDEST:
            self._oldest.clear()
            self._moved.clear()

    def put(self, key: K, value: V) -> int:
        """Keep a value in the place of an earlier one; returns how many entries had to go.

        An entry that is over the limit by itself goes at once.
        """
        self.pop(key)
        self._entries[key] = value
        if self._oldest:
            self._note_moved(key)
        if self._weigh is not None:
            weight = self._weigh(key, value)
            if not self._lasting:
                self._weights[key] = weight
            self.weight += weight
        evicted = 0
        while len(self._entries) > self.limit or self.weight > self.max_weight:
            self.pop_oldest()
            evicted += 1
        return evicted

    def pop(self, key: K) -> V | None:
        """Forget an entry and return its value; None if there is none."""
        if key not in self._entries:
            return None
        return self._taken(key)

    def pop_oldest(self) -> tuple[K, V]:
        """Forget the least recently used entry and return it.

        Raises:
            KeyError: there is none.
        """
        while True:
            if not self._oldest:
                self._moved.clear()
                self._oldest.extend(itertools.islice(self._entries, OLDEST))
                if not self._oldest:
                    raise KeyError("the map is empty")
            key = self._oldest.popleft()
            if key in self._entries and key not in self._moved:
                break
        return key, self._taken(key)

    def _taken(self, key: K) -> V:
        value = self._entries.pop(key)
        if self._weigh is not None:
            self.weight -= self._weigh(key, value) if self._lasting else self._weights.pop(key)
        return value

    def clear(self) -> None:
        """Forget all entries."""
        for _ in self.clear_in_pieces():
            pass

    def clear_in_pieces(self) -> Iterator[None]:
        """Forget all entries now, and free them piece by piece while the caller iterates.

        To free a hundred thousand takes ten milliseconds, in which nothing else can be done.
        """
        former: tuple[dict[K, Any], ...] = (self._entries, self._weights)
        self._entries, self._weights = {}, {}
        self.get = self._entries.get
        self._oldest.clear()
        self._moved.clear()
        self.weight = 0
        return _freed(former)


def in_pieces(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """Give items a piece at a time, so that the caller can do something else in between."""
    rest = iter(items)
    while piece := tuple(itertools.islice(rest, PIECE)):
        yield piece


def _freed(maps: Iterable[dict[Any, Any]]) -> Iterator[None]:
    """Take all out of some maps; yields after each piece."""
    for entries in maps:
        while entries:
            for _ in range(min(PIECE, len(entries))):
                entries.popitem()
            yield
