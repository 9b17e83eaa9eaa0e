"""Single flight: the same thing is found once, however many ask for it at the same time (R60).

A *flight* is the task that finds it. Callers wait for the flight; a caller that is cancelled
does not take the answer from the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from requiretls_milter.engine.cache.shelf import Shelf
from requiretls_milter.evidence import turns
from requiretls_milter.evidence.turns import BusyError, Errand
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters
from requiretls_milter.telemetry.labels import Bound, CacheResult

_log = log.get_logger("engine.cache")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Flight:
    task: asyncio.Task[Any]
    errand: Errand


class Flights:
    """What is being found at the moment: once for all that ask, within a limit of time (R60).

    Args:
        limit: flights at once; a further one is refused.
        timeout: seconds for each.
        counters: where refusals and timeouts are counted.
    """

    def __init__(self, limit: int, timeout: float, counters: Counters) -> None:
        self._limit = limit
        self._timeout = timeout
        self._counters = counters
        self._flights: dict[tuple[Hashable, bool], _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(
        self,
        shelf: Shelf,
        key: Hashable,
        find: Callable[[], Awaitable[T]],
        keep: Callable[[T], Awaitable[T]],
        *,
        fresh: bool,
    ) -> T:
        """Wait for the flight for *key*; start one if there is none.

        Args:
            shelf: the layer that the question belongs to; it counts misses and joins.
            key: what is to be found.
            find: finds it, within the timeout.
            keep: takes what was found and returns what the callers are given.
            fresh: whether it must not come from a store. Such a question does not join a
                flight that may take it from there.

        Raises:
            BusyError: there are too many flights.
            TimeoutError: it took too long.
        """
        flight = self._flights.get((key, True))
        if flight is None and not fresh:
            flight = self._flights.get((key, False))
        if flight is None:
            if len(self._flights) >= self._limit:
                self._counters.inc("saturated_total", (Bound.FLIGHTS,))
                raise BusyError(f"{len(self._flights)} lookups are under way")
            shelf.count(CacheResult.MISS)
            errand = Errand()
            task = asyncio.create_task(self._fly(errand, find, keep), name=str(key)[:200])
            flight = self._flights[key, fresh] = _Flight(task, errand)
            task.add_done_callback(lambda _: self._landed(key, fresh, flight))
        else:
            shelf.count(CacheResult.JOINED)
        flight.errand.join()
        try:
            # A caller may be cancelled; the flight belongs to all of them (R60).
            return cast(T, await asyncio.shield(flight.task))
        finally:
            flight.errand.leave()
            if flight.errand.abandoned and flight.errand.waiting:
                # It would only lengthen the queue.
                self._forget(key, fresh, flight)
                flight.task.cancel()

    async def _fly(
        self, errand: Errand, find: Callable[[], Awaitable[T]], keep: Callable[[T], Awaitable[T]]
    ) -> T:
        try:
            async with asyncio.timeout(self._timeout) as patience:
                with turns.running(errand):
                    found = await find()
        except TimeoutError:
            if patience.expired():
                self._counters.inc("saturated_total", (Bound.FLIGHT_TIMEOUT,))
            raise
        return await keep(found)

    def _landed(self, key: Hashable, fresh: bool, flight: _Flight) -> None:
        self._forget(key, fresh, flight)
        if not flight.task.cancelled() and (error := flight.task.exception()) is not None:
            report_lost(key, error, self._timeout)

    def _forget(self, key: Hashable, fresh: bool, flight: _Flight) -> None:
        """Let no further caller join it."""
        if self._flights.get((key, fresh)) is flight:
            del self._flights[key, fresh]

    async def close(self) -> None:
        """Give up all flights."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def report_lost(key: Hashable, error: BaseException, seconds: float) -> None:
    """Log that something could not be found because of us, not because of the network."""
    if isinstance(error, BusyError):
        return  # counted where it was refused
    if isinstance(error, TimeoutError):
        _log.warning("evidence_late", key=key, seconds=seconds)
    else:
        # Sources do not raise for what the network does: this is an internal error.
        _log.error("evidence_failed", key=key, error=repr(error), exc_info=error)
