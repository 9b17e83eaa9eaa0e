"""Whose turn it is: slow work gives way, none waits for ever, and no more runs than may."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requiretls_milter.engine.turns.schedule import (
    MAX_WAITING,
    MINUTE,
    MOST_PATIENCE,
    SLOW_LIFE,
    Schedule,
)
from requiretls_milter.engine.turns.tickets import Room, Ticket, TicketState
from requiretls_milter.telemetry.labels import Lane

PROMPT = 0.3
"""Seconds that prompt work takes."""

FOREVER = 70.0
"""Seconds that a tarpit holds a session."""

ROOM = Room(40, slow_after=1.0)


@dataclass(eq=False)
class Work:
    """A piece of work, and what became of it."""

    hop: str
    group: str
    target: str
    seconds: float
    asked: float = 0.0
    started: float | None = None
    broken_off: int = 0
    ended: float | None = None


@dataclass
class World:
    """Work that takes its time on a clock that the test moves."""

    room: Room = ROOM
    now: float = 0.0
    works: dict[Ticket, Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.room)
        self._ends: list[tuple[float, int, Ticket, int]] = []
        self._numbers = itertools.count()

    def ask(self, hop: str, seconds: float = PROMPT, *, group: str = "", target: str = "") -> Work:
        work = Work(hop, group or f"network of {hop}", target, seconds, asked=self.now)
        ticket = self.schedule.ask([hop], work.group, target, self.now)
        self.works[ticket] = work
        self.advance()
        return work

    def ticket(self, work: Work) -> Ticket:
        return next(ticket for ticket, each in self.works.items() if each is work)

    def tarpit(self, hop: str, hosts: int = 16) -> list[Work]:
        return [
            self.ask(hop, FOREVER, group=f"{hop} {host}", target=f"{hop} {host}")
            for host in range(hosts)
        ]

    def give_up(self, work: Work) -> None:
        self.schedule.leave(self.ticket(work), self.now, finished=False)
        self.advance()

    def advance(self) -> None:
        changes = self.schedule.advance(self.now)
        for ticket in changes.broken_off:
            self.works[ticket].broken_off += 1
        for ticket in changes.started:
            work = self.works[ticket]
            work.started = self.now
            end = self.now + work.seconds
            heapq.heappush(self._ends, (end, next(self._numbers), ticket, work.broken_off))
        self.check()

    def pass_(self, seconds: float) -> None:
        """Let time pass, from one event to the next."""
        until = self.now + seconds
        while (event := self._next_event()) is not None and event <= until:
            self.now = max(self.now, event)
            while self._ends and self._ends[0][0] <= self.now:
                _, _, ticket, broken_off = heapq.heappop(self._ends)
                work = self.works[ticket]
                if ticket.state is TicketState.RUNNING and work.broken_off == broken_off:
                    work.ended = self.now
                    self.schedule.leave(ticket, self.now, finished=True)
            self.advance()
        self.now = until

    def _next_event(self) -> float | None:
        times = [self._ends[0][0]] if self._ends else []
        wake_at = self.schedule.wake_at(self.now)
        if wake_at is not None:
            assert wake_at > self.now or not times or times[0] <= self.now, "it would not sleep"
            times.append(wake_at)
        return min(times, default=None)

    def check(self) -> None:
        """What holds at any time."""
        schedule, room = self.schedule, self.room
        running = [ticket for ticket in self.works if ticket.state is TicketState.RUNNING]
        assert len(running) == schedule.running <= room.places
        assert schedule.running_slow <= room.slow
        if room.per_target:
            at = Counter(ticket.target for ticket in running)
            assert max(at.values(), default=0) <= room.per_target
        overdue = [
            ticket
            for ticket in running
            if ticket.lane is Lane.PROMPT and self.now >= ticket.began + schedule.patience
        ]
        left = room.places - len(running) + len(overdue)
        if schedule.waiting(Lane.PROMPT) and not schedule.is_paced(self.now):
            assert left <= room.kept, "a place is free, and prompt work waits"


@pytest.fixture
def world() -> World:
    return World()


def waited(work: Work) -> float:
    assert work.started is not None, "it has not begun"
    return work.started - work.asked


# ---------------------------------------------------------------- in quiet times


def test_what_finds_a_place_begins_at_once(world: World) -> None:
    works = [world.ask(f"{n}") for n in range(ROOM.places - ROOM.kept)]
    assert [waited(work) for work in works] == [0.0] * len(works)


def test_a_single_next_hop_may_use_all_but_what_is_kept(world: World) -> None:
    works = [world.ask("a", group=f"{n}") for n in range(ROOM.places)]
    started = [work for work in works if work.started is not None]
    assert len(started) == ROOM.places - ROOM.kept
    world.pass_(1)
    assert all(work.ended is not None for work in works)


def test_slow_work_is_left_alone_while_there_is_room(world: World) -> None:
    works = world.tarpit("slow", 16)
    world.pass_(200)
    assert all(work.ended is not None and not work.broken_off for work in works)


def test_a_single_place_is_shared_in_turn() -> None:
    world = World(Room(1, slow_after=1.0))
    works = [world.ask("slow", 5.0), world.ask("a"), world.ask("b")]
    world.pass_(10)
    assert all(work.ended is not None and not work.broken_off for work in works)


# ---------------------------------------------------------------- beside slow work


@pytest.mark.parametrize("tarpits", [3, 60, 240])
def test_a_healthy_next_hop_begins_at_once_beside_tarpits_in_flight(
    world: World, tarpits: int
) -> None:
    for number in range(tarpits):
        world.tarpit(f"tarpit {number}")
    world.pass_(30)
    for number in range(100):
        assert waited(world.ask(f"healthy {number}")) == 0
        world.pass_(0.1)


@given(
    st.integers(0, 300), st.integers(1, 16), st.integers(4, 100), st.floats(0, 30), st.booleans()
)
@settings(deadline=None, max_examples=25)
def test_a_healthy_next_hop_waits_no_longer_than_for_the_next_place_that_is_kept(
    tarpits: int, hosts: int, places: int, since: float, one_network: bool
) -> None:
    """Also in the moment when all of them come, when nothing is known of any."""
    room = Room(places, slow_after=1.0)
    world = World(room)
    for number in range(tarpits):
        for host in range(hosts):
            group = "one network" if one_network else f"{number} {host}"
            world.ask(f"tarpit {number}", FOREVER, group=group)
    world.pass_(since)
    healthy = world.ask("healthy")
    world.pass_(room.slow_after)
    assert waited(healthy) <= room.slow_after / room.kept + 1e-6
    assert not healthy.broken_off


def test_an_ordinary_domain_comes_before_those_with_many_servers_that_come_after_it(
    world: World,
) -> None:
    """While hundreds of them are found slow, one after the other, each is newer than it."""
    for number in range(120):
        world.tarpit(f"tarpit {number}")
    healthy = [world.ask(f"healthy {number}") for number in range(10)]
    for number in range(120, 240):
        world.tarpit(f"tarpit {number}")
        world.pass_(0.05)
    longest = PROMPT + ROOM.slow_after / ROOM.kept
    assert all(waited(work) <= 1.0 + longest for work in healthy)


def test_a_healthy_next_hop_with_several_servers_is_done_soon(world: World) -> None:
    for number in range(240):
        world.tarpit(f"tarpit {number}")
    works = [world.ask("healthy", group=f"{host}") for host in range(4)]
    world.pass_(4 * (PROMPT + ROOM.slow_after / ROOM.kept))
    assert all(work.ended is not None for work in works)


def test_what_is_broken_off_begins_again_in_the_slow_lane_and_is_finished(world: World) -> None:
    slow = [world.ask(f"slow {n}", 6.0) for n in range(ROOM.places)]
    world.pass_(1.5)
    prompt = [world.ask(f"prompt {n}") for n in range(20)]
    world.pass_(ROOM.slow_after)
    assert all(work.ended is not None for work in prompt)
    assert any(work.broken_off for work in slow)
    world.pass_(20)
    assert all(work.ended is not None for work in slow)
    assert max(work.broken_off for work in slow) == 1


def test_slow_work_gets_its_quarter_however_much_prompt_work_comes(world: World) -> None:
    slow = world.tarpit("slow", 16)
    world.pass_(1.5)
    for number in range(2000):
        world.ask(f"prompt {number}", 0.9)
        world.pass_(0.01)
    world.pass_(200)
    assert all(work.ended is not None for work in slow)


@given(st.integers(2, 60), st.integers(1, 30))
@settings(deadline=None, max_examples=20)
def test_none_waits_for_ever_however_many_newcomers_come(places: int, hosts: int) -> None:
    """A next hop that holds many places, beside a stream of new ones that the room just holds."""
    world = World(Room(places, slow_after=1.0))
    old = [world.ask("old", group=f"{host}") for host in range(hosts)]
    for number in range(300):
        world.ask(f"new {number}")
        world.pass_(PROMPT / places * 2)
    assert all(work.ended is not None for work in old)


def test_a_network_that_holds_places_comes_after_one_that_holds_none() -> None:
    world = World(Room(8, slow_after=1.0))
    for number in range(40):
        world.ask(f"name {number}", 0.9, group="one network")
    other = world.ask("other")
    world.pass_(1.0)
    assert waited(other) <= world.room.slow_after / world.room.kept


@pytest.mark.parametrize(("usual", "patience"), [(0.1, 1.0), (0.8, 2.4), (3.0, 1.0)])
def test_when_all_takes_longer_than_it_used_to_none_is_called_slow(
    world: World, usual: float, patience: float
) -> None:
    """As on a host that is short of processor time. What has always been slow is no measure."""
    for number in range(100):
        world.ask(f"{number}", usual)
        world.pass_(usual)
    assert world.schedule.patience == pytest.approx(patience, abs=0.1)


def test_what_is_usual_makes_none_wait_for_more_than_some_times_as_long(world: World) -> None:
    for seconds in (0.9, 2.5, 4.9):
        for number in range(100):
            world.ask(f"{seconds} {number}", seconds)
            world.pass_(seconds)
    assert world.schedule.patience == MOST_PATIENCE * ROOM.slow_after


# ---------------------------------------------------------------- what is remembered


def test_the_servers_of_a_slow_next_hop_wait_with_the_slow(world: World) -> None:
    world.ask("a", 5.0, target="slow")
    world.pass_(2)
    assert world.ticket(world.ask("a", target="new")).lane is Lane.SLOW
    assert world.ticket(world.ask("b", target="slow")).lane is Lane.SLOW
    assert world.ticket(world.ask("b", target="new")).lane is Lane.PROMPT


def test_a_prompt_server_stays_prompt_whoever_names_it(world: World) -> None:
    world.ask("b", target="prompt")
    world.ask("a", 5.0, target="slow")
    world.pass_(2)
    assert world.ticket(world.ask("a", target="prompt")).lane is Lane.PROMPT


def test_what_was_slow_is_forgiven_after_a_while(world: World) -> None:
    world.ask("a", 5.0, target="slow")
    world.pass_(SLOW_LIFE + 2)
    assert world.ticket(world.ask("a", target="slow")).lane is Lane.PROMPT


def test_work_that_another_next_hop_wants_too_does_not_wait_with_a_slow_one(world: World) -> None:
    world.tarpit("slow")
    world.pass_(2)
    for number in range(30):
        world.tarpit(f"tarpit {number}", 4)
    shared = world.ask("slow", target="a server that others have, too")
    ticket = world.ticket(shared)
    assert (ticket.state, ticket.lane) == (TicketState.WAITING, Lane.SLOW)
    world.schedule.joined(ticket, "healthy", world.now)
    world.advance()
    world.pass_(ROOM.slow_after / ROOM.kept)
    assert waited(shared) <= ROOM.slow_after / ROOM.kept + 1e-6


# ---------------------------------------------------------------- the other limits


def test_a_server_has_no_more_than_it_may_and_its_next_hops_take_turns() -> None:
    world = World(Room(40, slow_after=1.0, per_target=1))
    many = [world.ask("many", target="shared", group="n") for _ in range(50)]
    one = world.ask("one", target="shared", group="n")
    elsewhere = world.ask("elsewhere")
    assert world.schedule.behind == 50
    assert waited(elsewhere) == 0
    world.pass_(3 * PROMPT)
    assert one.ended is not None
    world.give_up(many[-1])
    world.pass_(60 * PROMPT)
    assert all(work.ended is not None for work in many[:-1])
    assert world.schedule.behind == world.schedule.running == 0


def test_in_no_minute_do_more_begin_than_may() -> None:
    world = World(Room(40, slow_after=1.0, per_minute=40))
    works = [world.ask(f"{n}", 0.01) for n in range(100)]
    world.pass_(4 * MINUTE)
    starts = sorted(work.started for work in works if work.started is not None)
    assert len(starts) == 100
    assert all(later - first >= MINUTE for first, later in zip(starts, starts[40:], strict=False))
    assert starts[-1] <= 3 * MINUTE  # and no slower than that


def test_the_last_quarter_of_a_minute_is_spread_so_that_what_is_new_need_not_wait_for_its_end() -> (
    None
):
    world = World(Room(40, slow_after=1.0, per_minute=40))
    for number in range(100):
        world.ask(f"{number}", 0.01)
    new = world.ask("new", 0.01)
    world.pass_(MINUTE)
    assert waited(new) <= 2 * MINUTE / 10


def test_only_so_many_wait(world: World) -> None:
    assert not world.schedule.is_full()
    for number in range(MAX_WAITING + ROOM.places):
        world.schedule.ask([f"{number}"], "", "", world.now)
    assert world.schedule.is_full()


def test_nothing_is_kept_of_what_has_left(world: World) -> None:
    schedule = world.schedule
    works = [*world.tarpit("a"), *(world.ask(f"{n}") for n in range(60))]
    for work in works:
        world.give_up(work)
        world.give_up(work)  # once more changes nothing
    left = [schedule.running, schedule.behind, *map(schedule.waiting, Lane)]
    assert left == [0, 0, 0, 0]
    assert schedule.wake_at(world.now) is None
