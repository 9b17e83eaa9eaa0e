"""Adding up what several processes counted, over all their lives.

A restart of a process must not make a counter fall. Processes report
*cumulative* totals, so that a report that is lost, late or repeated does no
harm; the aggregate keeps the last totals of each life and adds up all lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from requiretls_milter.telemetry.catalogue import MetricError, MetricKind, declared
from requiretls_milter.telemetry.counting import Totals


@dataclass(slots=True)
class _Series:
    """The totals of one life of a process, or the sum of lives that are over."""

    counters: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)
    histograms: dict[str, tuple[tuple[int, ...], float]] = field(default_factory=dict)

    def take(self, totals: Totals) -> None:
        """Take later totals of the same life; no value ever falls."""
        for metric, labels, value in totals.counters:
            key = (metric, labels)
            self.counters[key] = max(value, self.counters.get(key, 0.0))
        for metric, counts, total in totals.histograms:
            held = self.histograms.get(metric)
            if held is None or sum(counts) >= sum(held[0]):
                self.histograms[metric] = (counts, total)

    def add(self, other: _Series) -> None:
        """Add the totals of another life."""
        for key, value in other.counters.items():
            self.counters[key] = self.counters.get(key, 0.0) + value
        for metric, (counts, total) in other.histograms.items():
            held = self.histograms.get(metric)
            if held is not None:
                counts = tuple(a + b for a, b in zip(counts, held[0], strict=True))
                total += held[1]
            self.histograms[metric] = (counts, total)

    def copy(self) -> _Series:
        """The same totals, which later ones do not change."""
        return _Series(self.counters.copy(), self.histograms.copy())

    def totals(self) -> Totals:
        """These totals, in the form that travels between processes."""
        return Totals(
            tuple((metric, labels, value) for (metric, labels), value in self.counters.items()),
            tuple((metric, counts, total) for metric, (counts, total) in self.histograms.items()),
        )


MAX_PROCESSES = 1024
"""Process names whose totals are kept apart: far more than there are workers."""

INCARNATIONS = 3
"""Lives of one process kept apart, for late totals; earlier lives are only part of a sum."""


class Aggregate:
    """The sum of what several processes counted, over all their lives.

    A life is a process name and an incarnation, a number that grows from one
    life to the next. When a process dies, what it counted stays in the sum.
    """

    def __init__(self) -> None:
        self._lives: dict[str, dict[int, _Series]] = {}
        self._folded: dict[str, int] = {}
        self._retired = _Series()

    def update(self, process: str, incarnation: int, totals: Totals) -> None:
        """Take later totals of a life; those of a life that was summed up already are ignored.

        Args:
            process: the process name, such as ``worker-1``.
            incarnation: which life of it.
            totals: cumulative, or a part of them (:meth:`Totals.pieces`).

        Raises:
            MetricError: an undeclared metric, a wrong number of labels or buckets,
                or too many processes. Nothing of ``totals`` was taken then.
        """
        for metric, labels, _ in totals.counters:
            if len(labels) != len(declared(metric, MetricKind.COUNTER).labels):
                raise MetricError(f"{metric} does not have {len(labels)} labels")
        for metric, counts, _ in totals.histograms:
            if len(counts) != len(declared(metric, MetricKind.HISTOGRAM).buckets) + 1:
                raise MetricError(f"{metric} does not have {len(counts)} buckets")
        if process not in self._lives and len(self._lives) >= MAX_PROCESSES:
            raise MetricError(f"more than {MAX_PROCESSES} processes")
        if incarnation <= self._folded.get(process, -1):
            return
        lives = self._lives.setdefault(process, {})
        lives.setdefault(incarnation, _Series()).take(totals)
        while len(lives) > INCARNATIONS:
            oldest = min(lives)
            self._retired.add(lives.pop(oldest))
            self._folded[process] = oldest

    def copy(self) -> Aggregate:
        """The same at this moment, for another thread; it takes a small part of :meth:`totals`."""
        other = Aggregate()
        other._retired = self._retired.copy()
        other._folded = self._folded.copy()
        other._lives = {
            process: {incarnation: series.copy() for incarnation, series in lives.items()}
            for process, lives in self._lives.items()
        }
        return other

    def totals(self) -> Totals:
        """The sum over all lives of all processes."""
        everything = _Series()
        everything.add(self._retired)
        for lives in self._lives.values():
            for series in lives.values():
                everything.add(series)
        return everything.totals()

    def snapshot(self) -> Snapshot:
        """What :meth:`restore` needs to go on in the next engine."""
        return Snapshot(
            tuple(
                (process, incarnation, series.totals())
                for process, lives in self._lives.items()
                for incarnation, series in lives.items()
            ),
            tuple(self._folded.items()),
            self._retired.totals(),
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Aggregate:
        """Go on where the aggregate of an earlier engine stopped."""
        aggregate = cls()
        aggregate._retired.take(snapshot.retired)
        for process, incarnation, totals in snapshot.lives:
            aggregate.update(process, incarnation, totals)
        aggregate._folded.update(snapshot.folded)
        return aggregate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An :class:`Aggregate` at one moment; the supervisor hands it to the next engine."""

    lives: tuple[tuple[str, int, Totals], ...] = ()
    folded: tuple[tuple[str, int], ...] = ()
    retired: Totals = field(default_factory=Totals)
