"""Fair shares of each resource that the engine has only so much of: probes, lookups, fetches.

:mod:`~requiretls_milter.engine.turns.schedule` decides what comes next; this module does what it
says, on the loop: it lets work begin, breaks work off, and looks again when time has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from requiretls_milter.config import Limits
from requiretls_milter.engine.turns.schedule import Changes, Schedule
from requiretls_milter.engine.turns.tickets import Room, Ticket, TicketState
from requiretls_milter.evidence.turns import BusyError, Claim, Limiters, current_errand
from requiretls_milter.telemetry.counting import Counters, Gauges
from requiretls_milter.telemetry.labels import Bound, Lane

T = TypeVar("T")


class Shares:
    """Implements :class:`~requiretls_milter.evidence.turns.Limiter` for one resource.

    Args:
        room: what there is to share.
        bound: the limit under which it counts that work waits for a place; that it waits for
            its server or for the pace counts under the limits for probes.
        counters: where it is counted.
    """

    def __init__(self, room: Room, bound: Bound, counters: Counters) -> None:
        self._schedule = Schedule(room)
        self._bound = bound
        self._counters = counters
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._works: dict[Ticket, asyncio.Task[Any]] = {}
        self._broken_off: set[Ticket] = set()
        self._timer: asyncio.TimerHandle | None = None

    def waiting(self) -> dict[Lane, int]:
        """How much waits in each lane."""
        return {lane: self._schedule.waiting(lane) for lane in Lane}

    @property
    def running(self) -> int:
        """How much is under way."""
        return self._schedule.running

    async def run(self, claim: Claim, work: Callable[[], Awaitable[T]]) -> T:
        """See :meth:`~requiretls_milter.evidence.turns.Limiter.run`."""
        errand = current_errand()
        if errand.abandoned:
            raise BusyError("nothing waits for it any more")
        if self._schedule.is_full():
            self._counters.inc("saturated_total", (self._bound,))
            raise BusyError(f"too many {self._bound} wait for their turn")
        hops = [hop or claim.group for hop in errand.hops]
        ticket = self._schedule.ask(hops, claim.group, claim.target, self._now())

        def joined(hop: str) -> None:
            self._schedule.joined(ticket, hop or claim.group, self._now())
            self._advance()

        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("to be called from a task, which can be broken off")
        finished = False
        errand.listeners.append(joined)
        try:
            self._advance()
            self._count_wait(ticket)
            while True:
                errand.waiting += 1
                try:
                    await self._turn(ticket)
                finally:
                    errand.waiting -= 1
                self._works[ticket] = task
                try:
                    try:
                        result = await work()
                    finally:
                        is_broken_off = self._take_from(task, ticket)
                except asyncio.CancelledError:
                    if not is_broken_off:
                        raise
                    continue  # it waits for a turn in the slow lane
                finished = True
                return result
        finally:
            errand.listeners.remove(joined)
            self._schedule.leave(ticket, self._now(), finished=finished)
            self._advance()

    def _take_from(self, task: asyncio.Task[Any], ticket: Ticket) -> bool:
        """Note that a task's work has ended; returns whether we, and nobody else, cancelled it."""
        del self._works[ticket]
        if ticket not in self._broken_off:
            return False
        self._broken_off.remove(ticket)
        return not task.uncancel()

    async def _turn(self, ticket: Ticket) -> None:
        """Return when it is the ticket's turn."""
        while ticket.state is not TicketState.RUNNING:
            turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
            try:
                await turn
            finally:
                del self._turns[ticket]

    def _count_wait(self, ticket: Ticket) -> None:
        if ticket.state is TicketState.BEHIND:
            self._counters.inc("saturated_total", (Bound.PROBES_PER_HOST,))
        elif ticket.state is TicketState.WAITING:
            paced = self._schedule.is_paced(self._now())
            bound = Bound.PROBES_PER_MINUTE if paced else self._bound
            self._counters.inc("saturated_total", (bound,))

    def _advance(self) -> None:
        """Do what the schedule says, and set the timer for the next time that it may say more."""
        now = self._now()
        changes: Changes = self._schedule.advance(now)
        if changes.became_slow:
            self._counters.inc("saturated_total", (Bound.SLOW_AFTER,), by=changes.became_slow)
        for ticket in changes.broken_off:
            if ticket in self._works:  # else it has not begun yet
                self._broken_off.add(ticket)
                self._works[ticket].cancel()
        for ticket in changes.started:
            if ticket in self._turns and not self._turns[ticket].done():
                self._turns[ticket].set_result(None)
        wake_at = self._schedule.wake_at(now)
        if self._timer is not None and (wake_at is None or self._timer.when() > wake_at):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and wake_at is not None:
            self._timer = asyncio.get_running_loop().call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._advance()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class AllShares:
    """The shares of all resources; what belongs to one configuration has its own."""

    probes: Shares
    lookups: Shares
    fetches: Shares

    @classmethod
    def of(cls, limits: Limits, counters: Counters) -> AllShares:
        """Make the shares that a configuration allows."""
        slow_after = limits.slow_after
        probes = Room(limits.probes, slow_after, limits.probes_per_host, limits.probes_per_minute)
        return cls(
            Shares(probes, Bound.PROBES, counters),
            Shares(Room(limits.lookups, slow_after), Bound.LOOKUPS, counters),
            Shares(Room(limits.fetches, slow_after), Bound.FETCHES, counters),
        )

    def limiters(self) -> Limiters:
        """As the collector of evidence takes them."""
        return Limiters(self.probes, self.lookups, self.fetches)

    def show(self, gauges: Gauges) -> None:
        """Set ``waiting_for_turn``."""
        for bound, shares in (
            (Bound.PROBES, self.probes),
            (Bound.LOOKUPS, self.lookups),
            (Bound.FETCHES, self.fetches),
        ):
            for lane, count in shares.waiting().items():
                gauges.set("waiting_for_turn", count, (bound, lane))
