"""Which work comes next: fair shares of a room with few places, decided without I/O or a clock.

One slow next hop must take nothing from the others. Neither names nor, with IPv6, networks cost an
attacker anything, so that no list of culprits can help; what helps is that slow work gives way. A
*ticket* stands for one piece of work: a lookup, a fetch or an SMTP session. It waits in one of two
lanes and then holds a *place*:

- **the prompt lane**, for all that has not been slow. Work that holds its place for longer than
  ``slow_after`` is *overdue*; or for longer than three times what work usually takes, if that is
  more, so that nothing is blamed on a host that is short of processor time. Its place is as good
  as free: as soon as prompt work wants it, the overdue work is broken off, and begins anew when
  its turn in the slow lane comes.
- **the slow lane**, for next hops and servers that were slow lately. At most half of the places
  are theirs, and a quarter are theirs even if prompt work waits. There they are never broken off.

Within a lane the turn is that of the next hop and the group (network or zone) that hold the fewest
places. Among equals it is that of a next hop for which the fewest tickets wait: an ordinary domain
has a server or two, and one with many is no reason for it to wait. If that leaves several tickets,
the newest, whose mail is still waiting, and the oldest have the turn alternately. Every fourth turn
is that of the ticket that has waited for longest, whatever its next hop holds, so that none waits
for ever. (Unbound keeps half of its list for queries that run to their end and lets new ones push
old ones out of the other half; Postfix's queue manager has a window for each destination; a server
under overload serves the newest first.)

A quarter of the places is **kept** for next hops and groups that hold hardly any. So that a burst
of strangers cannot take all of these at the same moment, they are given out one after the other.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.engine.turns.tickets import Queue, Room, Ticket, TicketState
from requiretls_milter.telemetry.labels import Lane

MINUTE = 60.0
"""Seconds."""

HARDLY_ANY = 1
"""Places that a next hop may hold and still get one of those that are kept: lookups often come in
pairs (MX and MTA-STS, A and AAAA)."""

USUAL_TIMES = 3.0
"""How many times what prompt work usually takes it may take."""

MOST_PATIENCE = 5.0
"""Times slow_after that it may take at most, whatever is usual."""

WEIGHT = 1 / 16
"""The weight of the latest work in what is usual: it follows within a few dozen sessions."""

SLOW_LIFE = 600.0
"""Seconds for which a next hop or a server counts as slow after it was: a server that is retried
after a pause (15 minutes at most) may be better by then."""

MAX_SLOW_HOPS = 2_048
MAX_TARGETS = 4_096
"""Next hops, and servers, whose speed is remembered: some 3 MiB. Beyond these limits the least
recent is forgotten, and costs others ``slow_after`` seconds of a place once more."""

MAX_WAITING = 10_000
"""Tickets that wait: two for each of the 4,000 flights (``limits.flights``) at most, A and AAAA."""


@dataclass(slots=True)
class Changes:
    """What is to be done now: work to break off, then work to begin; how much became slow."""

    broken_off: list[Ticket] = field(default_factory=list)
    started: list[Ticket] = field(default_factory=list)
    became_slow: int = 0


class Schedule:
    """Gives out the places of a room.

    Each method takes the time, in seconds on a clock that does not go back. After each of them
    :meth:`advance` says what is to be done, and :meth:`wake_at` when it is to be called at the
    latest if nothing else happens.

    Args:
        room: what there is to share.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self._numbers = itertools.count()
        self._present = 0
        self._lanes = {lane: Queue() for lane in Lane}
        self._behind: dict[str, Queue] = {}
        # Tickets that hold a place, in the order in which they got it.
        self._prompt: dict[Ticket, None] = {}
        self._overdue: dict[Ticket, None] = {}
        self._slow: dict[Ticket, None] = {}
        self._of_hop: Counter[str] = Counter()
        self._of_group: Counter[str] = Counter()
        self._at_target: Counter[str] = Counter()
        self._starts: deque[float] = deque()
        self._kept_from = float("-inf")
        self._usual = 0.0
        self._slow_hops: BoundedMap[str, float] = BoundedMap(MAX_SLOW_HOPS)
        self._targets: BoundedMap[str, tuple[Lane, float]] = BoundedMap(MAX_TARGETS)

    # ------------------------------------------------------------ what is seen from outside

    @property
    def running(self) -> int:
        """The number of places that are held."""
        return len(self._prompt) + len(self._overdue) + len(self._slow)

    @property
    def patience(self) -> float:
        """Seconds for which work may hold its place before it is overdue."""
        longest = MOST_PATIENCE * self.room.slow_after
        return min(max(self.room.slow_after, USUAL_TIMES * self._usual), longest)

    @property
    def running_slow(self) -> int:
        """The number of places that the slow lane holds."""
        return len(self._slow)

    def waiting(self, lane: Lane) -> int:
        """The number of tickets that wait in a lane."""
        return len(self._lanes[lane])

    @property
    def behind(self) -> int:
        """The number of tickets that wait because of their server's own limit."""
        return self._present - self.running - sum(map(len, self._lanes.values()))

    def is_full(self) -> bool:
        """Whether no further ticket may wait."""
        return self._present - self.running >= MAX_WAITING

    def is_paced(self, now: float) -> bool:
        """Whether nothing may begin now, since so much has begun within a minute."""
        return self._pace_from(now) > now

    # ------------------------------------------------------------ what happens

    def ask(self, hops: list[str], group: str, target: str, now: float) -> Ticket:
        """Queue a ticket for work that *hops* want; it is charged to the one that fares best."""
        hop = min(hops, key=lambda hop: (self._is_slow(hop, now), self._of_hop[hop]))
        ticket = Ticket(hop, group, target, next(self._numbers))
        self._present += 1
        self._enqueue(ticket, now)
        return ticket

    def joined(self, ticket: Ticket, hop: str, now: float) -> None:
        """Note that one more next hop wants the work: it must not wait with a slow one."""
        before = self._is_slow(ticket.hop, now), self._of_hop[ticket.hop]
        if (self._is_slow(hop, now), self._of_hop[hop]) >= before:
            return
        if ticket.state is TicketState.BEHIND:
            self._behind[ticket.target].remove(ticket)
            ticket.hop = hop
            self._behind[ticket.target].add(ticket)
        elif ticket.state is TicketState.WAITING:
            self._lanes[ticket.lane].remove(ticket)
            ticket.hop = hop
            self._line_up(ticket, now)

    def leave(self, ticket: Ticket, now: float, *, finished: bool) -> None:
        """Take a ticket out: its work has *finished*, or was given up."""
        state, ticket.state = ticket.state, TicketState.GONE
        if state is TicketState.GONE:
            return
        self._present -= 1
        if state is TicketState.BEHIND:
            self._behind[ticket.target].remove(ticket)
            self._tidy(ticket.target)
            return
        if state is TicketState.WAITING:
            self._lanes[ticket.lane].remove(ticket)
        else:
            self._give_back(ticket)
            if finished and now < ticket.began + self.patience:
                self._remember(ticket.target, Lane.PROMPT, now)
                self._usual += WEIGHT * (now - ticket.began - self._usual)
        self._at_target[ticket.target] -= 1
        if behind := self._behind.get(ticket.target):
            successor = behind.next(self._cost)
            behind.remove(successor)
            self._at_target[ticket.target] += 1
            self._line_up(successor, now)
        self._tidy(ticket.target)

    def advance(self, now: float) -> Changes:
        """Give out what can be given out now."""
        changes = Changes()
        self._notice_overdue(now, changes)
        self._protect()
        prompt, slow = self._lanes.values()
        while (prompt or slow) and self._pace_from(now) <= now:
            ticket = self._next(now)
            if ticket is None:
                break
            if self.running >= self.room.places:
                worst = max(self._overdue, key=lambda held: (self._cost(held), -held.number))
                self._break_off(worst, now)
                changes.broken_off.append(worst)
            self._start(ticket, now)
            changes.started.append(ticket)
        return changes

    def wake_at(self, now: float) -> float | None:
        """When something changes by the passing of time alone; None if nothing does."""
        times = []
        if self._prompt and self.room.slow:
            times.append(next(iter(self._prompt)).began + self.patience)
        if any(self._lanes.values()):
            times += [when for when in (self._pace_from(now), self._kept_from) if when > now]
        return min(times, default=None)

    # ------------------------------------------------------------ waiting

    def _enqueue(self, ticket: Ticket, now: float) -> None:
        limit = self.room.per_target
        if limit and self._at_target[ticket.target] >= limit:
            ticket.state = TicketState.BEHIND
            self._behind.setdefault(ticket.target, Queue()).add(ticket)
            return
        self._at_target[ticket.target] += 1
        self._line_up(ticket, now)

    def _line_up(self, ticket: Ticket, now: float) -> None:
        ticket.state = TicketState.WAITING
        ticket.lane = self._lane_of(ticket, now)
        self._lanes[ticket.lane].add(ticket)

    def _lane_of(self, ticket: Ticket, now: float) -> Lane:
        if not self.room.slow:
            return Lane.PROMPT
        if ticket.slow:
            return Lane.SLOW
        known = self._targets.get(ticket.target)
        if known is not None and known[1] > now:
            return known[0]
        return Lane.SLOW if self._is_slow(ticket.hop, now) else Lane.PROMPT

    def _is_slow(self, hop: str, now: float) -> bool:
        until = self._slow_hops.get(hop)
        return until is not None and until > now

    def _cost(self, ticket: Ticket) -> int:
        """The places that its next hop or its group holds, whichever are more."""
        return max(self._of_hop[ticket.hop], self._of_group[ticket.group])

    def _tidy(self, target: str) -> None:
        """Forget a server for which nothing waits or runs."""
        if target in self._behind and not self._behind[target]:
            del self._behind[target]
        if not self._at_target[target]:
            del self._at_target[target]

    # ------------------------------------------------------------ whose turn it is

    def _next(self, now: float) -> Ticket | None:
        """The ticket that gets the next place; None if none may have one now."""
        room, free = self.room, self.room.places - self.running
        left = free + len(self._overdue)
        prompt, slow = self._lanes[Lane.PROMPT], self._lanes[Lane.SLOW]
        if slow and left and len(self._slow) < room.slow_first:
            return slow.next(self._cost)
        if prompt and left > room.kept:
            return prompt.next(self._cost)
        if prompt and left and now >= self._kept_from:
            ticket = prompt.newest(self._cost)
            if self._cost(ticket) <= HARDLY_ANY:
                self._kept_from = now + self.patience / room.kept
                return ticket
        if slow and free > room.kept and len(self._slow) < room.slow:
            return slow.next(self._cost)
        return None

    def _pace_from(self, now: float) -> float:
        """When one more may begin.

        When three quarters of a minute's starts are used up the rest is spread evenly, so that
        what is new need not wait for the minute to end.
        """
        limit, starts = self.room.per_minute, self._starts
        while starts and starts[0] <= now - MINUTE:
            starts.popleft()
        if not limit or len(starts) < limit - limit // 4:
            return now
        if len(starts) >= limit:
            return starts[0] + MINUTE
        return max(now, starts[-1] + MINUTE / (limit // 4))

    # ------------------------------------------------------------ holding a place

    def _start(self, ticket: Ticket, now: float) -> None:
        self._lanes[ticket.lane].remove(ticket)
        ticket.state, ticket.began = TicketState.RUNNING, now
        (self._slow if ticket.lane is Lane.SLOW else self._prompt)[ticket] = None
        self._of_hop[ticket.hop] += 1
        self._of_group[ticket.group] += 1
        if self.room.per_minute:
            self._starts.append(now)

    def _give_back(self, ticket: Ticket) -> None:
        for held in (self._prompt, self._overdue, self._slow):
            held.pop(ticket, None)
        for counts, key in ((self._of_hop, ticket.hop), (self._of_group, ticket.group)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def _notice_overdue(self, now: float, changes: Changes) -> None:
        while self._prompt and self.room.slow:
            ticket = next(iter(self._prompt))
            if now < ticket.began + self.room.slow_after or now < ticket.began + self.patience:
                return
            del self._prompt[ticket]
            self._overdue[ticket] = None
            changes.became_slow += 1
            self._slow_hops.put(ticket.hop, now + SLOW_LIFE)
            self._remember(ticket.target, Lane.SLOW, now)
            prompt = self._lanes[Lane.PROMPT]
            for waiting in prompt.of(ticket.hop):
                if self._lane_of(waiting, now) is Lane.SLOW:
                    prompt.remove(waiting)
                    self._line_up(waiting, now)

    def _remember(self, target: str, lane: Lane, now: float) -> None:
        if target:
            self._targets.put(target, (lane, now + SLOW_LIFE))

    def _protect(self) -> None:
        """Overdue work takes places of the slow lane, unless others have waited there for longer.

        It is not broken off any more.
        """
        waiting = self._lanes[Lane.SLOW]
        while self._overdue and len(self._slow) < self.room.slow:
            ticket = next(iter(self._overdue))
            if waiting and waiting.oldest().number < ticket.number:
                return
            del self._overdue[ticket]
            ticket.lane = Lane.SLOW
            self._slow[ticket] = None

    def _break_off(self, ticket: Ticket, now: float) -> None:
        self._give_back(ticket)
        ticket.slow = True
        self._line_up(ticket, now)
