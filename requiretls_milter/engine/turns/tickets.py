"""Tickets for pieces of work, the room that they share, and the queues in which they wait.

:mod:`~requiretls_milter.engine.turns.schedule` says which of them comes next, and why.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from requiretls_milter.telemetry.labels import Lane


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to share.

    Attributes:
        places: how much may be under way at the same time.
        slow_after: seconds after which work is slow.
        per_target: how much may be under way with one server; 0 for as much as there are places.
        per_minute: how much may begin within any minute; 0 for no limit.
    """

    places: int
    slow_after: float
    per_target: int = 0
    per_minute: int = 0

    @property
    def slow(self) -> int:
        """Places that slow work may hold at most; a single place cannot be shared out: 0."""
        return self.places // 2

    @property
    def slow_first(self) -> int:
        """Places that slow work gets even if prompt work waits."""
        return min(self.slow, max(1, self.places // 4))

    @property
    def kept(self) -> int:
        """Places that are kept for next hops that hold hardly any."""
        return self.places // 4


class TicketState(enum.Enum):
    """What has become of a ticket."""

    BEHIND = enum.auto()  # its server has as much work as it may have
    WAITING = enum.auto()
    RUNNING = enum.auto()
    GONE = enum.auto()


@dataclass(eq=False, slots=True)
class Ticket:
    """One piece of work. Attributes change by the schedule's methods alone.

    Attributes:
        hop: the next hop that it is charged to.
        group: the network or zone that it goes to.
        target: the server that it goes to, "" if there is none to tell apart.
        number: a ticket that asked earlier has a smaller one.
        slow: it was broken off, so that it stays in the slow lane.
        began: when it was given its place.
    """

    hop: str
    group: str
    target: str
    number: int
    lane: Lane = Lane.PROMPT
    state: TicketState = TicketState.WAITING
    slow: bool = False
    began: float = 0.0


class Queue:
    """Tickets that wait in one lane, by age and by next hop."""

    def __init__(self) -> None:
        self._tickets: dict[Ticket, None] = {}
        self._hops: dict[str, dict[Ticket, None]] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait."""
        self._tickets[ticket] = None
        self._hops.setdefault(ticket.hop, {})[ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out that waits here."""
        del self._tickets[ticket]
        of_hop = self._hops[ticket.hop]
        del of_hop[ticket]
        if not of_hop:
            del self._hops[ticket.hop]

    def of(self, hop: str) -> tuple[Ticket, ...]:
        """The tickets of a next hop."""
        return tuple(self._hops.get(hop, ()))

    def oldest(self) -> Ticket:
        """The ticket that has waited for longest."""
        return next(iter(self._tickets))

    def newest(self, cost: Callable[[Ticket], int]) -> Ticket:
        """The ticket that costs least, of a hop for which least waits; of equal hops the newest."""
        if len(self._tickets) == 1:
            return self.oldest()
        return self._most_modest(reversed(self._hops.values()), cost)

    def next(self, cost: Callable[[Ticket], int]) -> Ticket:
        """The ticket whose turn it is: of the next hops that fare worst, newest and oldest in turn.

        Every fourth turn is that of the oldest ticket, whatever it costs.
        """
        self._turn = (self._turn + 1) % 4
        if not self._turn or len(self._tickets) == 1:
            return self.oldest()
        if self._turn % 2:
            return self.newest(cost)
        return self._most_modest(self._hops.values(), cost)

    def _most_modest(
        self, hops: Iterable[dict[Ticket, None]], cost: Callable[[Ticket], int]
    ) -> Ticket:
        """The ticket of the first hop that costs least; among equals of one for which least waits.

        What waits for a hop it will take once it has its turn. An ordinary domain has a server or
        two; one with 16 that hang would otherwise come first as often as the ordinary one.
        """
        best, least = None, (0, 0)
        for of_hop in hops:
            ticket = next(iter(of_hop))
            wanted = cost(ticket), len(of_hop)
            if best is None or wanted < least:
                best, least = ticket, wanted
            if least <= (0, 1):
                break
        if best is None:
            raise LookupError("no ticket waits")
        return best
